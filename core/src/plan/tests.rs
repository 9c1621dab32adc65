use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::derive::{DeriveOptions, derive};
use crate::object::{Change, Kind, Object};
use crate::problem::{Code, Severity};
use crate::source::{Text, read};

const SHOP: &str = include_str!("shop.yaml");

fn shop(edit: impl Fn(&str) -> String) -> Objects {
    derive(
        read(&[Text::new("shop.yaml", edit(SHOP))]).unwrap(),
        &DeriveOptions::default(),
    )
}

fn planned(edit: impl Fn(&str) -> String) -> NodePlan {
    plan(&shop(edit), "node-1", Ledger::default())
}

fn shown(plan: &NodePlan) -> String {
    let mut lines: Vec<String> = Vec::new();
    lines.extend(plan.listeners.iter().map(|(name, listener)| {
        format!(
            "listener {name} on {} of {}",
            listener.port, listener.config
        )
    }));
    lines.extend(plan.routes.keys().map(|name| format!("routes {name}")));
    lines.extend(
        plan.clusters
            .iter()
            .map(|(name, cluster)| format!("cluster {name} from {}", cluster.model.endpoints)),
    );
    lines.extend(plan.endpoints.iter().map(|(name, found)| {
        let all = found
            .endpoints
            .iter()
            .map(|endpoint| endpoint.address.to_string())
            .collect::<Vec<_>>();
        format!("endpoints {name}: {}", all.join(" "))
    }));
    lines.extend(plan.frontends.iter().map(|(key, it)| {
        format!(
            "frontend {key} {:?} of {} {} to {}",
            it.kind, it.service, it.service_port, it.listener
        )
    }));
    lines.extend(plan.problems.iter().map(ToString::to_string));
    lines.join("\n")
}

#[test]
fn a_small_shop_becomes_a_whole_plan() {
    insta::assert_snapshot!(shown(&planned(str::to_owned)));
}

#[rstest]
#[case::an_unknown_field("statPrefix", "statPrefiks", Code::EnvoyResource, "spec.resources[0]")]
#[case::a_listener_that_is_not_there(
    "listener: web",
    "listener: wep",
    Code::MissingListener,
    "spec.services[0].listener"
)]
#[case::a_route_to_no_cluster(
    "cluster: default/details",
    "cluster: default/detail",
    Code::MissingCluster,
    "spec.resources[1].virtualHosts[0].routes[0].route"
)]
#[case::routes_that_are_not_there(
    "routeConfigName: web",
    "routeConfigName: wap",
    Code::MissingRouteConfiguration,
    "spec.resources"
)]
#[case::no_such_service(
    "name: details, namespace: default",
    "name: detail, namespace: default",
    Code::MissingService,
    "spec.backendServices[0]"
)]
#[case::no_such_port(
    "number: ['9080']",
    "number: ['9081']",
    Code::MissingPort,
    "spec.backendServices[1].number[0]"
)]
#[case::nobody_ready(
    "replicas: 2",
    "replicas: 0",
    Code::NoEndpoints,
    "spec.backendServices[0]"
)]
#[case::no_selector(
    "# nodeSelector",
    "nodeSelector: {matchExpressions: [{key: a, operator: Is}]}",
    Code::BadNodeSelector,
    "spec.nodeSelector.matchExpressions[0].operator"
)]
fn a_mistake_in_a_config_is_told_by_number_and_field(
    #[case] from: &str,
    #[case] to: &str,
    #[case] code: Code,
    #[case] field: &str,
) {
    let plan = planned(|text| text.replace(from, to));
    let found = plan
        .problems
        .iter()
        .find(|problem| problem.code == code && problem.field.starts_with(field));
    assert!(found.is_some(), "{:#?}", plan.problems);
}

#[test]
fn a_config_with_a_bad_resource_is_left_out_whole() {
    let plan = planned(|text| text.replace("statPrefix", "statPrefiks"));
    assert!(plan.listeners.is_empty() && plan.clusters.is_empty() && plan.frontends.is_empty());
    assert_eq!(plan.problems.len(), 1, "{:#?}", plan.problems);
}

#[test]
fn a_filter_of_ciliums_own_is_left_out_and_told() {
    let filter = "- {name: cilium.l7policy}\n          - name: envoy.filters.http.router";
    let plan = planned(|shop| shop.replace("- name: envoy.filters.http.router", filter));
    let problem = plan.problems.iter().find(|it| it.code == Code::Unsupported);
    let field = "spec.resources[0].filterChains[0].filters[0].typedConfig.httpFilters[0]";
    assert_eq!(problem.unwrap().field, field);
    let json = |plan: &NodePlan| {
        let mut listeners = plan.listeners.values();
        serde_json::to_string(&listeners.next().unwrap().message).unwrap()
    };
    assert_eq!(json(&plan), json(&planned(str::to_owned)));
}

