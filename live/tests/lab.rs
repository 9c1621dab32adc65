//! One test body, two clusters: the simulator, and network namespaces with the kernel and a real
//! Envoy. Needs root, iproute2, iptables, ipset, and Envoy in `$ENVOY` or on `PATH`: `ci/setup` gets
//! them.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests: what fails there fails the test"
)]

use std::sync::atomic::{AtomicUsize, Ordering};

use nodeway_core::trace::Failure;
use nodeway_live::envoy;
use nodeway_live::lab::machines::Machines;
use nodeway_live::lab::name::LabName;
use nodeway_live::lab::state::Labs;
use nodeway_live::lab::{self, Lab, LabError, LabOptions};
use nodeway_live::netns::NetNs;
use nodeway_sim::{Ask, AskError, Cause, Cluster, Failed, Fixture, Redirect, Reply, Sim};
use rstest::rstest;

const DETAILS: &str = "http://cilium-ingress-basic-ingress/details/0";

/// Which cluster a test runs on.
#[derive(Clone, Copy, Debug)]
enum On {
    Sim,
    Lab,
}

/// Either of the two. A test sees a [`Cluster`] and nothing else.
enum Either {
    Sim(Box<Sim>),
    Lab(Box<Lab>),
}

fn fixture(name: &str) -> Fixture {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/");
    Fixture::load(format!("{root}{name}")).unwrap()
}

/// Names of labs that stand side by side in this process and beside those of others.
fn options() -> LabOptions {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    LabOptions {
        name: LabName::new(&format!("test-{}-{number}", std::process::id())).unwrap(),
        envoy: envoy::find(None).unwrap_or_else(|error| panic!("{error}")),
        labs: Labs::here(),
    }
}

fn up(name: &str, redirect: Redirect) -> Lab {
    let lab = Lab::up(&fixture(name), Some(redirect), options(), &mut |_| {});
    lab.unwrap_or_else(|error| panic!("{error}"))
}

impl On {
    fn cluster(self, name: &str, redirect: Redirect) -> Either {
        match self {
            Self::Sim => {
                let builder = Sim::from_fixture(&fixture(name)).unwrap();
                Either::Sim(Box::new(builder.redirect(redirect).start().unwrap()))
            }
            Self::Lab => Either::Lab(Box::new(up(name, redirect))),
        }
    }
}

impl Either {
    fn get(&mut self) -> &mut dyn Cluster {
        match self {
            Self::Sim(it) => it.as_mut(),
            Self::Lab(it) => it.as_mut(),
        }
    }
}

fn ask(cluster: &mut Either, from: &str, url: &str) -> Result<Reply, Box<Failed>> {
    cluster.get().request(from, Ask::get(url))
}

#[rstest]
#[case::sim(On::Sim)]
#[case::lab(On::Lab)]
fn a_request_of_a_pod_goes_through_its_own_nodes_envoy(
    #[case] on: On,
    #[values(Redirect::Tc, Redirect::SkLookup, Redirect::Iptables)] redirect: Redirect,
) {
    let mut cluster = on.cluster("bookinfo", redirect);
    let reply = ask(&mut cluster, "default/client", DETAILS).unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.service, "details");
    assert_eq!(reply.pod, "default/details-v1-1");
    assert_eq!(reply.proxy_node.as_deref(), Some("node-1"));
    assert_eq!(
        reply.route.as_deref(),
        Some("path_separated_prefix /details")
    );
    let own = "Service default/cilium-ingress-basic-ingress:80";
    assert_eq!(reply.client_saw.unwrap(), own);
    assert_eq!(reply.proxy_saw.unwrap(), "Pod default/client");
    assert_eq!(reply.proxy_destination.unwrap(), own);
    assert_eq!(reply.backend_saw.unwrap(), "Node node-1");
    assert_eq!(reply.body["saw"]["headers"]["x-forwarded-proto"], "http");
}

