//! The packet filter of one network namespace: both families' rules and the tracked connections.
//!
//! A packet comes by [`Firewall::prerouting`], then [`Firewall::input`] or [`Firewall::forward`];
//! one that the namespace sends by [`Firewall::output`]; all that leave by
//! [`Firewall::postrouting`]. At each, tables are asked in the kernel's order. Where a method has
//! changed the packet's flow, the caller rewrites its bytes; where `output` has changed its mark or
//! destination, the caller routes it anew.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nodeway_datapath::Family;

use super::evaluate::{Evaluation, Outcome, Recents};
use super::{BuiltIn, Host, Packet, Ruleset, RulesetError, Table, Target, Verdict};
use crate::conntrack::{Connection, Conntrack, Direction, Tracked, Tuple};

/// The packet filter of one network namespace.
#[derive(Clone, Debug)]
pub struct Firewall {
    v4: Ruleset,
    v6: Ruleset,
    conntrack: Conntrack,
    recents: Recents,
}

impl Default for Firewall {
    /// Without any rule.
    fn default() -> Self {
        Self {
            v4: Ruleset::new(Family::V4),
            v6: Ruleset::new(Family::V6),
            conntrack: Conntrack::default(),
            recents: Recents::new(),
        }
    }
}

impl Firewall {
    /// A packet filter with those rules, which has seen nothing yet.
    ///
    /// # Errors
    /// When a rule jumps to no chain, or in circles, or names no set.
    pub fn new(v4: Ruleset, v6: Ruleset) -> Result<Self, RulesetError> {
        let mut firewall = Self::default();
        firewall.replace(v4, v6)?;
        Ok(firewall)
    }

    /// Other rules; tracked connections stay.
    ///
    /// # Errors
    /// When a rule jumps to no chain, or in circles, or names no set; nothing is replaced then.
    pub fn replace(&mut self, v4: Ruleset, v6: Ruleset) -> Result<(), RulesetError> {
        v4.validate()?;
        v6.validate()?;
        (self.v4, self.v6) = (v4, v6);
        Ok(())
    }

