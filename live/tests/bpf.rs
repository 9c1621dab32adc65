//! The kernel's programs on real connections: a pod, a node with listening sockets on loopback,
//! and frontends between them. Needs root: `sudo -E cargo nextest run -p nodeway-live`.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::bpf_net::{BpfFs, Net, SERVICE4, SERVICE6, cgroup, transparent};
use ipnet::IpNet;
use nodeway_core::datapath::layout::Fault;
use nodeway_core::datapath::{Frontend, FrontendState, Reason};
use nodeway_core::plan::FrontendKey;
use nodeway_live::bpf::{AttachError, Datapath, Mode, Options, TcHook};
use nodeway_live::netns::NetNs;
use rstest::rstest;

const PORT: u16 = 10_007;

fn key(address: IpAddr) -> FrontendKey {
    FrontendKey { address, port: 80 }
}

fn frontend(state: FrontendState) -> Frontend {
    Frontend {
        listener_port: PORT,
        state,
        ranged: false,
    }
}

/// A datapath in a net's node, with both service addresses in its table, not attached.
fn loaded(net: &Net, options: &Options<'_>) -> Datapath {
    let mut datapath = Datapath::load(net.node(), options).unwrap();
    for address in [SERVICE4, SERVICE6] {
        let active = frontend(FrontendState::Active);
        datapath.put(key(address), &active).unwrap();
    }
    datapath
}

fn of_mode(mode: Mode) -> Options<'static> {
    Options {
        mode,
        ..Options::default()
    }
}

/// tc's programs, and those for the node's own clients.
fn with_cgroup(cgroup: &Path) -> Options<'_> {
    Options {
        cgroup: Some(cgroup),
        ..of_mode(Mode::Tc)
    }
}

fn service(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 80)
}

#[rstest]
fn a_pods_connection_is_led_to_the_listener_which_sees_the_services_address(
    #[values(Mode::Both, Mode::Tc, Mode::SkLookup)] mode: Mode,
    #[values(SERVICE4, SERVICE6)] address: IpAddr,
) {
    let net = Net::new(mode, &[PORT]);
    let options = of_mode(mode);
    let mut datapath = loaded(&net, &options);
    datapath.take_sockets(&[PORT]).unwrap();
    net.connect(service(address)).unwrap_err();
    datapath.attach(&[net.device()]).unwrap();

    let talk = net.connect(service(address)).unwrap();
    assert_eq!(talk.peer, service(address), "what the client sees");
    assert_eq!(talk.seen_local, service(address), "what the server sees");
    assert_eq!(talk.seen_peer.ip(), net.pod_address(address));

    let counters = datapath.counters().unwrap();
    let (hook, reason) = match mode {
        Mode::Tc => ("tc", Reason::NewConnection),
        Mode::Both | Mode::SkLookup => ("sk-lookup", Reason::NewConnection),
    };
    assert!(counters.of(hook, reason) >= 1, "{counters:?}");
    if mode != Mode::SkLookup {
        assert!(counters.of("tc", Reason::Established) >= 1, "{counters:?}");
        assert!(counters.of("tc", Reason::RequestSocket) >= 1);
    }
    assert_eq!(counters.faults.get(&Fault::AssignRefused), None);

    datapath.detach().unwrap();
    net.connect(service(address)).unwrap_err();
}

/// At tc a packet is dropped; at sk_lookup alone the look-up is refused, which a rule goes before
/// (`tests/life.rs`).
#[rstest]
#[case::tc(Mode::Tc, "tc")]
#[case::both(Mode::Both, "tc")]
#[case::sk_lookup(Mode::SkLookup, "sk-lookup")]
fn a_frontend_with_ranges_takes_whom_they_admit(
    #[case] mode: Mode,
    #[case] hook: &'static str,
    #[values(SERVICE4, SERVICE6)] address: IpAddr,
) {
    let net = Net::new(mode, &[PORT]);
    let options = of_mode(mode);
    let mut datapath = loaded(&net, &options);
    let ranged = Frontend {
        ranged: true,
        ..frontend(FrontendState::Active)
    };
    datapath.put(key(address), &ranged).unwrap();
    datapath.take_sockets(&[PORT]).unwrap();
    datapath.attach(&[net.device()]).unwrap();
    let of = |reason| move |it: &Datapath| it.counters().unwrap().of(hook, reason);
    let shut_out = of(Reason::SourceNotInRanges);

    net.connect(service(address)).unwrap_err();
    assert!(shut_out(&datapath) >= 1, "nobody is admitted yet");

    let whole = if address.is_ipv4() { 32 } else { 128 };
    let range = IpNet::new(net.pod_address(address), whole - 4)
        .unwrap()
        .trunc();
    datapath.admit(key(address), range).unwrap();
    assert_eq!(datapath.admitted().unwrap(), [(key(address), range)]);
    let before = shut_out(&datapath);
    net.connect(service(address)).unwrap();
    assert_eq!(shut_out(&datapath), before);

    datapath.admit_no_more(key(address), range).unwrap();
    net.connect(service(address)).unwrap_err();
    assert!(shut_out(&datapath) > before, "nobody is admitted any more");
    datapath.detach().unwrap();
}

