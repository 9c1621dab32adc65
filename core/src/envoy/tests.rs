use proptest::prelude::*;
use prost_reflect::DynamicMessage;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::object::{Kind, ObjectRef};

fn config() -> ObjectRef {
    ObjectRef::new(Kind::CiliumEnvoyConfig, "default", "cec")
}

fn with_type(name: &str, mut fields: Value) -> Value {
    fields["@type"] = json!(format!("type.googleapis.com/{name}"));
    fields
}

fn listener() -> Value {
    with_type(
        "envoy.config.listener.v3.Listener",
        json!({
            "name": "listener",
            "filterChains": [{"filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typedConfig": with_type(
                    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    json!({"statPrefix": "s", "rds": {"routeConfigName": "routes"}}),
                ),
            }]}],
        }),
    )
}

fn completed(value: &Value) -> Value {
    let resource = decode(value).unwrap();
    let done = complete(&config(), vec![resource]).remove(0);
    serde_json::to_value(&done.message).unwrap()
}

#[test]
fn the_descriptors_have_every_resource_kind() {
    for kind in ResourceKind::ALL {
        assert!(
            pool().get_message_by_name(kind.message_name()).is_some(),
            "{kind}"
        );
    }
}

#[rstest]
#[case::misspelt("/filterChains/0/filters/0/typedConfig/statPrefx", json!("s"), "filterChains[0].filters[0].typedConfig.statPrefx", "did you mean `statPrefix`?")]
#[case::unknown("/zebra", json!(1), "zebra", "it has name,")]
#[case::wrong_type("/name", json!(7), "name", "integer `7`")]
#[case::in_a_list("/filterChains/0/filters/0/name", json!([]), "filterChains[0].filters[0].name", "string")]
#[case::in_an_any("/filterChains/0/filters/0/typedConfig/statPrefix", json!({}), "filterChains[0].filters[0].typedConfig.statPrefix", "string")]
#[case::no_type("/filterChains/0/filters/0/typedConfig", json!({}), "filterChains[0].filters[0].typedConfig", "`@type` is missing")]
#[case::foreign("/filterChains/0/filters/0/typedConfig", json!({"@type": "type.googleapis.com/cilium.L7Policy"}), "filterChains[0].filters[0].typedConfig", "cilium.L7Policy")]
#[case::both_spellings("/filter_chains", json!([]), "filter_chains", "given twice")]
#[case::bad_enum("/trafficDirection", json!("SIDEWAYS"), "trafficDirection", "SIDEWAYS")]
fn a_mistake_is_named_by_its_path(
    #[case] at: &str,
    #[case] value: Value,
    #[case] path: &str,
    #[case] says: &str,
) {
    let mut listener = listener();
    let (parent, key) = at.rsplit_once('/').unwrap();
    listener.pointer_mut(parent).unwrap()[key] = value;
    let error = decode(&listener).unwrap_err();
    assert_eq!(error.path(), path, "{error}");
    assert!(error.to_string().contains(says), "{error}");
}

#[rstest]
#[case::nothing(json!(null), "expected an object")]
#[case::no_type(json!({"name": "x"}), "`@type` is missing")]
#[case::foreign(json!({"@type": "type.googleapis.com/cilium.NetworkPolicy"}), "is not known")]
#[case::no_resource(json!({"@type": "type.googleapis.com/envoy.config.route.v3.Route"}), "is no resource")]
fn what_is_no_resource_is_refused(#[case] value: Value, #[case] says: &str) {
    let error = decode(&value).unwrap_err().to_string();
    assert!(error.contains(says), "{error}");
}

#[test]
fn both_spellings_of_a_field_give_one_message() {
    let camel = with_type(
        "envoy.config.cluster.v3.Cluster",
        json!({"name": "c", "connectTimeout": "5s"}),
    );
    let snake = with_type(
        "envoy.config.cluster.v3.Cluster",
        json!({"name": "c", "connect_timeout": "5s"}),
    );
    assert_eq!(decode(&camel), decode(&snake));
}

