//! A plan as a pod's own Envoy has it: everything comes to two ports.
//!
//! What the pod sends comes to the first; the listener of the frontend that it was meant for has
//! no socket and is found by that address. What is for no frontend goes where it was meant to go,
//! as does all that comes to the second port. A connection that nobody redirected was meant for
//! the port itself and would go round for ever, so it is sent to nobody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::{Value, json};

use super::listener::{push, see_destination};
use super::{Settings, access_log, address, cluster, text};
use crate::netfilter::sidecar::{INBOUND, OUTBOUND};
use crate::plan::NodePlan;

/// The cluster of connections that go where they were meant to go.
const PASS: &str = "nodeway-original-destination";
/// The cluster of connections that were meant for the port itself.
const BLACK_HOLE: &str = "nodeway-black-hole";

const TCP_PROXY: &str =
    "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";

/// Turns the listeners of a node into those of a pod.
pub(super) fn redirect(
    listeners: &mut Vec<Value>,
    clusters: &mut Vec<Value>,
    plan: &NodePlan,
    settings: &Settings,
) {
    listeners.retain_mut(|listener| without_socket(listener, plan));
    listeners.push(catch("nodeway-outbound", OUTBOUND, settings));
    listeners.push(catch("nodeway-inbound", INBOUND, settings));
    clusters.push(json!({
        "name": PASS,
        "type": "ORIGINAL_DST",
        "lbPolicy": "CLUSTER_PROVIDED",
    }));
    clusters.push(cluster::empty(BLACK_HOLE));
}

/// Puts a listener at the addresses of its frontends; false when it has none.
fn without_socket(listener: &mut Value, plan: &NodePlan) -> bool {
    let name = text(listener, "name").to_owned();
    let led = plan
        .frontends
        .iter()
        .filter(|(_, frontend)| *frontend.listener == *name);
    let mut at = led.map(|(key, _)| address(SocketAddr::new(key.address, key.port)));
    let (Some(first), Some(fields)) = (at.next(), listener.as_object_mut()) else {
        return false;
    };
    let more: Vec<Value> = at.map(|address| json!({"address": address})).collect();
    fields.insert("address".to_owned(), first);
    fields.insert("additionalAddresses".to_owned(), json!(more));
    fields.insert("bindToPort".to_owned(), json!(false));
    for bound in ["transparent", "enableReusePort"] {
        fields.remove(bound);
    }
    true
}

/// The listener of all that is redirected to a port.
fn catch(name: &str, port: u16, settings: &Settings) -> Value {
    let filters = |chain: usize, cluster: &str| {
        let mut config = json!({"@type": TCP_PROXY, "statPrefix": name, "cluster": cluster});
        if let (Some(path), Some(fields)) = (&settings.access_log, config.as_object_mut()) {
            push(
                fields,
                "accessLog",
                access_log::connection((name, Some(chain)), path),
            );
        }
        json!([{"name": "envoy.filters.network.tcp_proxy", "typedConfig": config}])
    };
    let at = |ip| address(SocketAddr::new(ip, port));
    let mut listener = json!({
        "name": name,
        "address": at(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        "additionalAddresses": [{"address": at(IpAddr::V6(Ipv6Addr::UNSPECIFIED))}],
        "enableReusePort": false,
        "useOriginalDst": port == OUTBOUND,
        "filterChains": [
            {"filterChainMatch": {"destinationPort": port}, "filters": filters(0, BLACK_HOLE)},
            {"filters": filters(1, PASS)},
        ],
    });
    if let Some(fields) = listener.as_object_mut() {
        see_destination(fields);
    }
    listener
}