/// The RST of a refused look-up leaves with the service's address as its source. IPv4 sends it only
/// if that is an address or a local route of the node, as it is where sk_lookup stands alone.
#[rstest]
#[case::tc(Mode::Tc, SERVICE4, ErrorKind::TimedOut)]
#[case::tc_over_ipv6(Mode::Tc, SERVICE6, ErrorKind::TimedOut)]
#[case::both(Mode::Both, SERVICE4, ErrorKind::TimedOut)]
#[case::both_over_ipv6(Mode::Both, SERVICE6, ErrorKind::ConnectionRefused)]
#[case::sk_lookup(Mode::SkLookup, SERVICE4, ErrorKind::ConnectionRefused)]
#[case::sk_lookup_over_ipv6(Mode::SkLookup, SERVICE6, ErrorKind::ConnectionRefused)]
fn without_a_listener_a_connection_is_refused_and_never_carried_on(
    #[case] mode: Mode,
    #[case] address: IpAddr,
    #[case] expected: ErrorKind,
) {
    let net = Net::new(mode, &[]);
    let options = of_mode(mode);
    let mut datapath = loaded(&net, &options);
    let missing = datapath.take_sockets(&[PORT]).unwrap();
    assert_eq!(missing.len(), 2, "nobody listens: {missing:?}");
    datapath.attach(&[net.device()]).unwrap();
    let error = net.connect(service(address)).unwrap_err();
    assert_eq!(error.kind(), expected);
    let hook = if mode == Mode::Tc { "tc" } else { "sk-lookup" };
    let counters = datapath.counters().unwrap();
    assert!(counters.of(hook, Reason::NoListener) >= 1);
    datapath.detach().unwrap();
}

#[rstest]
#[case::ipv4(SERVICE4)]
#[case::ipv6(SERVICE6)]
fn a_client_of_the_node_itself_sees_the_services_address(#[case] address: IpAddr) {
    let net = Net::new(Mode::Tc, &[PORT]);
    let cgroup = cgroup();
    let options = with_cgroup(&cgroup);
    let mut datapath = loaded(&net, &options);
    datapath.attach(&[net.device()]).unwrap();
    let talk = net.connect_from_node(service(address)).unwrap();
    assert_eq!(talk.peer, service(address));
    assert!(talk.seen_local.ip().is_loopback());
    let counters = datapath.counters().unwrap();
    assert_eq!(counters.of("connect", Reason::NodeCall), 1);
    datapath.detach().unwrap();
}

/// Java connects so by default.
#[test]
fn a_client_that_names_an_ipv4_service_by_its_ipv6_form_is_redirected_too() {
    let net = Net::new(Mode::Tc, &[PORT]);
    let cgroup = cgroup();
    let options = with_cgroup(&cgroup);
    let mut datapath = loaded(&net, &options);
    datapath.attach(&[]).unwrap();
    let IpAddr::V4(address) = SERVICE4 else {
        panic!("IPv4")
    };
    let mapped = SocketAddr::new(address.to_ipv6_mapped().into(), 80);
    let talk = net.connect_from_node(mapped).unwrap();
    assert_eq!(talk.peer, mapped);
    datapath.detach().unwrap();
}

#[test]
fn calls_of_other_namespaces_are_left_alone() {
    let net = Net::new(Mode::Tc, &[PORT]);
    let cgroup = cgroup();
    let options = with_cgroup(&cgroup);
    let mut datapath = loaded(&net, &options);
    datapath.attach(&[]).unwrap();
    net.connect(service(SERVICE4)).unwrap_err();
    let counters = datapath.counters().unwrap();
    assert!(counters.decisions.is_empty(), "{counters:?}");
    datapath.detach().unwrap();
}

#[rstest]
fn a_connection_goes_on_when_its_frontend_drains_and_a_new_one_is_not_taken(
    #[values(Mode::Both, Mode::Tc, Mode::SkLookup)] mode: Mode,
    #[values(1, 2)] syncookies: u8,
) {
    let net = Net::new(mode, &[PORT]);
    net.in_node(&format!("sysctl -qw net.ipv4.tcp_syncookies={syncookies}"));
    let options = of_mode(mode);
    let mut datapath = loaded(&net, &options);
    datapath.take_sockets(&[PORT]).unwrap();
    datapath.attach(&[net.device()]).unwrap();
    let mut open = net.open(service(SERVICE4)).unwrap();
    echo(&mut open, b"before");
    let draining = frontend(FrontendState::Draining);
    datapath.put(key(SERVICE4), &draining).unwrap();
    echo(&mut open, b"after");
    net.connect(service(SERVICE4)).unwrap_err();
    let hook = if mode == Mode::SkLookup {
        "sk-lookup"
    } else {
        "tc"
    };
    assert!(datapath.counters().unwrap().of(hook, Reason::Draining) >= 1);
    datapath.detach().unwrap();
}

