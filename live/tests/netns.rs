//! Namespaces come, are entered, and go. Needs root: `sudo -E cargo nextest run -p nodeway-live`.

use nodeway_live::netns::{NetNs, NetNsError};

/// A name of this test process's own.
fn name(what: &str) -> String {
    format!("nwtest-{what}-{}", std::process::id())
}

fn devices() -> String {
    std::fs::read_to_string("/proc/thread-self/net/dev").unwrap()
}

#[test]
fn what_runs_inside_sees_an_empty_network_and_the_caller_stays_where_it_is() {
    let name = name("inside");
    let before = devices();
    let netns = NetNs::create(&name).unwrap();
    let inside = netns.run(devices).unwrap();
    NetNs::delete(&name).unwrap();
    assert_eq!(inside.lines().filter(|it| it.contains(':')).count(), 1);
    assert_eq!(devices().lines().count(), before.lines().count());
}

#[test]
fn a_name_is_given_once_and_is_gone_after_delete() {
    let name = name("once");
    NetNs::create(&name).unwrap();
    assert!(NetNs::list().unwrap().contains(&name));
    assert!(matches!(NetNs::create(&name), Err(NetNsError::Exists(_))));
    NetNs::delete(&name).unwrap();
    assert!(matches!(NetNs::open(&name), Err(NetNsError::Missing(_))));
}
