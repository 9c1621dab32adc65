//! A lab as any [`Cluster`]: requests are really sent, and what was seen of them is their way.

use std::net::SocketAddr;
use std::time::Duration;

use nodeway_core::envoy::bootstrap::AccessEntry;
use nodeway_core::plan::PlannedFrontend;
use nodeway_core::source::Known;
use nodeway_core::trace::{Failure, FrontendStep, ReplyStep, Step};
use nodeway_sim::{Answer, Ask, AskError, Cluster, Errand, Failed, Place, Redirect, Reply};

use super::Lab;
use super::evidence::{self, Evidence};
use super::proxied::Proxied;
use crate::client::{self, Spoken};
use crate::clock::Deadline;

/// How long an access log's line may take after the client has its answer.
const LOG_WITHIN: Duration = Duration::from_secs(5);

impl Cluster for Lab {
    fn request(&mut self, from: &str, ask: Ask) -> Result<Reply, Box<Failed>> {
        let model = &self.model.0;
        let asked = (from, ask.url.as_str());
        let errand = model.errand(from, &ask);
        let errand = errand.map_err(|error| model.refused(asked, error))?;
        let nobody = Spoken {
            result: Err(Failure::UnknownName),
            client_saw: None,
            local: None,
            took: Duration::ZERO,
        };
        let spoken = match (errand.to(), self.machines.get(&errand.place)) {
            (Some(to), Some(netns)) => client::send(netns, &ask, &errand.target, to).ok(),
            _ => None,
        };
        let fields = ask.head(&errand.target).headers;
        let server_name = errand.target.hello(&fields).server_name;
        self.reply(asked, &errand, &server_name, spoken.unwrap_or(nobody))
    }

    fn crash_proxy(&mut self, node: &str) -> Result<(), AskError> {
        for place in self.places_on(node)? {
            if let Some(envoy) = self.sidecars.get_mut(&place) {
                envoy.crash();
            }
        }
        match self.proxied.get_mut(node) {
            Some(proxied) => proxied.crash().map_err(|error| proxy_error(node, &error)),
            None => Ok(()),
        }
    }

    fn restart_proxy(&mut self, node: &str) -> Result<(), AskError> {
        if let Some(proxied) = self.proxied.get_mut(node) {
            return proxied.restart().map_err(|error| proxy_error(node, &error));
        }
        for place in self.places_on(node)? {
            let started = self.start_proxy(node, &place);
            started.map_err(|error| proxy_error(node, &error))?;
        }
        Ok(())
    }

    fn not_applicable(&self, from: &str) -> Result<Option<String>, AskError> {
        self.model.0.not_applicable(from)
    }

    fn known(&self) -> Known {
        self.model.0.known()
    }
}

impl Lab {
    /// The Envoys of a node, those in its pods among them.
    fn places_on(&self, node: &str) -> Result<Vec<Place>, AskError> {
        let model = &self.model.0;
        let known = model.plan(node);
        known.ok_or_else(|| model.unknown_node(node))?;
        Ok(model.proxy_places(node))
    }

    /// The lines of all access logs about a connection from that address; waits for them where
    /// there must be one.
    fn entries(&self, local: SocketAddr, must_be: bool) -> Vec<(Place, AccessEntry)> {
        let deadline = Deadline::within(LOG_WITHIN);
        loop {
            let mut found = Vec::new();
            let pods = self.sidecars.iter();
            let pods = pods.map(|(place, envoy)| (place.clone(), envoy.entries().ok()));
            let nodes = self.proxied.iter();
            let nodes = nodes.map(|(node, it)| (Place::Node(node.clone()), it.entries().ok()));
            for (place, entries) in pods.chain(nodes) {
                // A log that cannot be read has no line, and a report without a listener says so.
                let entries = entries.unwrap_or_default().into_iter();
                let about = entries.filter(|entry| entry.peer == local);
                found.extend(about.map(|entry| (place.clone(), entry)));
            }
            if !found.is_empty() || !must_be || !deadline.pause(Duration::from_millis(5)) {
                return found;
            }
        }
    }

    /// A look-up as the node's kernel has it: by its agent's word, a listener's port is another at
    /// each Envoy, and what no Envoy has is not led.
    fn as_led(&self, step: FrontendStep) -> FrontendStep {
        let status = self.proxied.get(&*step.node).map(Proxied::status);
        let Some(Ok(status)) = status else {
            return step;
        };
        let led = status.frontend(step.address);
        let state = led.map_or(step.state, |led| led.state);
        let frontend = step
            .frontend
            .zip(led)
            .map(|(planned, led)| PlannedFrontend {
                listener_port: led.port,
                ..planned
            });
        FrontendStep {
            frontend,
            state,
            ..step
        }
    }

    fn replay(&self, from: &str, url: &str) -> String {
        let name = &self.options.name;
        let redirect = self.model.0.settings().redirect;
        format!("nodeway lab exec --name {name} {from} -- curl -v {url}   # redirect {redirect}")
    }

    fn reply(
        &self,
        asked: (&str, &str),
        errand: &Errand,
        server_name: &str,
        spoken: Spoken,
    ) -> Result<Reply, Box<Failed>> {
        let model = &self.model.0;
        let Spoken {
            result,
            client_saw,
            local,
            took,
        } = spoken;
        let to = errand.to();
        let frontend = to.and_then(|to| evidence::frontend(model, &errand.place, to));
        let frontend = frontend.map(|step| self.as_led(step));
        let by_envoy = |it: &Answer| it.headers.get("server") == Some("envoy");
        let by_envoy = result.as_ref().is_ok_and(by_envoy);
        let in_table = frontend.as_ref().is_some_and(|it| it.frontend.is_some());
        // By `sidecar` every connection of a pod comes to its own Envoy first.
        let sidecar = model.settings().redirect == Redirect::Sidecar;
        let must_be = in_table || by_envoy || sidecar;
        let entries = local.map(|local| self.entries(local, must_be));
        let evidence = Evidence {
            errand,
            frontend,
            answer: result.as_ref().ok(),
            entries: entries.as_deref().unwrap_or_default(),
            local,
            certificates: &self.certificates,
            server_name,
            took,
        };
        let mut way = evidence.way(model);
        match result {
            Ok(answer) => {
                let ending = model.ending(&way, answer.status).map(Step::Reply);
                way.steps.extend(ending.map(|step| (took, step)));
                Ok(model.reply(way, answer, client_saw, took))
            }
            Err(failure) => {
                way.steps
                    .push((took, Step::Reply(ReplyStep::Failed(failure))));
                let replay = self.replay(asked.0, asked.1);
                Err(model.failed(asked, way, failure, client_saw, took, replay))
            }
        }
    }
}

fn proxy_error(node: &str, error: &dyn std::error::Error) -> AskError {
    AskError::Proxy {
        node: node.to_owned(),
        reason: error.to_string(),
    }
}