#[test]
fn a_range_that_is_no_network_is_told_and_lets_nobody_in() {
    let ranges = "spec: {type: LoadBalancer, loadBalancerSourceRanges: [192.0.2.1/24, nonsense], ports: [{port: 80}]}";
    let plan = planned(|shop| shop.replace("spec: {type: NodePort, ports: [{port: 80}]}", ranges));
    let told = plan.problems.iter();
    let told = told.filter(|it| it.code == Code::BadSourceRange);
    let fields: Vec<_> = told.map(|it| it.field.as_str()).collect();
    assert_eq!(fields, ["spec.loadBalancerSourceRanges[1]"]);
    let ranged = plan.frontends.values().filter(|it| it.ranges.is_some());
    for frontend in ranged.clone() {
        assert_eq!(frontend.kind, FrontendKind::LoadBalancer);
        assert!(frontend.admits("192.0.2.77".parse().unwrap()));
        assert!(!frontend.admits("203.0.113.1".parse().unwrap()));
    }
    assert!(ranged.count() > 0);
}

#[test]
fn a_listener_moves_to_another_port_unless_its_address_is_its_own() {
    let own = "filterChains:";
    let address =
        "address: {socketAddress: {address: 0.0.0.0, portValue: 8080}}\n    filterChains:";
    for (edit, moved) in [(own, true), (address, false)] {
        let plan = planned(|shop| shop.replace(own, edit));
        let listener = plan.listeners.values().next().unwrap();
        let on = serde_json::to_value(listener.on_port(19_999)).unwrap();
        let port = &on["address"]["socketAddress"]["portValue"];
        assert_eq!(*port == 19_999, moved, "{on}");
        assert_eq!(listener.own_address, !moved);
    }
}

#[test]
fn a_service_without_endpoints_has_an_empty_assignment() {
    let plan = planned(|text| text.replace("replicas: 2", "replicas: 0"));
    assert!(plan.endpoints["default/details"].endpoints.is_empty());
}

#[test]
fn empty_endpoints_name_the_service_that_is_not_there() {
    let plan = planned(|text| text.replace("{name: details, namespace", "{name: gone, namespace"));
    let gone = ObjectRef::new(Kind::Service, "default", "gone");
    let found = &plan.endpoints["default/gone"];
    assert_eq!((&found.service, found.endpoints.len()), (&Some(gone), 0));
}

#[test]
fn a_config_for_other_nodes_puts_nothing_in() {
    let plan = planned(|text| {
        text.replace(
            "# nodeSelector",
            "nodeSelector: {matchLabels: {kubernetes.io/hostname: node-2}}",
        )
    });
    assert_eq!(plan, NodePlan::default());
}

#[test]
fn the_older_of_two_configs_has_the_frontend_and_the_other_is_told() {
    let config = SHOP.rsplit("---").next().unwrap();
    let second = config.replace("name: shop\n", "name: a-second\n");
    let dated = config.replace(
        "name: shop\n",
        "name: shop\n  creationTimestamp: '2020-01-01T00:00:00Z'\n",
    );
    let both = |first: &str| planned(|text| format!("{}---{second}", text.replace(config, first)));
    for (first, winner) in [(config, "a-second"), (&dated, "shop")] {
        let plan = both(first);
        assert!(
            plan.frontends
                .values()
                .all(|frontend| frontend.config.name == winner),
            "{winner}"
        );
        let told: Vec<_> = plan
            .problems
            .iter()
            .filter(|problem| problem.code == Code::FrontendClaimedTwice)
            .collect();
        assert_eq!(told.len(), 1, "{told:#?}");
        assert_ne!(told[0].object.name, winner);
    }
}

/// A config that names a port of a Service has it, and one that takes the Service as a whole has the
/// rest, whichever is older: that is how one is meant to be combined with the other.
#[test]
fn who_names_a_port_goes_before_who_takes_the_whole_service() {
    let config = SHOP.rsplit("---").next().unwrap();
    let port = planned(str::to_owned)
        .frontends
        .values()
        .next()
        .unwrap()
        .service_port;
    let second = config.replace("name: shop\n", "name: z-later\n").replace(
        "{name: web, listener: web}",
        &format!("{{name: web, listener: web, ports: [{port}]}}"),
    );
    let plan = planned(|text| format!("{text}---{second}"));
    let of_port = plan.frontends.values().filter(|it| it.service_port == port);
    let winners: BTreeSet<&str> = of_port.map(|it| it.config.name.as_str()).collect();
    assert_eq!(winners, ["z-later"].into());
    let twice = plan
        .problems
        .iter()
        .filter(|it| it.code == Code::FrontendClaimedTwice);
    assert_eq!(twice.count(), 0);
}

#[test]
fn a_frontend_is_found_by_its_address_and_port() {
    let plan = planned(str::to_owned);
    let (key, frontend) = plan.frontends.iter().next().unwrap();
    assert_eq!(plan.frontend(key.address, key.port), Some(frontend));
    assert_eq!(plan.frontend(key.address, 1), None);
}

