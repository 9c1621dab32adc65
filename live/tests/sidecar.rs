//! The Envoy of a pod that has its plan from files, in a network namespace of its own.

use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nodeway_core::netfilter::sidecar::OUTBOUND;
use nodeway_core::plan::NodePlan;
use nodeway_live::envoy::{Admin, find};
use nodeway_live::netns::NetNs;
use nodeway_live::sidecar::{PodEnvoy, PodEnvoyOptions, install_rules};
use nodeway_sim::{Fixture, Sim};

const WITHIN: Duration = Duration::from_secs(20);

/// A namespace of a pod, gone with the test.
struct Pod(NetNs);

impl Pod {
    fn new(name: &str) -> Self {
        let name = format!("nw-pod-{name}-{}", std::process::id());
        let netns = NetNs::create(&name).unwrap();
        let up = netns.run(|| {
            Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status()
        });
        assert!(up.unwrap().unwrap().success());
        Self(netns)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = NetNs::delete(self.0.name());
    }
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < WITHIN, "{what} does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn bookinfo() -> NodePlan {
    let fixture = Fixture::load("../fixtures/bookinfo").unwrap();
    let sim = Sim::from_fixture(&fixture).unwrap().start().unwrap();
    sim.plan("node-1").unwrap().clone()
}

fn started(pod: &Pod, run: &Path, plan: &NodePlan) -> PodEnvoy {
    let options = PodEnvoyOptions {
        pod: "default/client".to_owned(),
        addresses: Vec::new(),
        run: run.to_owned(),
        program: find(None).unwrap(),
        access_log: false,
    };
    let envoy = pod.0.run(|| PodEnvoy::start(plan, options, drop)).unwrap();
    let envoy = envoy.unwrap();
    let at = (Ipv4Addr::LOCALHOST, OUTBOUND);
    until("the listener", || {
        pod.0.run(|| TcpStream::connect(at).is_ok()).unwrap()
    });
    envoy
}

fn clusters(run: &Path) -> String {
    Admin::of(run).get("/clusters").unwrap()
}

#[test]
fn another_plan_is_followed_without_a_new_process() {
    let (pod, run) = (Pod::new("follows"), tempfile::tempdir().unwrap());
    let whole = bookinfo();
    let mut less = whole.clone();
    less.clusters.retain(|name, _| !name.contains("details"));
    let mut envoy = started(&pod, run.path(), &less);
    assert!(!clusters(run.path()).contains("default:details:9080"));
    envoy.follow(&whole).unwrap();
    until("the other cluster", || {
        clusters(run.path()).contains("default:details:9080")
    });
    envoy.follow(&less).unwrap();
    until("the first plan", || {
        !clusters(run.path()).contains("default:details:9080")
    });
}

#[test]
fn it_ends_with_who_keeps_it() {
    let (pod, run) = (Pod::new("ends"), tempfile::tempdir().unwrap());
    drop(started(&pod, run.path(), &bookinfo()));
    assert!(Admin::of(run.path()).get("/ready").is_err());
}

#[test]
fn rules_that_are_installed_twice_stand_once() {
    let pod = Pod::new("rules");
    let installed = || {
        pod.0.run(|| install_rules(&[8081])).unwrap().unwrap();
        let saved = pod
            .0
            .run(|| Command::new("iptables-save").args(["-t", "nat"]).output());
        let saved = String::from_utf8(saved.unwrap().unwrap().stdout).unwrap();
        let rules = saved.lines().filter(|line| line.starts_with("-A"));
        rules.map(str::to_owned).collect::<Vec<String>>()
    };
    let once = installed();
    assert!(once.contains(&"-A NODEWAY_OUT -p tcp -j REDIRECT --to-ports 15001".to_owned()));
    assert_eq!(installed(), once);
}
