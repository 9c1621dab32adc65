//! An operator whose API server goes away and comes back.

use super::cilium_comes::{ask, operator};
use super::{CONFIG, INGRESS, cluster, get, until};

#[test]
fn an_operator_outlives_its_api_server_and_writes_what_comes_after() {
    let mut cluster = cluster();
    let (running, door) = operator(&cluster);
    until("the Lease", || {
        ask(&door, "/readyz")
            .contains("has the Lease")
            .then_some(())
    });
    cluster.kill_server();
    until("that it has the Lease no more", || {
        let metrics = ask(&door, "/metrics");
        let lost = metrics.contains("\nnodeway_operator_leads{} 0\n");
        let cut_off = metrics.contains("\nnodeway_source_error{} 1\n");
        (lost && cut_off).then_some(())
    });
    assert!(ask(&door, "/healthz").starts_with("HTTP/1.1 200"));
    assert!(
        ask(&door, "/metrics").contains(r#"nodeway_operator_errors_total{what="lease"}"#),
        "{}",
        ask(&door, "/metrics")
    );
    cluster.start_server();
    cluster.apply(INGRESS);
    until("the config", || get(&cluster, CONFIG));
    assert!(ask(&door, "/readyz").contains("has the Lease"));
    running.stop.now();
    running.thread.join().unwrap();
}
