//! Real programs talk to a simulated cluster through a TUN device in a namespace. Needs root,
//! /dev/net/tun and curl; one test needs Envoy in `$ENVOY`, on `PATH` or in target/tools: `ci/setup`
//! gets both.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, thread};

use crate::bed::Machine;
use nodeway_core::plan::FrontendKind;
use nodeway_live::envoy::find;
use nodeway_live::tun::{Ended, Event, LinkError, Traffic, Tun, TunError};
use nodeway_sim::{AnsweredBy, Fixture, Reachable, Sim};
use rstest::rstest;

/// No test runs longer.
const LONGEST: Duration = Duration::from_secs(60);

fn fixture(name: &str) -> Fixture {
    Fixture::load(Path::new("../fixtures").join(name)).unwrap()
}

fn cluster(name: &str) -> Sim {
    let builder = Sim::from_fixture(&fixture(name)).unwrap();
    builder.external().start().unwrap()
}

/// What a test may look at while a cluster runs.
struct Running<'a> {
    machine: &'a Machine,
    reachable: Vec<Reachable>,
    has_ipv6: bool,
}

/// Puts a cluster behind `nw0` of a machine, lets a test act, and takes it away again.
fn behind(machine: &Machine, sim: &str, act: impl FnOnce(&Running<'_>)) -> (Ended, Traffic) {
    let (tell, ready) = mpsc::channel();
    thread::scope(|scope| {
        let cluster = scope.spawn(move || {
            let run = || {
                let mut tun = Tun::open("nw0", cluster(sim)).unwrap_or_else(|it| panic!("{it}"));
                tell.send((tun.sim().reachable(), tun.has_ipv6())).unwrap();
                let ended = tun.run(Some(LONGEST), &mut |event| match event {
                    Event::Visit(visit)
                        if visit
                            .asked
                            .as_ref()
                            .is_some_and(|it| it.target == "/enough") =>
                    {
                        std::ops::ControlFlow::Break(())
                    }
                    _ => std::ops::ControlFlow::Continue(()),
                });
                (ended.unwrap(), tun.traffic())
            };
            machine.netns.run(run).unwrap()
        });
        if let Ok((reachable, has_ipv6)) = ready.recv() {
            let running = Running {
                machine,
                reachable,
                has_ipv6,
            };
            let acted = catch_unwind(AssertUnwindSafe(|| act(&running)));
            let pod = running.pod(false);
            machine.shell(&format!("curl -s -m 5 http://{pod}/enough || true"));
            if let Err(panic) = acted {
                resume_unwind(panic);
            }
        }
        cluster.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

impl Running<'_> {
    /// Address and port, as they stand in a URL.
    fn find(&self, object: &str, kind: Option<FrontendKind>, ipv6: bool) -> String {
        let one = self
            .reachable
            .iter()
            .find(|one| one.object == object && one.kind == kind && one.by != AnsweredBy::Nobody);
        let one = one.unwrap_or_else(|| panic!("no {object} in {:?}", self.reachable));
        let mut addresses = one.addresses.iter();
        let address = addresses.find(|it| it.is_ipv6() == ipv6).unwrap();
        let port = one.ports[0];
        std::net::SocketAddr::new(*address, port).to_string()
    }

    /// Any pod that answers.
    fn pod(&self, ipv6: bool) -> String {
        let mut all = self.reachable.iter();
        let pod = all.find(|one| one.kind.is_none()).unwrap();
        self.find(&pod.object, None, ipv6)
    }

    fn curl(&self, words: &str) -> String {
        self.machine.shell(&format!("curl -gsS -m 10 {words}"))
    }
}

/// All that the kernel knows of devices, addresses and routes.
fn state(machine: &Machine) -> String {
    machine.shell(
        "ip -o link | cut -d' ' -f2; ip -o addr | cut -c-60; ip route show table all; ip -6 route show table all",
    )
}

const INGRESS: &str = "Service default/cilium-ingress-shop";

#[rstest]
#[case::load_balancer(INGRESS, Some(FrontendKind::LoadBalancer), "Envoy")]
#[case::cluster_ip(INGRESS, Some(FrontendKind::ClusterIp), "Envoy")]
#[case::node_port(INGRESS, Some(FrontendKind::NodePort), "Envoy")]
#[case::service_without_envoy("Service default/shop", Some(FrontendKind::ClusterIp), "pod")]
#[case::pod("Pod default/shop-1", None, "pod")]
fn curl_is_answered_at_every_kind_of_address(
    #[case] object: &str,
    #[case] kind: Option<FrontendKind>,
    #[case] by: &str,
    #[values(false, true)] ipv6: bool,
) {
    let machine = Machine::new(&format!(
        "tun-curl-{}-{ipv6}",
        kind.map_or(9, |it| it as u8)
    ));
    let before = state(&machine);
    let (ended, traffic) = behind(&machine, "dual-stack", |running| {
        let to = running.find(object, kind, ipv6);
        let answer = running.curl(&format!("-i http://{to}/here"));
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("\"pod\":\"default/shop-1\""), "{answer}");
        assert!(answer.contains("\"path\":\"/here\""), "{answer}");
        let by_envoy = answer.contains("\r\nserver: envoy\r\n");
        assert_eq!(by_envoy, by == "Envoy", "{answer}");
    });
    assert_eq!(ended, Ended::Enough);
    assert!(
        traffic.packets_in > 5 && traffic.packets_out > 3,
        "{traffic:?}"
    );
    assert_eq!(state(&machine), before, "something was left behind");
}

#[test]
fn curl_gets_the_answers_that_the_fixture_expects() {
    let machine = Machine::new("tun-fixture");
    let fixture = fixture("bookinfo");
    behind(&machine, "bookinfo", |running| {
        let sim = cluster("bookinfo");
        for spec in &fixture.requests {
            let errand = sim.errand(&spec.from, &spec.ask()).unwrap();
            let (host, to) = (&errand.target.host, errand.to().unwrap());
            let pinned = format!("{host}:{}:{}", to.port(), to.ip());
            let answer = running.curl(&format!("-i --resolve {pinned} {}", spec.to));
            let status = spec.expect.status.unwrap();
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{answer}"
            );
            let service = spec.expect.service.as_deref().unwrap();
            let bare = service.rsplit('/').next().unwrap();
            let said = format!("\"service\":\"{bare}\"");
            assert!(answer.contains(&said), "{service}: {answer}");
        }
    });
}

#[rstest]
fn long_bodies_arrive_whole(#[values(false, true)] ipv6: bool) {
    const LENGTH: usize = 60_000_000;
    let machine = Machine::new(&format!("tun-long-{ipv6}"));
    behind(&machine, "dual-stack", |running| {
        let ingress = running.find(INGRESS, Some(FrontendKind::ClusterIp), ipv6);
        for to in [running.pod(ipv6), ingress] {
            // The dots are the padding, and nearly nothing else in it is one.
            let dots = running.curl(&format!("'http://{to}/?bytes={LENGTH}' | tr -cd . | wc -c"));
            let dots: usize = dots.trim().parse().unwrap();
            assert!((LENGTH..LENGTH + 100).contains(&dots), "{dots} from {to}");
            let sent = running.curl(&format!(
                "-X POST -H 'Expect:' --data-binary @<(head -c {LENGTH} /dev/zero) http://{to}/"
            ));
            assert!(sent.contains(&format!("\"body_bytes\":{LENGTH}")), "{sent}");
        }
    });
}

#[test]
fn what_nobody_serves_is_refused_at_once() {
    let machine = Machine::new("tun-refused");
    behind(&machine, "dual-stack", |running| {
        let pod = running.pod(false);
        let pod = pod.rsplit_once(':').unwrap().0;
        let ingress = running.find(INGRESS, Some(FrontendKind::LoadBalancer), false);
        let ingress = ingress.rsplit_once(':').unwrap().0;
        // By RST, and by an ICMP error of kube-proxy's rules.
        for to in [format!("{pod}:1"), format!("{ingress}:443")] {
            let script = format!("curl -sS -m 3 http://{to}/ 2>&1 || echo code $?");
            let said = running.machine.shell(&script);
            assert!(said.contains("code 7"), "{to}: {said}");
        }
    });
}

#[rstest]
#[case::a_route("ip route add 10.96.0.0/12 dev lo", "10.96.0.0/12", "over lo")]
#[case::a_route_that_drops("ip route add blackhole 172.18.0.0/16", "172.18.0.0/16", "a route")]
#[case::in_another_table(
    "ip route add 10.244.0.0/16 dev lo table 77",
    "10.244.0.0/16",
    "over lo"
)]
#[case::an_address("ip addr add 203.0.113.1/32 dev lo", "203.0.113.1/32", "device lo")]
#[case::an_address_of_ipv6(
    "ip addr add fd00:172:18::2/128 dev lo",
    "fd00:172:18::2/128",
    "device lo"
)]
fn an_address_that_leads_elsewhere_already_is_refused(
    #[case] set: &str,
    #[case] prefix: &str,
    #[case] words: &str,
) {
    let name: String = prefix.chars().filter(char::is_ascii_alphanumeric).collect();
    let machine = Machine::new(&format!("tun-{name}"));
    machine.run(set);
    let before = state(&machine);
    let open = || Tun::open("nw0", cluster("dual-stack")).map(drop);
    let refused = machine.netns.run(open).unwrap();
    let Err(TunError::Link(error @ LinkError::Taken { .. })) = refused else {
        panic!("{refused:?}");
    };
    let said = error.to_string();
    assert!(said.contains(prefix) && said.contains(words), "{said}");
    assert_eq!(state(&machine), before, "something was left behind");
}

