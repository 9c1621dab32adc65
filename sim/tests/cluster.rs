//! The test library as a user of it sees it: bodies that would run on a real cluster as well.

use nodeway_core::datapath::{Flow, Hook, Reason, Verdict};
use nodeway_sim::{
    Ask, AskError, Cause, Cluster, Datapath, Failure, Family, Fixture, NodeKernel, NodewayDatapath,
    Redirect, Sim, SimSocket, Source,
};
use rstest::rstest;

const BOOKINFO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/bookinfo");
const DETAILS: &str = "http://cilium-ingress-basic-ingress/details/0";

fn bookinfo(redirect: Redirect) -> Sim {
    Sim::load(BOOKINFO)
        .unwrap()
        .redirect(redirect)
        .seed(7)
        .start()
        .unwrap()
}

#[rstest]
fn a_request_of_a_pod_goes_through_its_own_nodes_envoy(
    #[values(
        Redirect::Tc,
        Redirect::SkLookup,
        Redirect::Iptables,
        Redirect::Sidecar
    )]
    redirect: Redirect,
) {
    let backend_sees = match redirect {
        Redirect::Sidecar => "Pod default/details-v1-1",
        _ => "Node node-1",
    };
    check(&mut bookinfo(redirect), backend_sees);

    fn check(cluster: &mut impl Cluster, backend_sees: &str) {
        let reply = cluster.get("default/client", DETAILS).unwrap();
        assert_eq!(reply.status, 200);
        assert_eq!(reply.service, "details");
        assert_eq!(reply.pod, "default/details-v1-1");
        assert_eq!(
            reply.client_saw.unwrap(),
            "Service default/cilium-ingress-basic-ingress:80"
        );
        assert_eq!(reply.proxy_saw.unwrap(), "Pod default/client");
        assert_eq!(
            reply.proxy_destination.unwrap(),
            "Service default/cilium-ingress-basic-ingress:80"
        );
        assert_eq!(reply.backend_saw.unwrap(), backend_sees);
        assert_eq!(reply.body["saw"]["headers"]["x-forwarded-proto"], "http");
    }
}

#[rstest]
fn a_crashed_envoy_fails_on_its_own_node_only_and_serves_when_it_is_back(
    #[values(Redirect::Tc, Redirect::SkLookup, Redirect::Iptables)] redirect: Redirect,
    #[values("default/client", "node/node-1")] from: &str,
) {
    check(&mut bookinfo(redirect), from, redirect.without_listener());

    fn check(cluster: &mut impl Cluster, from: &str, ends: Failure) {
        assert_eq!(cluster.get(from, DETAILS).unwrap().status, 200);
        cluster.crash_proxy("node-2").unwrap();
        assert_eq!(cluster.get(from, DETAILS).unwrap().status, 200);
        cluster.crash_proxy("node-1").unwrap();
        let failed = cluster.get(from, DETAILS).unwrap_err();
        assert_eq!(failed.failure, ends);
        assert_eq!(failed.proxy_node.as_deref(), Some("node-1"));
        let told = failed.to_string();
        assert!(
            told.contains("basic-ingress"),
            "the whole way is told:\n{told}"
        );
        assert!(
            told.contains("--seed 7"),
            "and how to see it again:\n{told}"
        );
        // What is not redirected does not need it.
        let reply = cluster
            .get(from, "http://productpage:9080/productpage")
            .unwrap();
        assert_eq!(reply.service, "productpage");
        cluster.restart_proxy("node-1").unwrap();
        assert_eq!(cluster.get(from, DETAILS).unwrap().status, 200);
    }
}

#[rstest]
fn both_families_go_the_same_way(
    #[values(
        Redirect::Tc,
        Redirect::SkLookup,
        Redirect::Iptables,
        Redirect::Sidecar
    )]
    redirect: Redirect,
    #[values("default/client", "node/node-1", "outside")] from: &str,
) {
    if redirect == Redirect::Sidecar && from != "default/client" {
        return;
    }
    let fixture = Fixture {
        dual_stack: true,
        ..Fixture::load(BOOKINFO).unwrap()
    };
    let builder = Sim::from_fixture(&fixture).unwrap();
    let mut cluster = builder.redirect(redirect).start().unwrap();
    let mut ask = |family| {
        cluster
            .request(from, Ask::get(DETAILS).family(family))
            .unwrap()
    };
    let (four, six) = (ask(Family::Ipv4), ask(Family::Ipv6));
    assert!(four.client_saw.clone().unwrap().address.is_ipv4());
    assert!(six.client_saw.clone().unwrap().address.is_ipv6());
    assert!(six.proxy_saw.clone().unwrap().address.is_ipv6());
    let names = |reply: &nodeway_sim::Reply| {
        let seen = [&reply.client_saw, &reply.proxy_saw];
        (
            reply.status,
            reply.service.to_string(),
            reply.listener.clone(),
            reply.route.clone(),
            seen.map(|seen| seen.as_ref().unwrap().name.clone()),
        )
    };
    assert_eq!(names(&four), names(&six));
}

#[rstest]
fn an_address_is_asked_as_it_stands(
    #[values(
        Redirect::Tc,
        Redirect::SkLookup,
        Redirect::Iptables,
        Redirect::Sidecar
    )]
    redirect: Redirect,
) {
    let mut cluster = bookinfo(redirect);
    let seen = cluster
        .get("default/client", DETAILS)
        .unwrap()
        .client_saw
        .unwrap();
    let url = format!("http://{}/details/0", seen.address);
    assert_eq!(
        cluster.get("default/client", &url).unwrap().service,
        "details"
    );
}

