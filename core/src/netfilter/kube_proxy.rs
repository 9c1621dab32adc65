//! kube-proxy's rules, as its iptables mode writes them: the baseline beside every way.
//!
//! ```text
//! PREROUTING, OUTPUT -> KUBE-SERVICES -> KUBE-SVC-x  one endpoint by chance -> KUBE-SEP-y  DNAT
//!                                     -> KUBE-EXT-x  from outside: masqueraded, or local endpoints only
//!                                     -> KUBE-FW-x   a load balancer's source ranges -> KUBE-EXT-x
//!                                     -> KUBE-NODEPORTS -> KUBE-EXT-x
//! INPUT, OUTPUT, FORWARD -> KUBE-PROXY-FIREWALL  drops what no source range let through
//! POSTROUTING -> KUBE-POSTROUTING  MASQUERADE what is marked
//! FORWARD -> KUBE-FORWARD  drops what is INVALID
//! ```
//!
//! Names, order and marks follow `pkg/proxy/iptables/proxier.go` of Kubernetes. Without
//! `--cluster-cidr`; TCP only. A source range lets a node through only if it holds the node's
//! address: no rule is written for load balancers that make their own address the source.

pub mod nftables;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServicePort as Port};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use nodeway_datapath::Family;
use sha2::{Digest, Sha256};

use super::frontends::tcp;
use super::{
    BuiltIn, ChainName, ConnectionState, Match, RecentList, RejectWith, Rule, Ruleset, Table,
    Target,
};
use crate::frontend::FrontendKind;
use crate::service;

/// The bit by which kube-proxy marks what is to be masqueraded.
const MASQUERADE: u32 = 0x4000;

/// What drops packets to a LoadBalancer address from outside of its source ranges.
const FIREWALL: &str = "KUBE-PROXY-FIREWALL";

/// What refuses, in nftables mode, ports of ClusterIPs that nobody has.
const CLUSTER_IPS: &str = "KUBE-CLUSTER-IPS";

/// `service.spec.sessionAffinityConfig.clientIP.timeoutSeconds` where it is not said.
const AFFINITY: i32 = 10_800;

/// The chain that its iptables mode always has, as `iptables-save` writes it.
const SERVICES_SAVED: &str = ":KUBE-SERVICES ";

/// The table that its nftables mode always has ([`nftables::TABLE`]), as `nft -j` writes it.
const TABLE_LISTED: &str = "\"kube-proxy\"";

/// What the comments of a LoadBalancer address call it.
const LOAD_BALANCER: &str = "loadbalancer IP";

/// How kube-proxy runs on a node. By IPVS it takes packets on their way to the node's own sockets,
/// whatever connection tracking says: no redirect holds beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Not at all.
    None,
    /// By rules of iptables.
    #[default]
    Iptables,
    /// By a table of nftables. It leads to the same endpoints; the differences that a client can
    /// see are three: node ports are at the node's primary addresses only, a port of a ClusterIP
    /// that no Service has is refused, and what is INVALID is not dropped.
    Nftables,
}

/// A mode that there is not, or that nothing holds beside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMode {
    /// IPVS.
    #[error(
        "IPVS takes packets on their way to the node's own sockets whatever connection tracking says, so no redirect holds beside it; use `iptables`, `nftables` or `none`"
    )]
    Ipvs,
    /// A word.
    #[error("`{0}` is no mode of kube-proxy; use `iptables`, `nftables` or `none`")]
    Unknown(String),
}

impl Mode {
    /// Its name, as kube-proxy's `--proxy-mode` has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }

    /// How it stands on a node whose packet filter `iptables-save` and `nft -j list ruleset` write
    /// so: it is known by a chain or a table that it always has. `nft` is none where there is no
    /// such tool.
    #[must_use]
    pub fn found(iptables: &[&str], nft: Option<&str>) -> Self {
        if iptables.iter().any(|it| it.contains(SERVICES_SAVED)) {
            Self::Iptables
        } else if nft.is_some_and(|it| it.contains(TABLE_LISTED)) {
            Self::Nftables
        } else {
            Self::None
        }
    }