#[rstest]
#[case::within(&["10.1.2.3"], true)]
#[case::one_of_its_addresses(&["192.0.2.1", "10.1.2.3"], true)]
#[case::outside(&["192.0.2.1"], false)]
#[case::without_an_address(&[], false)]
fn a_clients_own_proxy_has_the_frontends_that_admit_the_client(
    #[case] client: &[&str],
    #[case] admitted: bool,
) {
    let mut plan = planned(str::to_owned);
    let all = plan.frontends.len();
    let ranged = *plan.frontends.keys().next().unwrap();
    let ranges: [ipnet::IpNet; 1] = ["10.0.0.0/8".parse().unwrap()];
    plan.frontends.get_mut(&ranged).unwrap().ranges = Some(ranges.into());
    let client: Vec<_> = client.iter().map(|it| it.parse().unwrap()).collect();
    let own = plan.of_client(&client);
    assert_eq!(own.frontends.contains_key(&ranged), admitted);
    assert_eq!(own.frontends.len(), all - usize::from(!admitted));
    assert_eq!(own.listeners, plan.listeners);
}

#[test]
fn one_changed_slice_touches_only_its_services_endpoints() {
    let objects = shop(str::to_owned);
    let mut planner = Planner::with_objects(&objects, "node-1", Ledger::default());
    let mut slice = (**objects.endpoint_slice("default", "details-ipv4").unwrap()).clone();
    slice.endpoints.as_mut().unwrap().pop();
    let delta = planner.apply(Change::Put(Object::EndpointSlice(Arc::new(slice))));
    let names: Vec<&str> = delta.endpoints.keys().map(AsRef::as_ref).collect();
    assert_eq!(names, ["default/details", "default/details:*"]);
    assert_eq!(
        PlanDelta {
            endpoints: Default::default(),
            ..delta
        },
        PlanDelta::default()
    );
}

const NODE: &str = "apiVersion: v1\nkind: Node\nmetadata: {name: node-1, labels: {disk: ssd}}\n";

/// Labels come with the node, and the node may come last.
#[test]
fn a_config_applies_once_its_node_has_the_labels() {
    let node = read(&[Text::new("node.yaml", NODE)]).unwrap();
    let node = node.iter().next().unwrap().1.object.clone();
    let selects = "nodeSelector: {matchLabels: {disk: ssd}}";
    let objects = shop(|text| text.replace("# nodeSelector", selects));
    let mut planner = Planner::with_objects(&objects, "node-1", Ledger::default());
    assert!(planner.plan().listeners.is_empty());
    let delta = planner.apply(Change::Put(node.clone()));
    assert!(matches!(
        delta.listeners.values().next(),
        Some(Update::Put(_))
    ));
    // A heartbeat says the same again.
    assert_eq!(planner.apply(Change::Put(node)), PlanDelta::default());
}

/// Although another node's config has the better right.
#[test]
fn a_service_that_changes_stays_with_the_config_of_this_node() {
    let config = SHOP.rsplit("---").next().unwrap();
    let selects = "nodeSelector: {matchLabels: {kubernetes.io/hostname: node-2}}";
    let elsewhere = config
        .replace("name: shop\n", "name: a-second\n")
        .replace("# nodeSelector", selects);
    let objects = shop(|text| format!("{text}---{elsewhere}"));
    let mut planner = Planner::with_objects(&objects, "node-1", Ledger::default());
    let service = ObjectRef::new(Kind::Service, "default", "web");
    let (_, web) = objects.iter().find(|(it, _)| **it == service).unwrap();
    let delta = planner.apply(Change::Put(web.object.clone()));
    assert_eq!(delta, PlanDelta::default());
    assert!(!planner.plan().frontends.is_empty());
}

#[test]
fn a_planner_may_begin_with_a_plan_that_no_object_made() {
    let plan = planned(str::to_owned);
    assert_eq!(Planner::with_plan("node-1", plan.clone()).plan(), &plan);
}

