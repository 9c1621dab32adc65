mod chains;
mod cover;
mod formats;
mod hosts;
mod matching;
mod reading;
mod rewriting;

use serde_json::{Value, json};

use super::*;
use crate::envoy::decode;

/// A table from the fields of a RouteConfiguration.
fn read_table(mut value: Value) -> Result<RouteTable, ReadError> {
    value["@type"] = json!("type.googleapis.com/envoy.config.route.v3.RouteConfiguration");
    RouteTable::read(&decode(&value).unwrap().message)
}

fn table(value: Value) -> RouteTable {
    read_table(value).unwrap()
}

/// A table with one virtual host for all hosts.
fn routes(routes: Value) -> RouteTable {
    table(json!({"virtualHosts": [{"name": "all", "domains": ["*"], "routes": routes}]}))
}

fn read_listener(mut value: Value) -> Result<Listener, ReadError> {
    value["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
    Listener::read(&decode(&value).unwrap().message)
}

/// A GET, with headers from pairs.
fn get(authority: &str, path: &str, headers: &[(&str, &str)]) -> Request {
    Request {
        method: "GET".to_owned(),
        scheme: "http".to_owned(),
        authority: authority.to_owned(),
        path: path.to_owned(),
        headers: headers
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        random: 0,
    }
}

fn forwarded(choice: &RouteChoice) -> &Forward {
    match &choice.action {
        Action::Forward(forward) => forward,
        other => panic!("{other:?}"),
    }
}

/// The cluster, or what happens instead.
fn outcome(choice: &RouteChoice) -> String {
    match &choice.action {
        Action::Forward(forward) => forward.cluster.clone(),
        Action::Redirect { status, location } => format!("{status} {location}"),
        Action::Direct { status, .. } => status.to_string(),
        Action::NotFound { .. } => "not found".to_owned(),
        Action::NotSimulated { fields } => format!("not simulated: {}", fields.join(", ")),
    }
}
