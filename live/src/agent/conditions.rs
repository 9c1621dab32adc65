//! What an agent says of each config that applies to its node: its conditions there.

use std::collections::BTreeMap;

use nodeway_core::condition;
use nodeway_core::datapath::FrontendState;
use nodeway_core::object::{EnvoyConfig, Kind, Object, ObjectRef, Objects};
use nodeway_core::plan::NodePlan;
use nodeway_core::problem::Problem;

use super::Agent;
use super::report::object;
use super::status::awaited_everywhere;
use crate::kube::Said;

impl Agent {
    /// Tells the API server, if the objects come from one, what has become of the configs here.
    pub(super) fn say(&self) {
        let Some(conditions) = self.source.conditions().filter(|it| it.is_due()) else {
            return;
        };
        // The kinds are no longer ours alone.
        if !self.cilium.is_empty() {
            return;
        }
        let plan = self.planner.plan();
        let refused = self.proxies.problems();
        let mut findings: BTreeMap<&ObjectRef, Vec<&Problem>> = BTreeMap::new();
        for problem in plan.problems.iter().chain(&refused) {
            findings.entry(&problem.object).or_default().push(problem);
        }
        let awaited = self.awaited(plan);
        let connected = self.proxies.seen().any(|it| it.connected);
        let everywhere = awaited_everywhere(connected, self.datapath_error.as_deref());
        let objects = self.source.objects();
        let node = objects.node("", &self.options.node);
        let labels = node.and_then(|it| it.metadata.labels.as_ref());
        let all = configs(objects).map(|(reference, config)| {
            // A selector that is none is told on every node. A node that the cluster has no more says
            // nothing: the operator takes away what it said.
            let is_told = node.is_some() && config.spec.picks(labels).unwrap_or(true);
            let said = is_told.then(|| {
                let own = awaited.get(&reference).into_iter().flatten();
                let awaited: Vec<String> = everywhere.iter().chain(own).cloned().collect();
                let own = findings.get(&reference).into_iter().flatten();
                condition::conditions(&reference, own.copied(), &awaited)
            });
            let said = Said {
                uid: config.metadata.uid.clone(),
                generation: config.metadata.generation,
                conditions: said,
            };
            (reference, said)
        });
        conditions.say(all.collect());
    }

    /// What this node's Envoy and kernel do not have yet, by config.
    fn awaited(&self, plan: &NodePlan) -> BTreeMap<ObjectRef, Vec<String>> {
        let mut all: BTreeMap<ObjectRef, Vec<String>> = BTreeMap::new();
        for seen in self.proxies.seen().filter(|it| it.connected) {
            for it in &seen.resources {
                let listens = seen.listens(it);
                // Most have all: they need not be written down to be judged.
                if it.is_acknowledged() && listens != Some(false) {
                    continue;
                }
                let Some(config) = object(plan, it).filter(|it| is_config(it.kind)) else {
                    continue;
                };
                let resource = self.resource(seen.record, it, listens);
                if resource.is_awaited() {
                    let texts = all.entry(config.clone()).or_default();
                    texts.push(resource.to_string());
                }
            }
        }
        for (key, planned) in &plan.frontends {
            let state = self.steering.get(*key).map(|led| led.life.state());
            let text = match state {
                Some(FrontendState::Active) => continue,
                Some(state) => format!("frontend {key} is {}", state.name()),
                None => format!("frontend {key}: no Envoy has {}", planned.listener),
            };
            all.entry(planned.config.clone()).or_default().push(text);
        }
        all
    }
}

fn configs(objects: &Objects) -> impl Iterator<Item = (ObjectRef, &EnvoyConfig)> {
    objects
        .iter()
        .filter_map(|(reference, entry)| match &entry.object {
            Object::CiliumEnvoyConfig(config) | Object::CiliumClusterwideEnvoyConfig(config) => {
                Some((reference.clone(), config.as_ref()))
            }
            _ => None,
        })
}

const fn is_config(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::CiliumEnvoyConfig | Kind::CiliumClusterwideEnvoyConfig
    )
}
