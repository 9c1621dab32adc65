//! Connections from clients: how each begins, which filter chain it gets, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use nodeway_core::plan::{PlannedListener, ResourceName};
use nodeway_core::proxy::{Connection, FilterChain, FilterChainChoice, Terminal};
use nodeway_core::trace::{FilterChainStep, HandshakeStep, ListenerStep, Step};

use super::relay::Relay;
use super::session::Session;
use super::sidecar::Captured;
use super::{Due, NodeProxy};
use crate::http::{Hello, Opening, Pipe};
use crate::process::{ListenSocketId, Os, SocketEvent, SocketId, TimerId, WayId};

/// How long a client may take to close after the proxy did; Envoy's `delayed_close_timeout`.
const LINGER: Duration = Duration::from_secs(1);

/// A connection from a client.
pub(super) struct Downstream {
    pub(super) pipe: Pipe,
    pub(super) stage: Stage,
}

/// By which listener a connection comes in.
pub(super) struct Entry {
    pub(super) name: ResourceName,
    pub(super) listener: Arc<PlannedListener>,
    /// How rules led it here, into a pod's own proxy.
    pub(super) captured: Option<Captured>,
}

/// How far a connection is.
pub(super) enum Stage {
    /// Its filter chain is not chosen yet.
    Opening(Box<Entry>),
    /// It speaks HTTP.
    Http(Box<Session>),
    /// Its bytes go to an endpoint as they are.
    Tcp(Relay),
    /// The proxy has said all it will; the client has until then to close.
    Ending(TimerId),
    /// It is no more.
    Gone,
}

/// What every request of a connection repeats on its way.
pub(super) struct Arrival {
    captured: Option<Captured>,
    pub(super) listener: ListenerStep,
    pub(super) chain: FilterChainStep,
    /// Where the proxy terminates TLS.
    pub(super) handshake: Option<HandshakeStep>,
}

impl Arrival {
    pub(super) fn note(&self, way: Option<WayId>, os: &mut dyn Os) {
        if let Some(captured) = &self.captured {
            captured.note(way, os);
        }
        if let Some(way) = way {
            os.note(way, Step::Listener(self.listener.clone()));
            os.note(way, Step::FilterChain(self.chain.clone()));
            if let Some(handshake) = &self.handshake {
                os.note(way, Step::Handshake(handshake.clone()));
            }
        }
    }
}

impl NodeProxy {
    pub(super) fn accept(&mut self, socket: SocketId, by: ListenSocketId, os: &mut dyn Os) {
        let name = self.listening.name(by).cloned();
        if let (Some(name), Some(pod)) = (&name, self.pod.clone()) {
            self.capture(socket, name, pod, os);
            return;
        }
        let listener = name
            .as_ref()
            .and_then(|name| self.resources.listeners.get(name).cloned());
        let (Some(name), Some(listener)) = (name, listener) else {
            os.abort(socket);
            return;
        };
        let entry = Entry {
            name,
            listener,
            captured: None,
        };
        self.admit(socket, Stage::Opening(Box::new(entry)), os);
    }

    /// Begins with a connection.
    pub(super) fn admit(&mut self, socket: SocketId, stage: Stage, os: &mut dyn Os) {
        self.counters.connections += 1;
        let pipe = Pipe::new(socket);
        self.downstreams.insert(socket, Downstream { pipe, stage });
        self.drive(socket, os);
    }

    pub(super) fn on_downstream(&mut self, socket: SocketId, event: SocketEvent, os: &mut dyn Os) {
        match event {
            SocketEvent::Closed | SocketEvent::Failed(_) => {
                if let Some(downstream) = self.downstreams.remove(&socket) {
                    self.abandon(downstream.stage, os);
                }
            }
            SocketEvent::PeerClosed => {
                if let Some(downstream) = self.downstreams.get_mut(&socket) {
                    downstream.pipe.peer_closed = true;
                }
                self.drive(socket, os);
            }
            _ => self.drive(socket, os),
        }
    }

    /// Goes on with a connection as far as it can.
    pub(super) fn drive(&mut self, socket: SocketId, os: &mut dyn Os) {
        let Some(mut downstream) = self.downstreams.remove(&socket) else {
            return;
        };
        let pipe = &mut downstream.pipe;
        pipe.flush(os);
        pipe.read(os);
        if matches!(downstream.stage, Stage::Opening(_))
            && let Stage::Opening(entry) = std::mem::replace(&mut downstream.stage, Stage::Gone)
        {
            downstream.stage = self.open(pipe, entry, os);
        }
        downstream.stage = match std::mem::replace(&mut downstream.stage, Stage::Gone) {
            Stage::Http(session) => self.session(pipe, session, os),
            Stage::Tcp(relay) => self.relay(pipe, relay, os),
            Stage::Ending(until) => {
                // What still comes is for nobody.
                pipe.input.clear();
                os.receive(socket, &mut pipe.input);
                pipe.input.clear();
                Stage::Ending(until)
            }
            stage => stage,
        };
        match downstream.stage {
            Stage::Gone => os.abort(socket),
            _ => {
                downstream.pipe.flush(os);
                self.downstreams.insert(socket, downstream);
            }
        }
    }

    /// Sends what is left and then the end; the client gets a while to do the same.
    pub(super) fn end(&mut self, pipe: &mut Pipe, os: &mut dyn Os) -> Stage {
        pipe.close(os);
        Stage::Ending(self.arm(LINGER, Due::Linger(pipe.socket), os))
    }

