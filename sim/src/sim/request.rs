//! Requests of a simulated cluster: each is sent, is under way, and ends in a reply or a failure.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nodeway_core::certificate::Certificate;
use nodeway_core::object::Kind;
use nodeway_core::source::Known;
use nodeway_core::trace::{Failure, HandshakeStep, Name, NameStep, ReplyStep, Step, Way};
use serde_json::Value;

use super::{Last, Sim};
use crate::asker::place;
use crate::client::{Answer, Client, Outcome, Through};
use crate::cluster::{Ask, AskError, Cause, Cluster, Failed};
use crate::http;
use crate::names::View;
use crate::net::Place;
use crate::process::WayId;
use crate::reply::{Reply, Seen, Shown, Who};
use crate::served::Served;
use crate::target::Target;
use crate::time::Time;
use crate::world::{ProcessId, World};

/// How long a request may take before the simulation gives up on it: far beyond every time-out in it.
const PATIENCE: Duration = Duration::from_secs(600);

/// Who asks, for what, and where that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errand {
    /// The client's place.
    pub place: Place,
    /// The URL taken apart.
    pub target: Target,
    /// What the URL's host is for this client.
    pub name: NameStep,
}

impl Errand {
    /// The address and port to connect to; none for a name that has no address.
    #[must_use]
    pub fn to(&self) -> Option<SocketAddr> {
        match &self.name.found {
            Name::Service { address, .. } | Name::Address { address, .. } => {
                Some(SocketAddr::new(*address, self.target.port))
            }
            Name::Unknown { .. } => None,
        }
    }
}

/// A request that was sent and whose end was not waited for yet.
#[derive(Debug)]
#[must_use = "a request without `finish` has no reply"]
pub struct UnderWay {
    from: String,
    url: String,
    way: WayId,
    client: ProcessId,
    started: Time,
    /// The way on which its connection was opened, if that was another.
    opened: Option<WayId>,
}

impl UnderWay {
    /// Its way.
    #[must_use]
    pub fn way(&self) -> WayId {
        self.way
    }
}

impl Sim {
    /// Sends a request and does not wait: time stands still until somebody lets it go on.
    ///
    /// # Errors
    ///
    /// When nothing can be sent at all: nobody is called so, the name has no address.
    pub fn send(&mut self, from: &str, ask: Ask) -> Result<UnderWay, Box<Failed>> {
        let url = ask.url.clone();
        let asked = (from, url.as_str());
        let errand = self.errand(from, &ask);
        let errand = errand.map_err(|error| self.refused(asked, error))?;
        let way = self.world.open_way();
        self.last = Some(Last {
            from: from.to_owned(),
            url: url.clone(),
            way,
        });
        let client = self.client(&errand.place);
        let through = match (&ask.connection, client) {
            (Some(name), Some(client)) if self.keeps(client, name) => Some(Through::Kept),
            (kept, _) => {
                if let (Some(name), Some(client)) = (kept, client) {
                    self.opened.insert((client, name.clone()), way);
                }
                let to = errand.to();
                self.world.note(way, Step::Name(errand.name));
                to.map(Through::New)
            }
        };
        let (Some(through), Some(client)) = (through, client) else {
            return Err(self.ended(asked, way, Failure::UnknownName, None, Duration::ZERO));
        };
        let connection = ask.connection.clone();
        if let Some(process) = self.world.process_mut::<Client>(client) {
            let asked_of_it = process.ask(ask, through, way);
            asked_of_it.map_err(|error| self.refused(asked, error))?;
        }
        let opened = connection.and_then(|name| self.opened.get(&(client, name)).copied());
        let started = self.world.now();
        self.faults.under_way(way);
        self.world.wake(client);
        Ok(UnderWay {
            from: from.to_owned(),
            url,
            way,
            client,
            started,
            opened: opened.filter(|opened| *opened != way),
        })
    }

    /// Waits for the end of a request, while everything else goes on too.
    ///
    /// # Errors
    ///
    /// When no answer came, with the reason and the way up to there.
    pub fn finish(&mut self, request: UnderWay) -> Result<Reply, Box<Failed>> {
        let UnderWay {
            from,
            url,
            way,
            client,
            started,
            opened,
        } = request;
        let limit = started + PATIENCE;
        self.advance(limit, |world| is_over(world, client, way));
        self.faults.over(way);
        let process = self.world.process_mut::<Client>(client);
        let outcome = process.and_then(|client| client.take_outcome(way));
        let outcome = outcome.unwrap_or(Outcome {
            result: Err(if self.world.alive(client) {
                Failure::TimedOut
            } else {
                Failure::ClientGone
            }),
            client_saw: None,
            ended: self.world.now(),
        });
        let took = outcome.ended - started;
        let client_saw = outcome.client_saw;
        let answer = match outcome.result {
            Ok(answer) => answer,
            Err(failure) => {
                return Err(self.ended((&from, &url), way, failure, client_saw, took));
            }
        };
        if let Some(opened) = opened {
            self.remember(way, opened, started);
        }
        let ending = self.world.way(way);
        if let Some(ending) = ending.and_then(|it| self.ending(it, answer.status)) {
            self.world.note(way, Step::Reply(ending));
        }
        let steps = self.world.way(way).cloned().unwrap_or_default();
        Ok(self.reply(steps, answer, client_saw, took))
    }

