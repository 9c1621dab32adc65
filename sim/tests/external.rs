//! A host outside that is not simulated: here a TCP/IP stack of its own, which looks at checksums as
//! a kernel does, asks a simulated cluster for things.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nodeway_core::plan::FrontendKind;
use nodeway_sim::{AnsweredBy, Asked, Redirect, Sim, Time, Visit, VisitOutcome};
use rstest::rstest;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr};

/// Between this host and the cluster.
#[derive(Default)]
struct Wire {
    input: VecDeque<Vec<u8>>,
    output: Vec<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Sending<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut bytes = vec![0; length];
        let result = write(&mut bytes);
        self.0.push(bytes);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let packet = self.input.pop_front()?;
        Some((Received(packet), Sending(&mut self.output)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.output))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1500;
        capabilities
    }
}

/// The host and the cluster.
struct Outside {
    sim: Sim,
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    port: u16,
}

impl Outside {
    fn of(fixture: &str, redirect: Redirect) -> Self {
        let folder = format!("{}/../fixtures/{fixture}", env!("CARGO_MANIFEST_DIR"));
        let builder = Sim::load(folder).unwrap().redirect(redirect);
        let sim = builder.external().start().unwrap();
        let mut wire = Wire::default();
        let config = Config::new(HardwareAddress::Ip);
        let mut interface = Interface::new(config, &mut wire, Instant::ZERO);
        let own = sim.external_host().unwrap().addresses.clone();
        interface.update_ip_addrs(|addresses| {
            for address in own {
                // Everything is on this one link.
                addresses.push(IpCidr::new(address.into(), 0)).unwrap();
            }
        });
        Self {
            sim,
            wire,
            interface,
            sockets: SocketSet::new(Vec::new()),
            port: 40_000,
        }
    }

    /// The address of a kind that a Service, or a pod, has.
    fn find(&self, object: &str, kind: Option<FrontendKind>, ipv6: bool) -> SocketAddr {
        let all = self.sim.reachable();
        let one = all
            .iter()
            .find(|one| one.object == object && one.kind == kind && one.by != AnsweredBy::Nobody)
            .unwrap();
        let mut addresses = one.addresses.iter();
        let address = addresses.find(|it| it.is_ipv6() == ipv6).unwrap();
        SocketAddr::new(*address, one.ports[0])
    }

    fn connect(&mut self, to: SocketAddr) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; 65_536]);
        let mut socket = Socket::new(buffer(), buffer());
        self.port += 1;
        let context = self.interface.context();
        let remote = (to.ip(), to.port());
        socket.connect(context, remote, self.port).unwrap();
        self.sockets.add(socket)
    }

    /// Lets a millisecond go by.
    fn tick(&mut self) {
        let now = self.sim.now() + Duration::from_millis(1);
        let micros = i64::try_from(now.nanos() / 1_000).unwrap();
        self.interface.poll(
            Instant::from_micros(micros),
            &mut self.wire,
            &mut self.sockets,
        );
        for packet in std::mem::take(&mut self.wire.output) {
            self.sim.take_in(&packet);
        }
        self.sim.run_until(now);
        while let Some(packet) = self.sim.take_out() {
            self.wire.input.push_back(packet);
        }
    }

    /// Sends bytes and reads until the other side is silent for a while; `None` if nobody is there.
    fn say(&mut self, handle: SocketHandle, bytes: &[u8]) -> Option<String> {
        let mut unsent = bytes;
        let mut heard = Vec::new();
        let mut silent = 0;
        while silent < 50 {
            self.tick();
            silent += 1;
            let socket = self.sockets.get_mut::<Socket<'_>>(handle);
            match socket.state() {
                State::SynSent => continue,
                State::Closed => return None,
                _ => {}
            }
            let sent = socket.send_slice(unsent).unwrap_or(0);
            unsent = &unsent[sent..];
            while socket.can_recv() {
                silent = 0;
                socket
                    .recv(|piece| {
                        heard.extend_from_slice(piece);
                        (piece.len(), ())
                    })
                    .unwrap();
            }
        }
        Some(String::from_utf8(heard).unwrap())
    }

    fn get(&mut self, to: SocketAddr, path: &str) -> Option<String> {
        let handle = self.connect(to);
        let request = format!("GET {path} HTTP/1.1\r\nhost: shop.test\r\n\r\n");
        self.say(handle, request.as_bytes())
    }
}

const INGRESS: &str = "Service default/cilium-ingress-shop";

