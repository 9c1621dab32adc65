//! Which of Envoy's extensions keep to what a config gives them.
//!
//! Envoy has hundreds, and each version brings more. Some run programs, some serve, read or write files of the node, some
//! let a client choose among all clusters; so what may stand in a tenant's config is listed here, and all else is left
//! out. What is listed may still hold a field that reaches further (a file in a `DataSource`): such fields are looked
//! for one by one in all of them.

/// The packages of extensions that need nothing of the node but connections, sorted. A test holds that each stands in the
/// API that `descriptors.bin` is made of.
const KEEP_TO_THEMSELVES: &[&str] = &[
    // Left out before a stock Envoy is told (`envoy::stock`); in Cilium's own they enforce policies.
    "cilium",
    "envoy.extensions.access_loggers.file.v3",
    "envoy.extensions.access_loggers.grpc.v3",
    "envoy.extensions.access_loggers.open_telemetry.v3",
    "envoy.extensions.access_loggers.stream.v3",
    "envoy.extensions.compression.brotli.compressor.v3",
    "envoy.extensions.compression.brotli.decompressor.v3",
    "envoy.extensions.compression.gzip.compressor.v3",
    "envoy.extensions.compression.gzip.decompressor.v3",
    "envoy.extensions.compression.zstd.compressor.v3",
    "envoy.extensions.compression.zstd.decompressor.v3",
    "envoy.extensions.filters.http.adaptive_concurrency.v3",
    "envoy.extensions.filters.http.admission_control.v3",
    "envoy.extensions.filters.http.api_key_auth.v3",
    "envoy.extensions.filters.http.bandwidth_limit.v3",
    "envoy.extensions.filters.http.basic_auth.v3",
    "envoy.extensions.filters.http.buffer.v3",
    "envoy.extensions.filters.http.cdn_loop.v3",
    "envoy.extensions.filters.http.compressor.v3",
    "envoy.extensions.filters.http.cors.v3",
    "envoy.extensions.filters.http.csrf.v3",
    "envoy.extensions.filters.http.decompressor.v3",
    "envoy.extensions.filters.http.ext_authz.v3",
    "envoy.extensions.filters.http.ext_proc.v3",
    "envoy.extensions.filters.http.fault.v3",
    "envoy.extensions.filters.http.grpc_http1_bridge.v3",
    "envoy.extensions.filters.http.grpc_stats.v3",
    "envoy.extensions.filters.http.grpc_web.v3",
    "envoy.extensions.filters.http.header_mutation.v3",
    "envoy.extensions.filters.http.header_to_metadata.v3",
    "envoy.extensions.filters.http.health_check.v3",
    "envoy.extensions.filters.http.jwt_authn.v3",
    "envoy.extensions.filters.http.local_ratelimit.v3",
    "envoy.extensions.filters.http.oauth2.v3",
    "envoy.extensions.filters.http.ratelimit.v3",
    "envoy.extensions.filters.http.rbac.v3",
    "envoy.extensions.filters.http.router.v3",
    "envoy.extensions.filters.http.set_metadata.v3",
    "envoy.extensions.filters.http.stateful_session.v3",
    "envoy.extensions.filters.http.upstream_codec.v3",
    "envoy.extensions.filters.listener.http_inspector.v3",
    "envoy.extensions.filters.listener.local_ratelimit.v3",
    "envoy.extensions.filters.listener.proxy_protocol.v3",
    "envoy.extensions.filters.listener.tls_inspector.v3",
    "envoy.extensions.filters.network.connection_limit.v3",
    "envoy.extensions.filters.network.direct_response.v3",
    "envoy.extensions.filters.network.ext_authz.v3",
    "envoy.extensions.filters.network.http_connection_manager.v3",
    "envoy.extensions.filters.network.local_ratelimit.v3",
    "envoy.extensions.filters.network.ratelimit.v3",
    "envoy.extensions.filters.network.rbac.v3",
    "envoy.extensions.filters.network.tcp_proxy.v3",
    "envoy.extensions.formatter.metadata.v3",
    "envoy.extensions.formatter.req_without_query.v3",
    "envoy.extensions.http.early_header_mutation.header_mutation.v3",
    "envoy.extensions.http.header_formatters.preserve_case.v3",
    "envoy.extensions.http.original_ip_detection.custom_header.v3",
    "envoy.extensions.http.original_ip_detection.xff.v3",
    "envoy.extensions.http.stateful_session.cookie.v3",
    "envoy.extensions.internal_redirect.allow_listed_routes.v3",
    "envoy.extensions.internal_redirect.previous_routes.v3",
    "envoy.extensions.internal_redirect.safe_cross_scheme.v3",
    "envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3",
    "envoy.extensions.load_balancing_policies.cluster_provided.v3",
    "envoy.extensions.load_balancing_policies.least_request.v3",
    "envoy.extensions.load_balancing_policies.maglev.v3",
    "envoy.extensions.load_balancing_policies.pick_first.v3",
    "envoy.extensions.load_balancing_policies.random.v3",
    "envoy.extensions.load_balancing_policies.ring_hash.v3",
    "envoy.extensions.load_balancing_policies.round_robin.v3",
    "envoy.extensions.load_balancing_policies.subset.v3",
    "envoy.extensions.load_balancing_policies.wrr_locality.v3",
    "envoy.extensions.matching.common_inputs.network.v3",
    "envoy.extensions.matching.common_inputs.ssl.v3",
    "envoy.extensions.matching.input_matchers.consistent_hashing.v3",
    "envoy.extensions.matching.input_matchers.ip.v3",
    "envoy.extensions.matching.input_matchers.metadata.v3",
    "envoy.extensions.matching.input_matchers.runtime_fraction.v3",
    "envoy.extensions.path.match.uri_template.v3",
    "envoy.extensions.path.rewrite.uri_template.v3",
    "envoy.extensions.rate_limit_descriptors.expr.v3",
    "envoy.extensions.rbac.matchers.upstream_ip_port.v3",
    "envoy.extensions.regex_engines.v3",
    "envoy.extensions.request_id.uuid.v3",
    "envoy.extensions.retry.host.omit_canary_hosts.v3",
    "envoy.extensions.retry.host.omit_host_metadata.v3",
    "envoy.extensions.retry.host.previous_hosts.v3",
    "envoy.extensions.retry.priority.previous_priorities.v3",
    "envoy.extensions.transport_sockets.proxy_protocol.v3",
    "envoy.extensions.transport_sockets.raw_buffer.v3",
    "envoy.extensions.transport_sockets.tcp_stats.v3",
    "envoy.extensions.transport_sockets.tls.v3",
    "envoy.extensions.upstreams.http.generic.v3",
    "envoy.extensions.upstreams.http.http.v3",
    "envoy.extensions.upstreams.http.tcp.v3",
    "envoy.extensions.upstreams.http.v3",
    "envoy.extensions.upstreams.tcp.generic.v3",
    "envoy.extensions.upstreams.tcp.v3",
    "envoy.type.matcher.v3",
    "google.protobuf",
    "xds.type.matcher.v3",
];

/// Whether a message that stands in an `Any` is of an extension that keeps to itself. One that is not known does not.
pub(super) fn keeps_to_itself(message: &str) -> bool {
    let package = message.rsplit_once('.').map_or("", |(package, _)| package);
    KEEP_TO_THEMSELVES.binary_search(&package).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::pool;

    #[test]
    fn the_list_is_sorted_and_each_of_its_packages_is_one() {
        assert!(KEEP_TO_THEMSELVES.is_sorted());
        let known: Vec<String> = pool()
            .files()
            .map(|it| it.package_name().to_owned())
            .collect();
        for package in KEEP_TO_THEMSELVES {
            let ciliums = *package == "cilium";
            assert!(ciliums || known.iter().any(|it| it == package), "{package}");
        }
    }
}