    /// Whoever looks at packets alone decides once, when a connection is opened: on a later request
    /// that no listener has looked at, what was decided then is told again.
    fn remember(&mut self, way: WayId, opened: WayId, at: Time) {
        let looked_at = |way: &Way| {
            let mut steps = way.steps.iter();
            steps.any(|(_, step)| matches!(step, Step::Listener(_)))
        };
        let (Some(now), Some(then)) = (self.world.way(way), self.world.way(opened)) else {
            return;
        };
        if looked_at(now) {
            return;
        }
        let decided = then.steps.iter().filter_map(|(_, step)| match step {
            Step::Translation(_) | Step::Sidecar(_) => Some(step.clone()),
            _ => None,
        });
        let mut remembered = Way {
            steps: decided.map(|step| (at.since_start(), step)).collect(),
            ..now.clone()
        };
        remembered.steps.extend(now.steps.iter().cloned());
        self.world.replace_way(way, remembered);
    }

    fn keeps(&self, client: ProcessId, connection: &str) -> bool {
        let client = self.world.process::<Client>(client);
        client.is_some_and(|client| client.keeps(connection))
    }

    pub(super) fn replay(&self, from: &str, url: &str) -> String {
        let settings = self.world.settings();
        format!(
            "nodeway explain {} --from {from} --to {url} --redirect {} --seed {}",
            self.source, settings.redirect, settings.seed.0
        )
    }

    /// The client process of a place, started when it is first needed.
    fn client(&mut self, place: &Place) -> Option<ProcessId> {
        if let Some(id) = self.clients.get(place).filter(|id| self.world.alive(**id)) {
            return Some(*id);
        }
        let stack = self.world.stack(place)?;
        let id = self.world.spawn(stack, Box::new(Client::default()));
        self.clients.insert(place.clone(), id);
        Some(id)
    }

    /// How a request that was answered ended, by the steps up to there; none when the proxy
    /// answered, which says so itself.
    #[must_use]
    pub fn ending(&self, way: &Way, status: u16) -> Option<ReplyStep> {
        let served = Served::of(Some(way));
        if served.answered_by_proxy {
            return None;
        }
        let of_dump = || {
            self.dump.as_ref()?;
            let address = served.endpoint?;
            Some(ReplyStep::Endpoint { address, status })
        };
        let pod = served.pod.clone();
        pod.map(|pod| ReplyStep::Backend { pod, status })
            .or_else(of_dump)
    }

    /// The reply to a request that went this way: the steps say who served it.
    #[must_use]
    pub fn reply(
        &self,
        way: Way,
        answer: Answer,
        client_saw: Option<SocketAddr>,
        took: Duration,
    ) -> Reply {
        let steps = Served::of(Some(&way));
        let served = !steps.answered_by_proxy;
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let backend_peer: Option<SocketAddr> = body
            .pointer("/saw/peer")
            .and_then(Value::as_str)
            .and_then(|peer| peer.parse().ok());
        let own_proxy = backend_peer.and_then(|peer| steps.own_proxy(peer));
        let pod = steps.pod.filter(|_| served);
        let node = pod.as_ref().and_then(|pod| {
            let pod = self.objects.pod(&pod.namespace, &pod.name)?;
            pod.spec.as_ref()?.node_name.clone()
        });
        let seen = |address: SocketAddr| self.names.seen(address);
        let proxy_saw = steps.proxy_peer.map(|peer| match &steps.proxy {
            // Over loopback a node meets nobody but itself.
            Some(node) if peer.ip().is_loopback() => Seen {
                address: peer,
                name: Some(format!("{} {node}", Kind::Node)),
            },
            _ => seen(peer),
        });
        Reply {
            status: answer.status,
            service: Who(steps.service.filter(|_| served)),
            pod: Who(pod),
            node,
            proxy_node: steps.proxy,
            proxy_pod: steps.proxy_pod,
            listener: steps.listener,
            route: steps.route,
            cluster: steps.cluster,
            endpoint: steps.endpoint,
            client_saw: client_saw.map(seen),
            proxy_saw,
            proxy_destination: steps.proxy_destination.map(seen),
            backend_saw: own_proxy.or(backend_peer.map(seen)),
            tls: shown(steps.handshake, answer.shown),
            headers: answer.headers,
            body,
            bytes: answer.body,
            took,
            way,
        }
    }

