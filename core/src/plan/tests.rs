use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::derive::{DeriveOptions, derive};
use crate::object::{Change, Kind, Object};
use crate::problem::Code;
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

    planner.apply(Change::Delete(secret("web", good).reference()));
    assert_eq!(codes(&planner), [Code::MissingSecret]);
    assert!(planner.plan().secrets.is_empty());
}

#[test]
fn a_secret_that_no_listener_names_is_not_planned() {
    let objects = read(&[Text::new("tls.yaml", TLS)]).unwrap();
    let mut planner = Planner::with_objects(&objects, "node-1", Ledger::default());
    let delta = planner.apply(Change::Put(secret("other", "")));
    assert_eq!(delta, PlanDelta::default());
}