#[test]
fn a_default_route_is_in_nobodys_way() {
    let machine = Machine::new("tun-default");
    machine.run("ip route add default dev lo");
    machine.run("ip -6 route add default dev lo");
    behind(&machine, "dual-stack", |running| {
        let to = running.pod(true);
        running.curl(&format!("-f http://{to}/"));
    });
}

#[test]
fn a_device_of_that_name_is_refused_and_stays() {
    let machine = Machine::new("tun-exists");
    machine.run("ip tuntap add nw0 mode tun");
    let before = state(&machine);
    let open = || Tun::open("nw0", cluster("dual-stack")).map(drop);
    let refused = machine.netns.run(open).unwrap();
    assert!(
        matches!(&refused, Err(TunError::Link(LinkError::Exists(name))) if name == "nw0"),
        "{refused:?}"
    );
    assert_eq!(state(&machine), before);
}

#[test]
fn without_ipv6_the_rest_is_there() {
    let machine = Machine::new("tun-no-ipv6");
    machine.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
    behind(&machine, "dual-stack", |running| {
        assert!(!running.has_ipv6);
        let to = running.find(INGRESS, Some(FrontendKind::ClusterIp), false);
        running.curl(&format!("-f http://{to}/"));
    });
}

#[test]
fn many_clients_at_once_are_all_answered() {
    let machine = Machine::new("tun-many");
    behind(&machine, "dual-stack", |running| {
        let to = running.find(INGRESS, Some(FrontendKind::LoadBalancer), true);
        let script = format!(
            "seq 400 | xargs -P 20 -I N curl -gsS -m 20 -o /dev/null -w '%{{http_code}}\\n' 'http://{to}/N?bytes=20000' | sort | uniq -c"
        );
        let said = running.machine.shell(&script);
        assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["400", "200"]);
    });
}