    /// Whether it translates services at all.
    #[must_use]
    pub fn translates(self) -> bool {
        self != Self::None
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mode {
    type Err = BadMode;

    fn from_str(name: &str) -> Result<Self, BadMode> {
        match name {
            "none" => Ok(Self::None),
            "iptables" => Ok(Self::Iptables),
            "nftables" => Ok(Self::Nftables),
            "ipvs" => Err(BadMode::Ipvs),
            other => Err(BadMode::Unknown(other.to_owned())),
        }
    }
}

/// One port of a Service, as rules need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// `namespace/name:port`, or `namespace/name` for a port without a name.
    pub name: String,
    /// The Service's own addresses.
    pub cluster: Vec<IpAddr>,
    /// Its LoadBalancer and external addresses, each with what it is called in a comment.
    pub external: Vec<(IpAddr, &'static str)>,
    /// The port at those addresses, host byte order.
    pub port: u16,
    /// The port at every address of a node.
    pub node_port: Option<u16>,
    /// Ready endpoints, and whether each is on this node.
    pub endpoints: Vec<(SocketAddr, bool)>,
    /// `externalTrafficPolicy: Local`: from outside, to this node's endpoints only.
    pub external_local: bool,
    /// `internalTrafficPolicy: Local`
    pub internal_local: bool,
    /// `sessionAffinity: ClientIP`: how long a client stays.
    pub affinity: Option<Duration>,
    /// `loadBalancerSourceRanges`: who may come by a LoadBalancer address. A family of which none
    /// is said is open.
    pub source_ranges: Vec<IpNet>,
}

impl ServicePort {
    /// The TCP ports of a Service on a node.
    #[must_use]
    pub fn of(service: &Service, slices: &[&EndpointSlice], node: &str) -> Vec<Self> {
        let Some(spec) = &service.spec else {
            return Vec::new();
        };
        let reference = service::reference(service);
        let mut cluster = Vec::new();
        let mut external = Vec::new();
        for (key, kind, _) in service::frontends(service, []) {
            match kind {
                FrontendKind::ClusterIp => cluster.push(key.address),
                FrontendKind::LoadBalancer => external.push((key.address, LOAD_BALANCER)),
                FrontendKind::ExternalIp => external.push((key.address, "external IP")),
                FrontendKind::NodePort => {}
            }
        }
        // Each address stands there once for every port.
        let once = |all: &mut Vec<IpAddr>| {
            all.sort_unstable();
            all.dedup();
        };
        once(&mut cluster);
        external.sort_unstable();
        external.dedup();
        if cluster.is_empty() && external.is_empty() {
            return Vec::new();
        }
        let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
            let client = spec.session_affinity_config.as_ref();
            let seconds = client
                .and_then(|it| it.client_ip.as_ref()?.timeout_seconds)
                .unwrap_or(AFFINITY);
            Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
        });
        let said = service::said_ranges(service);
        let ranges: Vec<IpNet> = said.filter_map(|(_, _, range)| range).collect();
        let local = |policy: Option<&str>| policy == Some("Local");
        service::tcp_ports(service)
            .filter_map(|port| {
                Some(Self {
                    name: name(&reference.path(), port),
                    cluster: cluster.clone(),
                    external: external.clone(),
                    port: service::number(port.port)?,
                    node_port: port.node_port.and_then(service::number),
                    endpoints: endpoints(service, slices, port, node),
                    external_local: local(spec.external_traffic_policy.as_deref()),
                    internal_local: local(spec.internal_traffic_policy.as_deref()),
                    affinity,
                    source_ranges: ranges.clone(),
                })
            })
            .collect()
    }

    fn chain(&self, kind: &str) -> ChainName {
        format!("{kind}-{}", hash(&[&self.name, "tcp"])).into()
    }

    fn endpoint_chain(&self, endpoint: SocketAddr) -> ChainName {
        format!(
            "KUBE-SEP-{}",
            hash(&[&self.name, "tcp", &endpoint.to_string()])
        )
        .into()
    }
}

fn name(path: &str, port: &Port) -> String {
    match port.name.as_deref() {
        None | Some("") => path.to_owned(),
        Some(name) => format!("{path}:{name}"),
    }
}

