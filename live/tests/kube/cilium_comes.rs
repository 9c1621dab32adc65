//! Cilium comes into a cluster in which Nodeway is already.

use std::net::TcpListener;

use nodeway_live::agent::ask_status;
use nodeway_live::operator::OperatorOptions;

use super::beside_cilium::{AGENT, until_there};
use super::conditions::{NODE, WEB, agent, config, get_config, said};
use super::control_plane::ControlPlane;
use super::{CONFIG, INGRESS, Running, bed::Machine, cluster, get, options, start, until};

/// An operator with a door for metrics, and its address.
pub(super) fn operator(cluster: &ControlPlane) -> (Running, String) {
    let door = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let running = start(OperatorOptions {
        metrics: Some(door),
        ..options(cluster, "one")
    });
    (running, door.to_string())
}

/// What is answered, with its status line.
pub(super) fn ask(door: &str, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(door).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn an_operator_writes_nothing_while_cilium_is_there_and_goes_on_when_it_has_gone() {
    let cluster = cluster();
    until_there(&cluster);
    let (running, door) = operator(&cluster);
    until("the Lease", || {
        ask(&door, "/readyz")
            .contains("has the Lease")
            .then_some(())
    });
    assert!(ask(&door, "/healthz").starts_with("HTTP/1.1 200"));
    cluster.apply(AGENT);
    until("that it says so", || {
        ask(&door, "/readyz")
            .starts_with("HTTP/1.1 503")
            .then_some(())
    });
    assert!(ask(&door, "/metrics").contains("\nnodeway_cilium{} 1\n"));
    let before = running.writes.count();
    cluster.apply(INGRESS);
    until("that it would write", || {
        let waits = r#"nodeway_operator_objects{kind="Service",state="waiting"} 1"#;
        ask(&door, "/metrics").contains(waits).then_some(())
    });
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(running.writes.count(), before);
    assert_eq!(get(&cluster, CONFIG), None);
    let gone = cluster.kubectl(&["delete", "daemonset", "-n", "kube-system", "some-cilium"]);
    gone.unwrap();
    until("the config", || get(&cluster, CONFIG));
    until("its count", || {
        let written = r#"nodeway_operator_writes_total{kind="CiliumEnvoyConfig",operation="apply",outcome="done"} 1"#;
        ask(&door, "/metrics").contains(written).then_some(())
    });
    assert!(ask(&door, "/readyz").starts_with("HTTP/1.1 200"));
    running.stop.now();
    running.thread.join().unwrap();
}

#[test]
fn an_agent_keeps_what_it_leads_says_that_cilium_has_come_and_writes_no_status() {
    let machine = Machine::new("kube-cilium");
    let first = config("first", "");
    let running = agent(&machine, &[NODE.to_owned(), WEB.to_owned(), first]);
    let cluster = &running.cluster;
    until("a status", || {
        let first = get_config(&machine, cluster, "first");
        (said(&first, "node-1").len() == 4).then_some(())
    });
    machine.netns.run(|| cluster.apply(AGENT)).unwrap();
    let status = until("that it says so", || {
        let status = ask_status(&running.run()).ok()?;
        (!status.cilium.is_empty()).then_some(status)
    });
    assert_eq!(status.cilium, ["DaemonSet kube-system/some-cilium"]);
    assert!(
        status
            .out_of_sync()
            .iter()
            .any(|it| it.contains("some-cilium"))
    );
    // The plan goes on: what comes is planned, and what is said of it stays here.
    let objects = status.source.objects;
    machine
        .netns
        .run(|| cluster.apply(&config("second", "")))
        .unwrap();
    until("that it plans", || {
        let status = ask_status(&running.run()).ok()?;
        (status.source.objects > objects && !status.unserved.is_empty()).then_some(())
    });
    std::thread::sleep(std::time::Duration::from_secs(3));
    let second = get_config(&machine, cluster, "second");
    assert_eq!(said(&second, "node-1"), [""; 0]);
    // It goes: what was not said is said.
    let gone = machine
        .netns
        .run(|| cluster.kubectl(&["delete", "daemonset", "-n", "kube-system", "some-cilium"]));
    gone.unwrap().unwrap();
    until("what is said", || {
        let second = get_config(&machine, cluster, "second");
        (said(&second, "node-1").len() == 4).then_some(())
    });
    running.end();
}
