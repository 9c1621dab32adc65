//! What is asked: a listener, and the requests or connections that come to it.

use std::fmt;
use std::net::SocketAddr;

use nodeway_sim::Seed;
use serde_json::{Value, json};

use super::ask::Ask;
use super::chain::{self, Arrival};
use super::luck::{Luck, Tally};
use super::{broken, table};

/// What comes to a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    Request(Ask),
    Connection(Arrival),
}

impl Probe {
    /// To a listener on this port.
    pub(super) fn to(&self, port: u16) -> Self {
        match self {
            Self::Request(ask) => Self::Request(ask.to(port)),
            Self::Connection(arrival) => Self::Connection(arrival.clone()),
        }
    }

    /// The same with one thing less, in all ways.
    pub(super) fn smaller(&self) -> Vec<Self> {
        match self {
            Self::Request(ask) => ask.smaller().into_iter().map(Self::Request).collect(),
            Self::Connection(_) => Vec::new(),
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(ask) => f.write_str(ask.to_string().trim_end()),
            Self::Connection(arrival) => arrival.fmt(f),
        }
    }
}

/// A listener and what comes to it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Subject {
    /// Its number, by which it is drawn again.
    pub(super) number: u32,
    /// Without name and address.
    pub(super) listener: Value,
    pub(super) probes: Vec<Probe>,
}

/// How many come to one listener.
const PROBES: usize = 14;

impl Subject {
    /// Draws the subject of a number: four of six are tables, one chains, one a config to refuse.
    pub(super) fn draw(seed: Seed, number: u32, tally: &mut Tally) -> Self {
        let mut luck = Luck::new(seed.stream(&format!("envoy/{number}")));
        let (listener, probes) = match number % 6 {
            0..=3 => {
                let listener = listener_of(table::manager(&mut luck));
                // The port of the listener is not known yet; that one is a host's like others.
                let probes = (0..PROBES).map(|_| Probe::Request(Ask::draw(&mut luck)));
                (listener, probes.collect())
            }
            4 => {
                let listener = chain::listener(&mut luck);
                let probes = (0..PROBES).map(|_| Probe::Connection(Arrival::draw(&mut luck)));
                (listener, probes.collect())
            }
            _ => {
                let turn = usize::try_from(number / 6).unwrap_or(0);
                (broken::listener(&mut luck, turn), Vec::new())
            }
        };
        tally.add(&luck.tally);
        Self {
            number,
            listener,
            probes,
        }
    }

    /// How many cases it is.
    pub(super) fn cases(&self) -> u64 {
        u64::try_from(self.probes.len().max(1)).unwrap_or(1)
    }
}

/// A listener of one chain, with this connection manager.
pub(super) fn listener_of(manager: Value) -> Value {
    json!({ "filter_chains": [{ "filters": [{ "name": "http", "typed_config": manager }] }] })
}

/// The listener with name and address, as both sides read it.
pub(super) fn placed(listener: &Value, name: &str, address: SocketAddr) -> Value {
    let mut listener = listener.clone();
    if let Some(fields) = listener.as_object_mut() {
        let kind = "type.googleapis.com/envoy.config.listener.v3.Listener";
        let socket = json!({ "address": address.ip(), "port_value": address.port() });
        fields.insert("@type".to_owned(), json!(kind));
        fields.insert("name".to_owned(), json!(name));
        fields.insert("address".to_owned(), json!({ "socket_address": socket }));
    }
    listener
}