fn endpoints(
    service: &Service,
    slices: &[&EndpointSlice],
    port: &Port,
    node: &str,
) -> Vec<(SocketAddr, bool)> {
    let wanted = port.port.to_string();
    let found = service::endpoints(service, slices.iter().copied(), &wanted);
    found
        .endpoints
        .into_iter()
        .map(|it| (it.address, it.node.as_deref() == Some(node)))
        .collect()
}

/// The first 16 letters of the base32 form of a SHA-256, as kube-proxy names its chains.
fn hash(parts: &[&str]) -> String {
    letters(&Sha256::digest(parts.concat().as_bytes()), 16)
}

/// The first letters, 16 at most, of the base32 form of a digest.
fn letters(digest: &[u8], count: usize) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let bits = digest
        .iter()
        .take(10)
        .fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    (0..16)
        .rev()
        .take(count)
        .filter_map(|place| {
            let index = usize::try_from(bits >> (5 * place) & 31).ok()?;
            LETTERS.get(index).map(|letter| char::from(*letter))
        })
        .collect()
}

/// Adds the rules of a mode for those Services; `own` are the node's own addresses. What nftables
/// decides is written in the form of iptables too, which is what a simulated node evaluates: the
/// real table is [`nftables::script`].
pub fn install<'a>(
    rules: &mut Ruleset,
    mode: Mode,
    own: &[IpAddr],
    ports: impl IntoIterator<Item = &'a ServicePort>,
) {
    if mode == Mode::None {
        return;
    }
    for hook in [BuiltIn::Prerouting, BuiltIn::Output] {
        rules.hook(Table::Nat, hook, "KUBE-SERVICES");
    }
    rules.hook(Table::Nat, BuiltIn::Postrouting, "KUBE-POSTROUTING");
    let marked = |not| Match::Mark {
        not,
        value: MASQUERADE,
        mask: MASQUERADE,
    };
    rules.append(
        Table::Nat,
        "KUBE-POSTROUTING",
        [
            Rule::new([marked(true)], Target::Return),
            // The mark has done its work: a packet that goes round must not be masqueraded again.
            Rule::new(
                [],
                Target::Mark {
                    value: MASQUERADE,
                    mask: 0,
                },
            ),
            Rule::new([], Target::Masquerade { random_fully: true })
                .comment("kubernetes service traffic requiring SNAT"),
        ],
    );
    let value = MASQUERADE;
    rules.append(
        Table::Nat,
        "KUBE-MARK-MASQ",
        [Rule::new([], Target::Mark { value, mask: value })],
    );
    rules.chain_mut(Table::Nat, "KUBE-NODEPORTS");
    filter(rules, mode, marked(false));
    for port in ports {
        of_port(rules, port);
    }
    let to_node = match (mode, nftables::node_port_address(rules.family, own)) {
        (Mode::Nftables, Some(address)) => vec![to(address)],
        // A node without an address of that family: nowhere.
        (Mode::Nftables, None) => vec![
            Match::DestinationLocal { not: false },
            Match::DestinationLocal { not: true },
        ],
        _ => vec![Match::DestinationLocal { not: false }],
    };
    rules.append(
        Table::Nat,
        "KUBE-SERVICES",
        [
            Rule::new(to_node, Target::Jump("KUBE-NODEPORTS".into())).comment(
                "kubernetes service nodeports; NOTE: this must be the last rule in this chain",
            ),
        ],
    );
}