#[rstest]
fn a_node_port_leads_to_the_listener_of_the_node_that_is_asked(
    #[values(Redirect::Tc, Redirect::SkLookup, Redirect::Iptables)] redirect: Redirect,
) {
    let mut cluster = bookinfo(redirect);
    let service = cluster
        .objects()
        .service("default", "cilium-ingress-basic-ingress")
        .unwrap();
    let ports = service.spec.as_ref().unwrap().ports.as_ref().unwrap();
    let port = ports
        .iter()
        .find(|port| port.port == 80)
        .unwrap()
        .node_port
        .unwrap();
    for node in ["node-1", "node-2"] {
        let url = format!("http://{node}:{port}/details/0");
        let reply = cluster.get("outside", &url).unwrap();
        assert_eq!(reply.service, "details");
        assert_eq!(reply.proxy_node.as_deref(), Some(node));
    }
}

#[rstest]
#[case::misspelt("http://detials:9080/", "details")]
#[case::elsewhere("http://details.other:9080/", "details")]
fn an_unknown_name_fails_at_once_and_says_what_is_close(#[case] url: &str, #[case] close: &str) {
    let failed = bookinfo(Redirect::Tc)
        .get("default/client", url)
        .unwrap_err();
    assert_eq!(failed.failure, Failure::UnknownName);
    assert!(failed.to_string().contains(close), "{failed}");
}

#[test]
fn a_port_that_nobody_has_is_refused_or_silent_but_ends() {
    let mut cluster = bookinfo(Redirect::Tc);
    let reply = cluster
        .get("default/client", "http://productpage:9080/")
        .unwrap();
    let endpoint = reply.endpoint.unwrap();
    let by_address = cluster
        .get("default/client", &format!("http://{endpoint}/"))
        .unwrap();
    assert_eq!(by_address.pod, "default/productpage-v1-1");
    let pod = endpoint.ip();
    let failed = cluster
        .get("default/client", &format!("http://{pod}:1/"))
        .unwrap_err();
    assert_eq!(failed.failure, Failure::ConnectionRefused);
}

#[test]
fn what_cannot_be_asked_says_why() {
    let mut cluster = bookinfo(Redirect::Tc);
    let cause = |failed: Box<nodeway_sim::Failed>| failed.failure;
    let nobody = cluster.get("default/clinet", DETAILS).unwrap_err();
    assert!(matches!(
        cause(nobody),
        Cause::Ask(AskError::UnknownClient { .. })
    ));
    let no_url = cluster.get("default/client", "details").unwrap_err();
    assert!(matches!(cause(no_url), Cause::Ask(AskError::Url { .. })));
    let error = cluster.crash_proxy("node-9").unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no node `node-9`; there is `node-1`, `node-2`"
    );
}

#[test]
fn a_body_goes_both_ways_through_the_proxy() {
    let mut cluster = Sim::load(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../fixtures/path-types"
    ))
    .unwrap()
    .start()
    .unwrap();
    // Longer than all buffers on the way together.
    let ask = Ask::get("http://cilium-ingress-paths/exact?bytes=1000000")
        .method("POST")
        .body(vec![b'x'; 1_000_000]);
    let reply = cluster.request("default/client", ask).unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.body["saw"]["body_bytes"], 1_000_000);
    assert_eq!(reply.body["padding"].as_str().unwrap().len(), 1_000_000);
}

#[test]
fn manifests_alone_are_a_cluster_too() {
    let folder = format!("{BOOKINFO}/manifests");
    let source = Source::load(&[folder.into()], None).unwrap();
    let mut cluster = Sim::from_objects(source.objects().unwrap())
        .start()
        .unwrap();
    assert_eq!(
        cluster.get("default/client", DETAILS).unwrap().service,
        "details"
    );
}

/// A decision that somebody puts under test: it never redirects anything.
struct Never(NodewayDatapath);

impl Datapath for Never {
    fn parse(&self, bytes: &[u8]) -> Result<Flow, Reason> {
        self.0.parse(bytes)
    }

    fn decide(&self, _: &Flow, _: Hook, _: &NodeKernel<'_>) -> Verdict<SimSocket> {
        Verdict::Pass(Reason::NotAFrontend)
    }
}

#[test]
fn another_datapath_can_be_put_under_test() {
    let fixture = Fixture::load(BOOKINFO).unwrap();
    let mut cluster = Sim::from_fixture(&fixture)
        .unwrap()
        .with_datapath(Box::new(Never(NodewayDatapath)))
        .start()
        .unwrap();
    // The rules beside the hook leave a frontend's packets to it, so that nobody else answers.
    let failed = cluster.get("default/client", DETAILS).unwrap_err();
    assert_eq!(failed.failure, Failure::ConnectionRefused);
    let reply = cluster
        .get("default/client", "http://details:9080/details/0")
        .unwrap();
    assert_eq!(reply.service, "details");
}

#[test]
fn a_failing_test_tells_how_its_last_request_went_and_how_to_see_it_again() {
    const ON_PURPOSE: &str = "NODEWAY_TEST_FAILS_ON_PURPOSE";
    if std::env::var_os(ON_PURPOSE).is_some() {
        let mut cluster = bookinfo(Redirect::Tc);
        let reply = cluster.get("default/client", DETAILS).unwrap();
        assert_eq!(reply.status, 500);
    }
    let name = "cluster::a_failing_test_tells_how_its_last_request_went_and_how_to_see_it_again";
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(ON_PURPOSE, "1")
        .output()
        .unwrap();
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let wanted = [
        "path_separated_prefix /details",
        "default/details-v1-1",
        "replay: nodeway explain",
        "--from default/client",
        "--redirect tc --seed 7",
    ];
    for wanted in wanted {
        assert!(told.contains(wanted), "{wanted} is told:\n{told}");
    }
}
