//! The stages of a way through an Envoy of which only its `config_dump` is known: from the listener
//! on, and every decision rests on the dump.

use super::{Loser, Stage, Stop, Words};
use crate::config_dump::ConfigDump;
use crate::object::Kind;
use crate::plan::FrontendKey;
use crate::proxy::Discovery;
use crate::trace::{ClusterStep, EndpointStep, HandshakeStep, ListenerStep, Name, NameStep, Step};

/// Listeners that are named where none was found.
const MOST_NAMED: usize = 20;

impl Words<'_> {
    /// The stages of a step. How packets came to the node is no part of a dump.
    pub(super) fn of_dump(&self, dump: &ConfigDump, step: &Step) -> Vec<Stage> {
        let stages = match step {
            Step::Frontend(step) if step.frontend.is_none() => {
                vec![no_listener(dump, step.address)]
            }
            Step::Frontend(_) | Step::Verdict(_) | Step::Translation(_) => Vec::new(),
            Step::Name(step) => vec![self.name_in_dump(step)],
            Step::Listener(step) => vec![listener(dump, step)],
            Step::Handshake(step) => vec![handshake(step, self.handshake(step))],
            Step::Route(step) => {
                let left_out = not_simulated(dump, "route configuration", &step.table, None);
                let mut stages = self.route(step);
                if let Some(first) = stages.first_mut() {
                    first.notes.extend(left_out);
                }
                stages
            }
            Step::Cluster(step) => vec![cluster(dump, step, self.cluster(step))],
            Step::Endpoint(step) => vec![endpoint(dump, step, self.endpoint(step))],
            other => self.step(other),
        };
        stages
            .into_iter()
            .map(|stage| rest_on(dump, stage))
            .collect()
    }

    fn name_in_dump(&self, step: &NameStep) -> Stage {
        match &step.found {
            Name::Address { address, .. } if step.asked == address.to_string() => {
                Stage::new("name", format!("{address} as it stands"))
            }
            Name::Address { address, .. } => {
                Stage::new("name", format!("{} is {address}", step.asked)).because(
                    "a dump has no names: that address stands for the host that Envoy runs on",
                )
            }
            _ => self.name(step),
        }
    }
}

fn listener(dump: &ConfigDump, step: &ListenerStep) -> Stage {
    let stage = Stage::new(
        "listener",
        format!("{} at {}", step.listener, listens(dump, &step.listener)),
    )
    .because(format!(
        "a connection to {} is its own; it sees peer {}",
        step.destination, step.peer
    ));
    let model = dump.plan.listeners.get(&step.listener);
    let unread = model.map(|it| it.model.not_simulated.as_slice());
    stage.notes(not_simulated(dump, "listener", &step.listener, unread))
}

/// Who terminates TLS: Envoy, or the endpoint that it sends to.
fn handshake(step: &HandshakeStep, mut stage: Stage) -> Stage {
    if step.failed.is_some() {
        return stage;
    }
    let who = match step.by.kind {
        Kind::Pod => "the endpoint",
        _ => "Envoy",
    };
    stage.decided = match step.names.as_slice() {
        [] => format!("{who} terminates TLS and shows a certificate that the dump does not hold"),
        names => format!(
            "{who} terminates TLS and shows one for {}",
            names.join(", ")
        ),
    };
    stage
}

fn cluster(dump: &ConfigDump, step: &ClusterStep, stage: Stage) -> Stage {
    let model = dump.plan.clusters.get(&step.cluster);
    let unread = model.map(|it| it.model.not_simulated.as_slice());
    let mut stage = stage.notes(not_simulated(dump, "cluster", &step.cluster, unread));
    if stage.stop.is_none() {
        stage.because = String::new();
    }
    stage
}

