//! Rules to text, spelled exactly as `iptables-save` 1.8.9 does.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use nodeway_datapath::{Family, protocol};

use crate::netfilter::{
    BuiltIn, ChainName, ConnectionState, Match, Policy, RecentList, RejectWith, Rule, Ruleset,
    Target,
};

/// All tables of a ruleset, for `iptables-restore` or `ip6tables-restore`.
#[must_use]
pub fn ruleset(rules: &Ruleset) -> String {
    let mut out = String::new();
    for (table, chains) in &rules.tables {
        let _ = writeln!(out, "*{}", table.name());
        let own = |name: &ChainName| BuiltIn::named(name).is_none();
        for hook in BuiltIn::of(*table) {
            let policy = chains.get(hook.name()).and_then(|chain| chain.policy);
            let policy = match policy.unwrap_or_default() {
                Policy::Accept => "ACCEPT",
                Policy::Drop => "DROP",
            };
            let _ = writeln!(out, ":{} {policy} [0:0]", hook.name());
        }
        for name in chains.keys().filter(|name| own(name)) {
            let _ = writeln!(out, ":{name} - [0:0]");
        }
        let built_in = BuiltIn::of(*table).iter().map(|hook| hook.name());
        let names = built_in.chain(chains.keys().filter(|it| own(it)).map(AsRef::as_ref));
        for name in names {
            for one in chains.get(name).iter().flat_map(|chain| &chain.rules) {
                let _ = writeln!(out, "-A {name}{}", rule(one, rules.family));
            }
        }
        out.push_str("COMMIT\n");
    }
    out
}

/// All sets of a ruleset, for `ipset restore`.
#[must_use]
pub fn sets(rules: &Ruleset) -> String {
    let mut out = String::new();
    let family = match rules.family {
        Family::V4 => "inet",
        Family::V6 => "inet6",
    };
    for (name, set) in &rules.sets {
        let marks = if set.marks { " skbinfo" } else { "" };
        let _ = writeln!(out, "create {name} hash:ip,port family {family}{marks}");
        for (at, entry) in set.entries() {
            let _ = write!(out, "add {name} {},tcp:{}", at.ip(), at.port());
            if let Some(mark) = entry.mark {
                let _ = write!(out, " skbmark {mark:#x}");
            }
            out.push('\n');
        }
    }
    out
}

/// A rule without its chain, with a blank before each option.
#[must_use]
pub fn rule(rule: &Rule, family: Family) -> String {
    let mut out = String::new();
    for one in &rule.matches {
        let _ = plain(&mut out, one);
    }
    if let Some(comment) = &rule.comment {
        let _ = write!(out, " -m comment --comment {}", quoted(comment));
    }
    let mut tcp = false;
    for one in &rule.matches {
        let of_tcp = matches!(
            one,
            Match::SourcePort { .. } | Match::DestinationPort { .. } | Match::TcpFlags { .. }
        );
        if of_tcp && !std::mem::replace(&mut tcp, true) {
            out.push_str(" -m tcp");
        }
        let _ = module(&mut out, one, family);
    }
    if let Some(target) = &rule.target {
        let _ = goes(&mut out, target, family);
    }
    out
}

/// What needs no module; it stands first.
fn plain(out: &mut String, one: &Match) -> fmt::Result {
    match one {
        Match::Source { not, network } => write!(out, "{} -s {network}", bang(*not)),
        Match::Destination { not, network } => write!(out, "{} -d {network}", bang(*not)),
        Match::InInterface { not, name } => write!(out, "{} -i {name}", bang(*not)),
        Match::OutInterface { not, name } => write!(out, "{} -o {name}", bang(*not)),
        Match::Protocol { not, protocol } => {
            write!(out, "{} -p {}", bang(*not), protocol_name(*protocol))
        }
        _ => Ok(()),
    }
}

fn protocol_name(number: u8) -> String {
    match number {
        protocol::TCP => "tcp".to_owned(),
        protocol::UDP => "udp".to_owned(),
        protocol::ICMP => "icmp".to_owned(),
        protocol::ICMPV6 => "ipv6-icmp".to_owned(),
        other => other.to_string(),
    }
}

fn module(out: &mut String, one: &Match, family: Family) -> fmt::Result {
    match one {
        Match::Source { .. }
        | Match::Destination { .. }
        | Match::InInterface { .. }
        | Match::OutInterface { .. }
        | Match::Protocol { .. } => Ok(()),
        Match::SourcePort { not, ports } => {
            write!(out, "{} --sport {}", bang(*not), range(ports))
        }
        Match::DestinationPort { not, ports } => {
            write!(out, "{} --dport {}", bang(*not), range(ports))
        }
        Match::TcpFlags { not, mask, set } => {
            let (mask, set) = (flags(*mask), flags(*set));
            write!(out, "{} --tcp-flags {mask} {set}", bang(*not))
        }
        Match::Mark { not, value, mask } => {
            write!(
                out,
                " -m mark{} --mark {}",
                bang(*not),
                masked(*value, *mask)
            )
        }
        Match::ConnMark { not, value, mask } => {
            write!(
                out,
                " -m connmark{} --mark {}",
                bang(*not),
                masked(*value, *mask)
            )
        }
        Match::ConnectionState { not, states } => {
            let printed = ConnectionState::PRINTED.iter();
            let named = printed.filter(|it| states.contains(it));
            let names: Vec<_> = named.map(|it| it.name()).collect();
            write!(
                out,
                " -m conntrack{} --ctstate {}",
                bang(*not),
                names.join(",")
            )
        }
        Match::Socket { transparent } => {
            let transparent = if *transparent { " --transparent" } else { "" };
            write!(out, " -m socket{transparent}")
        }
        Match::UidOwner { not, uid } => write!(out, " -m owner{} --uid-owner {uid}", bang(*not)),
        Match::GidOwner { not, gid } => write!(out, " -m owner{} --gid-owner {gid}", bang(*not)),
        Match::Set { not, set, source } => {
            let which = if *source { "src,src" } else { "dst,dst" };
            write!(out, " -m set{} --match-set {set} {which}", bang(*not))
        }
        Match::SourceLocal { not } => write!(out, " -m addrtype{} --src-type LOCAL", bang(*not)),
        Match::DestinationLocal { not } => {
            write!(out, " -m addrtype{} --dst-type LOCAL", bang(*not))
        }
        Match::Random { probability } => write!(
            out,
            " -m statistic --mode random --probability {:.11}",
            f64::from(*probability) / f64::from(1_u32 << 31)
        ),
        Match::Recent(list) => recent(out, list, family),
    }
}