#[test]
fn a_planner_says_which_configs_name_a_service() {
    let planner = Planner::with_objects(&shop(str::to_owned), "node-1", Ledger::default());
    let of = |name: &str| {
        let service = ObjectRef::new(Kind::Service, "default", name);
        planner
            .configs_of(&service)
            .map(|(config, leads)| (config.name.clone(), leads))
            .collect::<Vec<_>>()
    };
    assert_eq!(of("web"), [("shop".to_owned(), true)]);
    assert_eq!(of("details"), [("shop".to_owned(), false)]);
    assert_eq!(of("nobody"), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever the order, and however often objects came and went before: the plan is the same,
    /// and the deltas add up to it. Ports too, because a listener's port hangs on its name.
    #[test]
    fn any_order_of_changes_gives_the_same_plan(
        order in Just((0..17_usize).collect::<Vec<_>>()).prop_shuffle(),
        churn in proptest::collection::vec((0..17_usize, any::<bool>()), 0..20),
    ) {
        let objects = shop(str::to_owned);
        let all: Vec<Object> = objects.iter().map(|(_, entry)| entry.object.clone()).collect();
        let want = plan(&objects, "node-1", Ledger::default());
        let mut planner = Planner::new("node-1", Ledger::default());
        let (mut added_up, mut as_one) = (NodePlan::default(), PlanDelta::default());
        let churn = churn.into_iter().map(|(index, put)| {
            let object = all[index % all.len()].clone();
            if put { Change::Put(object) } else { Change::Delete(object.reference()) }
        });
        let order = (0..all.len()).map(|at| order.get(at).copied().unwrap_or(at));
        let order = order.map(|index| Change::Put(all[index % all.len()].clone()));
        let again = all.iter().map(|object| Change::Put(object.clone()));
        for change in churn.chain(order).chain(again) {
            let delta = planner.apply(change);
            added_up.apply(&delta);
            as_one = as_one.then(delta);
        }
        prop_assert_eq!(planner.plan(), &want);
        prop_assert_eq!(&added_up, &want);
        let mut at_once = NodePlan::default();
        at_once.apply(&as_one);
        prop_assert_eq!(&at_once, &want);
        for object in &all {
            added_up.apply(&planner.apply(Change::Delete(object.reference())));
        }
        prop_assert_eq!(&added_up, &NodePlan::default());
    }
}

const TLS: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumEnvoyConfig
metadata: {name: tls, namespace: shop}
spec:
  services: [{name: front, namespace: shop}]
  resources:
  - "@type": type.googleapis.com/envoy.config.listener.v3.Listener
    name: web
    filterChains:
    - filters:
      - name: tcp
        typedConfig:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          statPrefix: web
          cluster: shop/web
      transportSocket:
        name: tls
        typedConfig:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          commonTlsContext: {tlsCertificateSdsSecretConfigs: [{name: shop/web}]}
  - {"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: shop/web, type: STATIC}
---
apiVersion: v1
kind: Service
metadata: {name: front, namespace: shop}
spec: {clusterIP: 10.96.0.9, ports: [{port: 443}]}
"#;

fn secret(name: &str, certificate: &str) -> Object {
    let json = serde_json::json!({
        "metadata": {"name": name, "namespace": "shop"},
        "stringData": {"tls.crt": certificate, "tls.key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"},
    });
    let secret: k8s_openapi::api::core::v1::Secret = serde_json::from_value(json).unwrap();
    Object::Secret(secret.into())
}

#[test]
fn a_certificate_that_a_listener_names_follows_its_secret() {
    let good = include_str!("../certificate/shop.pem");
    let objects = read(&[Text::new("tls.yaml", TLS)]).unwrap();
    let mut planner = Planner::with_objects(&objects, "node-1", Ledger::default());
    let codes = |planner: &Planner| -> Vec<Code> {
        planner.plan().problems.iter().map(|it| it.code).collect()
    };
    assert_eq!(codes(&planner), [Code::MissingSecret]);

    let delta = planner.apply(Change::Put(secret("web", good)));
    assert!(matches!(&delta.secrets["shop/web"], Update::Put(it) if it.certificate.is_ok()));
    assert_eq!(codes(&planner), []);

    planner.apply(Change::Put(secret("web", "no certificate")));
    assert_eq!(codes(&planner), [Code::BadCertificate]);

    let delta = planner.apply(Change::Delete(secret("web", good).reference()));
    assert_eq!(codes(&planner), [Code::MissingSecret]);
    let told =
        |problems: &BTreeSet<Problem>| -> Vec<Code> { problems.iter().map(|it| it.code).collect() };
    assert_eq!(told(&delta.problems_found), [Code::MissingSecret]);
    assert_eq!(told(&delta.problems_gone), [Code::BadCertificate]);
    assert!(planner.plan().secrets.is_empty());
}

#[test]
fn an_envoy_gets_the_private_key_and_a_log_does_not() {
    let good = include_str!("../certificate/shop.pem");
    let objects = read(&[Text::new("tls.yaml", TLS)]).unwrap();
    let mut planner = Planner::with_objects(&objects, "node-1", Ledger::default());
    planner.apply(Change::Put(secret("web", good)));
    let planned = &planner.plan().secrets["shop/web"];
    let message = serde_json::to_value(planned.message.as_ref().unwrap()).unwrap();
    let pair = &message["tlsCertificate"];
    assert_eq!(message["name"], "shop/web");
    assert_eq!(pair["certificateChain"]["inlineString"], good);
    let key = pair["privateKey"]["inlineString"].as_str().unwrap();
    assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"), "{key}");
    let logged = format!("{planned:?}");
    assert!(logged.contains("certificate: Ok"), "{logged}");
    assert!(!logged.contains("PRIVATE KEY"), "{logged}");
}

#[test]
fn a_secret_that_no_listener_names_is_not_planned() {
    let objects = read(&[Text::new("tls.yaml", TLS)]).unwrap();
    let mut planner = Planner::with_objects(&objects, "node-1", Ledger::default());
    let delta = planner.apply(Change::Put(secret("other", "")));
    assert_eq!(delta, PlanDelta::default());
}

const TWO: &str = include_str!("two-namespaces.yaml");

/// The plan of a neighbour `b`, and beside it a config of namespace `a` that says this.
fn beside_b(resources: &str) -> (NodePlan, NodePlan) {
    let alone = read(&[Text::new("b.yaml", TWO)]).unwrap();
    let config = format!(
        "apiVersion: cilium.io/v2\nkind: CiliumEnvoyConfig\nmetadata: {{name: evil, namespace: a, creationTimestamp: '2001-01-01T00:00:00Z'}}\nspec:\n  services: [{{name: web, namespace: b}}]\n  resources: {resources}\n"
    );
    let both = [Text::new("b.yaml", TWO), Text::new("a.yaml", config)];
    let both = read(&both).unwrap();
    let plan = |objects| plan(objects, "node-1", Ledger::default());
    (plan(&alone), plan(&both))
}

/// All that is `b`'s, as an Envoy and a hook get it.
fn of_b(plan: &NodePlan) -> NodePlan {
    let mut plan = plan.clone();
    plan.listeners.retain(|name, _| name.starts_with("b/"));
    plan.routes.retain(|name, _| name.starts_with("b/"));
    plan.clusters.retain(|name, _| name.starts_with("b/"));
    plan.endpoints.retain(|name, _| name.starts_with("b/"));
    plan.problems.retain(|it| it.object.namespace == "b");
    plan.frontends.retain(|_, it| it.service.namespace == "b");
    plan
}

const LISTENER: &str = "'@type': type.googleapis.com/envoy.config.listener.v3.Listener";
const CLUSTER: &str = "'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster";
const ASSIGNMENT: &str =
    "'@type': type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
const SECRET: &str =
    "'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
const ROUTES: &str = "'@type': type.googleapis.com/envoy.config.route.v3.RouteConfiguration";

fn shows(secret: &str) -> String {
    let context =
        "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
    let proxy = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    format!(
        "[{{{LISTENER}, name: l, filterChains: [{{filters: [{{name: t, typedConfig: {{'@type': {proxy}, statPrefix: t, cluster: b/web}}}}], transportSocket: {{name: tls, typedConfig: {{'@type': {context}, commonTlsContext: {{tlsCertificateSdsSecretConfigs: [{{name: {secret}}}]}}}}}}}}]}}]"
    )
}

fn with_filter(message: &str, fields: &str) -> String {
    let manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    format!(
        "[{{{LISTENER}, name: l, filterChains: [{{filters: [{{name: h, typedConfig: {{'@type': {manager}, statPrefix: h, rds: {{routeConfigName: r}}, httpFilters: [{{name: f, typedConfig: {{'@type': type.googleapis.com/{message}, {fields}}}}}]}}}}]}}]}}]"
    )
}

fn logs(format: &str) -> String {
    let log = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
    format!(
        "[{{{LISTENER}, name: l, accessLog: [{{name: a, typedConfig: {{'@type': {log}, path: /dev/stdout, {format}}}}}]}}]"
    )
}

#[rstest]
#[case::a_cluster(format!("[{{{CLUSTER}, name: b/web, type: STATIC}}]"), "[0].name")]
#[case::endpoints(format!("[{{{ASSIGNMENT}, clusterName: 'b/web:80'}}]"), "[0].clusterName")]
#[case::a_certificate(format!("[{{{SECRET}, name: b/tls, tlsCertificate: {{}}}}]"), "[0].name")]
#[case::a_secret_by_name(
    shows("b/tls"),
    "[0].filterChains[0].transportSocket.typedConfig.commonTlsContext.tlsCertificateSdsSecretConfigs[0].name"
)]
#[case::a_socket_of_the_node(
    format!("[{{{CLUSTER}, name: agent, loadAssignment: {{clusterName: agent, endpoints: [{{lbEndpoints: [{{endpoint: {{address: {{pipe: {{path: /run/xds.sock}}}}}}}}]}}]}}}}]"),
    "[0].loadAssignment.endpoints[0].lbEndpoints[0].endpoint.address.pipe.path"
)]
#[case::a_file_of_the_node(
    format!("[{{{ROUTES}, name: r, virtualHosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, directResponse: {{status: 200, body: {{filename: /etc/shadow}}}}}}]}}]}}]"),
    "[0].virtualHosts[0].routes[0].directResponse.body.filename"
)]
#[case::whatever_a_client_names(
    format!("[{{{ROUTES}, name: r, virtualHosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{clusterHeader: x-cluster}}}}]}}]}}]"),
    "[0].virtualHosts[0].routes[0].route.clusterHeader"
)]
#[case::a_file_of_endpoints(
    format!("[{{{CLUSTER}, name: own, type: EDS, edsClusterConfig: {{edsConfig: {{path: /etc/eds.yaml}}}}}}]"),
    "[0].edsClusterConfig.edsConfig.path"
)]
#[case::a_log_in_a_file_of_the_node(
    logs("path: /var/log/messages").replace("path: /dev/stdout, ", ""),
    "[0].accessLog[0].typedConfig.path"
)]
#[case::loopback_of_the_node(
    format!("[{{{CLUSTER}, name: own, loadAssignment: {{clusterName: own, endpoints: [{{lbEndpoints: [{{endpoint: {{address: {{socketAddress: {{address: 127.0.0.1, portValue: 10248}}}}}}}}]}}]}}}}]"),
    "[0].loadAssignment.endpoints[0].lbEndpoints[0].endpoint.address.socketAddress.address"
)]
#[case::loopback_in_another_family(
    format!("[{{{CLUSTER}, name: own, loadAssignment: {{clusterName: own, endpoints: [{{lbEndpoints: [{{endpoint: {{address: {{socketAddress: {{address: '::ffff:127.0.0.1', portValue: 10248}}}}}}}}]}}]}}}}]"),
    "[0].loadAssignment.endpoints[0].lbEndpoints[0].endpoint.address.socketAddress.address"
)]
#[case::loopback_by_name(
    format!("[{{{CLUSTER}, name: own, type: STRICT_DNS, loadAssignment: {{clusterName: own, endpoints: [{{lbEndpoints: [{{endpoint: {{address: {{socketAddress: {{address: LocalHost, portValue: 10248}}}}}}}}]}}]}}}}]"),
    "[0].loadAssignment.endpoints[0].lbEndpoints[0].endpoint.address.socketAddress.address"
)]
#[case::a_variable_of_the_node(
    format!("[{{{ROUTES}, name: r, virtualHosts: [{{name: v, domains: ['*'], responseHeadersToAdd: [{{header: {{key: x, value: 'is %ENVIRONMENT(HOME)%'}}}}], routes: [{{match: {{prefix: /}}, directResponse: {{status: 200}}}}]}}]}}]"),
    "[0].virtualHosts[0].responseHeadersToAdd[0].header.value"
)]
#[case::a_variable_in_a_log(
    logs("logFormat: {jsonFormat: {home: '%ENVIRONMENT(HOME)%'}}"),
    "[0].accessLog[0].typedConfig.logFormat.jsonFormat.fields.home.stringValue"
)]
#[case::a_program_in_lua(
    with_filter(
        "envoy.extensions.filters.http.lua.v3.Lua",
        "defaultSourceCode: {inlineString: 'function envoy_on_request(handle) end'}"
    ),
    "[0].filterChains[0].filters[0].typedConfig.httpFilters[0].typedConfig"
)]
#[case::a_program_of_one_route(
    format!("[{{{ROUTES}, name: r, virtualHosts: [{{name: v, domains: ['*'], typedPerFilterConfig: {{lua: {{'@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute, disabled: true}}}}, routes: [{{match: {{prefix: /}}, directResponse: {{status: 200}}}}]}}]}}]"),
    "[0].virtualHosts[0].typedPerFilterConfig.lua"
)]
#[case::a_program_in_wasm(
    with_filter("envoy.extensions.filters.http.wasm.v3.Wasm", "config: {name: w}"),
    "[0].filterChains[0].filters[0].typedConfig.httpFilters[0].typedConfig.config.vmConfig"
)]
#[case::a_module_of_the_nodes_files(
    with_filter(
        "envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
        "dynamicModuleConfig: {name: m}"
    ),
    "[0].filterChains[0].filters[0].typedConfig.httpFilters[0].typedConfig.dynamicModuleConfig.name"
)]
#[case::a_socket_of_another_client(
    with_filter(
        "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "grpcService: {googleGrpc: {targetUri: 'unix:/run/xds.sock', statPrefix: s}}"
    ),
    "[0].filterChains[0].filters[0].typedConfig.httpFilters[0].typedConfig.grpcService.googleGrpc.targetUri"
)]
#[case::files_of_the_node(
    with_filter("envoy.extensions.filters.http.file_server.v3.FileServerConfig", ""),
    "[0].filterChains[0].filters[0].typedConfig.httpFilters[0].typedConfig"
)]
#[case::a_program_in_a_match(
    with_filter(
        "envoy.extensions.filters.http.fault.v3.HTTPFault",
        "headers: [{name: x, stringMatch: {custom: {name: l, typedConfig: {'@type': type.googleapis.com/envoy.extensions.string_matcher.lua.v3.Lua, sourceCode: {inlineString: 'x'}}}}}]"
    ),
    "[0].filterChains[0].filters[0].typedConfig.httpFilters[0].typedConfig.headers[0].stringMatch.custom.typedConfig"
)]
#[case::the_agents_cluster(
    with_filter(
        "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "grpcService: {envoyGrpc: {clusterName: nodeway-agent}}"
    ),
    "[0].filterChains[0].filters[0].typedConfig.httpFilters[0].typedConfig.grpcService.envoyGrpc.clusterName"
)]
#[case::an_address_out_of_metadata(format!("[{{{CLUSTER}, name: a/web, type: ORIGINAL_DST, lbPolicy: CLUSTER_PROVIDED, originalDstLbConfig: {{metadataKey: {{key: k, path: [{{key: a}}]}}}}}}]"), "[0].originalDstLbConfig.metadataKey")]
#[case::an_address_that_a_client_names(format!("[{{{CLUSTER}, name: a/web, type: ORIGINAL_DST, lbPolicy: CLUSTER_PROVIDED, originalDstLbConfig: {{useHttpHeader: true}}}}]"), "[0].originalDstLbConfig.useHttpHeader")]
fn a_config_that_reaches_beyond_its_namespace_is_left_out(
    #[case] resources: String,
    #[case] field: &str,
) {
    let (alone, both) = beside_b(&resources);
    assert_eq!(of_b(&both), of_b(&alone));
    let told: Vec<_> = both
        .problems
        .iter()
        .filter(|it| it.code == Code::BeyondNamespace)
        .collect();
    assert_eq!(told.len(), 1, "{:#?}", both.problems);
    assert_eq!(
        (told[0].object.name.as_str(), told[0].field.as_str()),
        ("evil", &*format!("spec.resources{field}"))
    );
}

