//! A node's rules on a packet: what they ask of the node, and what they did, told on the packet's way.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nodeway_core::datapath::{Family, Flow};
use nodeway_core::netfilter::{
    self, BuiltIn, FoundSocket, Host, InterfaceName, Matched, Owner, Table, Target, Verdict, text,
};
use nodeway_core::trace::{RuleStep, Step};

use super::network::Network;
use super::packet::{destination, source};
use super::stack::{StackId, Tuple};
use super::tcp::Tcp;
use crate::process::WayId;
use crate::redirect::Redirect;
use crate::seed::Seed;
use crate::time::Time;

/// A node as its rules see it.
pub(super) struct Around<'a> {
    now: Time,
    tcp: &'a Tcp,
    stack: StackId,
    luck: Seed,
    family: Family,
    /// What rules did, where somebody wants to know.
    told: Option<Vec<Told>>,
}

/// A rule that did something.
struct Told {
    hook: BuiltIn,
    table: Table,
    rule: String,
}

impl Around<'_> {
    fn has(&self, address: IpAddr) -> bool {
        let stack = self.tcp.stack(self.stack);
        stack.is_some_and(|stack| stack.has(address))
    }
}

impl Host for Around<'_> {
    fn now(&self) -> Duration {
        self.now.since_start()
    }

    fn is_local(&self, address: IpAddr) -> bool {
        self.has(address)
    }

    /// A socket with an address that the node does not have must be a transparent one.
    fn socket(&self, flow: &Flow) -> Option<FoundSocket> {
        let to = destination(flow);
        let tuple = Tuple::new(to, source(flow));
        let known = self.tcp.find(self.stack, &tuple).is_some()
            || self.tcp.in_time_wait(self.now, self.stack, &tuple);
        known.then(|| FoundSocket {
            transparent: !self.has(to.ip()),
            wildcard: false,
        })
    }

    fn listens(&self, at: SocketAddr) -> bool {
        let stack = self.tcp.stack(self.stack);
        stack.is_some_and(|stack| stack.listener(at).is_some())
    }

    fn source(&self, _: Option<&InterfaceName>, to: IpAddr) -> Option<IpAddr> {
        self.tcp.stack(self.stack)?.source(to)
    }

    fn draw(&self, flow: &Flow, ordinal: u32) -> u32 {
        // By the connection and not by the order of connections.
        let name = format!("{} {} {ordinal}", source(flow), destination(flow));
        let below = 1_u64 << 31;
        u32::try_from(self.luck.stream(&name).below(below)).unwrap_or(0)
    }

    fn matched(&mut self, matched: Matched<'_>) {
        let acts = !matches!(
            matched.rule.target,
            None | Some(Target::Jump(_) | Target::Goto(_) | Target::Return)
        );
        if let (true, Some(told)) = (acts, &mut self.told) {
            told.push(Told {
                hook: matched.hook,
                table: matched.table,
                rule: format!(
                    "-A {}{}",
                    matched.chain,
                    text::rule(matched.rule, self.family)
                ),
            });
        }
    }
}

impl Network {
    /// Whether a node's rules have nothing to say about any packet of that family.
    pub(super) fn is_unfiltered(&self, index: u32, family: Family) -> bool {
        self.node(index)
            .is_none_or(|node| node.firewall.is_idle(family))
    }

    /// Takes a packet through a station of a node's rules; what they did is told on its way.
    pub(super) fn station(
        &mut self,
        index: u32,
        hook: BuiltIn,
        packet: &mut netfilter::Packet,
        way: Option<WayId>,
    ) -> Verdict {
        let way = way.filter(|_| {
            // Where a program decides, the rules beside it do not.
            self.settings.redirect == Redirect::Iptables && packet.flow.opens()
        });
        let Some(node) = self.nodes.get_mut(index as usize) else {
            return Verdict::Accept;
        };
        let mut around = Around {
            now: self.now,
            tcp: &self.tcp,
            stack: node.host,
            luck: Seed(node.luck),
            family: packet.flow.family,
            told: way.map(|_| Vec::new()),
        };
        if packet.input.is_none() {
            packet.owner.get_or_insert(Owner::default());
        }
        let verdict = node.firewall.at(hook, packet, &mut around);
        let name = Arc::clone(&node.name);
        let told = around.told;
        if let (Some(way), Some(told)) = (way, told) {
            for Told { hook, table, rule } in told {
                let node = Arc::clone(&name);
                let step = RuleStep {
                    node,
                    hook,
                    table,
                    rule,
                };
                self.note_once(way, Step::Rule(step));
            }
        }
        verdict
    }
}