/// The other modes are held beside kube-proxy's rules, in `life.rs`.
#[rstest]
fn by_tc_alone_a_connection_goes_on_when_its_address_is_armed(#[values(1, 2)] syncookies: u8) {
    // Without sk_lookup no socket tells an ACK that ends a cookie's handshake from one of an older
    // connection, so that the older one's side is taken: a limit.
    let (mode, taken) = (Mode::Tc, syncookies != 2);
    let net = Net::new(mode, &[PORT]);
    net.in_node(&format!("sysctl -qw net.ipv4.tcp_syncookies={syncookies}"));
    net.in_node(&format!("ip route replace local {SERVICE4} dev lo"));
    // It answers to nothing by itself: a new connection that is answered has been taken.
    let backend: TcpListener = net.node().run(|| transparent(service(SERVICE4))).unwrap();
    let mut client = net.open(service(SERVICE4)).unwrap();
    let (mut server, _) = backend.accept().unwrap();

    let options = of_mode(mode);
    let mut datapath = loaded(&net, &options);
    let arming = frontend(FrontendState::Arming);
    datapath.put(key(SERVICE4), &arming).unwrap();
    datapath.take_sockets(&[PORT]).unwrap();
    datapath.attach(&[net.device()]).unwrap();
    said(&mut client, &mut server, b"asked");
    said(&mut server, &mut client, b"answered");
    if taken {
        net.connect(service(SERVICE4)).unwrap();
    } else {
        net.open(service(SERVICE4)).unwrap();
        backend.accept().unwrap();
        let counters = datapath.counters().unwrap();
        assert_eq!(counters.of("tc", Reason::NewConnection), 1);
    }
    datapath.detach().unwrap();
}

#[rstest]
fn a_clsact_filter_does_what_a_link_does_and_leaves_nothing() {
    let net = Net::new(Mode::Both, &[PORT]);
    let options = Options {
        tc: TcHook::Clsact,
        ..Options::default()
    };
    let mut datapath = loaded(&net, &options);
    datapath.take_sockets(&[PORT]).unwrap();
    datapath.attach(&[net.device()]).unwrap();
    let mut open = net.open(service(SERVICE4)).unwrap();
    echo(&mut open, b"one");
    // The next process finds the filter and puts its own program in.
    datapath.add_device(net.device()).unwrap();
    echo(&mut open, b"two");
    assert!(
        net.in_node("tc filter show dev DEVICE ingress")
            .contains("nw_tc_ethernet")
    );
    datapath.detach().unwrap();
    assert_eq!(net.in_node("tc filter show dev DEVICE ingress"), "");
    assert!(!net.in_node("tc qdisc show dev DEVICE").contains("clsact"));
}

#[rstest]
fn a_connection_goes_on_when_the_programs_are_replaced(
    #[values(Mode::Both, Mode::Tc, Mode::SkLookup)] mode: Mode,
) {
    let net = Net::new(mode, &[PORT]);
    let fs = BpfFs::mount();
    let pins = fs.path().join("node");
    let options = Options {
        mode,
        pins: Some(&pins),
        ..Options::default()
    };
    let mut first = loaded(&net, &options);
    first.take_sockets(&[PORT]).unwrap();
    first.attach(&[net.device()]).unwrap();
    let mut open = net.open(service(SERVICE4)).unwrap();
    echo(&mut open, b"one");

    // The same, with tracing on: its table is the first one's.
    let traced = Options {
        trace: true,
        ..options
    };
    let mut second = Datapath::load(net.node(), &traced).unwrap();
    assert_eq!(second.frontends().unwrap().len(), 2);
    second.attach(&[net.device()]).unwrap();
    drop(first);
    assert_eq!(second.events(), []);
    echo(&mut open, b"two");
    net.connect(service(SERVICE6)).unwrap();
    let events = second.events();
    assert!(
        events.iter().any(|it| it.dst == Some(service(SERVICE6))),
        "{events:?}"
    );

    second.detach().unwrap();
    assert!(!pins.exists(), "nothing is left");
    net.connect(service(SERVICE4)).unwrap_err();
}