/// The plan of one config of namespace `a` alone, with these annotations.
fn of_a(annotations: &str, resources: &str) -> NodePlan {
    let config = format!(
        "apiVersion: cilium.io/v2\nkind: CiliumEnvoyConfig\nmetadata: {{name: own, namespace: a, annotations: {{{annotations}}}}}\nspec:\n  resources: {resources}\n"
    );
    plan(
        &read(&[Text::new("a.yaml", config)]).unwrap(),
        "node-1",
        Ledger::default(),
    )
}

fn told(plan: &NodePlan) -> Vec<(Code, &str)> {
    plan.problems
        .iter()
        .map(|it| (it.code, it.field.as_str()))
        .collect()
}

#[rstest]
#[case::listeners(LISTENER, "name", "")]
#[case::routes(ROUTES, "name", "")]
#[case::clusters(CLUSTER, "name", "")]
#[case::endpoints(ASSIGNMENT, "clusterName", "")]
#[case::secrets(SECRET, "name", ", tlsCertificate: {}")]
fn two_resources_of_a_type_have_two_names(
    #[case] of: &str,
    #[case] field: &str,
    #[case] more: &str,
) {
    let both = |one: &str, other: &str| {
        of_a(
            "",
            &format!("[{{{of}, {field}: {one}{more}}}, {{{of}, {field}: {other}{more}}}]"),
        )
    };
    let twice = (
        Code::DuplicateResource,
        &*format!("spec.resources[1].{field}"),
    );
    let same = both("a/x", "a/x");
    assert!(told(&same).contains(&twice), "{:#?}", same.problems);
    let apart = both("a/x", "a/y");
    assert!(
        !told(&apart)
            .iter()
            .any(|(code, _)| *code == Code::DuplicateResource),
        "{:#?}",
        apart.problems
    );
}