#[rstest]
#[case::sim(On::Sim)]
#[case::lab(On::Lab)]
fn a_crashed_envoy_fails_on_its_own_node_only_and_serves_when_it_is_back(
    #[case] on: On,
    #[values(Redirect::Tc, Redirect::SkLookup, Redirect::Iptables)] redirect: Redirect,
    #[values("default/client", "node/node-1")] from: &str,
) {
    let mut cluster = on.cluster("bookinfo", redirect);
    let status = |cluster: &mut Either| ask(cluster, from, DETAILS).map(|it| it.status);
    assert_eq!(status(&mut cluster).unwrap(), 200);
    cluster.get().crash_proxy("node-2").unwrap();
    assert_eq!(status(&mut cluster).unwrap(), 200);
    cluster.get().crash_proxy("node-1").unwrap();
    let failed = status(&mut cluster).unwrap_err();
    assert_eq!(failed.failure, redirect.without_listener(), "{failed}");
    assert_eq!(failed.proxy_node.as_deref(), Some("node-1"));
    cluster.get().restart_proxy("node-1").unwrap();
    assert_eq!(status(&mut cluster).unwrap(), 200);
}

#[rstest]
#[case::sim(On::Sim)]
#[case::lab(On::Lab)]
fn without_a_redirect_kube_proxys_rules_choose_the_pod(#[case] on: On) {
    let mut cluster = on.cluster("bookinfo", Redirect::Iptables);
    let url = "http://productpage:9080/productpage";
    let reply = ask(&mut cluster, "default/client", url).unwrap();
    assert_eq!(reply.proxy_node, None);
    assert_eq!(reply.service, "productpage");
    assert_eq!(
        reply.client_saw.unwrap(),
        "Service default/productpage:9080"
    );
    assert_eq!(reply.backend_saw.unwrap(), "Pod default/client");
}

#[rstest]
#[case::sim(On::Sim)]
#[case::lab(On::Lab)]
fn what_comes_of_bytes_and_headers_is_the_same(#[case] on: On) {
    let mut cluster = on.cluster("hosts", Redirect::Iptables);
    let request = Ask::get("http://cilium-ingress-hosts/?status=503&bytes=200000")
        .method("POST")
        .header("host", "shop.example")
        .header("x-mine", "1")
        .body(vec![b'x'; 100_000]);
    let reply = cluster.get().request("default/client", request).unwrap();
    assert_eq!(reply.status, 503);
    assert_eq!(reply.service, "shop");
    assert_eq!(reply.body["saw"]["body_bytes"], 100_000);
    assert_eq!(reply.body["saw"]["headers"]["x-mine"], "1");
    assert_eq!(reply.body["padding"].as_str().unwrap().len(), 200_000);
}

#[rstest]
#[case::sim(On::Sim)]
#[case::lab(On::Lab)]
fn who_terminates_tls_shows_a_certificate_of_its_own(#[case] on: On) {
    let mut cluster = on.cluster("tls-two-hosts", Redirect::Iptables);
    let mut terminated = |host: &str| {
        let ask = Ask::get("https://cilium-ingress.kube-system/").header("host", host);
        let shown = cluster.get().request("default/client", ask).unwrap().tls;
        let shown = shown.unwrap();
        (shown.certificate.unwrap(), shown.terminated_by)
    };
    let of = |secret: &str, by: &str| (secret.to_owned(), by.to_owned());
    assert_eq!(
        terminated("shop.example"),
        of("default/shop", "Node node-1")
    );
    assert_eq!(
        terminated("vault.example"),
        of("default/vault", "Pod default/vault-1")
    );
}

#[rstest]
#[case::sim(On::Sim)]
#[case::lab(On::Lab)]
fn what_cannot_be_asked_says_why(#[case] on: On) {
    let mut cluster = on.cluster("bookinfo", Redirect::Iptables);
    let failed = ask(&mut cluster, "default/clinet", DETAILS).unwrap_err();
    assert!(matches!(
        &failed.failure,
        Cause::Ask(AskError::UnknownClient { close, .. }) if close.contains(&"default/client".to_owned())
    ));
    let failed = ask(&mut cluster, "default/client", "http://nobody/").unwrap_err();
    assert_eq!(failed.failure, Failure::UnknownName);
    let error = cluster.get().crash_proxy("node-9").unwrap_err();
    assert!(matches!(error, AskError::UnknownNode { .. }));
}

