//! A listener gets the port that the ledger gave it.

use prost_reflect::DynamicMessage;
use serde_json::json;

use super::complete::set_json;

/// Binds a listener without an address to `port` on both loopback addresses, transparently, so
/// that it accepts connections whose destination is a service's address. A listener that has an
/// address keeps it. Says whether it was bound.
pub fn bind(listener: &mut DynamicMessage, port: u16) -> bool {
    if listener.has_field_by_name("address") {
        return false;
    }
    let address = |address: &str| json!({"socketAddress": {"address": address, "portValue": port}});
    set_json(listener, "address", &address("127.0.0.1"));
    set_json(
        listener,
        "additional_addresses",
        &json!({"address": address("::1")}),
    );
    set_json(listener, "transparent", &json!(true));
    true
}
