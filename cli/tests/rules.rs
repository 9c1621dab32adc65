//! The rules of a node, as the command prints them.

use rstest::rstest;

use crate::process::nodeway;

#[rstest]
#[case::iptables("iptables", &["-j TPROXY", "skbmark", "fwmark 0x200/0xf00 lookup 2004 pref 9"], &["KUBE-"])]
#[case::tc("tc", &["-j CT --notrack", "fwmark 0x200/0xf00"], &["-j TPROXY"])]
#[case::sk_lookup("sk-lookup", &["-j CT --notrack", "ip route add local 10.96."], &["-j TPROXY", "fwmark"])]
#[case::sidecar("sidecar", &["# default/client, for", "--to-ports 15001", "--to-ports 15006"], &["nodeway-", "node-1"])]
fn each_way_has_its_rules(#[case] way: &str, #[case] has: &[&str], #[case] has_not: &[&str]) {
    let output = nodeway(&["rules", "fixtures/bookinfo", "--redirect", way]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for wanted in has {
        assert!(text.contains(wanted), "{wanted} is not in\n{text}");
    }
    for unwanted in has_not {
        assert!(!text.contains(unwanted), "{unwanted} is in\n{text}");
    }
}

#[test]
fn one_part_alone_is_what_its_tool_takes() {
    let output = nodeway(&[
        "rules",
        "fixtures/bookinfo",
        "--kube-proxy",
        "--only",
        "rules",
    ]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with("*raw\n") && text.ends_with("COMMIT\n"),
        "{text}"
    );
    assert!(text.contains("-j KUBE-SVC-"));
}

#[rstest]
#[case::no_such_pod(&["--redirect", "sidecar", "--pod", "default/x"], "default/details-v1-1")]
#[case::another_way(&["--pod", "default/client"], "--redirect sidecar")]
fn a_pod_that_has_no_rules_is_bad_input(#[case] more: &[&str], #[case] help: &str) {
    let output = nodeway(&[&["rules", "fixtures/bookinfo"], more].concat());
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    // Long names are broken at their slashes.
    let told: String = told.split_whitespace().collect();
    let wanted: String = help.split_whitespace().collect();
    assert!(told.contains(&wanted), "{told}");
}

#[test]
fn a_node_that_is_not_there_is_bad_input_and_the_others_are_named() {
    let output = nodeway(&["rules", "fixtures/bookinfo", "--node", "node-9"]);
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("node-9") && told.contains("node-1, node-2"),
        "{told}"
    );
}
