//! A listener gets the port that the ledger gave it, and sees what its clients meant.

use prost_reflect::{DynamicMessage, Value};
use serde_json::json;

use super::complete::{message_of, set_json};

const ORIGINAL_DST: &str = "envoy.extensions.filters.listener.original_dst.v3.OriginalDst";

/// Binds a listener without an address to `port` on both loopback addresses, transparently, so
/// that it accepts connections whose destination is a service's address, which its filter chains
/// then see. Nobody reaches it past the hooks. A listener that has an address keeps it. Says
/// whether it was bound.
pub fn bind(listener: &mut DynamicMessage, port: u16) -> bool {
    if listener.has_field_by_name("address") {
        return false;
    }
    rebind(listener, port);
    set_json(listener, "transparent", &json!(true));
    // A second process on this port is an error, not a rival for its connections.
    set_json(listener, "enable_reuse_port", &json!(false));
    see_destination(listener);
    true
}

/// Moves a listener that was bound to another port: each generation of a node's Envoy has its own.
pub fn rebind(listener: &mut DynamicMessage, port: u16) {
    let address = |address: &str| json!({"socketAddress": {"address": address, "portValue": port}});
    set_json(listener, "address", &address("127.0.0.1"));
    set_json(
        listener,
        "additional_addresses",
        &json!({"address": address("::1")}),
    );
}

/// Envoy's own filter takes the destination of the socket for that of the connection.
fn see_destination(listener: &mut DynamicMessage) {
    let written = json!({
        "name": "envoy.filters.listener.original_dst",
        "typedConfig": {"@type": format!("type.googleapis.com/{ORIGINAL_DST}")},
    });
    let Some(filter) = message_of(listener, "listener_filters", &written) else {
        return;
    };
    if let Some(filters) = listener
        .get_field_by_name_mut("listener_filters")
        .and_then(Value::as_list_mut)
        && !filters.iter().any(is_original_dst)
    {
        filters.insert(0, Value::Message(filter));
    }
}

fn is_original_dst(filter: &Value) -> bool {
    let url = || {
        let config = filter.as_message()?.get_field_by_name("typed_config")?;
        let url = config.as_message()?.get_field_by_name("type_url")?;
        Some(url.as_str()?.ends_with(ORIGINAL_DST))
    };
    url().unwrap_or(false)
}
