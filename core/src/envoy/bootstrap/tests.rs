use std::collections::BTreeSet;

use rstest::rstest;

use super::*;
use crate::derive::{DeriveOptions, derive};
use crate::envoy::decode::decode_message;
use crate::envoy::{pool, validate};
use crate::plan::{Ledger, plan};
use crate::proxy::RouteAction;
use crate::source::{Text, read};

const SHOP: &str = include_str!("../../plan/shop.yaml");
const LISTENER: &str = "default/shop/web";

fn planned(edit: impl Fn(&str) -> String) -> NodePlan {
    let objects = read(&[Text::new("shop.yaml", edit(SHOP))]).unwrap();
    let objects = derive(objects, &DeriveOptions::default());
    plan(&objects, "node-1", Ledger::default())
}

fn settings(placement: Placement) -> Settings {
    Settings {
        node: "node-1".to_owned(),
        admin: "admin.sock".to_owned(),
        access_log: Some("access.log".to_owned()),
        placement,
    }
}

fn made(edit: impl Fn(&str) -> String) -> Bootstrap {
    bootstrap(&planned(edit), &settings(Placement::Node))
}

/// A resource of a bootstrap.
fn resource<'a>(made: &'a Bootstrap, kind: &str, name: &str) -> &'a Value {
    let all = made.json["staticResources"][kind].as_array().unwrap();
    let found = all.iter().find(|it| it["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name} in {all:#?}"))
}

#[test]
fn a_small_shop_becomes_a_whole_bootstrap() {
    insta::assert_json_snapshot!(made(str::to_owned).json);
}

#[rstest]
fn it_is_an_envoys_own_message(
    #[values(Placement::Node, Placement::Sidecar)] placement: Placement,
) {
    let made = bootstrap(&planned(str::to_owned), &settings(placement));
    let message = pool().get_message_by_name("envoy.config.bootstrap.v3.Bootstrap");
    let message = decode_message(message.unwrap(), &made.json).unwrap();
    validate(&message).unwrap();
}

#[test]
fn a_listener_has_a_socket_on_each_loopback_address() {
    let made = made(str::to_owned);
    let port = planned(str::to_owned).listeners[LISTENER].port;
    let sockets = [format!("127.0.0.1:{port}"), format!("[::1]:{port}")];
    assert_eq!(made.sockets, sockets.map(|it| it.parse().unwrap()));
}

#[test]
fn a_pods_listeners_are_found_by_the_addresses_of_their_frontends() {
    let plan = planned(str::to_owned);
    let made = bootstrap(&plan, &settings(Placement::Sidecar));
    let listener = resource(&made, "listeners", LISTENER);
    let additional = listener["additionalAddresses"].as_array().unwrap().iter();
    let all = additional
        .map(|it| &it["address"])
        .chain([&listener["address"]]);
    let mut found: Vec<Value> = all.cloned().collect();
    let keys = plan.frontends.keys();
    let mut wanted: Vec<Value> = keys
        .map(|key| address(SocketAddr::new(key.address, key.port)))
        .collect();
    found.sort_by_key(Value::to_string);
    wanted.sort_by_key(Value::to_string);
    assert!(!wanted.is_empty());
    assert_eq!(found, wanted);
    assert_eq!(listener["bindToPort"], false);
    let sockets = ["0.0.0.0:15001", "[::]:15001", "0.0.0.0:15006", "[::]:15006"];
    assert_eq!(made.sockets, sockets.map(|it| it.parse().unwrap()));
}

#[test]
fn a_service_without_endpoints_has_an_empty_assignment() {
    let made = made(|shop| shop.replace("{app: reviews}, ports", "{app: nobody}, ports"));
    let cluster = resource(&made, "clusters", "default/shop/default:reviews:9080");
    assert_eq!(cluster["type"], "STATIC");
    assert_eq!(
        cluster["loadAssignment"]["clusterName"],
        "default/reviews:9080"
    );
    assert_eq!(cluster["loadAssignment"]["endpoints"], json!([]));
}

#[test]
fn routes_that_are_missing_are_a_table_without_hosts() {
    let made = made(|shop| shop.replace("routeConfigName: web", "routeConfigName: gone"));
    let listener = resource(&made, "listeners", LISTENER);
    let manager = &listener["filterChains"][0]["filters"][0]["typedConfig"];
    let wanted = json!({"name": "default/shop/gone", "validateClusters": false});
    assert_eq!(manager["routeConfig"], wanted);
    assert_eq!(manager.get("rds"), None);
}

#[test]
fn a_fetched_listener_and_its_routes_are_logged_as_written_ones_are() {
    let plan = planned(str::to_owned);
    let (name, planned) = plan.listeners.first_key_value().unwrap();
    let fetched = as_json(&logged_listener(name, &planned.message, "/log")).unwrap();
    let settings = Settings {
        access_log: Some("/log".to_owned()),
        ..settings(Placement::Node)
    };
    let written = bootstrap(&plan, &settings);
    let written = resource(&written, "listeners", name);
    assert_eq!(fetched["accessLog"], written["accessLog"]);
    let manager = "/filterChains/0/filters/0/typedConfig";
    let (fetched, written) = (fetched.pointer(manager), written.pointer(manager));
    // Once decoded, a number in a log's format is a floating one.
    let log = |manager: Option<&Value>| manager.unwrap()["accessLog"].to_string();
    assert_eq!(log(fetched).replace("0.0", "0"), log(written));
    let routes = &plan.routes.values().next().unwrap().message;
    let routes = as_json(&logged_routes(routes)).unwrap();
    let hosts = &written.unwrap()["routeConfig"]["virtualHosts"];
    assert_eq!(routes["virtualHosts"], *hosts);
}

