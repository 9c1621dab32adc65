//! Cilium's agent on configs: what is redirected, which endpoints Envoy is told, what a config holds.
//!
//! Both sides are put into one shape before they are compared. What Cilium's tables say of its own
//! machinery (states of a reconciler, numbers of BPF entries, its own Envoy filters) has no
//! counterpart here: it stands in no shape. Listeners are numbered as in these tests, 1000 for the
//! first and 1000 more for each after it.

mod agent;
mod inventory;

use std::collections::BTreeMap;
use std::path::Path;

use nodeway_core::object::Objects;
use nodeway_core::plan::{Ledger, NodePlan, Planner};
use nodeway_core::source::{self, Text};
use serde_json::{Value, json};

use super::{Outcome, Row};

/// The node that rows are planned for.
const NODE: &str = "nodeport-worker";
/// Its address in these tests.
const NODE_ADDRESS: &str = "1.1.1.1";

/// Answers a row of `cilium-cec`.
#[must_use]
pub fn answer(file: &Path, row: &Row) -> Outcome {
    let row = &in_valid_names(row);
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let answered = match name.as_ref() {
        "agent_scripts" => agent::answer(row),
        "examples" => inventory::example(row),
        "flags" => flag(row),
        "gateway_model_to_cec" => inventory::golden(file, row),
        other => Err(format!("rows of `{other}` are not answered")),
    };
    answered.unwrap_or_else(Outcome::NotSimulated)
}

/// Some rows have names that Kubernetes refuses; another spelling changes nothing that they ask.
fn in_valid_names(row: &Row) -> Row {
    let spelt = |value: &Value| {
        let text = value.to_string();
        let text = text.replace("backend_unnamed_port", "backend-unnamed-port");
        let text = text.replace("TEMPLATED", "templated");
        serde_json::from_str(&text).unwrap_or_else(|_| value.clone())
    };
    Row {
        input: spelt(&row.input),
        expect: spelt(&row.expect),
        ..row.clone()
    }
}

/// An answer, or what the row needs that the project has not.
type Answered = Result<Outcome, String>;

/// Whether a config keeps original source addresses: here that is a problem, since it is not done.
fn flag(row: &Row) -> Answered {
    const ORIGINAL_SOURCE: &str = "use_original_source_address";
    if row.expect.get(ORIGINAL_SOURCE).is_none() {
        return Err("Cilium's own Envoy filters are never put in".to_owned());
    }
    Err("original source addresses are not kept, whoever owns the config".to_owned())
}

/// Objects as a plan for the node, which is added to them.
fn planned(mut items: Vec<Value>, labels: &Value) -> Result<(Objects, NodePlan), String> {
    items.push(json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": NODE, "uid": NODE, "labels": labels},
        "status": {"addresses": [{"type": "InternalIP", "address": NODE_ADDRESS}]},
    }));
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let objects = source::read(&[Text::new("row", list.to_string())]).map_err(|errors| {
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        all.join("; ")
    })?;
    let planner = Planner::with_objects(&objects, NODE, Ledger::default());
    let plan = planner.plan().clone();
    Ok((objects, plan))
}

/// The numbers of a plan's listeners.
fn numbers(plan: &NodePlan) -> BTreeMap<&str, u32> {
    let names = plan.listeners.keys().map(|name| &**name);
    names.zip((1..).map(|n| n * 1000)).collect()
}
