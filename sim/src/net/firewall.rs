//! A namespace's rules on a packet: what they ask of it, and what they did, told on the packet's way.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nodeway_core::datapath::{Family, Flow};
use nodeway_core::netfilter::{
    self, BuiltIn, FoundSocket, Host, InterfaceName, Matched, Table, Target, Verdict, text,
};
use nodeway_core::redirect::Redirect;
use nodeway_core::trace::{RuleStep, Step};

use super::forward::{At, Of};
use super::network::Network;
use super::packet::{destination, source};
use super::stack::{StackId, Tuple};
use super::tcp::Tcp;
use crate::process::WayId;
use crate::seed::Seed;
use crate::time::Time;

/// A network namespace as its rules see it.
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
    /// Whether a namespace's rules have nothing to say about any packet of that family.
    pub(super) fn is_unfiltered(&self, at: At, family: Family) -> bool {
        let firewall = match at.of {
            Of::Node(index) => self.node(index).map(|node| &node.firewall),
            Of::Pod(_) => self.guards.get(&at.stack),
        };
        firewall.is_none_or(|firewall| firewall.is_idle(family))
    }

    /// Where rules of a namespace have sent a connection elsewhere: where it was meant to go.
    pub(super) fn original_destination(
        &self,
        stack: StackId,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> Option<SocketAddr> {
        let conntrack = self.guards.get(&stack)?.conntrack();
        conntrack.original_destination(peer, local)
    }

    /// Takes a packet through a station of a namespace's rules; what they did is told on its way.
    pub(super) fn station(
        &mut self,
        at: At,
        hook: BuiltIn,
        packet: &mut netfilter::Packet,
        way: Option<WayId>,
    ) -> Verdict {
        // Where a program or a pod's own rules decide, the node's rules beside them do not.
        let decides = match at.of {
            Of::Node(_) => self.settings.redirect == Redirect::Iptables,
            Of::Pod(_) => true,
        };
        let way = way.filter(|_| decides && packet.flow.opens());
        let (Of::Node(index) | Of::Pod(index)) = at.of;
        let Some(node) = self.nodes.get_mut(index as usize) else {
            return Verdict::Accept;
        };
        let (name, luck) = (Arc::clone(&node.name), Seed(node.luck));
        let firewall = match at.of {
            Of::Node(_) => Some(&mut node.firewall),
            Of::Pod(_) => self.guards.get_mut(&at.stack),
        };
        let Some(firewall) = firewall else {
            return Verdict::Accept;
        };
        let mut around = Around {
            now: self.now,
            tcp: &self.tcp,
            stack: at.stack,
            luck,
            family: packet.flow.family,
            told: way.map(|_| Vec::new()),
        };
        let verdict = firewall.at(hook, packet, &mut around);
        let told = around.told;
        if let (Some(way), Some(told)) = (way, told) {
            let pod = match at.of {
                Of::Node(_) => None,
                Of::Pod(_) => self.tcp.stack(at.stack).map(|it| Arc::clone(&it.name)),
            };
            for Told { hook, table, rule } in told {
                let (node, pod) = (Arc::clone(&name), pod.clone());
                let step = RuleStep {
                    node,
                    pod,
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
