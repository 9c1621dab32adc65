//! What a stock Envoy lacks: Cilium's own filters, which are taken out of a resource and told.
//!
//! They enforce Cilium's policies and restore addresses by Cilium's maps. Addresses are seen by
//! Envoy's own `original_dst` here; policies are not enforced by the node's Envoy.

use serde_json::Value;

/// A filter that was taken out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Where it stood in the resource (`filterChains[0].filters[1]`).
    pub path: String,
    /// Its name, or that of its message.
    pub name: String,
}

/// Takes Cilium's own filters out of every list of filters in a resource.
#[must_use]
pub fn leave_out_ciliums(resource: &mut Value) -> Vec<LeftOut> {
    let mut left_out = Vec::new();
    walk(resource, "", &mut left_out);
    left_out
}

fn walk(value: &mut Value, path: &str, left_out: &mut Vec<LeftOut>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                walk(value, &format!("{path}{dot}{name}"), left_out);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                walk(item, &format!("{path}[{index}]"), left_out);
            }
            let mut index = 0;
            items.retain(|item| {
                let name = ciliums(item).map(str::to_owned);
                let stays = name.is_none();
                left_out.extend(name.map(|name| LeftOut {
                    path: format!("{path}[{index}]"),
                    name,
                }));
                index += 1;
                stays
            });
        }
        _ => {}
    }
}

/// The name of a filter that is Cilium's; none for everything else.
fn ciliums(item: &Value) -> Option<&str> {
    let config = ["typedConfig", "typed_config"];
    let config = config.iter().find_map(|field| item.get(*field));
    let message = config.and_then(|config| config.get("@type")?.as_str());
    let message = message.and_then(|url| url.rsplit('/').next());
    let name = item.get("name").and_then(Value::as_str);
    let is_a_filter = config.is_some() || item.as_object().is_some_and(|fields| fields.len() == 1);
    name.filter(|name| is_a_filter && name.starts_with("cilium."))
        .or(message.filter(|message| message.starts_with("cilium.")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ciliums_filters_go_and_their_places_are_told() {
        let mut listener = json!({
            "name": "cilium.is-only-a-name",
            "listenerFilters": [{"name": "tls"}, {"name": "cilium.bpf_metadata", "typed_config": {"@type": "type.googleapis.com/cilium.BpfMetadata"}}],
            "filterChains": [{"filters": [
                {"name": "cilium.network"},
                {"name": "http", "typedConfig": {"@type": "t/x", "httpFilters": [
                    {"name": "policy", "typedConfig": {"@type": "type.googleapis.com/cilium.L7Policy"}},
                    {"name": "router"},
                ]}},
            ]}],
        });
        let left_out = leave_out_ciliums(&mut listener);
        let told: Vec<String> = left_out
            .iter()
            .map(|it| format!("{} {}", it.path, it.name))
            .collect();
        assert_eq!(
            told,
            [
                "filterChains[0].filters[1].typedConfig.httpFilters[0] cilium.L7Policy",
                "filterChains[0].filters[0] cilium.network",
                "listenerFilters[1] cilium.bpf_metadata",
            ]
        );
        assert_eq!(
            listener,
            json!({
                "name": "cilium.is-only-a-name",
                "listenerFilters": [{"name": "tls"}],
                "filterChains": [{"filters": [
                    {"name": "http", "typedConfig": {"@type": "t/x", "httpFilters": [{"name": "router"}]}},
                ]}],
            })
        );
    }

    #[test]
    fn what_is_named_like_one_and_is_no_filter_stays() {
        let route = json!({"virtualHosts": [{"name": "cilium.host", "domains": ["a"]}]});
        let mut same = route.clone();
        assert_eq!(leave_out_ciliums(&mut same), []);
        assert_eq!(same, route);
    }
}
