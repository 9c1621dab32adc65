//! The rules as the real tools see them: what we write they take, and what they give back is what
//! we wrote. Each test has a network namespace of its own; the machine's rules are not touched.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the set-up of tests"
)]

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use nodeway_core::datapath::{Family, Frontend, FrontendState};
use nodeway_core::frontend::FrontendKey;
use nodeway_core::netfilter::kube_proxy::{ExternalKind, ServicePort};
use nodeway_core::netfilter::{Ruleset, ebpf, kube_proxy, sidecar, text, tproxy};
use rstest::rstest;

/// Loads sets and rules in a namespace of their own, and gives back what it then has.
fn loaded(rules: &Ruleset) -> String {
    let program = match rules.family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    };
    let script = format!(
        "set -e; sets=$(mktemp); rules=$(mktemp); trap 'rm -f $sets $rules' EXIT\n\
         cat > $sets <<'END'\n{}END\ncat > $rules <<'END'\n{}END\n\
         ipset restore < $sets; {program}-restore --test $rules; {program}-restore $rules; {program}-save\n\
         echo '#SETS'; ipset save",
        text::sets(rules),
        text::ruleset(rules),
    );
    in_a_namespace(&script)
}

/// What a script prints in a namespace of its own.
fn in_a_namespace(script: &str) -> String {
    let mut child = Command::new("unshare")
        .args(["--net", "bash"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("unshare is missing: run ci/setup");
    let mut input = child.stdin.take().unwrap();
    input.write_all(script.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "iptables, ipset and nft must be there, and the test must run as root (run ci/setup): {errors}"
    );
    String::from_utf8(output.stdout).unwrap()
}

/// What the tools give back is read, and is what was written.
#[track_caller]
fn comes_back(rules: Ruleset) {
    rules.validate().unwrap();
    let saved = loaded(&rules);
    let (saved_rules, saved_sets) = saved.split_once("#SETS\n").unwrap();
    let (mut back, errors) = text::parse(saved_rules, rules.family);
    assert_eq!(errors, [], "{saved_rules}");
    assert_eq!(text::parse_sets(saved_sets, &mut back), [], "{saved_sets}");
    assert_eq!(back.normal(), rules.normal(), "{saved}");
}

fn key(family: Family, last: u8) -> FrontendKey {
    let address = match family {
        Family::V4 => format!("10.96.0.{last}"),
        Family::V6 => format!("fd00:96::{last:x}"),
    };
    FrontendKey {
        address: address.parse().unwrap(),
        port: 80,
    }
}

fn services(family: Family) -> Vec<ServicePort> {
    let address = |n: u8| key(family, n).address;
    let endpoint = |n: u8| {
        let at = match family {
            Family::V4 => format!("10.244.0.{n}:8080"),
            Family::V6 => format!("[fd00:244::{n:x}]:8080"),
        };
        (at.parse().unwrap(), n.is_multiple_of(2))
    };
    let plain = ServicePort {
        name: "default/shop:http".to_owned(),
        cluster: vec![address(20)],
        external: vec![(address(120), ExternalKind::LoadBalancer)],
        port: 80,
        node_port: Some(30_080),
        endpoints: (1..8).map(endpoint).collect(),
        external_local: false,
        internal_local: false,
        affinity: None,
        source_ranges: Vec::new(),
    };
    let other = |name: &str, last: u8| ServicePort {
        name: name.to_owned(),
        cluster: vec![address(last)],
        external: vec![(address(last + 100), ExternalKind::ExternalIp)],
        node_port: Some(30_000 + u16::from(last)),
        ..plain.clone()
    };
    vec![
        ServicePort {
            affinity: Some(Duration::from_secs(10_800)),
            ..other("default/stays", 21)
        },
        ServicePort {
            external_local: true,
            internal_local: true,
            ..other("default/local", 22)
        },
        ServicePort {
            endpoints: vec![],
            ..other("default/empty:http", 23)
        },
        ServicePort {
            endpoints: vec![endpoint(1)],
            external_local: true,
            ..other("default/elsewhere", 24)
        },
        ServicePort {
            external: vec![(address(125), ExternalKind::LoadBalancer)],
            source_ranges: vec![ipnet::IpNet::new(address(16), 28).unwrap()],
            ..other("default/guarded", 25)
        },
        plain,
    ]
}

/// A frontend on a port of its own; every state comes.
fn frontend(n: u8) -> Frontend {
    Frontend {
        listener_port: 10_000 + 37 * u16::from(n),
        state: match n % 3 {
            0 => FrontendState::Draining,
            1 => FrontendState::Active,
            _ => FrontendState::Arming,
        },
        ranged: n.is_multiple_of(2),
    }
}

#[rstest]
fn the_rules_of_tproxy_are_taken_and_come_back(
    #[values(Family::V4, Family::V6)] family: Family,
    #[values(1, 40)] listeners: u8,
) {
    let mut rules = Ruleset::new(family);
    tproxy::install(&mut rules);
    for n in 1..=listeners {
        tproxy::put(&mut rules, key(family, n), &frontend(n));
    }
    let ports = (1..=listeners).map(|n| 10_000 + 37 * u16::from(n));
    tproxy::lead(&mut rules, &ports.collect());
    comes_back(rules);
}

#[rstest]
#[case::tc(ebpf::install_tc)]
#[case::sk_lookup(ebpf::install_sk_lookup)]
fn the_rules_beside_programs_are_taken_and_come_back(
    #[case] install: fn(&mut Ruleset),
    #[values(Family::V4, Family::V6)] family: Family,
) {
    let mut rules = Ruleset::new(family);
    install(&mut rules);
    for n in 1..=3 {
        ebpf::put(&mut rules, key(family, n), &frontend(n));
    }
    comes_back(rules);
}

#[rstest]
fn kube_proxys_rules_are_taken_and_come_back(#[values(Family::V4, Family::V6)] family: Family) {
    let services = services(family);
    comes_back(kube_proxy::rules(family, &services));
}

#[rstest]
fn a_sidecars_rules_are_taken_and_come_back(#[values(Family::V4, Family::V6)] family: Family) {
    comes_back(sidecar::rules(family, &[8081, 9090]));
}

#[rstest]
fn both_stand_side_by_side(#[values(Family::V4, Family::V6)] family: Family) {
    let mut rules = Ruleset::new(family);
    tproxy::install(&mut rules);
    kube_proxy::install(
        &mut rules,
        kube_proxy::Mode::Iptables,
        &[],
        &services(family),
    );
    comes_back(rules);
}

/// What `nft` makes of a script, twice: the second takes the place of the first.
fn of_nft(script: &str, table: &str) -> String {
    let script = format!(
        "set -e; nft -f - <<'END'\n{script}END\nnft -f - <<'END'\n{script}END\nnft list table {table}"
    );
    in_a_namespace(&script)
}

#[rstest]
fn kube_proxys_table_of_nftables_is_taken_by_the_real_nft(
    #[values(Family::V4, Family::V6)] family: Family,
) {
    let own = ["172.18.0.2".parse().unwrap(), "fd00:18::2".parse().unwrap()];
    let services = services(family);
    let script = kube_proxy::nftables::script(family, &services, &own);
    let table = match family {
        Family::V4 => "ip kube-proxy",
        Family::V6 => "ip6 kube-proxy",
    };
    let listed = of_nft(&script, table);
    for service in &services {
        let chains = listed.lines().map(str::trim);
        let mut chains = chains.filter(|it| it.starts_with("chain "));
        let (path, _) = service.name.rsplit_once(':').unwrap_or((&service.name, ""));
        let there = chains.any(|it| it.contains(&format!("-{path}/tcp/")));
        assert_eq!(there, !service.endpoints.is_empty(), "{path}: {listed}");
    }
}
