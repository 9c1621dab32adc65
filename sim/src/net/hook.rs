//! A node's hooks: the decision is asked, counted, and noted on the way of the request.

use std::sync::Arc;

use nodeway_core::datapath::{Flow, FrontendState, Hook, Reason, Verdict};
use nodeway_core::plan::FrontendKey;
use nodeway_core::trace::{FrontendStep, Step, VerdictStep};

use super::hop::hook_name;
use super::kernel::{NodeKernel, SimSocket};
use super::network::Network;
use super::packet::{destination, source};
use crate::process::WayId;

impl Network {
    /// Asks a hook of a node, counts its reason and notes it on the way.
    pub(crate) fn ask(
        &mut self,
        index: u32,
        flow: &Flow,
        hook: Hook,
        device: Option<&Arc<str>>,
        way: Option<WayId>,
    ) -> Verdict<SimSocket> {
        let Some(node) = self.node(index) else {
            return Verdict::Pass(Reason::NotAFrontend);
        };
        let kernel = NodeKernel {
            now: self.now,
            frontends: &node.frontends,
            tcp: &self.tcp,
            host: node.host,
        };
        let verdict = self.datapath.decide(flow, hook, &kernel);
        self.count(index, hook, verdict.reason());
        if let Some(recorder) = &mut self.recorder {
            recorder.verdict(hook, &verdict);
        }
        if let Some(way) = way {
            self.note_verdict(index, flow, hook, device, way, &verdict);
        }
        verdict
    }

    /// Counts why a hook decided as it did.
    pub(super) fn count(&mut self, index: u32, hook: Hook, reason: Reason) {
        if let Some(node) = self.node_mut(index) {
            *node.reasons.entry((hook_name(hook), reason)).or_default() += 1;
        }
    }

    fn note_verdict(
        &mut self,
        index: u32,
        flow: &Flow,
        hook: Hook,
        device: Option<&Arc<str>>,
        way: WayId,
        verdict: &Verdict<SimSocket>,
    ) {
        let Some(name) = self.node(index).map(|node| Arc::clone(&node.name)) else {
            return;
        };
        self.note_frontend(index, flow, way);
        let mark = match verdict {
            Verdict::Deliver { mark, .. } | Verdict::Assign { mark, .. } => *mark,
            _ => 0,
        };
        let device = Arc::clone(device.unwrap_or(&self.nowhere));
        self.note_once(
            way,
            Step::Verdict(VerdictStep {
                node: name,
                hook,
                device,
                flow: *flow,
                verdict: verdict.name(),
                reason: verdict.reason(),
                mark,
            }),
        );
    }

    /// What the node's table has for a destination: a hook's look-up, or that of its routes.
    pub(super) fn note_frontend(&mut self, index: u32, flow: &Flow, way: WayId) {
        let Some(node) = self.node(index) else {
            return;
        };
        let to = destination(flow);
        let address = FrontendKey {
            address: to.ip(),
            port: to.port(),
        };
        let installed = node.frontends.get(&address);
        let stack = self.tcp.stack(node.host);
        let node_source = stack.and_then(|stack| stack.source(to.ip()));
        let step = FrontendStep {
            node: Arc::clone(&node.name),
            address,
            frontend: installed.map(|it| it.planned.clone()),
            state: installed.map_or(FrontendState::Active, |it| it.life.state()),
            source: match source(flow).ip() {
                // A call has no source yet: its packets will have this one.
                none if none.is_unspecified() => node_source.unwrap_or(none),
                known => known,
            },
        };
        self.note_once(way, Step::Frontend(step));
    }
}
