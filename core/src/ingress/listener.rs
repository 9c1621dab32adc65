//! The one Envoy listener of a config: plain text, TLS that it ends and TLS that it passes through
//! are told apart by the first bytes and the server name, not by the port.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::cluster;
use super::duration::to_protobuf;
use super::hostname::ANY;
use super::model::{Model, PassthroughRoute, SecretName};
use super::options::Options;
use super::shortener::hex;

/// The listener's name in its config.
pub const LISTENER: &str = "listener";

/// The RouteConfiguration of plain text.
pub const INSECURE_ROUTES: &str = "listener-insecure";

/// The RouteConfiguration of TLS.
pub const SECURE_ROUTES: &str = "listener-secure";

/// The listener of a model; none for an empty one.
#[must_use]
pub fn listeners(model: &Model, options: &Options) -> Vec<Value> {
    if model.is_empty() {
        return Vec::new();
    }
    let mut listener = Map::new();
    listener.insert(
        "@type".into(),
        "type.googleapis.com/envoy.config.listener.v3.Listener".into(),
    );
    listener.insert("name".into(), LISTENER.into());
    listener.insert("filterChains".into(), filter_chains(model, options).into());
    listener.insert("listenerFilters".into(), listener_filters(options).into());
    listener.insert("socketOptions".into(), keep_alive());
    if options.host_network.is_some() {
        let (primary, additional) = host_addresses(&model.ports(), options.ipv4, options.ipv6);
        if let Some(primary) = primary {
            listener.insert("address".into(), primary.json());
        }
        if !additional.is_empty() {
            let additional = additional
                .iter()
                .map(|address| json!({"address": address.json()}));
            listener.insert("additionalAddresses".into(), additional.collect());
        }
    }
    vec![Value::Object(listener)]
}

fn listener_filters(options: &Options) -> Vec<Value> {
    let proxy_protocol = json!({
        "name": "envoy.filters.listener.proxy_protocol",
        "typedConfig": {
            "@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
        },
    });
    // The PROXY header comes before the first byte of TLS.
    options
        .use_proxy_protocol
        .then_some(proxy_protocol)
        .into_iter()
        .chain([tls_inspector()])
        .collect()
}

/// Reads the server name of a TLS connection without ending it.
pub(super) fn tls_inspector() -> Value {
    json!({
        "name": "envoy.filters.listener.tls_inspector",
        "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"},
    })
}

/// Linux's numbers: `SOL_SOCKET`/`SO_KEEPALIVE`, then `IPPROTO_TCP` with idle, interval and count.
fn keep_alive() -> Value {
    let option = |description: &str, level: &str, name: &str, value: &str| json!({"description": description, "level": level, "name": name, "intValue": value});
    json!([
        option("Enable TCP keep-alive (default to enabled)", "1", "9", "1"),
        option(
            "TCP keep-alive idle time (in seconds) (defaults to 10s)",
            "6",
            "4",
            "10"
        ),
        option(
            "TCP keep-alive probe intervals (in seconds) (defaults to 5s)",
            "6",
            "5",
            "5"
        ),
        option("TCP keep-alive probe max failures.", "6", "6", "10"),
    ])
}

/// An address that a listener binds itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAddress {
    /// `0.0.0.0` or `::`
    pub address: &'static str,
    /// The port.
    pub port: u16,
}

impl HostAddress {
    fn json(&self) -> Value {
        json!({"socketAddress": {"address": self.address, "portValue": self.port}})
    }
}

/// The addresses in host-network mode: the listener's own, and its additional ones.
#[must_use]
pub fn host_addresses(
    ports: &[u16],
    ipv4: bool,
    ipv6: bool,
) -> (Option<HostAddress>, Vec<HostAddress>) {
    let families = [(ipv4, "0.0.0.0"), (ipv6, "::")];
    let mut addresses = ports.iter().flat_map(|&port| {
        families
            .into_iter()
            .filter(|(on, _)| *on)
            .map(move |(_, address)| HostAddress { address, port })
    });
    (addresses.next(), addresses.collect())
}