/// A real Envoy, ended with the test.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Envoy with a listener of its own on `127.0.0.1:10000` before these endpoints.
fn envoy(machine: &Machine, folder: &Path, endpoints: &[String]) -> Proxy {
    let endpoints: Vec<String> = endpoints.iter().map(|it| endpoint(it)).collect();
    let config = format!(
        r#"
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: 10000}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: real
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: /}}, route: {{cluster: pods}}}}]
  clusters:
  - name: pods
    type: STATIC
    load_assignment:
      cluster_name: pods
      endpoints: [{{lb_endpoints: [{}]}}]
"#,
        endpoints.join(", ")
    );
    let path = folder.join("envoy.yaml");
    fs::write(&path, config).unwrap();
    let program = find(None).unwrap_or_else(|error| panic!("{error}"));
    let log = fs::File::create(folder.join("envoy.log")).unwrap();
    let start = || {
        let mut command = Command::new(program);
        command
            .arg("-c")
            .arg(path)
            .args(["--use-dynamic-base-id", "--concurrency", "1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        command.spawn()
    };
    Proxy(machine.netns.run(start).unwrap().unwrap())
}

fn endpoint(at: &str) -> String {
    let at: std::net::SocketAddr = at.parse().unwrap();
    format!(
        "{{endpoint: {{address: {{socket_address: {{address: \"{}\", port_value: {}}}}}}}}}",
        at.ip(),
        at.port()
    )
}

#[test]
fn a_real_envoy_answers_with_simulated_pods_behind_it() {
    let machine = Machine::new("tun-envoy");
    let folder = tempfile::tempdir().unwrap();
    behind(&machine, "dual-stack", |running| {
        let endpoints = [running.pod(false), running.pod(true)];
        let _proxy = envoy(&machine, folder.path(), &endpoints);
        let asked = "curl -sS --retry 100 --retry-connrefused --retry-delay 0 --retry-max-time 20";
        let mut peers = String::new();
        for path in 0..8 {
            let answer = running.machine.shell(&format!(
                "{asked} -i -H 'x-a: b' http://127.0.0.1:10000/{path}"
            ));
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(answer.contains("server: envoy"), "{answer}");
            assert!(answer.contains("\"pod\":\"default/shop-1\""), "{answer}");
            assert!(
                answer.contains(&format!("\"path\":\"/{path}\"")),
                "{answer}"
            );
            assert!(answer.contains("\"x-a\":\"b\""), "{answer}");
            peers.push_str(&answer);
        }
        // Both families of the one pod were asked.
        assert!(peers.contains("\"peer\":\"203.0.113.1:"), "{peers}");
        assert!(peers.contains("\"peer\":\"[2001:db8:ffff::1]:"), "{peers}");
    });
}
