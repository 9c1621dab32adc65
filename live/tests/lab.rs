//! One test body, two clusters: the simulator, and network namespaces with the kernel and a real
//! Envoy. Needs root, iproute2, iptables, ipset, and Envoy in `$ENVOY` or on `PATH`: `ci/setup` gets
//! them.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nodeway_core::netfilter::kube_proxy::Mode;
use nodeway_core::trace::Failure;
use nodeway_live::envoy;
use nodeway_live::lab::machines::Machines;
use nodeway_live::lab::name::LabName;
use nodeway_live::lab::state::Labs;
use nodeway_live::lab::{self, Lab, LabError, LabOptions, Workers};
use nodeway_live::netns::NetNs;
use nodeway_sim::{
    Ask, AskError, Cause, Cluster, Failed, Family, Fixture, Place, Redirect, Reply, Sim,
};
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
        workers: Workers::Threads,
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

/// What a command prints in a namespace of a lab.
fn output(netns: &NetNs, command: &str) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let run = || {
        let mut words = command.split(' ');
        Command::new(words.next().unwrap())
            .args(words)
            .env("PATH", format!("{path}:/usr/sbin:/sbin"))
            .output()
    };
    let output = netns.run(run).unwrap();
    let output = output.unwrap_or_else(|error| panic!("{command}: {error}; run ci/setup"));
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The rules of all nodes that speak of a Service, each with the packets that it has met.
fn counted(lab: &Lab, service: &str) -> Vec<(u64, String)> {
    let mut rules = Vec::new();
    for (node, _) in lab.model().plans() {
        let netns = lab.machines().get(&Place::Node(node.to_owned())).unwrap();
        if lab.model().settings().kube_proxy == Mode::Nftables {
            let tables =
                ["ip", "ip6"].map(|it| output(netns, &format!("nft list table {it} kube-proxy")));
            rules.extend(tables.iter().flat_map(|it| counted_chains(it, service)));
            continue;
        }
        let text = ["iptables-save -c", "ip6tables-save -c"].map(|it| output(netns, it));
        for line in text.iter().flat_map(|it| it.lines()) {
            let count = line.strip_prefix('[').and_then(|it| it.split_once(':'));
            if let (Some((packets, _)), true) = (count, line.contains(service)) {
                rules.push((packets.parse().unwrap(), line.to_owned()));
            }
        }
    }
    rules
}

/// The chains and entries of a table of nftables that are a Service's, each with the packets that it
/// has met.
fn counted_chains(table: &str, service: &str) -> Vec<(u64, String)> {
    let of_chain = format!("-{}", service.trim_start_matches('"'));
    let (mut chain, mut found) = ("", Vec::new());
    for line in table.lines().map(str::trim) {
        chain = line.strip_prefix("chain ").unwrap_or(chain);
        let counted = line.split_once("counter packets ");
        let is_its = line.contains(service) || chain.contains(&of_chain);
        if let (Some((_, counted)), true) = (counted, is_its) {
            let packets = counted.split(' ').next().unwrap().parse().unwrap();
            found.push((packets, format!("{chain} {line}")));
        }
    }
    found
}

/// Connects an IPv6 socket to an IPv4 frontend, as Java does by default; the first words that come.
fn by_ipv6_form(lab: &Lab, place: &Place) -> String {
    let (_, plan) = lab.model().plans().next().unwrap();
    let mut keys = plan.frontends.keys();
    let to = keys.find_map(|key| match key.address {
        IpAddr::V4(address) if key.port == 80 => Some(address.to_ipv6_mapped()),
        _ => None,
    });
    let to = SocketAddr::new(to.unwrap().into(), 80);
    let talk = || {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(3))?;
        assert_eq!(stream.peer_addr()?, to);
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n")?;
        let mut words = [0; 15];
        stream.read_exact(&mut words)?;
        std::io::Result::Ok(String::from_utf8_lossy(&words).into_owned())
    };
    let netns = lab.machines().get(place).unwrap();
    netns.run(talk).unwrap().unwrap()
}