    /// The client has not closed in time. One that still reads its answer gets more of it.
    pub(super) fn lingered(&mut self, socket: SocketId, os: &mut dyn Os) {
        let Some(mut downstream) = self.downstreams.remove(&socket) else {
            return;
        };
        if downstream.pipe.is_sent() {
            os.abort(socket);
            return;
        }
        downstream.stage = Stage::Ending(self.arm(LINGER, Due::Linger(socket), os));
        self.downstreams.insert(socket, downstream);
    }

    /// Frees what a connection used that is no more.
    pub(super) fn abandon(&mut self, stage: Stage, os: &mut dyn Os) {
        let upstream = match stage {
            Stage::Http(mut session) => {
                let exchange = session.exchange.take();
                exchange.and_then(|mut exchange| {
                    self.disarm(exchange.timer.take(), os);
                    exchange.upstream
                })
            }
            Stage::Tcp(relay) => Some(relay.upstream),
            Stage::Ending(until) => {
                self.disarm(Some(until), os);
                None
            }
            Stage::Opening(_) | Stage::Gone => None,
        };
        if let Some(upstream) = upstream.and_then(|socket| self.upstreams.remove(&socket)) {
            self.drop_upstream(&upstream, os);
        }
    }

    /// Chooses the filter chain, once enough has come to choose by.
    fn open(&mut self, pipe: &mut Pipe, entry: Box<Entry>, os: &mut dyn Os) -> Stage {
        let opening = match Opening::detect(&pipe.input) {
            Ok(Some(opening)) => opening,
            Ok(None) if pipe.peer_closed => return Stage::Gone,
            // A server may speak first, where no chain hangs on what the client says.
            Ok(None) if pipe.input.is_empty() && !inspects(&entry.listener) => Opening::Plain,
            Ok(None) => return Stage::Opening(entry),
            Err(_) => return Stage::Gone,
        };
        let socket = pipe.socket;
        let meant = entry.captured.as_ref().map(Captured::meant);
        let destination = meant.or_else(|| os.local(socket));
        let (Some(destination), Some(peer)) = (destination, os.peer(socket)) else {
            return Stage::Gone;
        };
        let hello = match &opening {
            Opening::Tls(hello, _) => Some(hello),
            Opening::Plain => None,
        };
        let connection = Connection {
            destination,
            source: peer,
            direct_source: peer.ip(),
            server_name: hello.map_or_else(String::new, |hello| hello.server_name.clone()),
            transport_protocol: transport(hello).to_owned(),
            application_protocols: hello.map_or_else(Vec::new, |hello| hello.protocols.clone()),
        };
        let Entry {
            name,
            listener,
            captured,
        } = *entry;
        let choice = choose(&listener.model, &connection);
        let chain = listener.model.chain(&choice).cloned();
        let port = captured.as_ref().map_or(listener.port, Captured::port);
        let arrival = Arrival {
            captured,
            listener: ListenerStep {
                node: Arc::clone(&self.node),
                pod: self.pod.clone(),
                listener: Arc::clone(&name),
                port,
                peer,
                destination,
            },
            chain: FilterChainStep {
                listener: name,
                choice,
            },
            handshake: None,
        };
        self.take_chain(pipe, chain, arrival, &opening, os)
    }

    fn take_chain(
        &mut self,
        pipe: &mut Pipe,
        chain: Option<FilterChain>,
        arrival: Arrival,
        opening: &Opening,
        os: &mut dyn Os,
    ) -> Stage {
        let way = os.way(pipe.socket);
        let Some(chain) = chain else {
            self.counters.no_filter_chain += 1;
            arrival.note(way, os);
            return Stage::Gone;
        };
        let tls = chain.tls.is_some();
        let mut arrival = arrival;
        match (&chain.tls, opening) {
            (Some(tls), Opening::Tls(hello, length)) => {
                let (step, flight) = self.handshake(tls, hello);
                arrival.handshake = Some(step);
                let Some(flight) = flight else {
                    self.counters.handshakes_failed += 1;
                    arrival.note(way, os);
                    return Stage::Gone;
                };
                pipe.answer_tls(*length, flight);
            }
            (Some(_), Opening::Plain) => {
                // What is no hello fails the handshake.
                self.counters.handshakes_failed += 1;
                arrival.note(way, os);
                return Stage::Gone;
            }
            (None, _) => {}
        }
        match chain.terminal {
            Terminal::Http(manager) => Stage::Http(Box::new(Session::new(arrival, manager, tls))),
            Terminal::Tcp { cluster } => {
                arrival.note(way, os);
                self.begin_relay(pipe.socket, cluster.as_str().into(), way, os)
            }
            Terminal::Other(_) => {
                arrival.note(way, os);
                Stage::Gone
            }
        }
    }
}

fn transport(hello: Option<&Hello>) -> &'static str {
    if hello.is_some() { "tls" } else { "raw_buffer" }
}

/// Whether the choice of a chain hangs on what the client says first.
fn inspects(listener: &PlannedListener) -> bool {
    let model = &listener.model;
    let chains = model
        .filter_chains
        .iter()
        .chain(&model.default_filter_chain);
    chains.into_iter().any(|chain| {
        let matches = &chain.matches;
        chain.tls.is_some()
            || !matches.server_names.is_empty()
            || !matches.transport_protocol.is_empty()
            || !matches.application_protocols.is_empty()
    })
}

/// The choice of a chain; none where it hangs on fields that are not modelled.
fn choose(model: &nodeway_core::proxy::Listener, connection: &Connection) -> FilterChainChoice {
    if model.undecided.is_empty() {
        return model.filter_chain(connection);
    }
    let why = format!("not simulated: {}", model.undecided.join(", "));
    FilterChainChoice {
        chosen: None,
        by_default: false,
        why: why.into(),
        lost: Vec::new(),
    }
}