#[test]
fn a_resource_without_a_name_is_told() {
    let plan = of_a("", &format!("[{{{CLUSTER}, type: STATIC}}]"));
    assert_eq!(
        told(&plan),
        [(Code::EnvoyResource, "spec.resources[0].name")]
    );
}

#[test]
fn a_list_in_the_place_of_a_resource_is_told_by_its_index() {
    let plan = of_a("", "[[{name: cilium.l7policy}]]");
    assert_eq!(
        told(&plan),
        [
            (Code::EnvoyResource, "spec.resources[0]"),
            (Code::Unsupported, "spec.resources[0][0]"),
        ]
    );
}

#[test]
fn endpoints_that_a_config_writes_itself_are_planned() {
    let plan = of_a(
        "",
        &format!(
            "[{{{ASSIGNMENT}, clusterName: 'a/web:80', endpoints: [{{lbEndpoints: [{{endpoint: {{address: {{socketAddress: {{address: 10.0.0.1, portValue: 80}}}}}}}}]}}]}}]"
        ),
    );
    let all = plan.endpoints["a/web:80"].endpoints.iter();
    let addresses: Vec<String> = all.map(|it| it.address.to_string()).collect();
    assert_eq!(addresses, ["10.0.0.1:80"], "{:#?}", plan.problems);
}