fn filter(rules: &mut Ruleset, mode: Mode, marked: Match) {
    let new = || state(&[ConnectionState::New]);
    let jump = |matches: Vec<Match>, to: &str| Rule::new(matches, Target::Jump(to.into()));
    for name in ["KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-FORWARD"] {
        rules.chain_mut(Table::Filter, name);
    }
    rules.chain_mut(Table::Filter, FIREWALL);
    for hook in [BuiltIn::Input, BuiltIn::Forward, BuiltIn::Output] {
        let rule = jump(vec![new()], FIREWALL).comment("kubernetes load balancer firewall");
        rules.built_in(Table::Filter, hook, [rule]);
    }
    let portals = "kubernetes service portals";
    let external = "kubernetes externally-visible service portals";
    rules.built_in(
        Table::Filter,
        BuiltIn::Input,
        [jump(vec![new()], "KUBE-EXTERNAL-SERVICES").comment(external)],
    );
    rules.built_in(
        Table::Filter,
        BuiltIn::Forward,
        [
            jump(vec![], "KUBE-FORWARD").comment("kubernetes forwarding rules"),
            jump(vec![new()], "KUBE-SERVICES").comment(portals),
            jump(vec![new()], "KUBE-EXTERNAL-SERVICES").comment(external),
        ],
    );
    rules.built_in(
        Table::Filter,
        BuiltIn::Output,
        [jump(vec![new()], "KUBE-SERVICES").comment(portals)],
    );
    if mode == Mode::Nftables {
        for hook in [BuiltIn::Forward, BuiltIn::Output] {
            rules.chain_mut(Table::Filter, CLUSTER_IPS);
            rules.built_in(Table::Filter, hook, [jump(vec![new()], CLUSTER_IPS)]);
        }
    }
    let follows = [ConnectionState::Related, ConnectionState::Established];
    let invalid = Rule::new([state(&[ConnectionState::Invalid])], Target::Drop);
    let invalid = (mode == Mode::Iptables).then_some(invalid);
    rules.append(Table::Filter, "KUBE-FORWARD", invalid);
    rules.append(
        Table::Filter,
        "KUBE-FORWARD",
        [
            Rule::new([marked], Target::Accept).comment("kubernetes forwarding rules"),
            Rule::new([state(&follows)], Target::Accept)
                .comment("kubernetes forwarding conntrack rule"),
        ],
    );
}

fn state(states: &[ConnectionState]) -> Match {
    Match::ConnectionState {
        not: false,
        states: states.to_vec(),
    }
}

/// All the rules for those Services, as the iptables mode writes them.
#[must_use]
pub fn rules<'a>(family: Family, ports: impl IntoIterator<Item = &'a ServicePort>) -> Ruleset {
    let mut rules = Ruleset::new(family);
    install(&mut rules, Mode::Iptables, &[], ports);
    rules
}

fn of_port(rules: &mut Ruleset, port: &ServicePort) {
    let port = &of_family(port, rules.family);
    if port.cluster.is_empty() && port.external.is_empty() {
        return;
    }
    check_cluster_ips(rules, port);
    let all: Vec<SocketAddr> = port.endpoints.iter().map(|(it, _)| *it).collect();
    let here = port.endpoints.iter().filter(|(_, here)| *here);
    let here: Vec<SocketAddr> = here.map(|(it, _)| *it).collect();

    let (inside, chain) = match port.internal_local {
        true => (&here, port.chain("KUBE-SVL")),
        false => (&all, port.chain("KUBE-SVC")),
    };
    for address in &port.cluster {
        let says = format!("{} cluster IP", port.name);
        let to = to_address(*address, port.port);
        // A chain of local endpoints stands only where there are some.
        let there = !inside.is_empty();
        lead(
            rules,
            "KUBE-SERVICES",
            to,
            &says,
            (inside, &all),
            there.then_some(&chain),
        );
    }
    let outside = if port.external_local { &here } else { &all };
    let chain = port.chain("KUBE-EXT");
    let there = (!all.is_empty()).then_some(&chain);
    let guarded = guard(rules, port, &all);
    for (address, kind) in &port.external {
        let says = format!("{} {kind}", port.name);
        let to = to_address(*address, port.port);
        let first = guarded.as_ref().filter(|_| *kind == LOAD_BALANCER);
        lead(
            rules,
            "KUBE-EXTERNAL-SERVICES",
            to,
            &says,
            (outside, &all),
            first.or(there),
        );
    }
    if let Some(node_port) = port.node_port {
        let to = to_port(node_port);
        lead(
            rules,
            "KUBE-NODEPORTS",
            to,
            &port.name,
            (outside, &all),
            there,
        );
    }
    chains(rules, port, &all, &here);
}