fn recent(out: &mut String, list: &RecentList, family: Family) -> fmt::Result {
    match list {
        RecentList::Set { name } => write!(out, " -m recent --set --name {name}")?,
        RecentList::Check { name, within, reap } => {
            let reap = if *reap { " --reap" } else { "" };
            let seconds = within.as_secs();
            write!(
                out,
                " -m recent --rcheck --seconds {seconds}{reap} --name {name}"
            )?;
        }
    }
    let mask = match family {
        Family::V4 => "255.255.255.255",
        Family::V6 => "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    };
    write!(out, " --mask {mask} --rsource")
}

fn goes(out: &mut String, target: &Target, family: Family) -> fmt::Result {
    match target {
        Target::Accept => out.write_str(" -j ACCEPT"),
        Target::Drop => out.write_str(" -j DROP"),
        Target::Return => out.write_str(" -j RETURN"),
        Target::Reject(with) => {
            let with = match (with, family) {
                (RejectWith::PortUnreachable, Family::V4) => "icmp-port-unreachable",
                (RejectWith::PortUnreachable, Family::V6) => "icmp6-port-unreachable",
                (RejectWith::TcpReset, _) => "tcp-reset",
            };
            write!(out, " -j REJECT --reject-with {with}")
        }
        Target::Jump(to) => write!(out, " -j {to}"),
        Target::Goto(to) => write!(out, " -g {to}"),
        Target::Mark { value, mask } => write!(out, " -j MARK --set-xmark {value:#x}/{mask:#x}"),
        Target::SaveMark => {
            out.write_str(" -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff")
        }
        Target::RestoreMark => {
            out.write_str(" -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff")
        }
        Target::MapMark(set) => write!(out, " -j SET --map-set {set} dst,dst --map-mark"),
        Target::NoTrack => out.write_str(" -j CT --notrack"),
        Target::Tproxy { to, value, mask } => write!(
            out,
            " -j TPROXY --on-port {} --on-ip {} --tproxy-mark {value:#x}/{mask:#x}",
            to.port(),
            to.ip()
        ),
        Target::Redirect { port } => write!(out, " -j REDIRECT --to-ports {port}"),
        Target::Dnat { to } => write!(out, " -j DNAT --to-destination {}", address(*to)),
        Target::Snat { from } => write!(out, " -j SNAT --to-source {from}"),
        Target::Masquerade { random_fully } => {
            let random = if *random_fully { " --random-fully" } else { "" };
            write!(out, " -j MASQUERADE{random}")
        }
    }
}

/// Without a port where that is kept.
fn address(to: SocketAddr) -> String {
    match to.port() {
        0 => to.ip().to_string(),
        _ => to.to_string(),
    }
}

/// The flags of a TCP header by the names that iptables gives them, in its order.
pub(super) const FLAGS: [(&str, u8); 6] = [
    ("FIN", 0x01),
    ("SYN", 0x02),
    ("RST", 0x04),
    ("PSH", 0x08),
    ("ACK", 0x10),
    ("URG", 0x20),
];

fn flags(set: u8) -> String {
    let names: Vec<&str> = FLAGS
        .iter()
        .filter(|(_, bit)| set & bit != 0)
        .map(|(name, _)| *name)
        .collect();
    if names.is_empty() {
        "NONE".to_owned()
    } else {
        names.join(",")
    }
}

fn bang(not: bool) -> &'static str {
    if not { " !" } else { "" }
}

fn range(ports: &RangeInclusive<u16>) -> String {
    match (ports.start(), ports.end()) {
        (from, to) if from == to => from.to_string(),
        (from, to) => format!("{from}:{to}"),
    }
}

fn masked(value: u32, mask: u32) -> String {
    match mask {
        u32::MAX => format!("{value:#x}"),
        mask => format!("{value:#x}/{mask:#x}"),
    }
}

/// A comment is quoted as soon as it has anything but letters, digits, `_` and `-`.
fn quoted(text: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    if !text.is_empty() && text.chars().all(bare) {
        return text.to_owned();
    }
    let escaped: String = text
        .chars()
        .flat_map(|c| {
            let escape = "\"\\'".contains(c).then_some('\\');
            escape.into_iter().chain([c])
        })
        .collect();
    format!("\"{escaped}\"")
}
