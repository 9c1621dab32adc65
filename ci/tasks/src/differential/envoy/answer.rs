//! What both sides make of a listener, a request and a connection, in the same words.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use nodeway_core::envoy::decode;
use nodeway_core::proxy::{
    Action, Context, Forward, HttpConnectionManager, Listener, ResolvedEdits, RouteSource, Terminal,
};
use serde_json::{Value, json};

use super::ask::{Ask, Client, Reply, parse_head};
use super::chain::Arrival;
use super::origin::FOUND;
use super::real::CLUSTERS;
use super::subject::Probe;
use super::table::HEADERS;

/// What came out, by what it is about.
pub(super) type Answer = BTreeMap<String, String>;

/// A response header by which Envoy says which route it took.
const ROUTE_HEADER: &str = "x-saw-route";

/// The listener as the model reads it, or what it has against it.
pub(super) fn read(listener: &Value) -> Result<Listener, String> {
    let resource = decode(listener).map_err(|error| error.to_string())?;
    Listener::read(&resource.message).map_err(|error| error.to_string())
}

/// The listener as Envoy gets it: its routes say their names in the response.
pub(super) fn telling(listener: &Value) -> Value {
    let mut listener = listener.clone();
    let table = listener.pointer_mut("/filter_chains/0/filters/0/typed_config/route_config");
    if let Some(table) = table.and_then(Value::as_object_mut) {
        let edits = table
            .entry("response_headers_to_add")
            .or_insert_with(|| json!([]));
        if let Some(edits) = edits.as_array_mut() {
            edits.push(json!({ "header": { "key": ROUTE_HEADER, "value": "%ROUTE_NAME%" } }));
        }
    }
    listener
}

/// What the model says.
pub(super) fn expected(listener: &Listener, probe: &Probe, address: SocketAddr) -> Answer {
    match probe {
        Probe::Request(ask) => match listener.filter_chains.first().map(|chain| &chain.terminal) {
            Some(Terminal::Http(manager)) => expected_reply(manager, ask, address),
            other => say("not simulated", format!("{other:?}")),
        },
        Probe::Connection(arrival) => {
            let choice = listener.filter_chain(&arrival.seen());
            let name = listener.chain(&choice).map(|chain| chain.name.clone());
            say("chain", name.unwrap_or_default())
        }
    }
}

/// What Envoy does.
pub(super) fn real(client: &mut Client, probe: &Probe, address: SocketAddr) -> Answer {
    match probe {
        Probe::Request(ask) => match client.ask(ask) {
            Ok(reply) => real_reply(&reply),
            Err(error) => say("error", error),
        },
        Probe::Connection(arrival) => real_chain(arrival, address),
    }
}

fn real_chain(arrival: &Arrival, address: SocketAddr) -> Answer {
    match arrival.call(address) {
        Ok(name) => say("chain", name),
        Err(error) => say("error", error),
    }
}

fn say(about: &str, what: impl ToString) -> Answer {
    Answer::from([(about.to_owned(), what.to_string())])
}

fn expected_reply(manager: &HttpConnectionManager, ask: &Ask, address: SocketAddr) -> Answer {
    let RouteSource::Inline(table) = &manager.routes else {
        return say("not simulated", "routes that are not written down");
    };
    let mut request = ask.seen();
    manager.host.apply(&mut request, address.port());
    let context = Context {
        remote: Some((Ipv4Addr::LOCALHOST, 0).into()),
        ..Context::default()
    };
    let choice = table.route_in(&request, &context);
    let mut answer = Answer::new();
    let mut set = |about: &str, what: &dyn ToString| {
        answer.insert(about.to_owned(), what.to_string());
    };
    let route = choice.route.as_ref().map(|route| route.name.to_string());
    set("route", &route.unwrap_or_default());
    let mut found = Vec::new();
    match &choice.action {
        Action::Forward(forward) if CLUSTERS.contains(&forward.cluster.as_str()) => {
            set("status", &200);
            let (name, value) = FOUND;
            found.push((name.to_owned(), value.to_owned()));
            forwarded(forward, &mut answer);
        }
        // Envoy's own answers to gRPC say their status in another way.
        _ if ask.is_grpc() => return answer,
        Action::Forward(forward) => {
            set("status", &forward.cluster_not_found);
            edited(&forward.cluster_not_found_edits, found, &mut answer);
            return answer;
        }
        Action::Redirect { status, location } => {
            set("status", status);
            set("location", location);
        }
        Action::Direct { status, body } => {
            set("status", status);
            set("body", &String::from_utf8_lossy(body));
        }
        Action::NotFound { .. } => set("status", &404),
        Action::NotSimulated { fields } => set("not simulated", &fields.join(", ")),
    }
    edited(&choice.response, found, &mut answer);
    answer
}

/// A request as the cluster gets it.
fn forwarded(forward: &Forward, answer: &mut Answer) {
    answer.insert("cluster".to_owned(), forward.cluster.clone());
    answer.insert("path".to_owned(), forward.path.clone());
    answer.insert("host".to_owned(), forward.authority.clone());
    headers("request", &forward.headers, answer);
}

/// The response's headers, as far as routes edit them.
fn edited(edits: &ResolvedEdits, mut found: Vec<(String, String)>, answer: &mut Answer) {
    edits.apply(&mut found);
    headers("response", &found, answer);
}

/// Headers beside those of the suite that routes write.
const WRITTEN: [&str; 2] = ["x-envoy-original-path", "x-forwarded-host"];

fn headers(of: &str, all: &[(String, String)], answer: &mut Answer) {
    for name in HEADERS.iter().chain(&WRITTEN) {
        let values: Vec<&str> = all
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .collect();
        answer.insert(format!("{of} {name}"), format!("{values:?}"));
    }
}

fn real_reply(reply: &Reply) -> Answer {
    let mut answer = Answer::new();
    let mut set = |about: &str, what: &dyn ToString| {
        answer.insert(about.to_owned(), what.to_string());
    };
    set("status", &reply.status);
    set("route", &reply.header(ROUTE_HEADER).unwrap_or_default());
    set("location", &reply.header("location").unwrap_or_default());
    set("body", &String::from_utf8_lossy(&reply.body));
    if let Some(cluster) = reply.header("x-origin") {
        set("cluster", &cluster);
        let (_, seen) = parse_head(&reply.body);
        let text = String::from_utf8_lossy(&reply.body);
        set("path", &text.split(' ').nth(1).unwrap_or_default());
        let host = seen.iter().find(|(name, _)| name == "host");
        set("host", &host.map_or("", |(_, value)| value));
        headers("request", &seen, &mut answer);
    }
    headers("response", &reply.headers, &mut answer);
    answer
}

/// Where the answers differ: what the model says nothing about is left out.
pub(super) fn differences(expected: &Answer, real: &Answer) -> Vec<(String, String, String)> {
    let differ = expected.iter().filter_map(|(about, want)| {
        let got = real.get(about).map_or("", String::as_str);
        (got != want).then(|| (about.clone(), want.clone(), got.to_owned()))
    });
    differ.collect()
}