/// A port with what it has of a family.
fn of_family(port: &ServicePort, family: Family) -> ServicePort {
    let own = |address: &IpAddr| address.is_ipv4() == (family == Family::V4);
    let (cluster, external) = (port.cluster.iter(), port.external.iter());
    let (endpoints, ranges) = (port.endpoints.iter(), port.source_ranges.iter());
    ServicePort {
        cluster: cluster.copied().filter(own).collect(),
        external: external.copied().filter(|(it, _)| own(it)).collect(),
        endpoints: endpoints.copied().filter(|(it, _)| own(&it.ip())).collect(),
        source_ranges: ranges.copied().filter(|it| own(&it.addr())).collect(),
        ..port.clone()
    }
}

/// In nftables mode, refuses a ClusterIP that is still one after translation: no Service has that
/// port of it.
fn check_cluster_ips(rules: &mut Ruleset, port: &ServicePort) {
    let tables = rules.tables.get(&Table::Filter);
    if !tables.is_some_and(|chains| chains.contains_key(CLUSTER_IPS)) {
        return;
    }
    let chain = rules.chain_mut(Table::Filter, CLUSTER_IPS);
    for address in &port.cluster {
        let refuse = Target::Reject(RejectWith::PortUnreachable);
        chain.rules.push(Rule::new([to(*address)], refuse));
    }
}

/// The chain that lets source ranges through to a LoadBalancer address, where there are some. What
/// it lets nobody through for keeps that address, and by it is dropped.
fn guard(rules: &mut Ruleset, port: &ServicePort, all: &[SocketAddr]) -> Option<ChainName> {
    let balancers = || port.external.iter().filter(|(_, it)| *it == LOAD_BALANCER);
    if all.is_empty() || port.source_ranges.is_empty() || balancers().next().is_none() {
        return None;
    }
    let chain = port.chain("KUBE-FW");
    let says = format!("{} {LOAD_BALANCER}", port.name);
    for range in &port.source_ranges {
        let from = Match::Source {
            not: false,
            network: range.trunc(),
        };
        let let_through = Rule::new([from], Target::Jump(port.chain("KUBE-EXT"))).comment(&says);
        rules.append(Table::Nat, &chain, [let_through]);
    }
    let says = format!("{} traffic not accepted by {chain}", port.name);
    for (address, _) in balancers() {
        let drop = Rule::new(to_address(*address, port.port), Target::Drop).comment(&says);
        rules.append(Table::Filter, FIREWALL, [drop]);
    }
    Some(chain)
}

/// Leads an address to a chain; where no endpoint may be used, refuses it, or, where others have
/// some, drops it.
fn lead(
    rules: &mut Ruleset,
    from: &str,
    to: Vec<Match>,
    says: &str,
    (usable, all): (&[SocketAddr], &[SocketAddr]),
    chain: Option<&ChainName>,
) {
    // In `nat`, addresses for the outside stand among the others.
    let nat = match from {
        "KUBE-EXTERNAL-SERVICES" => "KUBE-SERVICES",
        from => from,
    };
    if let Some(chain) = chain {
        let rule = Rule::new(to.clone(), Target::Jump(chain.clone())).comment(says);
        rules.append(Table::Nat, nat, [rule]);
    }
    if !usable.is_empty() {
        return;
    }
    let (target, why) = match all {
        [] => (Target::Reject(RejectWith::PortUnreachable), "endpoints"),
        _ => (Target::Drop, "local endpoints"),
    };
    let mut matches = to;
    let mut filter = from;
    if from == "KUBE-NODEPORTS" {
        matches.insert(0, Match::DestinationLocal { not: false });
        filter = "KUBE-EXTERNAL-SERVICES";
    }
    let rule = Rule::new(matches, target).comment(&format!("{says} has no {why}"));
    rules.append(Table::Filter, filter, [rule]);
}

fn to(address: IpAddr) -> Match {
    Match::Destination {
        not: false,
        network: IpNet::from(address),
    }
}

fn to_address(address: IpAddr, port: u16) -> Vec<Match> {
    let mut matches = vec![to(address)];
    matches.extend(to_port(port));
    matches
}

fn to_port(port: u16) -> Vec<Match> {
    let ports = port..=port;
    vec![tcp(), Match::DestinationPort { not: false, ports }]
}

