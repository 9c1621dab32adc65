//! A packet through one built-in chain: which rule decides, and what the others did on the way.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nodeway_datapath::{Family, Packet as Kind};

use super::{
    BuiltIn, Chain, ChainName, ConnectionState, Host, Match, Matched, Packet, Policy, RecentList,
    RejectWith, Rule, Ruleset, SetName, Table, Target,
};
use crate::conntrack::{Connection, Conntrack, Direction, Tracked};

/// Chains may jump to each other so deep and no deeper; a packet that goes deeper is dropped.
pub(super) const DEPTH: usize = 16;

/// What a table decided.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    Accept,
    Drop,
    Reject(RejectWith),
    Assign(SocketAddr),
    /// A target of the table `nat`.
    Translate(Target),
}

/// The sources that `-m recent` remembers, and since when.
pub(super) type Recents = BTreeMap<(std::sync::Arc<str>, IpAddr), Duration>;

/// What a packet is evaluated with.
pub(super) struct Evaluation<'a, H> {
    pub(super) rules: &'a Ruleset,
    pub(super) table: Table,
    pub(super) hook: BuiltIn,
    pub(super) packet: &'a mut Packet,
    pub(super) conntrack: &'a mut Conntrack,
    pub(super) recents: &'a mut Recents,
    pub(super) host: &'a mut H,
    /// How often luck was asked for this packet.
    pub(super) draws: u32,
}

impl<H: Host> Evaluation<'_, H> {
    /// Goes through the built-in chain of the station.
    pub(super) fn run(mut self) -> Outcome {
        let rules = self.rules;
        let Some(chains) = rules.tables.get(&self.table) else {
            return Outcome::Accept;
        };
        let hook = self.hook;
        let Some((name, chain)) = chains.get_key_value(hook.name()) else {
            return Outcome::Accept;
        };
        let mut at = At {
            name,
            chain,
            index: 0,
        };
        let mut stack: Vec<At<'_>> = Vec::new();
        loop {
            let Some(rule) = at.chain.rules.get(at.index) else {
                // The end of a chain of one's own is a return.
                match stack.pop() {
                    Some(back) => at = back,
                    None => return policy(chain),
                }
                continue;
            };
            at.index += 1;
            if !rule.matches.iter().all(|it| self.matches(it)) {
                continue;
            }
            self.tell(at.name, at.index - 1, rule);
            let (target, goes) = match &rule.target {
                None => continue,
                Some(Target::Jump(to)) => (to, false),
                Some(Target::Goto(to)) => (to, true),
                Some(Target::Return) => {
                    match stack.pop() {
                        Some(back) => at = back,
                        None => return policy(chain),
                    }
                    continue;
                }
                Some(target) => match self.act(target) {
                    Some(outcome) => return outcome,
                    None => continue,
                },
            };
            let Some((name, chain)) = chains.get_key_value(target) else {
                continue;
            };
            if stack.len() >= DEPTH {
                return Outcome::Drop;
            }
            let next = At {
                name,
                chain,
                index: 0,
            };
            let back = std::mem::replace(&mut at, next);
            if !goes {
                stack.push(back);
            }
        }
    }

    fn tell(&mut self, chain: &ChainName, index: usize, rule: &Rule) {
        self.host.matched(Matched {
            hook: self.hook,
            table: self.table,
            chain,
            index,
            rule,
        });
    }

    /// What a target does; none when the next rule is to be looked at.
    fn act(&mut self, target: &Target) -> Option<Outcome> {
        let mark = &mut self.packet.mark;
        match target {
            Target::Accept => return Some(Outcome::Accept),
            Target::Drop => return Some(Outcome::Drop),
            Target::Reject(with) => return Some(Outcome::Reject(*with)),
            Target::Mark { value, mask } => *mark = (*mark & !mask) ^ value,
            Target::MapMark(set) => {
                if let Some(found) = self.entry(set, false).flatten() {
                    self.packet.mark = found;
                }
            }
            Target::NoTrack => self.packet.tracked = Tracked::Untracked,
            Target::SaveMark => {
                let mark = *mark;
                if let Some(connection) = self.connection_mut() {
                    connection.mark = mark;
                }
            }
            Target::RestoreMark => {
                if let Some(connection) = self.connection() {
                    self.packet.mark = connection.mark;
                }
            }
            Target::Tproxy { to, value, mask } => {
                if !self.host.listens(*to) {
                    return Some(Outcome::Drop);
                }
                self.packet.mark = (self.packet.mark & !mask) ^ value;
                return Some(Outcome::Assign(*to));
            }
            Target::Redirect { .. }
            | Target::Dnat { .. }
            | Target::Snat { .. }
            | Target::Masquerade { .. } => return Some(Outcome::Translate(target.clone())),
            // The walk itself takes these.
            Target::Return | Target::Jump(_) | Target::Goto(_) => {}
        }
        None
    }

    fn connection(&self) -> Option<&Connection> {
        match &self.packet.tracked {
            Tracked::New(connection) => Some(connection),
            Tracked::Of { connection, .. } => self.conntrack.get(*connection),
            _ => None,
        }
    }

    fn connection_mut(&mut self) -> Option<&mut Connection> {
        match &mut self.packet.tracked {
            Tracked::New(connection) => Some(connection),
            Tracked::Of { connection, .. } => self.conntrack.get_mut(*connection),
            _ => None,
        }
    }

    /// The mark of the packet's entry in a set; none when it has no entry.
    fn entry(&self, set: &SetName, source: bool) -> Option<Option<u32>> {
        let set = self.rules.sets.get(set)?;
        // A set of addresses and TCP ports has no ICMP.
        if self.packet.is_icmp() {
            return None;
        }
        let at = if source {
            self.packet.source()
        } else {
            self.packet.destination()
        };
        set.get(&at).map(|entry| entry.mark)
    }

    fn matches(&mut self, wanted: &Match) -> bool {
        let packet = &*self.packet;
        match wanted {
            Match::Protocol { not, protocol } => (packet.protocol() == *protocol) != *not,
            Match::Source { not, network } => network.contains(&packet.source().ip()) != *not,
            Match::Destination { not, network } => {
                network.contains(&packet.destination().ip()) != *not
            }
            Match::InInterface { not, name } => is_device(name, packet.input.as_deref()) != *not,
            Match::OutInterface { not, name } => is_device(name, packet.output.as_deref()) != *not,
            Match::SourcePort { not, ports } => {
                !packet.is_icmp() && ports.contains(&packet.flow.sport) != *not
            }
            Match::DestinationPort { not, ports } => {
                !packet.is_icmp() && ports.contains(&packet.flow.dport) != *not
            }
            Match::TcpFlags { not, mask, set } => {
                !packet.is_icmp() && (packet.flow.tcp_flags & mask == *set) != *not
            }
            Match::Mark { not, value, mask } => (packet.mark & mask == *value) != *not,
            Match::ConnMark { not, value, mask } => self
                .connection()
                .is_some_and(|it| (it.mark & mask == *value) != *not),
            Match::ConnectionState { not, states } => {
                states.iter().any(|state| self.is(*state)) != *not
            }
            Match::Socket { transparent } => self
                .host
                .socket(&packet.flow)
                .is_some_and(|it| !it.wildcard && (it.transparent || !transparent)),
            Match::UidOwner { not, uid } => packet
                .owner
                .is_some_and(|owner| (owner.uid == *uid) != *not),
            Match::GidOwner { not, gid } => packet
                .owner
                .is_some_and(|owner| (owner.gid == *gid) != *not),
            Match::Set { not, set, source } => self.entry(set, *source).is_some() != *not,
            Match::SourceLocal { not } => self.host.is_local(packet.source().ip()) != *not,
            Match::DestinationLocal { not } => {
                self.host.is_local(packet.destination().ip()) != *not
            }
            Match::Random { probability } => {
                self.draws += 1;
                self.host.draw(&packet.flow, self.draws) < *probability
            }
            Match::Recent(list) => self.recent(list),
        }
    }

    fn is(&self, state: ConnectionState) -> bool {
        let changed = |of: fn(&Connection) -> bool| self.connection().is_some_and(of);
        match (state, &self.packet.tracked) {
            (ConnectionState::Snat, _) => changed(Connection::source_changed),
            (ConnectionState::Dnat, _) => changed(Connection::destination_changed),
            (ConnectionState::Untracked, tracked) => *tracked == Tracked::Untracked,
            (ConnectionState::Invalid, tracked) => *tracked == Tracked::Invalid,
            (ConnectionState::Related, Tracked::Of { related, .. }) => *related,
            (ConnectionState::New, Tracked::New(_)) => true,
            (
                ConnectionState::New | ConnectionState::Established,
                Tracked::Of {
                    direction,
                    answered,
                    related: false,
                    ..
                },
            ) => {
                let established = *direction == Direction::Reply || *answered;
                established == (state == ConnectionState::Established)
            }
            _ => false,
        }
    }

    fn recent(&mut self, list: &RecentList) -> bool {
        let now = self.host.now();
        let source = self.packet.source().ip();
        match list {
            RecentList::Set { name } => {
                self.recents.insert((name.clone(), source), now);
                true
            }
            RecentList::Check { name, within, reap } => {
                let key = (name.clone(), source);
                let Some(since) = self.recents.get(&key) else {
                    return false;
                };
                let fresh = now.saturating_sub(*since) <= *within;
                if *reap && !fresh {
                    self.recents.remove(&key);
                }
                fresh
            }
        }
    }
}

