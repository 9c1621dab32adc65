//! `--pcap DIR`: tshark reads the captures and sees what the cluster did.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rstest::rstest;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::nodeway;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a fixture into a new folder, and gives the folder and the report.
fn capture(fixture: &str, redirect: &str, more: &[&str]) -> (TempDir, Value) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let first = ["sim", fixture, "--redirect", redirect, "--pcap", path];
    let output = nodeway(&[&first, more, &["-o", "json"]].concat());
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", said(&output)));
    (folder, report)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The fields of every packet that a filter takes.
fn tshark(file: &Path, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
    let mut command = Command::new("tshark");
    command.args(["-o", "tcp.check_checksum:TRUE"]);
    command.args(["-o", "ip.check_checksum:TRUE"]);
    command.args(["-n", "-T", "fields", "-E", "separator=/t", "-Y", filter]);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = match command.arg("-r").arg(file).output() {
        Ok(output) => output,
        Err(error) => panic!("tshark cannot be started ({error}): install tshark (ci/setup)"),
    };
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let row = |line: &str| line.split('\t').map(str::to_owned).collect();
    text.lines().map(row).collect()
}

fn count(file: &Path, filter: &str) -> usize {
    tshark(file, filter, &["frame.number"]).len()
}

#[rstest]
fn no_packet_is_malformed_and_every_checksum_is_right(
    #[values("bookinfo", "dual-stack", "no-endpoints")] fixture: &str,
    #[values("tc", "sk-lookup", "iptables", "sidecar")] redirect: &str,
) {
    let (folder, _) = capture(&format!("fixtures/{fixture}"), redirect, &[]);
    let rows = tshark(&merged(folder.path()), "frame", &JUDGED);
    for row in &rows {
        assert_eq!(wrong(row), None, "{row:?}");
    }
    assert!(!rows.is_empty());
}

/// All captures of a folder in one: tshark takes longer to begin than to read one.
fn merged(folder: &Path) -> PathBuf {
    let all = folder.join("all");
    let mut command = Command::new("mergecap");
    let output = command.arg("-w").arg(&all).args(files(folder)).output();
    let output = output.unwrap_or_else(|error| {
        panic!("mergecap cannot be started ({error}): it comes with tshark (ci/setup)")
    });
    assert!(output.status.success(), "{}", said(&output));
    all
}

/// What tshark thinks of a packet: each checksum is 0 where it is wrong, 1 where it is right.
const JUDGED: [&str; 7] = [
    "frame.interface_name",
    "_ws.malformed",
    "ip.version",
    "ip.checksum.status",
    "tcp.checksum.status",
    "icmp.checksum.status",
    "icmpv6.checksum.status",
];

/// An ICMP error quotes a packet: then a field has two values, the packet's own first.
fn wrong(row: &[String]) -> Option<&'static str> {
    let [_, malformed, version, ip, tcp, icmp, icmpv6] = row else {
        return Some("a field is missing");
    };
    let own = |field: &String| field.split(',').next() == Some("1");
    if !malformed.is_empty() {
        return Some("malformed");
    }
    if version.starts_with('4') && !own(ip) {
        return Some("the IP header's checksum");
    }
    let outer = [icmp, icmpv6].into_iter().find(|it| !it.is_empty());
    let held = own(outer.unwrap_or(tcp));
    let bad = [ip, tcp, icmp, icmpv6]
        .iter()
        .any(|field| field.split(',').any(|status| status == "0"));
    (bad || !held).then_some("a checksum")
}

#[rstest]
fn the_client_speaks_to_the_services_address_in_a_stream_a_request(
    #[values("tc", "sk-lookup", "iptables")] redirect: &str,
) {
    let (folder, report) = capture("fixtures/bookinfo", redirect, &[]);
    let eth0 = folder.path().join("pod_default_client_eth0.pcapng");
    let requests = report["requests"].as_array().unwrap();
    let asked = requests
        .iter()
        .filter(|row| row["client"] == "default/client");
    let wanted: Vec<&str> = asked
        .map(|row| {
            let url = row["url"].as_str().unwrap();
            let (_, rest) = url.split_once("://").unwrap();
            &rest[rest.find('/').unwrap()..]
        })
        .collect();
    let rows = tshark(
        &eth0,
        "http.request",
        &["tcp.stream", "http.request.uri", "ip.dst", "tcp.dstport"],
    );
    let seen: Vec<&str> = rows.iter().map(|row| row[1].as_str()).collect();
    assert_eq!(seen, wanted);
    let opened = tshark(&eth0, "tcp", &["tcp.stream"]);
    let streams: BTreeSet<_> = opened.into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(streams.len(), wanted.len());
    let service = report["ingresses"][0]["cluster_address"].as_str().unwrap();
    let first = &rows[0];
    assert_eq!(format!("{}:{}", first[2], first[3]), service);
    assert_eq!(count(&eth0, "http.response"), wanted.len());
}

#[rstest]
#[case::tc("tc", "tc-ingress: deliver (left-to-sk-lookup), mark 0x")]
#[case::sk_lookup("sk-lookup", "sk-lookup: assign (new-connection)")]
#[case::iptables("iptables", "TPROXY in PREROUTING: to the socket at ")]
fn the_hook_that_leads_a_syn_to_the_listener_says_so(
    #[case] redirect: &str,
    #[case] decision: &str,
) {
    let (folder, _) = capture("fixtures/bookinfo", redirect, &[]);
    let veth = folder.path().join("node_node-1_veth_default_client.pcapng");
    let syns = "tcp.flags.syn == 1 && tcp.flags.ack == 0";
    let rows = tshark(&veth, syns, &["frame.interface_name", "frame.comment"]);
    assert_eq!(rows[0][0], "veth of default/client");
    assert!(rows[0][1].contains(decision), "{}", rows[0][1]);
}