/// Envoy refuses a listener two of whose chains match the same, so each server name is given once:
/// the Secret of the lower namespace and name has it, and TLS that is ended before TLS that is passed.
fn filter_chains(model: &Model, options: &Options) -> Vec<Value> {
    let mut chains = Vec::new();
    let mut taken = BTreeSet::new();
    if model.has_insecure() {
        chains.push(json!({
            "filterChainMatch": {"transportProtocol": "raw_buffer"},
            "filters": [connection_manager(INSECURE_ROUTES, options)],
        }));
    }
    let mut hosts_of_secret: BTreeMap<String, (&SecretName, BTreeSet<&str>)> = BTreeMap::new();
    for listener in &model.http {
        for secret in &listener.tls {
            let key = format!("{}/{}", secret.namespace, secret.name);
            let (_, hosts) = hosts_of_secret
                .entry(key)
                .or_insert((secret, BTreeSet::new()));
            hosts.insert(&listener.hostname);
        }
    }
    for (secret, hosts) in hosts_of_secret.into_values() {
        let Some(names) = free_names(hosts, &mut taken) else {
            continue;
        };
        chains.push(json!({
            "filterChainMatch": server_names(&names),
            "filters": [connection_manager(SECURE_ROUTES, options)],
            "transportSocket": transport_socket(secret, options),
        }));
    }
    chains.extend(passthrough_chains(model, &mut taken));
    chains
}

/// Those of the hosts that no chain has yet; a chain for every host has only that.
fn free_names<'a>(
    hosts: BTreeSet<&'a str>,
    taken: &mut BTreeSet<&'a str>,
) -> Option<BTreeSet<&'a str>> {
    let names = if hosts.is_empty() || hosts.contains(ANY) {
        BTreeSet::from([ANY])
    } else {
        hosts
    };
    let free: BTreeSet<&str> = names
        .into_iter()
        .filter(|name| taken.insert(name))
        .collect();
    (!free.is_empty()).then_some(free)
}

/// Envoy takes no `*` for a server name: a chain for every host names none.
fn server_names(hosts: &BTreeSet<&str>) -> Value {
    if hosts.contains(ANY) {
        json!({"transportProtocol": "tls"})
    } else {
        json!({"transportProtocol": "tls", "serverNames": hosts})
    }
}

fn passthrough_chains<'a>(model: &'a Model, taken: &mut BTreeSet<&'a str>) -> Vec<Value> {
    let mut listeners: Vec<_> = model.tls_passthrough.iter().collect();
    listeners.sort_by_key(|listener| (listener.port, &listener.hostname, &listener.name));
    let mut chains = Vec::new();
    for listener in listeners {
        let mut routes: Vec<_> = listener
            .routes
            .iter()
            .filter(|route| !route.backends.is_empty())
            .collect();
        routes.sort_by_key(|route| (&route.hostnames, &route.backends));
        for route in routes {
            let hosts = route.hostnames.iter().map(String::as_str).collect();
            if let Some(names) = free_names(hosts, taken) {
                chains.push(passthrough_chain(route, &names));
            }
        }
    }
    chains
}

fn passthrough_chain(route: &PassthroughRoute, hosts: &BTreeSet<&str>) -> Value {
    let names = Vec::from_iter(hosts.iter().copied()).join(",");
    let mut proxy = Map::new();
    proxy.insert(
        "@type".into(),
        "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy".into(),
    );
    proxy.insert(
        "statPrefix".into(),
        format!("tls-passthrough:{names}").into(),
    );
    let mut backends: Vec<_> = route.backends.iter().collect();
    backends.sort();
    if let [backend] = backends.as_slice() {
        proxy.insert("cluster".into(), cluster::name(backend).into());
    } else {
        let weigh = |backend: &&super::model::Backend| json!({"name": cluster::name(backend), "weight": backend.weight.unwrap_or(1)});
        let clusters: Vec<Value> = backends.iter().map(weigh).collect();
        proxy.insert("weightedClusters".into(), json!({"clusters": clusters}));
    }
    json!({
        "filterChainMatch": server_names(hosts),
        "filters": [{"name": "envoy.filters.network.tcp_proxy", "typedConfig": proxy}],
    })
}

