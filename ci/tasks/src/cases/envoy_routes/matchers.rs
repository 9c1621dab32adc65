//! Filter chains for connections, and header matchers for headers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nodeway_core::envoy::{Fields, Unread};
use nodeway_core::proxy::{Connection, HeaderMatcher, Listener, RepeatedHeaders, Request};
use prost_reflect::DynamicMessage;
use serde_json::{Value, json};

use super::super::{Outcome, Row};
use super::{Answered, LISTENER, headers, loose, message, text};

/// Which chain a connection gets, by its index in the row.
pub(super) fn filter_chain(row: &Row) -> Answered {
    let chains = row
        .input
        .get("filter_chains")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let fields = chains.iter().map(|chain| {
        json!({"name": chain.get("name"), "filter_chain_match": chain.get("filter_chain_match")})
    });
    let listener = json!({
        "name": "listener",
        "address": row.input.get("address"),
        "filter_chains": fields.collect::<Vec<_>>(),
    });
    let message = message(LISTENER, &listener).map_err(|error| error.to_string())?;
    let listener = Listener::read(&message).map_err(|error| error.to_string())?;
    if !listener.undecided.is_empty() {
        return Err(listener.undecided.join(", "));
    }
    let choice = listener.filter_chain(&connection(&row.request)?);
    let chain = choice.chosen.and_then(|index| chains.get(index));
    let index = chain
        .and_then(|chain| chain.get("index"))
        .cloned()
        .unwrap_or_default();
    Ok(Outcome::of(
        json!({"filter_chain_index": index}),
        row.expect.clone(),
    ))
}

fn connection(request: &Value) -> Result<Connection, String> {
    let address = |key: &str| address(text(request, key));
    let port = |key: &str| {
        let number = request.get(key).and_then(Value::as_u64).unwrap_or_default();
        u16::try_from(number).map_err(|_| format!("{key}: {number} is no port"))
    };
    let source = address("source_address")?;
    let direct = match request.get("direct_source_address") {
        Some(_) => address("direct_source_address")?,
        None => source,
    };
    let protocols = request
        .get("application_protocols")
        .and_then(Value::as_array);
    Ok(Connection {
        destination: SocketAddr::new(address("destination_address")?, port("destination_port")?),
        source: SocketAddr::new(source, port("source_port")?),
        direct_source: direct,
        server_name: text(request, "server_name").to_ascii_lowercase(),
        transport_protocol: text(request, "transport_protocol").to_owned(),
        application_protocols: protocols
            .into_iter()
            .flatten()
            .filter_map(|it| it.as_str().map(str::to_owned))
            .collect(),
    })
}

/// An address; Envoy looks a Unix socket up as 255.255.255.255.
fn address(text: &str) -> Result<IpAddr, String> {
    if text.starts_with('/') {
        return Ok(Ipv4Addr::BROADCAST.into());
    }
    text.parse()
        .map_err(|_| format!("`{text}` is no IP address"))
}

/// Whether headers meet all, or any, of some matchers.
pub(super) fn header(row: &Row) -> Answered {
    let repeated = match row
        .rest
        .get("multi_value_semantics")
        .and_then(Value::as_str)
    {
        Some("concatenated") => RepeatedHeaders::Concatenated,
        _ => RepeatedHeaders::Individually,
    };
    let request = Request {
        method: String::new(),
        scheme: String::new(),
        authority: String::new(),
        path: String::new(),
        headers: headers(&row.request, "headers"),
        random: 0,
    };
    let list = row
        .input
        .get("header_matchers")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let met = list
        .iter()
        .map(|value| Ok(matcher(value)?.matches(&request, repeated)))
        .collect::<Result<Vec<bool>, String>>()?;
    let any = text(&row.input, "combine") == "any";
    let got = if any {
        met.contains(&true)
    } else {
        !met.contains(&false)
    };
    Ok(Outcome::of(json!({"match": got}), row.expect.clone()))
}

/// One `HeaderMatcher`; what of it is not modelled is the error.
pub(in super::super) fn matcher(value: &Value) -> Result<HeaderMatcher, String> {
    const NAME: &str = "envoy.config.route.v3.HeaderMatcher";
    let descriptor = nodeway_core::envoy::pool()
        .get_message_by_name(NAME)
        .ok_or(NAME)?;
    let message = DynamicMessage::deserialize(descriptor, loose::strict(NAME, value))
        .map_err(|error| error.to_string())?;
    let unread = Unread::default();
    let matcher = HeaderMatcher::read(&Fields::new(&message, "", &unread))
        .map_err(|error| error.to_string())?;
    match unread.paths() {
        paths if paths.is_empty() => Ok(matcher),
        paths => Err(paths.join(", ")),
    }
}