#[test]
fn nesting_without_end_is_an_error() {
    let mut value = json!({});
    for _ in 0..500 {
        value = json!({"routes": [value]});
    }
    let value = with_type(
        "envoy.config.listener.v3.Listener",
        json!({"metadata": {"filterMetadata": {"x": value}}}),
    );
    assert!(matches!(decode(&value), Err(DecodeError::TooDeep { .. })));
}

#[test]
fn a_listener_and_its_route_reference_are_qualified_and_fetched() {
    let listener = completed(&listener());
    assert_eq!(listener["name"], "default/cec/listener");
    let manager = &listener["filterChains"][0]["filters"][0]["typedConfig"];
    assert_eq!(
        manager["rds"],
        json!({"routeConfigName": "default/cec/routes", "configSource": {"ads": {}, "resourceApiVersion": "V3"}}),
    );
}

#[rstest]
#[case::plain("web", "default/cec/web")]
#[case::of_a_service("default/details", "default/details")]
#[case::elsewhere("other/ns/x", "other/ns/x")]
fn a_cluster_name_is_the_same_where_it_is_defined_and_used(
    #[case] name: &str,
    #[case] qualified: &str,
) {
    let cluster = completed(&with_type(
        "envoy.config.cluster.v3.Cluster",
        json!({"name": name, "type": "EDS"}),
    ));
    assert_eq!(cluster["name"], qualified);
    assert_eq!(cluster["edsClusterConfig"]["edsConfig"]["ads"], json!({}));
    let routes = completed(&with_type(
        "envoy.config.route.v3.RouteConfiguration",
        json!({"name": "other/r", "virtualHosts": [{"name": "v", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": name, "requestMirrorPolicies": [{"cluster": name}]}},
            {"match": {"prefix": "/"}, "route": {"weightedClusters": {"clusters": [{"name": name, "weight": 1}]}}},
        ]}]}),
    ));
    assert_eq!(routes["name"], "default/cec/other/r");
    assert_eq!(routes["virtualHosts"][0]["name"], "default/cec/v");
    let routes = &routes["virtualHosts"][0]["routes"];
    assert_eq!(routes[0]["route"]["cluster"], qualified);
    assert_eq!(
        routes[0]["route"]["requestMirrorPolicies"][0]["cluster"],
        qualified
    );
    assert_eq!(
        routes[1]["route"]["weightedClusters"]["clusters"][0]["name"],
        qualified
    );
}

#[test]
fn a_health_check_names_clusters_as_routes_do() {
    let filter = json!({"name": "health", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck",
        "passThroughMode": false, "clusterMinHealthyPercentages": {"web": {"value": 50}, "a/b": {"value": 1}}}});
    let mut listener = listener();
    let manager = listener.pointer_mut("/filterChains/0/filters/0/typedConfig");
    manager.unwrap()["httpFilters"] = json!([filter]);
    let done = completed(&listener);
    let manager = &done["filterChains"][0]["filters"][0]["typedConfig"];
    let clusters = &manager["httpFilters"][0]["typedConfig"]["clusterMinHealthyPercentages"];
    let names: Vec<&String> = clusters.as_object().unwrap().keys().collect();
    assert_eq!(names, ["a/b", "default/cec/web"]);
}

#[test]
fn an_internal_listener_is_named_where_it_is_called() {
    let endpoint =
        json!({"endpoint": {"address": {"envoyInternalAddress": {"serverListenerName": "inner"}}}});
    let cluster = completed(&with_type(
        "envoy.config.cluster.v3.Cluster",
        json!({"name": "c", "loadAssignment": {"clusterName": "c", "endpoints": [{"lbEndpoints": [endpoint]}]}}),
    ));
    let address = cluster.pointer(
        "/loadAssignment/endpoints/0/lbEndpoints/0/endpoint/address/envoyInternalAddress/serverListenerName",
    );
    assert_eq!(address.unwrap(), "default/cec/inner");
}

#[test]
fn completing_twice_is_completing_once() {
    let once = complete(&config(), vec![decode(&listener()).unwrap()]);
    assert_eq!(complete(&config(), once.clone()), once);
}