    /// The rules of a family.
    #[must_use]
    pub const fn rules(&self, family: Family) -> &Ruleset {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// The rules of a family, to be changed in place. What was changed must still be valid.
    pub const fn rules_mut(&mut self, family: Family) -> &mut Ruleset {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    /// The tracked connections.
    #[must_use]
    pub const fn conntrack(&self) -> &Conntrack {
        &self.conntrack
    }

    /// Whether there is nothing to ask: no rule of that family, and no connection.
    #[must_use]
    pub fn is_idle(&self, family: Family) -> bool {
        self.rules(family).tables.is_empty() && self.conntrack.is_empty()
    }

    /// Forgets every connection and every remembered source, as a restart of the machine does.
    pub fn forget(&mut self) {
        self.conntrack = Conntrack::default();
        self.recents.clear();
    }

    /// Takes a packet through one hook.
    pub fn at(&mut self, hook: BuiltIn, packet: &mut Packet, host: &mut impl Host) -> Verdict {
        match hook {
            BuiltIn::Prerouting => self.prerouting(packet, host),
            BuiltIn::Input => self.input(packet, host),
            BuiltIn::Forward => self.forward(packet, host),
            BuiltIn::Output => self.output(packet, host),
            BuiltIn::Postrouting => self.postrouting(packet, host),
        }
    }

    /// A packet came in: `raw`, tracking, `mangle`, and where it is to go to.
    pub fn prerouting(&mut self, packet: &mut Packet, host: &mut impl Host) -> Verdict {
        self.arrive(packet, BuiltIn::Prerouting, host)
    }

    /// A socket of the namespace sends it: `raw`, tracking, `mangle`, where it is to go to, `filter`.
    pub fn output(&mut self, packet: &mut Packet, host: &mut impl Host) -> Verdict {
        match self.arrive(packet, BuiltIn::Output, host) {
            Verdict::Accept => self.table(Table::Filter, BuiltIn::Output, packet, host),
            verdict => verdict,
        }
    }

    /// It is for the namespace: `mangle`, `filter`, and where it is to come from.
    pub fn input(&mut self, packet: &mut Packet, host: &mut impl Host) -> Verdict {
        for table in [Table::Mangle, Table::Filter] {
            let verdict = self.table(table, BuiltIn::Input, packet, host);
            if verdict != Verdict::Accept {
                return verdict;
            }
        }
        self.depart(packet, BuiltIn::Input, host)
    }

    /// It is for another namespace: `mangle`, `filter`.
    pub fn forward(&mut self, packet: &mut Packet, host: &mut impl Host) -> Verdict {
        for table in [Table::Mangle, Table::Filter] {
            let verdict = self.table(table, BuiltIn::Forward, packet, host);
            if verdict != Verdict::Accept {
                return verdict;
            }
        }
        Verdict::Accept
    }

    /// It leaves: `mangle`, and where it is to come from.
    pub fn postrouting(&mut self, packet: &mut Packet, host: &mut impl Host) -> Verdict {
        match self.table(Table::Mangle, BuiltIn::Postrouting, packet, host) {
            Verdict::Accept => self.depart(packet, BuiltIn::Postrouting, host),
            verdict => verdict,
        }
    }

    fn table(
        &mut self,
        table: Table,
        hook: BuiltIn,
        packet: &mut Packet,
        host: &mut impl Host,
    ) -> Verdict {
        match self.evaluate(table, hook, packet, host) {
            Outcome::Drop => Verdict::Drop,
            Outcome::Reject(with) => Verdict::Reject(with),
            Outcome::Assign(to) => Verdict::Assign(to),
            // A target of `nat` has no meaning in another table.
            Outcome::Accept | Outcome::Translate(_) => Verdict::Accept,
        }
    }

    fn evaluate(
        &mut self,
        table: Table,
        hook: BuiltIn,
        packet: &mut Packet,
        host: &mut impl Host,
    ) -> Outcome {
        let rules = match packet.flow.family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        };
        let evaluation = Evaluation {
            rules,
            table,
            hook,
            packet,
            conntrack: &mut self.conntrack,
            recents: &mut self.recents,
            host,
            draws: 0,
        };
        evaluation.run()
    }

    /// The stations at which a packet's destination is decided.
    fn arrive(&mut self, packet: &mut Packet, hook: BuiltIn, host: &mut impl Host) -> Verdict {
        // What went over `lo` was seen when it was sent.
        if matches!(packet.tracked, Tracked::Unseen | Tracked::Untracked) {
            let verdict = self.table(Table::Raw, hook, packet, host);
            if verdict != Verdict::Accept {
                return verdict;
            }
        }
        if packet.tracked == Tracked::Unseen {
            packet.tracked = self.look_up(packet, host);
        }
        let verdict = self.table(Table::Mangle, hook, packet, host);
        match verdict {
            Verdict::Accept | Verdict::Assign(_) => {}
            verdict => return verdict,
        }
        let undecided = matches!(&packet.tracked, Tracked::New(it) if !it.destination_decided);
        if undecided {
            match self.evaluate(Table::Nat, hook, packet, host) {
                Outcome::Drop => return Verdict::Drop,
                Outcome::Translate(target) => self.lead(packet, hook, &target, host),
                _ => {}
            }
            if let Tracked::New(connection) = &mut packet.tracked {
                connection.destination_decided = true;
            }
        }
        if let Some((connection, direction)) = self.connection(packet) {
            let to = connection.destination(direction);
            packet.set_destination(to);
        }
        verdict
    }

    /// The stations at which a packet's source is decided, and at which it has got through.
    fn depart(&mut self, packet: &mut Packet, hook: BuiltIn, host: &mut impl Host) -> Verdict {
        let undecided = matches!(&packet.tracked, Tracked::New(it) if !it.source_decided);
        if undecided {
            let outcome = self.evaluate(Table::Nat, hook, packet, host);
            if outcome == Outcome::Drop {
                return Verdict::Drop;
            }
            let (from, start) = match outcome {
                Outcome::Translate(Target::Snat { from }) => (Some(from), None),
                Outcome::Translate(Target::Masquerade { random_fully }) => {
                    let to = packet.destination().ip();
                    let from = host.source(packet.output.as_ref(), to);
                    (
                        from,
                        random_fully.then(|| ephemeral(host.draw(&packet.flow, 0))),
                    )
                }
                _ => (None, None),
            };
            if let Tracked::New(connection) = &mut packet.tracked {
                self.conntrack.change_source(connection, from, start);
            }
        }
        if let Some((connection, direction)) = self.connection(packet) {
            let from = connection.source(direction);
            packet.set_source(from);
        }
        if let Tracked::New(connection) = &packet.tracked {
            let connection = self.conntrack.confirm((**connection).clone());
            packet.tracked = Tracked::Of {
                connection,
                direction: Direction::Original,
                answered: false,
                related: false,
            };
        }
        Verdict::Accept
    }

    fn look_up(&mut self, packet: &Packet, host: &impl Host) -> Tracked {
        let tuple = Tuple {
            source: packet.source(),
            destination: packet.destination(),
        };
        if packet.is_icmp() {
            return self.conntrack.error(tuple);
        }
        self.conntrack
            .segment(host.now(), tuple, packet.flow.tcp_flags)
    }

    /// The connection of a packet, whether it is remembered already or not, and its direction.
    fn connection<'a>(&'a self, packet: &'a Packet) -> Option<(&'a Connection, Direction)> {
        match &packet.tracked {
            Tracked::New(connection) => Some((connection, Direction::Original)),
            Tracked::Of {
                connection,
                direction,
                ..
            } => Some((self.conntrack.get(*connection)?, *direction)),
            _ => None,
        }
    }

    /// `DNAT` and `REDIRECT`.
    fn lead(&self, packet: &mut Packet, hook: BuiltIn, target: &Target, host: &impl Host) {
        let to = match target {
            Target::Dnat { to } => Some(*to),
            Target::Redirect { port } => {
                let own = match (hook, packet.flow.family) {
                    // Its own packets stay on `lo`.
                    (BuiltIn::Output, Family::V4) => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                    (BuiltIn::Output, Family::V6) => Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
                    // The address of the device it came in by.
                    _ => host.source(packet.input.as_ref(), packet.source().ip()),
                };
                own.map(|own| SocketAddr::new(own, *port))
            }
            _ => None,
        };
        if let (Some(to), Tracked::New(connection)) = (to, &mut packet.tracked) {
            self.conntrack.change_destination(connection, to);
        }
    }
}

/// Any port that `MASQUERADE --random-fully` may take.
fn ephemeral(luck: u32) -> u16 {
    const FIRST: u16 = 1024;
    let ports = u32::from(u16::MAX - FIRST) + 1;
    FIRST.saturating_add(u16::try_from(luck % ports).unwrap_or(0))
}