#[test]
fn an_envoy_that_is_told_knows_its_agent_and_nothing_else() {
    let made = told(&settings(Placement::Node), "../../xds.sock");
    insta::assert_json_snapshot!(made.json);
    assert_eq!(made.sockets, []);
}

#[test]
fn without_a_log_nothing_is_logged() {
    let quiet = Settings {
        access_log: None,
        ..settings(Placement::Node)
    };
    let made = bootstrap(&planned(str::to_owned), &quiet);
    assert!(!made.json.to_string().contains("accessLog"));
}

const LINE: &str = r#"{"kind":"request","listener":"default/shop/web","filter_chain":0,"way":"w-1","request_id":"6c","method":"GET","authority":"shop","path":"/details","route":"0/0","route_name":null,"cluster":"default/details","endpoint":"10.0.0.2:9080","upstream_source":"10.0.0.9:40000","peer":"[fd00::1]:40001","destination":"[::1]:80","status":200,"details":"via_upstream","flags":"-","server_name":null,"took_ms":3}"#;

#[test]
fn a_line_leads_back_to_the_route_of_the_plan() {
    let plan = planned(str::to_owned);
    let entry = AccessEntry::parse(LINE).unwrap();
    let matched = entry.matched(&plan).unwrap();
    assert_eq!(&*matched.route.matches.description, "prefix /details");
    assert!(matches!(&matched.route.action, RouteAction::Forward(_)));
    assert_eq!(&*matched.virtual_host.name, "default/shop/all");
    assert_eq!(entry.peer, "[fd00::1]:40001".parse().unwrap());
    assert_eq!(entry.flags, [""; 0]);
}

#[rstest]
#[case::no_route("\"0/0\"", "null")]
#[case::no_such_host("\"0/0\"", "\"7/0\"")]
#[case::no_such_route("\"0/0\"", "\"0/7\"")]
#[case::no_such_chain("\"filter_chain\":0", "\"filter_chain\":5")]
#[case::the_default_chain("\"filter_chain\":0", "\"filter_chain\":null")]
#[case::no_such_listener("shop/web", "shop/gone")]
#[case::a_connection_that_no_chain_took("\"request\"", "\"refused\"")]
fn a_line_that_names_nothing_of_the_plan_leads_nowhere(#[case] what: &str, #[case] with: &str) {
    let entry = AccessEntry::parse(&LINE.replace(what, with)).unwrap();
    assert_eq!(entry.matched(&planned(str::to_owned)), None);
}

#[rstest]
#[case::flags("\"-\"", "\"UH,NC\"", &["UH", "NC"])]
#[case::none("\"-\"", "null", &[])]
fn flags_are_a_list(#[case] what: &str, #[case] with: &str, #[case] flags: &[&str]) {
    assert_eq!(
        AccessEntry::parse(&LINE.replace(what, with)).unwrap().flags,
        flags
    );
}

#[rstest]
#[case::cut_off("}", "")]
#[case::no_place("\"0/0\"", "\"0\"")]
#[case::another_kind("\"request\"", "\"tale\"")]
fn what_is_no_line_is_an_error_that_shows_it(#[case] what: &str, #[case] with: &str) {
    let line = LINE.replace(what, with);
    let error = AccessEntry::parse(&line).unwrap_err();
    assert!(error.to_string().contains(&line));
}

#[test]
fn what_changes_of_a_pods_envoy_stands_in_two_files() {
    let whole = bootstrap(&planned(str::to_owned), &settings(Placement::Sidecar));
    let files = whole.clone().in_files("clusters.json", "listeners.json");
    let names = |all: &Value| -> Vec<String> {
        let all = all.as_array().into_iter().flatten();
        all.map(|it| text(it, "name").to_owned()).collect()
    };
    let resources = &whole.json["staticResources"];
    assert_eq!(
        names(&files.listeners["resources"]),
        names(&resources["listeners"])
    );
    let stay = names(&files.json["staticResources"]["clusters"]);
    assert_eq!(stay, [NOBODY]);
    let both = [names(&files.clusters["resources"]), stay].concat();
    let (both, all) = (
        BTreeSet::from_iter(both),
        BTreeSet::from_iter(names(&resources["clusters"])),
    );
    assert_eq!(both, all);
}

#[test]
fn a_bootstrap_with_files_and_all_that_they_hold_are_envoys_own_messages() {
    let whole = bootstrap(&planned(str::to_owned), &settings(Placement::Sidecar));
    let files = whole.in_files("clusters.json", "listeners.json");
    let is_one = |name: &str, value: &Value| {
        let message = decode_message(pool().get_message_by_name(name).unwrap(), value).unwrap();
        validate(&message).unwrap();
    };
    is_one("envoy.config.bootstrap.v3.Bootstrap", &files.json);
    for (file, kind) in [
        (&files.clusters, "envoy.config.cluster.v3.Cluster"),
        (&files.listeners, "envoy.config.listener.v3.Listener"),
    ] {
        for resource in file["resources"].as_array().unwrap() {
            assert_eq!(resource["@type"], format!("type.googleapis.com/{kind}"));
            let mut bare = resource.clone();
            bare.as_object_mut().unwrap().remove("@type");
            is_one(kind, &bare);
        }
    }
}