#[test]
fn a_clusterwide_config_has_an_empty_namespace_in_its_names() {
    let config = ObjectRef::cluster(Kind::CiliumClusterwideEnvoyConfig, "ccec");
    let done = complete(&config, vec![decode(&listener()).unwrap()]);
    assert_eq!(done[0].name, "/ccec/listener");
}

#[test]
fn a_listener_without_an_address_is_bound_to_both_loopbacks() {
    let mut message = decode(&listener()).unwrap().message;
    assert!(bind(&mut message, 10_000));
    let json = serde_json::to_value(&message).unwrap();
    assert_eq!(
        json["address"],
        json!({"socketAddress": {"address": "127.0.0.1", "portValue": 10000}})
    );
    assert_eq!(
        json["additionalAddresses"][0]["address"]["socketAddress"]["address"],
        "::1"
    );
    assert_eq!(json["transparent"], true);
    assert_eq!(json["enableReusePort"], false);
    assert_eq!(
        json["listenerFilters"][0]["name"],
        "envoy.filters.listener.original_dst"
    );
    assert!(!bind(&mut message, 10_001), "an address stays");
}

#[rstest]
#[case::required(json!({"match": {}, "route": {"cluster": "c"}}), "match.path_specifier", "one of")]
#[case::no_match(json!({"route": {"cluster": "c"}}), "match", "is required")]
#[case::too_short(json!({"match": {"prefix": "/"}, "route": {"cluster": ""}}), "route.cluster", "must not be empty")]
#[case::pattern(json!({"match": {"pathSeparatedPrefix": "/a/"}, "route": {"cluster": "c"}}), "match.pathSeparatedPrefix", "does not match")]
#[case::range(json!({"match": {"prefix": "/"}, "directResponse": {"status": 99}}), "directResponse.status", "at least 200")]
#[case::control_character(json!({"match": {"prefix": "/"}, "route": {"cluster": "c", "prefixRewrite": "/\n"}}), "route.prefixRewrite", "does not match")]
fn a_rule_of_the_proto_is_held(#[case] route: Value, #[case] field: &str, #[case] says: &str) {
    let descriptor = pool()
        .get_message_by_name("envoy.config.route.v3.Route")
        .unwrap();
    let message = DynamicMessage::deserialize(descriptor, route).unwrap();
    let violation = validate(&message).unwrap_err();
    assert_eq!(violation.field, field, "{violation:?}");
    assert!(violation.reason.contains(says), "{violation:?}");
}

#[test]
fn what_is_set_and_not_read_is_left_over_by_its_path() {
    let message = decode(&listener()).unwrap().message;
    let unread = Unread::default();
    {
        let fields = Fields::new(&message, "", &unread);
        assert_eq!(fields.text("name"), "listener");
        for chain in fields.messages("filter_chains") {
            for filter in chain.messages("filters") {
                let manager = filter.any("typed_config").unwrap();
                assert_eq!(manager.text("stat_prefix"), "s");
            }
        }
    }
    assert_eq!(
        unread.paths(),
        [
            "filterChains[0].filters[0].name",
            "filterChains[0].filters[0].typedConfig.rds"
        ]
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z/*.0-9-]{0,8}".prop_map(Value::from),
        Just(json!("9999999999999999999s")),
        Just(json!("type.googleapis.com/google.protobuf.Duration")),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let key = prop_oneof![
            Just("@type"),
            Just("name"),
            Just("value"),
            Just("typedConfig"),
            Just("match")
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.prop_map(str::to_owned), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Puts `new` at the `at`th place of a value, counted depth first.
fn mangle(value: &mut Value, at: &mut usize, new: &Value) {
    if *at == 0 {
        *value = new.clone();
    }
    *at = at.wrapping_sub(1);
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| mangle(item, at, new)),
        Value::Object(map) => map.values_mut().for_each(|item| mangle(item, at, new)),
        _ => {}
    }
}

proptest! {
    #[test]
    fn no_json_makes_decoding_panic(at in 0_usize..24, new in any_json()) {
        let mut value = listener();
        mangle(&mut value, &mut { at }, &new);
        if let Ok(resource) = decode(&value) {
            let done = complete(&config(), vec![resource]);
            let _ = validate(&done[0].message);
        }
    }
}