fn endpoint(dump: &ConfigDump, step: &EndpointStep, mut stage: Stage) -> Stage {
    let chosen = step.chosen.as_ref().map(|chosen| chosen.address);
    let host = chosen.and_then(|chosen| dump.looked_up.get(&chosen.ip()));
    if let (Some(host), Some(chosen)) = (host, chosen) {
        stage = stage.notes(vec![format!(
            "not in the dump: {} stands for an address of {host}",
            chosen.ip()
        )]);
    }
    let written = dump.plan.clusters.values().find_map(|cluster| {
        let Discovery::Static(written) = &cluster.model.discovery else {
            return None;
        };
        (*cluster.model.endpoints == *step.endpoints).then_some(written)
    });
    let unread = written.map(|written| written.not_simulated.as_slice());
    stage = stage.notes(not_simulated(dump, "endpoints", &step.endpoints, unread));
    if step.chosen.is_some() || !step.left_out.is_empty() {
        return stage;
    }
    let (note, fix) = if dump.has_endpoints {
        (
            "the dump has endpoints, but none of this cluster",
            "look why its EDS server gives Envoy none",
        )
    } else {
        (
            "not known: the dump was fetched without `?include_eds`, so Envoy may well have endpoints",
            "fetch it again: GET /config_dump?include_eds",
        )
    };
    let mut stage = stage.notes(vec![note.to_owned()]);
    if let Some(stop) = &mut stage.stop {
        fix.clone_into(&mut stop.fix);
    }
    stage
}

/// What a resource has and the model does not: taken out before reading, or never read.
fn not_simulated(
    dump: &ConfigDump,
    kind: &'static str,
    name: &str,
    unread: Option<&[String]>,
) -> Vec<String> {
    let left_out = dump.left_out_of(kind, name).iter();
    let unread = unread.into_iter().flatten();
    let fields: Vec<String> = left_out
        .cloned()
        .chain(unread.map(|path| as_dumped(path)))
        .collect();
    if fields.is_empty() {
        return Vec::new();
    }
    vec![format!("not simulated: {}", fields.join(", "))]
}

/// A path as a dump spells it: Envoy writes the names of its protos, the model those of their JSON.
fn as_dumped(path: &str) -> String {
    let mut dumped = String::with_capacity(path.len());
    for c in path.chars() {
        if c.is_ascii_uppercase() {
            dumped.push('_');
        }
        dumped.push(c.to_ascii_lowercase());
    }
    dumped
}

fn no_listener(dump: &ConfigDump, address: FrontendKey) -> Stage {
    let mut stage = Stage::new("listener", format!("none listens at {address}"));
    let others = dump.listens.keys().take(MOST_NAMED);
    stage.lost.extend(others.map(|name| Loser {
        candidate: name.to_string(),
        why: format!("it listens at {}", listens(dump, name)),
    }));
    stage.stop = Some(Stop {
        object: String::new(),
        field: String::new(),
        fix: "ask for an address and port at which a listener of the dump listens".to_owned(),
    });
    stage
}

fn listens(dump: &ConfigDump, name: &str) -> String {
    let addresses = dump.listens.get(name).into_iter().flatten();
    addresses
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// What a decision rests on is the dump, and what to change is what the dump shows.
fn rest_on(dump: &ConfigDump, mut stage: Stage) -> Stage {
    let simulated = matches!(stage.stage, "name" | "reply");
    if !simulated {
        stage
            .evidence
            .retain(|evidence| evidence.starts_with("not simulated"));
        stage
            .evidence
            .insert(0, format!("config_dump {}", dump.file));
    }
    if let Some(stop) = &mut stage.stop {
        stop.object = format!("config_dump {}", dump.file);
        stop.field = match stage.stage {
            "filter chain" => "listener.filter_chains",
            "virtual host" => "route_config.virtual_hosts[].domains",
            "route" => "route_config.virtual_hosts[].routes",
            "cluster" => "dynamic_active_clusters",
            "endpoint" => "endpoint_config.endpoints",
            _ => "dynamic_listeners",
        }
        .to_owned();
    }
    stage
}