/// Where the walk is.
struct At<'a> {
    name: &'a ChainName,
    chain: &'a Chain,
    index: usize,
}

fn policy(chain: &Chain) -> Outcome {
    match chain.policy.unwrap_or_default() {
        Policy::Accept => Outcome::Accept,
        Policy::Drop => Outcome::Drop,
    }
}

/// `lxc+` is every device whose name begins with `lxc`.
fn is_device(wanted: &str, device: Option<&str>) -> bool {
    let device = device.unwrap_or_default();
    match wanted.strip_suffix('+') {
        Some(beginning) => device.starts_with(beginning),
        None => device == wanted,
    }
}

impl Packet {
    /// Whether it is an ICMP error: it has no ports of its own, and goes where an answer of its
    /// flow would go.
    pub(super) fn is_icmp(&self) -> bool {
        self.flow.packet == Kind::IcmpError
    }

    fn protocol(&self) -> u8 {
        use nodeway_datapath::protocol::{ICMP, ICMPV6};
        match (self.is_icmp(), self.flow.family) {
            (false, _) => self.flow.protocol,
            (true, Family::V4) => ICMP,
            (true, Family::V6) => ICMPV6,
        }
    }
}

/// Every built-in chain's name.
pub(super) const BUILT_IN: [BuiltIn; 5] = [
    BuiltIn::Prerouting,
    BuiltIn::Input,
    BuiltIn::Forward,
    BuiltIn::Output,
    BuiltIn::Postrouting,
];
