//! Where a way stops, `explain` names the object and the field that is the cause, and what to change.

use std::process::Command;

use rstest::rstest;

const SHOP: &str = "\
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {selector: {app: shop}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, selector: {app: shop}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {containers: [{name: client}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  ingressClassName: CLASS
  rules:
  - http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: BACKEND}}}]}
---
apiVersion: cilium.io/v2
kind: CiliumEnvoyConfig
metadata: {name: hand}
spec:
  services: [{name: shop, namespace: default, listener: mine}]
  resources:
  - \"@type\": type.googleapis.com/envoy.config.listener.v3.Listener
    name: mine
    filterChains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typedConfig:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          statPrefix: mine
          rds: {routeConfigName: routes}
          httpFilters:
          - name: envoy.filters.http.router
            typedConfig: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  - \"@type\": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
    name: routes
    virtualHosts:
    - {name: all, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: default/nowhere}}]}
";

#[rstest]
#[case::no_such_service(
    "cilium",
    "shop, port: {number: 80}",
    "client",
    "http://elsewhere.far/",
    "Service far/elsewhere metadata.name",
    "add a Service of that name"
)]
#[case::headless(
    "cilium",
    "shop, port: {number: 80}",
    "client",
    "http://headless/",
    "Service default/headless spec.clusterIP",
    "one of its pods by address"
)]
#[case::no_address_outside(
    "cilium",
    "shop, port: {number: 80}",
    "outside",
    "http://shop/",
    "Service default/shop spec.type",
    "`type: LoadBalancer`"
)]
#[case::ingress_of_another_class(
    "nginx",
    "shop, port: {number: 80}",
    "client",
    "http://cilium-ingress-web/",
    "Ingress default/web spec",
    "mend the problems"
)]
#[case::backend_that_is_missing(
    "cilium",
    "ghost, port: {number: 80}",
    "client",
    "http://cilium-ingress-web/",
    "Service default/ghost metadata.name",
    "create that Service"
)]
#[case::backend_without_that_port(
    "cilium",
    "shop, port: {number: 81}",
    "client",
    "http://cilium-ingress-web/",
    "Service default/shop spec.ports",
    "add port 81"
)]
#[case::backend_without_pods(
    "cilium",
    "shop, port: {number: 80}",
    "client",
    "http://cilium-ingress-web/",
    "Service default/shop spec.selector",
    "make it select ready pods"
)]
#[case::route_to_no_cluster(
    "cilium",
    "shop, port: {number: 80}",
    "client",
    "http://shop/",
    "CiliumEnvoyConfig default/hand spec.resources",
    "add that cluster"
)]
fn where_the_way_stops_the_object_to_change_is_named(
    #[case] class: &str,
    #[case] backend: &str,
    #[case] from: &str,
    #[case] to: &str,
    #[case] cause: &str,
    #[case] fix: &str,
) {
    let folder = tempfile::tempdir().unwrap();
    let manifest = SHOP.replace("CLASS", class).replace("BACKEND", backend);
    std::fs::write(folder.path().join("shop.yaml"), manifest).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_nodeway"))
        .args(["explain", "shop.yaml", "--from", from, "--to", to])
        .current_dir(folder.path())
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let after = |label| {
        let mut lines = text.lines().map(str::trim);
        lines
            .find_map(|line| line.strip_prefix(label))
            .unwrap_or_default()
    };
    assert_eq!(after("cause: "), cause, "{text}");
    assert!(after("fix: ").contains(fix), "{text}");
}
