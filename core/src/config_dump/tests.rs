use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::source::{Fault, SourceError, Text};

fn parse(configs: &Value) -> Result<ConfigDump, Box<SourceError>> {
    let text = json!({ "configs": configs }).to_string();
    read(&Text::new("config_dump.json", text))
}

fn listener(name: &str, address: &str, port: u16) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": name,
        "address": {"socket_address": {"address": address, "port_value": port}},
        "filter_chains": [{"filters": [{
            "name": "tcp",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "tcp", "cluster": "c",
            },
        }]}],
    })
}

fn listeners(all: &[Value]) -> Value {
    let entries: Vec<Value> = all
        .iter()
        .map(|one| json!({"name": one["name"], "active_state": {"listener": one}}))
        .collect();
    json!({
        "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
        "dynamic_listeners": entries,
    })
}

fn clusters(all: &[Value]) -> Value {
    let entries: Vec<Value> = all.iter().map(|one| json!({"cluster": one})).collect();
    json!({
        "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
        "dynamic_active_clusters": entries,
    })
}

fn cluster(fields: Value) -> Value {
    let mut all = json!({
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": "c",
    });
    if let (Some(all), Value::Object(fields)) = (all.as_object_mut(), fields) {
        all.extend(fields);
    }
    all
}

fn assignment(name: &str, address: &str) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": name,
        // As Envoy writes a locality that nobody gave a name or a weight.
        "endpoints": [{
            "locality": {},
            "lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": address, "port_value": 80}}}}],
            "load_balancing_weight": 0,
        }],
    })
}

fn endpoints(assignment: &Value) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump",
        "dynamic_endpoint_configs": [{"endpoint_config": assignment}],
    })
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[rstest]
#[case::of_an_admin_endpoint(
    "{\n \"configs\": [\n  {\n   \"@type\": \"type.googleapis.com/envoy.admin.v3.BootstrapConfigDump\"",
    true
)]
#[case::with_a_mark("\u{feff}{\"configs\":[{\"@type\":\"envoy.admin.v3.X\"", true)]
#[case::a_list("{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": []}", false)]
#[case::a_manifest("apiVersion: v1\nkind: Service\n", false)]
#[case::nothing("", false)]
fn a_dump_is_told_from_manifests(#[case] content: &str, #[case] want: bool) {
    assert_eq!(ConfigDump::is_one(content), want);
}

#[test]
fn static_and_dynamic_listeners_are_read_and_so_are_names_of_json() {
    let dump = json!([
        {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
         "staticListeners": [{"listener": listener("", "127.0.0.1", 80)}]},
        listeners(&[listener("b", "0.0.0.0", 8080)]),
    ]);
    let dump = parse(&dump).unwrap();
    let all: Vec<&str> = dump.listens.keys().map(|name| &**name).collect();
    assert_eq!(all, ["127.0.0.1:80", "b"]);
}

#[test]
fn a_version_that_envoy_refused_is_named_and_the_one_before_serves() {
    let mut all = listeners(&[listener("b", "0.0.0.0", 8080)]);
    all["dynamic_listeners"][0]["error_state"] = json!({"details": "duplicate address"});
    let dump = parse(&json!([all])).unwrap();
    assert_eq!(
        dump.notes,
        ["error_state of b: Envoy refused its newest version: duplicate address"]
    );
    assert_eq!(dump.listens.len(), 1);
}

#[test]
fn a_listener_that_only_warms_serves_nobody() {
    let mut all = listeners(&[listener("a", "0.0.0.0", 80), listener("b", "0.0.0.0", 8080)]);
    let entry = &mut all["dynamic_listeners"][1];
    entry["warming_state"] = entry["active_state"].take();
    let dump = parse(&json!([all])).unwrap();
    assert_eq!(
        dump.notes,
        ["listener b is still warming: it takes no connection"]
    );
    assert!(!dump.listens.contains_key("b"));
}