fn transport_socket(secret: &SecretName, options: &Options) -> Value {
    let mut tls = Map::new();
    tls.insert(
        "tlsCertificateSdsSecretConfigs".into(),
        json!([{"name": sds_name(secret, &options.secrets_namespace)}]),
    );
    if options.use_alpn {
        // One text, as Cilium has it.
        tls.insert("alpnProtocols".into(), json!(["h2,http/1.1"]));
    }
    json!({
        "name": "envoy.transport_sockets.tls",
        "typedConfig": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "commonTlsContext": tls,
        },
    })
}

/// The name under which Envoy fetches a certificate: that of the copy in the secrets' namespace,
/// whose name has a hash so that no two Secrets share one.
#[must_use]
pub fn sds_name(secret: &SecretName, secrets_namespace: &str) -> String {
    if secrets_namespace.is_empty() {
        return format!("{}/{}", secret.namespace, secret.name);
    }
    let digest =
        Sha256::digest(format!("secret\0{}\0{}", secret.namespace, secret.name).as_bytes());
    format!(
        "{secrets_namespace}/cilium-sync-secret-{}",
        hex(digest.as_slice())
    )
}

fn connection_manager(routes: &str, options: &Options) -> Value {
    let filter = |name: &str, config: Value| json!({"name": name, "typedConfig": config});
    let mut manager = Map::new();
    let mut set = |key: &str, value: Value| manager.insert(key.to_owned(), value);
    set(
        "@type",
        "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager".into(),
    );
    set("statPrefix", routes.into());
    set("rds", json!({"routeConfigName": routes}));
    set("useRemoteAddress", options.use_remote_address.into());
    set(
        "internalAddressConfig",
        json!({"cidrRanges": internal_ranges(options)}),
    );
    set("upgradeConfigs", json!([{"upgradeType": "websocket"}]));
    set(
        "commonHttpProtocolOptions",
        json!({"maxStreamDuration": "0s"}),
    );
    if options.xff_num_trusted_hops > 0 {
        set("xffNumTrustedHops", options.xff_num_trusted_hops.into());
    }
    if !options.stream_idle_timeout.is_zero() {
        set(
            "streamIdleTimeout",
            to_protobuf(options.stream_idle_timeout).into(),
        );
    }
    set(
        "httpFilters",
        json!([
            filter(
                "envoy.filters.http.grpc_web",
                json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.grpc_web.v3.GrpcWeb"}),
            ),
            filter(
                "envoy.filters.http.grpc_stats",
                json!({
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
                    "emitFilterState": true,
                    "enableUpstreamStats": true,
                }),
            ),
            filter("envoy.filters.http.router", router()),
        ]),
    );
    filter(
        "envoy.filters.network.http_connection_manager",
        Value::Object(manager),
    )
}

/// The last HTTP filter: the one that routes.
pub(super) fn router() -> Value {
    json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"})
}

/// The peers whose forwarded headers count as internal.
fn internal_ranges(options: &Options) -> Vec<Value> {
    let ipv4 = [
        ("10.0.0.0", 8),
        ("172.16.0.0", 12),
        ("192.168.0.0", 16),
        ("127.0.0.1", 32),
    ];
    let ipv6 = [("::1", 128)];
    let ipv4 = ipv4.into_iter().filter(|_| options.ipv4);
    let ipv6 = ipv6.into_iter().filter(|_| options.ipv6);
    let range = |(prefix, length)| json!({"addressPrefix": prefix, "prefixLen": length});
    ipv4.chain(ipv6).map(range).collect()
}