#[rstest]
#[case::load_balancer(INGRESS, Some(FrontendKind::LoadBalancer), true)]
#[case::cluster_ip(INGRESS, Some(FrontendKind::ClusterIp), true)]
#[case::node_port(INGRESS, Some(FrontendKind::NodePort), true)]
#[case::service_without_envoy("Service default/shop", Some(FrontendKind::ClusterIp), false)]
#[case::pod("Pod default/shop-1", None, false)]
fn every_kind_of_address_answers(
    #[case] object: &str,
    #[case] kind: Option<FrontendKind>,
    #[case] by_envoy: bool,
    #[values(false, true)] ipv6: bool,
    #[values(Redirect::Tc, Redirect::SkLookup, Redirect::Iptables)] redirect: Redirect,
) {
    let mut outside = Outside::of("dual-stack", redirect);
    let to = outside.find(object, kind, ipv6);
    let answer = outside.get(to, "/some/where?x=1").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\"pod\":\"default/shop-1\""), "{answer}");
    let [visit] = <[Visit; 1]>::try_from(outside.sim.take_visits()).unwrap();
    assert_eq!(visit.to, to);
    assert_eq!(visit.outcome, VisitOutcome::Answered(200));
    let asked = Asked {
        method: "GET".to_owned(),
        host: Some("shop.test".to_owned()),
        target: "/some/where?x=1".to_owned(),
    };
    assert_eq!(visit.asked, Some(asked));
    assert_eq!(visit.served.pod.as_deref(), Some("default/shop-1"));
    assert_eq!(visit.served.node.as_deref(), Some("node-2"));
    assert_eq!(visit.served.proxy_node.is_some(), by_envoy, "{visit:?}");
}

#[test]
fn requests_of_one_connection_are_told_one_by_one() {
    let mut outside = Outside::of("dual-stack", Redirect::Tc);
    let to = outside.find(INGRESS, Some(FrontendKind::LoadBalancer), false);
    let handle = outside.connect(to);
    for path in ["/a", "/b?bytes=300000", "/c"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: shop\r\n\r\n");
        let answer = outside.say(handle, request.as_bytes()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let visits = outside.sim.take_visits();
    let targets: Vec<_> = visits
        .iter()
        .map(|visit| visit.asked.as_ref().unwrap().target.as_str())
        .collect();
    assert_eq!(targets, ["/a", "/b?bytes=300000", "/c"]);
    assert!(
        visits.iter().all(|visit| visit.served.route.is_some()),
        "{visits:?}"
    );
}

#[rstest]
#[case::a_port_without_anybody("Pod default/shop-1", None, 1)]
#[case::a_service_without_endpoints(INGRESS, Some(FrontendKind::LoadBalancer), 443)]
fn what_nobody_serves_is_refused_and_told(
    #[case] object: &str,
    #[case] kind: Option<FrontendKind>,
    #[case] port: u16,
) {
    let mut outside = Outside::of("dual-stack", Redirect::Tc);
    let mut to = outside.find(object, kind, false);
    to.set_port(port);
    let handle = outside.connect(to);
    for _ in 0..20 {
        outside.tick();
    }
    let visits = outside.sim.take_visits();
    assert_eq!(visits.len(), 1, "{visits:?}");
    assert_eq!(visits[0].outcome, VisitOutcome::Refused);
    // An ICMP error is nothing to smoltcp; a reset is.
    let state = outside.sockets.get::<Socket<'_>>(handle).state();
    assert!(matches!(state, State::Closed | State::SynSent), "{state:?}");
}

#[test]
fn what_is_no_http_is_told_once() {
    let mut outside = Outside::of("dual-stack", Redirect::Tc);
    let to = outside.find("Pod default/shop-1", None, false);
    let handle = outside.connect(to);
    outside.say(handle, b"\x16\x03\x01 hello\r\n\r\n");
    let visits = outside.sim.take_visits();
    assert_eq!(visits.len(), 1, "{visits:?}");
    assert_eq!(visits[0].outcome, VisitOutcome::NotHttp);
}

#[test]
fn packets_that_claim_to_be_the_clusters_own_go_nowhere() {
    let mut outside = Outside::of("dual-stack", Redirect::Tc);
    let to = outside.find("Pod default/shop-1", None, false);
    let node: IpAddr = outside.sim.topology().nodes[0].addresses[0];
    outside.interface.update_ip_addrs(|addresses| {
        addresses.clear();
        addresses.push(IpCidr::new(node.into(), 0)).unwrap();
    });
    outside.connect(to);
    let before = outside.sim.world().delivered();
    for _ in 0..20 {
        outside.tick();
    }
    assert_eq!(outside.sim.world().delivered(), before);
}

#[test]
fn answers_find_an_address_behind_the_host() {
    let mut outside = Outside::of("dual-stack", Redirect::Tc);
    let to = outside.find(INGRESS, Some(FrontendKind::ClusterIp), false);
    outside.interface.update_ip_addrs(|addresses| {
        addresses.clear();
        let container: IpAddr = [172, 17, 0, 2].into();
        addresses.push(IpCidr::new(container.into(), 0)).unwrap();
    });
    let answer = outside.get(to, "/").unwrap();
    assert!(answer.contains("172.17.0.2"), "{answer}");
}

#[test]
fn the_next_event_is_known() {
    let mut outside = Outside::of("dual-stack", Redirect::Tc);
    outside.sim.run_until(Time::from_nanos(1_000_000_000));
    assert_eq!(outside.sim.next_at(), None);
    let to = outside.find("Pod default/shop-1", None, false);
    outside.get(to, "/").unwrap();
    assert!(
        outside
            .sim
            .next_at()
            .is_some_and(|at| at > outside.sim.now())
    );
}