#[rstest]
#[case::asked_for("'true'", Some(Code::Unsupported))]
#[case::not_asked_for("'False'", None)]
#[case::neither("maybe", Some(Code::BadAnnotation))]
fn original_source_addresses_are_told_not_to_be_supported(
    #[case] value: &str,
    #[case] code: Option<Code>,
) {
    const FIELD: &str = "metadata.annotations[\"cec.cilium.io/use-original-source-address\"]";
    let plan = of_a(
        &format!("cec.cilium.io/use-original-source-address: {value}"),
        "[]",
    );
    let of_annotation = told(&plan).into_iter().filter(|(_, field)| *field == FIELD);
    assert_eq!(
        of_annotation.map(|(code, _)| code).collect::<Vec<_>>(),
        Vec::from_iter(code)
    );
}

#[test]
fn only_what_a_config_is_left_out_for_says_so() {
    let annotation = "cec.cilium.io/use-original-source-address: 'true'";
    let plan = of_a(annotation, &format!("[{{{CLUSTER}, type: STATIC}}]"));
    for problem in &plan.problems {
        let says_so = problem.reason.ends_with("; the whole config is left out");
        assert_eq!(says_so, problem.severity == Severity::Error, "{problem}");
    }
    assert_eq!(plan.problems.len(), 2);
}