    /// A request that went this way and got no answer; `replay` shows it again.
    #[must_use]
    pub fn failed(
        &self,
        asked: (&str, &str),
        way: Way,
        failure: Failure,
        client_saw: Option<SocketAddr>,
        took: Duration,
        replay: String,
    ) -> Box<Failed> {
        let (from, url) = asked;
        let served = Served::of(Some(&way));
        Box::new(Failed {
            failure: Cause::Network(failure),
            from: from.to_owned(),
            url: url.to_owned(),
            proxy_node: served.proxy.or(served.led_by),
            proxy_pod: served.proxy_pod,
            client_saw: client_saw.map(|address| self.names.seen(address)),
            way,
            known: self.known(),
            took,
            replay,
        })
    }

    /// Notes that a request failed.
    fn ended(
        &mut self,
        asked: (&str, &str),
        way: WayId,
        failure: Failure,
        client_saw: Option<SocketAddr>,
        took: Duration,
    ) -> Box<Failed> {
        self.world
            .note(way, Step::Reply(ReplyStep::Failed(failure)));
        let (from, url) = asked;
        let steps = self.world.way(way).cloned().unwrap_or_default();
        self.failed(
            asked,
            steps,
            failure,
            client_saw,
            took,
            self.replay(from, url),
        )
    }

    /// Who asks and where it goes, before anything is sent.
    ///
    /// # Errors
    /// When the question itself is wrong.
    pub fn errand(&self, from: &str, ask: &Ask) -> Result<Errand, AskError> {
        let place = place(from, &self.objects, &self.topology)?;
        let target = ask.target()?;
        let found = self
            .names
            .resolve(&target.host, View::of(&place), ask.family);
        let name = NameStep {
            asked: target.host.clone(),
            found,
        };
        Ok(Errand {
            place,
            target,
            name,
        })
    }

    /// The place that somebody calls so, as in [`Cluster::request`].
    ///
    /// # Errors
    /// When nobody is called so.
    pub fn place(&self, from: &str) -> Result<Place, AskError> {
        place(from, &self.objects, &self.topology)
    }

    /// The names that mean something at a place, each with an address that it has there: what a
    /// file of hosts would say.
    #[must_use]
    pub fn hosts(&self, place: &Place) -> Vec<(IpAddr, String)> {
        self.names.hosts(View::of(place))
    }

    /// A request that could not even be sent.
    #[must_use]
    pub fn refused(&self, asked: (&str, &str), error: AskError) -> Box<Failed> {
        let (from, url) = asked;
        Box::new(Failed {
            failure: Cause::Ask(error),
            from: from.to_owned(),
            url: url.to_owned(),
            proxy_node: None,
            proxy_pod: None,
            client_saw: None,
            way: Way::default(),
            known: self.known(),
            took: Duration::ZERO,
            replay: String::new(),
        })
    }
}

/// Whether a request has ended, or will never: its client is gone.
fn is_over(world: &World, client: ProcessId, way: WayId) -> bool {
    let process = world.process::<Client>(client);
    !world.alive(client) || process.is_none_or(|client| client.has_outcome(way))
}

impl Cluster for Sim {
    fn request(&mut self, from: &str, ask: Ask) -> Result<Reply, Box<Failed>> {
        let under_way = self.send(from, ask)?;
        self.finish(under_way)
    }

    fn crash_proxy(&mut self, of: &str) -> Result<(), AskError> {
        for (_, place) in self.proxies_of(of)? {
            if let Some(proxy) = self.proxies.get(&place) {
                self.world.kill(*proxy);
            }
        }
        Ok(())
    }

    fn restart_proxy(&mut self, of: &str) -> Result<(), AskError> {
        self.crash_proxy(of)?;
        self.start_proxies(of);
        Ok(())
    }

    fn not_applicable(&self, from: &str) -> Result<Option<String>, AskError> {
        self.without_sidecar(from)
    }

    fn known(&self) -> Known {
        Self::known(self)
    }
}

/// What the client was shown, with the names of those who showed it.
fn shown(step: Option<HandshakeStep>, shown: Option<http::Shown>) -> Option<Shown> {
    let (step, shown) = (step?, shown?);
    let certificate = Certificate::from_der(shown.chain).ok();
    Some(Shown {
        terminated_by: step.by.to_string(),
        certificate: step.certificate.map(|source| source.path()),
        names: certificate
            .as_ref()
            .map(Certificate::names)
            .unwrap_or_default(),
        covers: certificate.is_some_and(|it| it.covers(&step.server_name)),
        server_name: step.server_name,
        protocol: shown.protocol,
    })
}