#[test]
fn several_labs_stand_side_by_side_and_leave_nothing() {
    let before = Labs::here().list();
    let (one, two) = (options(), options());
    let labs = [&one, &two].map(|options| {
        let fixture = fixture("dual-stack");
        Lab::up(
            &fixture,
            Some(Redirect::Iptables),
            options.clone(),
            &mut |_| {},
        )
        .unwrap()
    });
    for mut lab in labs {
        let reply = lab
            .get("default/client", "http://cilium-ingress-shop/")
            .unwrap();
        assert_eq!(reply.status, 200);
    }
    let left = |name: &LabName| NetNs::list().unwrap().iter().any(|it| name.owns(it));
    assert!(!left(&one.name) && !left(&two.name));
    let mine = [one.name.as_str(), two.name.as_str()];
    let after = Labs::here().list();
    assert!(
        after.iter().all(|it| !mine.contains(&it.as_str())),
        "{before:?}"
    );
}

#[test]
fn a_second_lab_of_a_name_is_refused_and_the_first_stays() {
    let options = options();
    let fixture = fixture("dual-stack");
    let redirect = Some(Redirect::Iptables);
    let mut lab = Lab::up(&fixture, redirect, options.clone(), &mut |_| {}).unwrap();
    let error = Lab::up(&fixture, redirect, options.clone(), &mut |_| {}).unwrap_err();
    assert!(
        error.to_string().contains("nodeway lab down --name"),
        "{error}"
    );
    assert_eq!(
        lab.get("outside", "http://cilium-ingress-shop/")
            .unwrap()
            .status,
        200
    );
    // The same lab, found again, is the same.
    let mut again = Lab::open(&fixture, None, options).unwrap();
    assert_eq!(
        again
            .get("outside", "http://cilium-ingress-shop/")
            .unwrap()
            .status,
        200
    );
    drop(again);
    assert_eq!(
        lab.get("outside", "http://cilium-ingress-shop/")
            .unwrap()
            .status,
        200
    );
}

#[test]
fn what_a_crashed_lab_left_is_taken_away() {
    let options = options();
    let lab = up_named(&options);
    // Whoever made it is gone without a word: namespaces, Envoys and folder stay.
    std::mem::forget(lab);
    lab::down(&options.labs, &options.name).unwrap();
    assert!(
        !NetNs::list()
            .unwrap()
            .iter()
            .any(|it| options.name.owns(it))
    );
    assert!(!options.labs.list().contains(&options.name.to_string()));
    let error = lab::down(&options.labs, &options.name).unwrap_err();
    assert!(matches!(error, LabError::State(_)), "{error}");
}

fn up_named(options: &LabOptions) -> Lab {
    Lab::up(
        &fixture("dual-stack"),
        Some(Redirect::Iptables),
        options.clone(),
        &mut |_| {},
    )
    .unwrap()
}

#[test]
fn a_lab_that_cannot_be_made_whole_leaves_nothing() {
    let mut options = options();
    options.envoy = "/bin/false".into();
    let result = Lab::up(
        &fixture("dual-stack"),
        Some(Redirect::Iptables),
        options.clone(),
        &mut |_| {},
    );
    assert!(matches!(result.unwrap_err(), LabError::Envoy(_)));
    assert!(
        !NetNs::list()
            .unwrap()
            .iter()
            .any(|it| options.name.owns(it))
    );
    assert!(!options.labs.list().contains(&options.name.to_string()));
    // Nor does one of which a namespace is there already.
    NetNs::create(&options.name.fabric()).unwrap();
    options.envoy = envoy::find(None).unwrap();
    let result = Lab::up(&fixture("dual-stack"), None, options.clone(), &mut |_| {});
    assert!(matches!(result.unwrap_err(), LabError::Machines(_)));
    Machines::delete(&options.name).unwrap();
}

#[test]
fn a_fixture_that_breaks_things_at_a_time_is_refused_by_name() {
    let error = Lab::up(&fixture("faults/proxy-crash"), None, options(), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("`faults`"), "{error}");
}