#[rstest]
#[case::a_listener(format!("[{{{LISTENER}, name: b/web/web}}]"))]
#[case::routes(format!("[{{{ROUTES}, name: b/web/web}}]"))]
#[case::a_service(format!("[{{{LISTENER}, name: web}}]"))]
fn listeners_routes_and_services_of_a_config_are_its_own_namespaces(#[case] resources: String) {
    let (alone, both) = beside_b(&resources);
    assert_eq!(of_b(&both), of_b(&alone));
    let names = both.listeners.keys().chain(both.routes.keys());
    assert_eq!(
        names.filter(|it| it.starts_with("a/evil/")).count(),
        1,
        "{:#?}",
        both.problems
    );
}

#[test]
fn a_secret_by_its_copys_name_is_shown_by_its_own_namespace_and_by_cilium() {
    let [_, copy] = secret::names(&ObjectRef::new(Kind::Secret, "b", "tls"));
    for (namespace, shown) in [("a", false), ("b", true), ("kube-system", true)] {
        let text = format!(
            "{TWO}---\napiVersion: cilium.io/v2\nkind: CiliumEnvoyConfig\nmetadata: {{name: shows, namespace: {namespace}}}\nspec:\n  resources: {}\n",
            shows(&copy)
        );
        let objects = read(&[Text::new("b.yaml", text)]).unwrap();
        let secret = objects
            .iter()
            .find(|(it, _)| it.kind == Kind::Secret)
            .unwrap()
            .1
            .object
            .clone();
        let mut planner = Planner::with_objects(&objects, "node-1", Ledger::default());
        let is_shown = |planner: &Planner| planner.plan().secrets.contains_key(&copy);
        let is_told = |planner: &Planner| {
            planner
                .plan()
                .problems
                .iter()
                .any(|it| it.code == Code::BeyondNamespace)
        };
        assert_eq!(
            (is_shown(&planner), is_told(&planner)),
            (shown, !shown),
            "{namespace}"
        );
        // However it comes and goes. That there is none is told of the Ingress, not of its copy's name.
        planner.apply(Change::Delete(secret.reference()));
        assert!(!is_shown(&planner) && !is_told(&planner), "{namespace}");
        let mut problems = planner.plan().problems.iter();
        assert!(
            !problems.any(|it| it.code == Code::MissingSecret && it.object.name == "shows"),
            "{namespace}"
        );
        let delta = planner.apply(Change::Put(secret));
        assert_eq!(delta.secrets.contains_key(&copy), shown, "{namespace}");
        assert_eq!(
            (is_shown(&planner), is_told(&planner)),
            (shown, !shown),
            "{namespace}"
        );
    }
}

#[test]
fn who_is_clusterwide_may_define_what_is_anybodys() {
    let text = format!(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideEnvoyConfig\nmetadata: {{name: all}}\nspec:\n  resources: [{{{CLUSTER}, name: b/other, type: STATIC}}]\n"
    );
    let objects = read(&[Text::new("all.yaml", text)]).unwrap();
    let plan = plan(&objects, "node-1", Ledger::default());
    assert_eq!(
        (plan.clusters.len(), plan.problems.len()),
        (1, 0),
        "{:#?}",
        plan.problems
    );
}

#[test]
fn five_thousand_routes_and_a_megabyte_of_json_are_one_config_among_others() {
    let route = |n: u32| {
        format!(
            "{{\"match\": {{\"path\": \"/{n}/{}\"}}, \"route\": {{\"cluster\": \"b/web\"}}}}",
            "x".repeat(200)
        )
    };
    let routes: Vec<String> = (0..5000).map(route).collect();
    let routes = routes.join(",");
    assert!(routes.len() > 1_000_000);
    let (alone, both) = beside_b(&format!(
        "[{{{ROUTES}, name: r, virtualHosts: [{{name: v, domains: ['*'], routes: [{routes}]}}]}}]"
    ));
    assert_eq!(both.routes["a/evil/r"].model.clusters().count(), 5000);
    assert_eq!(of_b(&both), of_b(&alone));
}

#[rstest]
#[case::a_struct(|depth: usize| {
    format!("[{{{CLUSTER}, name: c, metadata: {{filterMetadata: {{x: {}1{}}}}}}}]", "{x: ".repeat(depth), "}".repeat(depth))
})]
#[case::a_message(|depth: usize| {
    let match_ = format!("{}{{any: true}}{}", "{notRule: ".repeat(depth), "}".repeat(depth));
    let rbac = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute";
    format!("[{{{ROUTES}, name: r, typedPerFilterConfig: {{rbac: {{'@type': {rbac}, rbac: {{rules: {{policies: {{p: {{permissions: [{match_}], principals: [{{any: true}}]}}}}}}}}}}}}}}]")
})]
fn what_is_nested_too_deep_is_an_error_and_no_stack_that_ends(
    #[case] nested: fn(usize) -> String,
    #[values(60, 200_000)] depth: usize,
) {
    let resources = nested(depth);
    let text = format!(
        "apiVersion: cilium.io/v2\nkind: CiliumEnvoyConfig\nmetadata: {{name: x}}\nspec: {{resources: {resources}}}\n"
    );
    let errors = read(&[Text::new("deep.yaml", text)]).unwrap_err();
    assert!(errors[0].to_string().contains("deep"), "{}", errors[0]);
}