#[rstest]
#[case::out("default_client_lo", "10.96.102.213:80 -> 127.0.0.1:15001")]
#[case::inward("default_details-v1-1_eth0", "10.244.1.216:9080 -> 10.244.1.216:15006")]
fn a_pods_rule_that_leads_a_syn_to_the_pods_proxy_says_so(
    #[case] interface: &str,
    #[case] translation: &str,
) {
    let (folder, _) = capture("fixtures/bookinfo", "sidecar", &[]);
    let file = folder.path().join(format!("pod_{interface}.pcapng"));
    let syns = "tcp.flags.syn == 1 && tcp.flags.ack == 0";
    let rows = tshark(&file, syns, &["frame.comment"]);
    let wanted = format!("translated: destination {translation}");
    assert!(rows[0][0].contains(&wanted), "{}", rows[0][0]);
}

#[rstest]
fn a_translation_stands_with_the_packet_that_came_and_the_one_that_goes(
    #[values("tc", "sk-lookup", "iptables")] redirect: &str,
) {
    let (folder, report) = capture("fixtures/bookinfo", redirect, &[]);
    let requests = report["requests"].as_array().unwrap();
    let row = requests
        .iter()
        .find(|row| row["redirected"] == false)
        .unwrap();
    let pod = row["pod"].as_str().unwrap().replace('/', "_");
    let syn = "tcp.flags.syn == 1 && tcp.flags.ack == 0";
    let fields = ["ip.dst", "tcp.dstport", "frame.comment"];
    let last = |file: String| {
        let rows = tshark(&folder.path().join(file), syn, &fields);
        let row = rows.last().unwrap();
        (format!("{}:{}", row[0], row[1]), row[2].clone())
    };
    let (asked, came) = last("node_node-1_veth_default_client.pcapng".to_owned());
    let (endpoint, went) = last(format!("node_node-1_veth_{pod}.pcapng"));
    let translation = format!("translated: destination {asked} -> {endpoint}");
    assert!(came.contains(&translation), "{came}");
    assert!(went.contains(&translation), "{went}");
}

#[test]
fn a_refused_service_says_why_its_packet_goes_no_further() {
    let (folder, _) = capture("fixtures/no-endpoints", "tc", &[]);
    let mut rejected = 0;
    for file in files(folder.path()) {
        rejected += count(&file, "frame.comment contains \"rejected: by a rule\"");
    }
    assert!(rejected > 0);
}

#[test]
fn time_is_the_runs_own_in_nanoseconds() {
    let (folder, _) = capture("fixtures/bookinfo", "tc", &[]);
    let eth0 = folder.path().join("pod_default_client_eth0.pcapng");
    let rows = tshark(&eth0, "frame", &["frame.time_epoch"]);
    let times: Vec<f64> = rows
        .iter()
        .map(|row| row[0].parse::<f64>().unwrap())
        .collect();
    assert!(times.is_sorted());
    assert!(times[0] >= 0.0 && *times.last().unwrap() < 60.0);
    let fine = rows.iter().any(|row| !row[0].ends_with("000"));
    assert!(fine, "no time is finer than a microsecond: {rows:?}");
}

/// Every file by its name below the folder.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    files(folder)
        .iter()
        .map(|path| (name(path), fs::read(path).unwrap()))
        .collect()
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let run = |seed: &str| {
        let (folder, _) = capture("fixtures/bookinfo", "tc", &["--seed", seed]);
        contents(folder.path())
    };
    let first = run("7");
    assert_eq!(first, run("7"));
    assert_ne!(first, run("8"));
}

#[test]
fn each_way_has_a_folder_of_its_own_where_several_are_run() {
    let (folder, reports) = capture("fixtures/bookinfo", "all", &[]);
    let ways: BTreeSet<String> = contents_of_folder(folder.path());
    let wanted: BTreeSet<String> = reports
        .as_array()
        .unwrap()
        .iter()
        .map(|report| report["redirect"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ways, wanted);
}

fn contents_of_folder(folder: &Path) -> BTreeSet<String> {
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    files(folder).iter().map(name).collect()
}

#[test]
fn explain_captures_its_one_request_into_a_folder_that_it_makes() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("a/b");
    let output = nodeway(&[
        "explain",
        "fixtures/bookinfo",
        "--from",
        "default/client",
        "--to",
        "http://cilium-ingress-basic-ingress/details/0",
        "--pcap",
        below.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let eth0 = below.join("pod_default_client_eth0.pcapng");
    let rows = tshark(&eth0, "http.request", &["http.request.uri"]);
    assert_eq!(rows, [["/details/0"]]);
}

#[rstest]
#[case::here("old.pcapng")]
#[case::below("tc/old.pcapng")]
fn captures_of_another_run_are_left_alone(#[case] old: &str) {
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join(old);
    fs::create_dir_all(old.parent().unwrap()).unwrap();
    fs::write(&old, "of another run").unwrap();
    let path = folder.path().to_str().unwrap();
    let output = nodeway(&["sim", "fixtures/bookinfo", "--pcap", path]);
    assert_eq!(output.status.code(), Some(2));
    // The report is folded where a line is full.
    let said = said(&output);
    assert!(said.contains("is there already"), "{said}");
    assert_eq!(fs::read(&old).unwrap(), b"of another run");
    assert_eq!(contents_of_folder(folder.path()).len(), 1);
}

#[test]
fn a_file_in_the_folders_place_is_bad_input_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let output = nodeway(&["sim", "fixtures/bookinfo", "--pcap", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("--pcap"), "{}", said(&output));
    assert!(said(&output).contains("name a folder"), "{}", said(&output));
}