/// The chains of a port: its endpoints by chance, and what comes from outside.
fn chains(rules: &mut Ruleset, port: &ServicePort, all: &[SocketAddr], here: &[SocketAddr]) {
    if all.is_empty() {
        return;
    }
    balance(rules, port, &port.chain("KUBE-SVC"), all);
    for endpoint in all {
        endpoint_chain(rules, port, *endpoint);
    }
    let local = port.external_local || port.internal_local;
    if local && !here.is_empty() {
        balance(rules, port, &port.chain("KUBE-SVL"), here);
    }
    if port.external.is_empty() && port.node_port.is_none() {
        return;
    }
    let (svc, ext) = (port.chain("KUBE-SVC"), port.chain("KUBE-EXT"));
    let masquerade = || Target::Jump("KUBE-MARK-MASQ".into());
    if port.external_local {
        let own = || Match::SourceLocal { not: false };
        let says = format!(
            "masquerade LOCAL traffic for {} external destinations",
            port.name
        );
        let route = format!(
            "route LOCAL traffic for {} external destinations",
            port.name
        );
        rules.append(
            Table::Nat,
            &ext,
            [
                Rule::new([own()], masquerade()).comment(&says),
                Rule::new([own()], Target::Jump(svc)).comment(&route),
            ],
        );
        if !here.is_empty() {
            let svl = port.chain("KUBE-SVL");
            rules.append(Table::Nat, &ext, [Rule::new([], Target::Jump(svl))]);
        }
    } else {
        let says = format!("masquerade traffic for {} external destinations", port.name);
        rules.append(
            Table::Nat,
            &ext,
            [
                Rule::new([], masquerade()).comment(&says),
                Rule::new([], Target::Jump(svc)),
            ],
        );
    }
}

/// One of the endpoints by equal chance: each is asked with the chance of those that are left. A
/// client that stays with its endpoint is asked for first.
fn balance(rules: &mut Ruleset, port: &ServicePort, chain: &str, endpoints: &[SocketAddr]) {
    if let Some(within) = port.affinity {
        for endpoint in endpoints {
            let to = port.endpoint_chain(*endpoint);
            let recent = Match::Recent(RecentList::Check {
                name: to.clone(),
                within,
                reap: true,
            });
            let says = format!("{} -> {endpoint}", port.name);
            rules.append(
                Table::Nat,
                chain,
                [Rule::new([recent], Target::Jump(to)).comment(&says)],
            );
        }
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let left = endpoints.len() - index;
        let chance = (left > 1).then(|| Match::Random {
            probability: share(left),
        });
        let to = port.endpoint_chain(*endpoint);
        let says = format!("{} -> {endpoint}", port.name);
        let rule = Rule::new(chance, Target::Jump(to)).comment(&says);
        rules.append(Table::Nat, chain, [rule]);
    }
}

/// One of that many, in parts of 2^31; as kube-proxy writes it with ten decimals.
fn share(left: usize) -> u32 {
    const WHOLE: u64 = 1 << 31;
    const DECIMALS: u64 = 10_000_000_000;
    let left = u64::try_from(left).unwrap_or(1).max(1);
    // Rounded to ten decimals first, as the text has it.
    let decimals = (DECIMALS + left / 2) / left;
    let parts = (u128::from(decimals) * u128::from(WHOLE) + u128::from(DECIMALS / 2))
        / u128::from(DECIMALS);
    u32::try_from(parts).unwrap_or(u32::MAX)
}

fn endpoint_chain(rules: &mut Ruleset, port: &ServicePort, endpoint: SocketAddr) {
    let chain = port.endpoint_chain(endpoint);
    let itself = Match::Source {
        not: false,
        network: IpNet::from(endpoint.ip()),
    };
    let mut to = vec![tcp()];
    if port.affinity.is_some() {
        to.push(Match::Recent(RecentList::Set {
            name: chain.clone(),
        }));
    }
    rules.append(
        Table::Nat,
        &chain,
        [
            // A pod that reaches itself by a Service must see somebody else.
            Rule::new([itself], Target::Jump("KUBE-MARK-MASQ".into())).comment(&port.name),
            Rule::new(to, Target::Dnat { to: endpoint }).comment(&port.name),
        ],
    );
}