#[test]
fn endpoints_come_from_the_dump_of_eds_by_service_name() {
    let eds = cluster(
        json!({"type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}, "service_name": "svc"}}),
    );
    let dump = parse(&json!([
        clusters(&[eds]),
        endpoints(&assignment("svc", "10.0.0.7")),
        listeners(&[listener("a", "0.0.0.0", 80)]),
    ]))
    .unwrap();
    assert_eq!(dump.endpoints()[&at("10.0.0.7:80")], ["c"]);
    assert!(dump.has_endpoints);
}

#[rstest]
#[case::only_the_name(false, "198.18.0.1:80")]
#[case::resolved_in_the_dump(true, "10.0.0.7:80")]
fn a_host_name_has_the_address_that_was_dumped_or_one_that_stands_for_it(
    #[case] dumped: bool,
    #[case] want: &str,
) {
    let mut inline = assignment("c", "shop.internal");
    inline.as_object_mut().unwrap().remove("@type");
    let dns = cluster(json!({"type": "STRICT_DNS", "load_assignment": inline}));
    let mut all = vec![clusters(&[dns]), listeners(&[listener("a", "0.0.0.0", 80)])];
    if dumped {
        all.push(endpoints(&assignment("c", "10.0.0.7")));
    }
    let dump = parse(&all.into()).unwrap();
    let found: Vec<SocketAddr> = dump.endpoints().into_keys().collect();
    assert_eq!(found, [at(want)]);
    assert_eq!(dump.looked_up.is_empty(), dumped, "{:?}", dump.looked_up);
}

#[test]
fn what_only_another_envoy_knows_is_taken_out_by_its_path() {
    let mut one = listener("a", "0.0.0.0", 80);
    one["a_field_of_next_year"] = json!({"x": 1});
    one["filter_chains"][0]["filters"][0]["next.year"] = json!(1);
    let own = json!({"name": "own", "typed_config": {"@type": "type.googleapis.com/company.Filter", "x": 1}});
    one["listener_filters"] = json!([own]);
    let dump = parse(&json!([listeners(&[one])])).unwrap();
    assert_eq!(dump.notes, Vec::<String>::new());
    assert_eq!(
        dump.left_out_of("listener", "a"),
        [
            "listener_filters[0].typed_config (company.Filter)",
            "a_field_of_next_year",
            "filter_chains[0].filters[0].next.year",
        ]
    );
}

#[test]
fn a_resource_that_cannot_be_read_is_left_out_and_named() {
    let bad = cluster(json!({"type": "STATIC", "connect_timeout": "soon"}));
    let dump = parse(&json!([
        clusters(&[bad]),
        listeners(&[listener("a", "0.0.0.0", 80)])
    ]))
    .unwrap();
    assert_eq!(dump.notes.len(), 1);
    assert!(
        dump.notes[0].starts_with("Cluster c is not simulated"),
        "{:?}",
        dump.notes
    );
    assert!(dump.plan.clusters.is_empty());
}

#[rstest]
#[case::cut_off("{\"configs\": [{\"@type\": \"x\"", Fault::Syntax, "cut off")]
#[case::no_listener(
    "{\"configs\": [{\"@type\": \"x\"}]}",
    Fault::MissingField,
    "include_eds"
)]
#[case::configs_of_another_shape("{\"configs\": 1}", Fault::MissingField, "include_eds")]
fn a_dump_without_a_listener_is_an_error(
    #[case] content: &str,
    #[case] fault: Fault,
    #[case] fix: &str,
) {
    let error = read(&Text::new("d.json", content)).unwrap_err();
    assert_eq!(error.fault, fault);
    assert!(error.fix.contains(fix), "{error}");
}

/// Which listener each address leads to.
fn led(all: &[Value], reached: &str) -> BTreeMap<String, String> {
    let dump = parse(&json!([listeners(all)])).unwrap();
    let own: IpAddr = "192.0.2.1".parse().unwrap();
    let plan = dump.serve(&[own], &[reached.parse().unwrap()]);
    plan.frontends
        .iter()
        .map(|(key, frontend)| (key.to_string(), frontend.listener.to_string()))
        .collect()
}

#[test]
fn a_listener_on_the_very_address_comes_before_one_on_all() {
    let led = led(
        &[
            listener("all", "0.0.0.0", 80),
            listener("one", "10.0.0.1", 80),
            listener("six", "::", 443),
        ],
        "10.0.0.1",
    );
    assert_eq!(led["10.0.0.1:80"], "one");
    assert_eq!(led["192.0.2.1:80"], "all");
    assert_eq!(led["192.0.2.1:443"], "six");
}

#[test]
fn a_name_leads_to_the_only_listener_of_a_port_wherever_it_listens() {
    let led = led(
        &[
            listener("loopback", "127.0.0.1", 81),
            listener("one", "10.0.0.1", 82),
            listener("two", "10.0.0.2", 82),
        ],
        "10.9.9.9",
    );
    assert_eq!(led["192.0.2.1:81"], "loopback");
    assert!(!led.contains_key("192.0.2.1:82"), "it would be a guess");
}

#[test]
fn each_listener_has_a_port_of_its_own() {
    let dump = parse(&json!([listeners(&[
        listener("a", "0.0.0.0", 80),
        listener("b", "10.0.0.1", 80),
    ])]))
    .unwrap();
    let plan = dump.serve(&[], &[]);
    let ports: Vec<u16> = plan.listeners.values().map(|it| it.port).collect();
    assert!(ports[0] != ports[1] && ports.iter().all(|port| *port >= 61_000));
}

proptest::proptest! {
    #[test]
    fn no_mangled_dump_makes_the_reader_panic(cut in 0_usize..2_000, len in 0_usize..30, put in "[-{}\\[\\]:,\"0-9a-z_]{0,8}") {
        let eds = cluster(json!({"type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}}}));
        let all = json!([clusters(&[eds]), endpoints(&assignment("c", "10.0.0.7")), listeners(&[listener("a", "0.0.0.0", 80)])]);
        let text = json!({ "configs": all }).to_string();
        let cut = cut.min(text.len());
        let end = (cut + len).min(text.len());
        let mangled = format!("{}{put}{}", &text[..cut], &text[end..]);
        if let Ok(dump) = read(&Text::new("d.json", mangled)) {
            let _ = dump.serve(&[], &[]);
        }
    }
}