/// The other half of the test below: the loader that is killed. It is this test in a process of its
/// own, told so by a variable.
fn be_the_loader() -> bool {
    let Ok(told) = std::env::var("NODEWAY_TEST_LOADER") else {
        return false;
    };
    let [node, device, pins] = told.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let options = Options {
        pins: Some(pins.as_ref()),
        ..Options::default()
    };
    let mut datapath = Datapath::load(NetNs::open(node).unwrap(), &options).unwrap();
    let active = frontend(FrontendState::Active);
    datapath.put(key(SERVICE4), &active).unwrap();
    datapath.take_sockets(&[PORT]).unwrap();
    datapath.attach(&[device]).unwrap();
    println!("attached");
    loop {
        std::thread::park();
    }
}

#[test]
fn connections_old_and_new_go_on_when_the_loader_is_killed_and_the_next_one_adopts_them() {
    if be_the_loader() {
        return;
    }
    let net = Net::new(Mode::Both, &[PORT]);
    let fs = BpfFs::mount();
    let pins = fs.path().join("node");
    let told = format!("{} {} {}", net.node().name(), net.device(), pins.display());
    let name =
        "bpf::connections_old_and_new_go_on_when_the_loader_is_killed_and_the_next_one_adopts_them";
    let mut loader = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("NODEWAY_TEST_LOADER", told)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut stdout = loader.stdout.take().unwrap();
    while !said.contains("attached") {
        let mut chunk = [0; 256];
        let n = stdout.read(&mut chunk).unwrap();
        assert!(n > 0, "the loader ended: {said}");
        said.push_str(&String::from_utf8_lossy(&chunk[..n]));
    }
    let mut open = net.open(service(SERVICE4)).unwrap();
    echo(&mut open, b"alive");
    // SIGKILL
    loader.kill().unwrap();
    loader.wait().unwrap();
    echo(&mut open, b"killed");
    net.connect(service(SERVICE4)).unwrap();

    let options = Options {
        pins: Some(&pins),
        ..Options::default()
    };
    let mut next = Datapath::load(net.node(), &options).unwrap();
    let found = next.frontends().unwrap();
    assert_eq!(
        found.get(&key(SERVICE4)),
        Some(&frontend(FrontendState::Active))
    );
    next.attach(&[net.device()]).unwrap();
    echo(&mut open, b"adopted");
    net.connect(service(SERVICE4)).unwrap();
    next.detach().unwrap();
    assert!(!pins.exists());
    net.connect(service(SERVICE4)).unwrap_err();
}

#[test]
fn a_device_that_is_not_named_again_is_left() {
    let net = Net::new(Mode::Tc, &[PORT]);
    let fs = BpfFs::mount();
    let pins = fs.path().join("node");
    let options = Options {
        mode: Mode::Tc,
        pins: Some(&pins),
        ..Options::default()
    };
    let mut first = loaded(&net, &options);
    first.attach(&[net.device()]).unwrap();
    net.connect(service(SERVICE4)).unwrap();
    drop(first);
    let mut second = Datapath::load(net.node(), &options).unwrap();
    second.attach(&[]).unwrap();
    net.connect(service(SERVICE4)).unwrap_err();
    second.detach().unwrap();
}

#[test]
fn a_listener_that_comes_back_is_taken_again() {
    let mut net = Net::new(Mode::Both, &[PORT]);
    let mut datapath = loaded(&net, &Options::default());
    datapath.take_sockets(&[PORT]).unwrap();
    datapath.attach(&[net.device()]).unwrap();
    net.connect(service(SERVICE4)).unwrap();
    net.stop_listening();
    net.connect(service(SERVICE4)).unwrap_err();
    net.listen(&[PORT]);
    net.connect(service(SERVICE4)).unwrap_err();
    assert_eq!(datapath.take_sockets(&[PORT]).unwrap(), []);
    net.connect(service(SERVICE4)).unwrap();
    datapath.detach().unwrap();
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let net = Net::new(Mode::Tc, &[]);
    let mut datapath = loaded(&net, &Options::default());
    let error = datapath.attach(&["nowhere"]).unwrap_err();
    assert!(matches!(error, AttachError::NoDevice { .. }), "{error}");
    assert!(error.to_string().contains("`nowhere`"));
}

#[test]
fn a_folder_that_is_no_cgroup_is_named() {
    let net = Net::new(Mode::Tc, &[]);
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        cgroup: Some(folder.path()),
        ..Options::default()
    };
    let mut datapath = loaded(&net, &options);
    let error = datapath.attach(&[]).unwrap_err();
    assert!(matches!(error, AttachError::NoCgroup { .. }), "{error}");
}

/// What one end says the other hears.
fn said(from: &mut TcpStream, to: &mut TcpStream, text: &[u8]) {
    to.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    from.write_all(text).unwrap();
    let mut heard = vec![0; text.len()];
    to.read_exact(&mut heard).unwrap();
    assert_eq!(heard, text);
}

/// What is said comes back.
fn echo(stream: &mut TcpStream, text: &[u8]) {
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    stream.write_all(text).unwrap();
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, text);
}
