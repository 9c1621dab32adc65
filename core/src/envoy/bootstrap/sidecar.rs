//! A plan as a pod's own Envoy has it: everything comes to two ports.
//!
//! What the pod sends comes to the first; the listener of the frontend that it was meant for has
//! no socket and is found by that address. What is for no frontend goes where it was meant to go.
//! All that comes to the second port goes on to the pod itself, from an address that the pod's rules
//! leave alone. A connection that nobody redirected was meant for the port itself and would go round
//! for ever, so it is sent to nobody. Names are those of the model and of Istio.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::{Value, json};

use super::listener::{push, see_destination};
use super::{Settings, access_log, address, cluster, text};
use crate::netfilter::sidecar::{FROM_PROXY_V4, FROM_PROXY_V6, INBOUND, OUTBOUND};
use crate::plan::NodePlan;

const VIRTUAL_OUTBOUND: &str = "virtualOutbound";
const VIRTUAL_INBOUND: &str = "virtualInbound";
/// The cluster of what goes out to where it was meant to go.
const PASS_OUT: &str = "PassthroughCluster";
/// The cluster of what comes in.
const PASS_IN: &str = "InboundPassthroughCluster";
/// The cluster of connections that were meant for the port itself.
const BLACK_HOLE: &str = "BlackHoleCluster";

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
    listeners.push(catch((VIRTUAL_OUTBOUND, OUTBOUND), PASS_OUT, settings));
    listeners.push(catch((VIRTUAL_INBOUND, INBOUND), PASS_IN, settings));
    let mut pass_in = pass(PASS_IN);
    if let Some(fields) = pass_in.as_object_mut() {
        let bind = json!({
            "sourceAddress": bind_address(FROM_PROXY_V4.into()),
            // The one of the destination's family is taken.
            "extraSourceAddresses": [{"address": bind_address(FROM_PROXY_V6.into())}],
        });
        fields.insert("upstreamBindConfig".to_owned(), bind);
    }
    clusters.extend([pass(PASS_OUT), pass_in]);
    clusters.push(cluster::empty(BLACK_HOLE));
}

/// A cluster whose endpoint is where a connection was meant to go.
fn pass(name: &str) -> Value {
    json!({"name": name, "type": "ORIGINAL_DST", "lbPolicy": "CLUSTER_PROVIDED"})
}

fn bind_address(ip: IpAddr) -> Value {
    json!({"address": ip.to_string(), "portValue": 0})
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
fn catch((name, port): (&str, u16), pass: &str, settings: &Settings) -> Value {
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
            {"filters": filters(1, pass)},
        ],
    });
    if let Some(fields) = listener.as_object_mut() {
        see_destination(fields);
    }
    listener
}