/// Lets the link from the fabric to the host outside carry less than those of either end.
fn narrow(lab: &Lab, name: &LabName) {
    let fabric = NetNs::open(&name.fabric()).unwrap();
    let mut hosts = lab.model().topology().outside.iter();
    let host = hosts.next().unwrap().addresses.first().unwrap();
    let route = output(&fabric, &format!("ip route get {host}"));
    let (_, device) = route.split_once(" dev ").unwrap();
    let device = device.split(' ').next().unwrap();
    output(&fabric, &format!("ip link set {device} mtu 1300"));
}

/// Whether some node was told what [`narrow`]ed link its packets must pass.
fn has_learnt(lab: &Lab, family: Family) -> bool {
    let version = if family == Family::Ipv6 { "-6" } else { "-4" };
    let command = format!("ip {version} route show cache");
    let mut nodes = lab.model().plans();
    nodes.any(|(node, _)| {
        let netns = lab.machines().get(&Place::Node(node.to_owned())).unwrap();
        output(netns, &command).contains("mtu 1300")
    })
}

#[rstest]
fn beside_kube_proxy_its_rules_never_see_a_packet_of_a_frontend(
    #[values(Redirect::Tc, Redirect::SkLookup, Redirect::Iptables)] redirect: Redirect,
    #[values("beside-kube-proxy", "beside-kube-proxy-nftables")] name: &str,
) {
    const OURS: &str = "\"default/cilium-ingress-";
    let fixture = fixture(name);
    let options = options();
    let lab = Lab::up(&fixture, Some(redirect), options.clone(), &mut |_| {});
    let mut lab = lab.unwrap_or_else(|error| panic!("{error}"));
    let report = lab.run(&fixture).unwrap();
    let broken: Vec<_> = report.requests.iter().filter(|it| !it.holds()).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    for place in [
        Place::Pod("default/client".to_owned()),
        Place::Node("node-1".to_owned()),
    ] {
        assert_eq!(by_ipv6_form(&lab, &place), "HTTP/1.1 200 OK", "{place:?}");
    }
    narrow(&lab, &options.name);
    for family in [Family::Ipv4, Family::Ipv6] {
        let much = Ask::get("http://cilium-ingress-balanced/?bytes=300000").family(family);
        let reply = lab.request("outside", much).unwrap();
        assert_eq!(reply.body["padding"].as_str().unwrap().len(), 300_000);
        assert!(has_learnt(&lab, family), "{family:?}: a node knows the way");
    }
    let ours = counted(&lab, OURS);
    assert!(!ours.is_empty(), "kube-proxy knows the frontends' Services");
    let met: Vec<_> = ours.iter().filter(|(packets, _)| *packets > 0).collect();
    assert!(met.is_empty(), "{met:#?}");
    // What is not redirected was counted: counting works.
    let others = counted(&lab, "\"default/shop-plain");
    assert!(others.iter().any(|(packets, _)| *packets > 0));
}

#[rstest]
#[case::sim(On::Sim)]
#[case::lab(On::Lab)]
fn who_asks_a_node_for_the_listeners_own_port_is_refused(
    #[case] on: On,
    #[values(Redirect::Tc, Redirect::SkLookup, Redirect::Iptables)] redirect: Redirect,
) {
    let mut cluster = on.cluster("bookinfo", redirect);
    let port = match &cluster {
        Either::Sim(it) => {
            let mut frontends = it.plan("node-1").unwrap().frontends.values();
            frontends.next().unwrap().listener_port
        }
        Either::Lab(it) => it.status("node-1").unwrap().frontends[0].port,
    };
    for from in ["default/client", "outside"] {
        let failed = ask(&mut cluster, from, &format!("http://node-1:{port}/")).unwrap_err();
        assert_eq!(
            failed.failure,
            Failure::ConnectionRefused,
            "{from}: {failed}"
        );
    }
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
    let error = result.unwrap_err();
    assert!(matches!(error, LabError::Proxied(_)), "{error}");
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
