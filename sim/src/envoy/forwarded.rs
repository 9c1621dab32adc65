//! What Envoy's connection manager does to a request's headers before anything is routed: where
//! the request came from, by which protocol, and under which number.

use std::net::IpAddr;

use nodeway_core::proxy::HttpConnectionManager;

use crate::http::Headers;

/// Where a request came from.
pub(super) struct Client {
    /// The peer of the connection.
    pub(super) peer: IpAddr,
    /// The address that Envoy takes for its machine's.
    pub(super) own: IpAddr,
    /// Whether the connection was TLS.
    pub(super) tls: bool,
}

/// Headers with which a request from outside could steer the proxy.
const STEERING: [&str; 14] = [
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-max-retries",
    "x-envoy-retriable-status-codes",
    "x-envoy-retriable-header-names",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-force-trace",
    "x-envoy-ip-tags",
    "x-envoy-original-path",
    "x-envoy-hedge-on-per-try-timeout",
];

/// Changes the headers of a request as they come in. The client's address comes back.
pub(super) fn sanitize(
    headers: &mut Headers,
    manager: &HttpConnectionManager,
    client: &Client,
    draw: impl FnOnce() -> (u64, u64),
) -> IpAddr {
    let trailers = headers.has_token("te", "trailers");
    headers.remove_hop_by_hop();
    if trailers {
        headers.set("te", "trailers");
    }
    headers.remove("x-envoy-internal");
    let before = addresses(headers);
    let proto = if client.tls { "https" } else { "http" };
    let hops = usize::try_from(manager.xff_num_trusted_hops).unwrap_or(usize::MAX);
    let (address, alone) = if manager.use_remote_address {
        if !manager.skip_xff_append {
            // Loopback would mean nothing to whoever reads it elsewhere.
            let local = client.peer.is_loopback();
            append(headers, if local { client.own } else { client.peer });
        }
        if hops == 0 || headers.get("x-forwarded-proto").is_none() {
            headers.set("x-forwarded-proto", proto);
        }
        let trusted = hops.checked_sub(1).and_then(|hop| from_end(&before, hop));
        (trusted.unwrap_or(client.peer), before.is_empty())
    } else {
        if headers.get("x-forwarded-proto").is_none() {
            headers.set("x-forwarded-proto", proto);
        }
        let named = from_end(&before, hops);
        // Who is not named in a header is nobody inside.
        (named.unwrap_or(client.peer), before.len() == 1)
    };
    let internal = alone && manager.is_internal(address);
    let edge = manager.use_remote_address && !internal;
    if internal {
        headers.set("x-envoy-internal", "true");
    } else {
        for name in STEERING {
            headers.remove(name);
        }
    }
    if edge {
        headers.set("x-envoy-external-address", address.to_string());
    }
    if edge || headers.get("x-request-id").is_none() {
        let (high, low) = draw();
        headers.set("x-request-id", uuid(high, low));
    }
    address
}

/// The addresses of `x-forwarded-for`, in order; what is none keeps its place.
fn addresses(headers: &Headers) -> Vec<Option<IpAddr>> {
    headers
        .all("x-forwarded-for")
        .flat_map(|value| value.split(','))
        .map(|part| part.trim().parse().ok())
        .collect()
}

fn from_end(addresses: &[Option<IpAddr>], hop: usize) -> Option<IpAddr> {
    addresses.iter().rev().nth(hop).copied().flatten()
}

fn append(headers: &mut Headers, peer: IpAddr) {
    let mut values: Vec<String> = headers.all("x-forwarded-for").map(str::to_owned).collect();
    values.push(peer.to_string());
    headers.set("x-forwarded-for", values.join(","));
}

/// A random UUID (version 4) of two draws.
fn uuid(high: u64, low: u64) -> String {
    let high = (high & !0xf000) | 0x4000;
    let low = (low & !(0b11 << 62)) | (0b10 << 62);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use nodeway_core::proxy::{Cidr, HostStripping, RouteSource};
    use rstest::rstest;

    use super::*;

    fn manager(use_remote_address: bool, internal: &[(&str, u32)]) -> HttpConnectionManager {
        let networks = internal.iter();
        HttpConnectionManager {
            stat_prefix: String::new(),
            routes: RouteSource::Other(String::new()),
            use_remote_address,
            skip_xff_append: false,
            xff_num_trusted_hops: 0,
            internal: networks
                .map(|(address, length)| Cidr::new(address.parse().unwrap(), *length))
                .collect(),
            filters: Vec::new(),
            host: HostStripping::default(),
            undecided: Vec::new(),
        }
    }

    /// The headers of a request that came from `peer` with that `x-forwarded-for`.
    fn sanitized(manager: &HttpConnectionManager, peer: &str, forwarded: &str) -> Headers {
        let mut headers = Headers::default();
        if !forwarded.is_empty() {
            headers.add("x-forwarded-for", forwarded);
        }
        let client = Client {
            peer: peer.parse().unwrap(),
            own: "172.18.0.2".parse().unwrap(),
            tls: false,
        };
        sanitize(&mut headers, manager, &client, || (1, 2));
        headers
    }

    const CILIUM: &[(&str, u32)] = &[("10.0.0.0", 8), ("127.0.0.1", 32), ("::1", 128)];

    #[rstest]
    #[case::private("10.0.0.1", &[], true)]
    #[case::public("203.0.113.1", &[], false)]
    #[case::unique_local("fd00::1", &[], true)]
    #[case::in_a_configured_network("10.0.0.1", CILIUM, true)]
    #[case::private_and_not_configured("172.18.0.3", CILIUM, false)]
    #[case::unique_local_and_not_configured("fd00::1", CILIUM, false)]
    fn a_client_is_internal_by_its_network(
        #[case] peer: &str,
        #[case] networks: &[(&str, u32)],
        #[case] internal: bool,
    ) {
        let headers = sanitized(&manager(true, networks), peer, "");
        assert_eq!(headers.get("x-envoy-internal").is_some(), internal);
        assert_eq!(headers.get("x-envoy-external-address").is_none(), internal);
    }

    #[rstest]
    #[case::nobody_says_who_it_is("", false)]
    #[case::somebody_inside("10.0.0.9", true)]
    #[case::by_way_of_another("10.0.0.9,10.0.0.8", false)]
    fn without_the_peers_address_a_header_decides(#[case] forwarded: &str, #[case] internal: bool) {
        let headers = sanitized(&manager(false, &[]), "10.0.0.1", forwarded);
        assert_eq!(headers.get("x-envoy-internal").is_some(), internal);
    }

    #[rstest]
    #[case("10.0.0.1", "10.0.0.1")]
    #[case::as_its_machine("127.0.0.1", "172.18.0.2")]
    #[case::as_its_machine_of_ipv4("::1", "172.18.0.2")]
    fn a_client_on_loopback_is_forwarded_as_its_machine(#[case] peer: &str, #[case] named: &str) {
        let headers = sanitized(&manager(true, &[]), peer, "");
        assert_eq!(headers.get("x-forwarded-for"), Some(named));
    }
}
