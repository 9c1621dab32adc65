//! A listener: filter chains, and which of them a connection gets.
//!
//! Envoy looks at one property of the connection after the other, from the destination's port to
//! the source's. At each, of the chains that are left, those stay whose condition is the most
//! specific one that holds; it never goes back to a less specific one when a later property then
//! leaves none.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use prost_reflect::DynamicMessage;

use super::{Cidr, Connection, FilterChain, FilterChainMatch, Lost, ReadError, SourceType, Why};
use crate::envoy::{Fields, Unread, validate};

/// A listener: filter chains in the order of the message.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// The listener's name.
    pub name: String,
    /// Its filter chains in order.
    pub filter_chains: Vec<FilterChain>,
    /// The one that is taken when no other matches.
    pub default_filter_chain: Option<FilterChain>,
    /// Fields that are set and not modelled.
    pub not_simulated: Vec<String>,
    /// Fields on which the choice of a chain hangs and that are not modelled.
    pub undecided: Vec<String>,
}

/// Which filter chain a connection gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterChainChoice {
    /// The chain's place in the listener; none for the default chain, and when the connection is closed.
    pub chosen: Option<usize>,
    /// Whether it is the default chain.
    pub by_default: bool,
    /// Why.
    pub why: Arc<str>,
    /// The other chains.
    pub lost: Vec<Lost>,
}

/// How specific a chain's condition on one property is; none when it does not hold.
type Rank = Option<Reverse<usize>>;

/// One property that Envoy looks at.
struct Stage {
    what: &'static str,
    rank: fn(&FilterChainMatch, &Connection) -> Rank,
    is: fn(&Connection) -> String,
    wants: fn(&FilterChainMatch) -> String,
}

impl Listener {
    /// Reads a listener.
    ///
    /// # Errors
    ///
    /// What Envoy would refuse.
    pub fn read(message: &DynamicMessage) -> Result<Self, ReadError> {
        validate(message)?;
        let unread = Unread::default();
        let mut listener = Self::read_fields(&Fields::new(message, "", &unread))?;
        listener.not_simulated = unread.paths();
        Ok(listener)
    }

    fn read_fields(fields: &Fields<'_>) -> Result<Self, ReadError> {
        // Where it listens and how is the plan's affair, not the model's.
        for name in [
            "address",
            "additional_addresses",
            "transparent",
            "freebind",
            "enable_reuse_port",
            "bind_to_port",
            "traffic_direction",
            "stat_prefix",
        ] {
            fields.skip(name);
        }
        for filter in fields.messages("listener_filters") {
            read_listener_filter(&filter);
        }
        let chains = fields.messages("filter_chains");
        let default = fields.message("default_filter_chain");
        let undecided = if fields.has("filter_chain_matcher") {
            vec![fields.path_of("filter_chain_matcher")]
        } else {
            Vec::new()
        };
        let listener = Self {
            name: fields.text("name"),
            filter_chains: chains
                .iter()
                .map(FilterChain::read)
                .collect::<Result<_, _>>()?,
            default_filter_chain: default
                .map(|fields| FilterChain::read(&fields))
                .transpose()?,
            not_simulated: Vec::new(),
            undecided,
        };
        if listener.undecided.is_empty() {
            listener.refuse_overlap(&fields.path_of("filter_chains"))?;
        }
        Ok(listener)
    }

    /// Two chains may not both be the most specific one of a connection.
    fn refuse_overlap(&self, path: &str) -> Result<(), ReadError> {
        let any = String::new();
        let mut seen: BTreeMap<(Option<u16>, &str), Vec<usize>> = BTreeMap::new();
        for (index, chain) in self.filter_chains.iter().enumerate() {
            let names: Vec<&String> = match chain.matches.server_names.is_empty() {
                true => vec![&any],
                false => chain.matches.server_names.iter().collect(),
            };
            for name in names {
                let before = seen
                    .entry((chain.matches.destination_port, name))
                    .or_default();
                let same = |other: &&usize| {
                    self.filter_chains
                        .get(**other)
                        .is_some_and(|other| overlap(&chain.matches, &other.matches))
                };
                if let Some(other) = before.iter().find(same) {
                    let reason = format!(
                        "matches the same connections as {path}[{other}]; make their conditions differ"
                    );
                    return Err(ReadError::new(
                        format!("{path}[{index}].filterChainMatch"),
                        reason,
                    ));
                }
                before.push(index);
            }
        }
        Ok(())
    }

    /// Which filter chain a connection gets.
    #[must_use]
    pub fn filter_chain(&self, connection: &Connection) -> FilterChainChoice {
        let mut left: Vec<usize> = (0..self.filter_chains.len()).collect();
        let mut lost: Vec<Lost> = Vec::new();
        let mut decided: Vec<&str> = Vec::new();
        for stage in &STAGES {
            let rank = |index: &usize| {
                let chain = self.filter_chains.get(*index)?;
                Some((stage.rank)(&chain.matches, connection)).flatten()
            };
            let best = left.iter().filter_map(rank).min();
            let (stay, go): (Vec<usize>, Vec<usize>) = left
                .iter()
                .partition(|index| best.is_some() && rank(index) == best);
            lost.extend(
                go.iter().filter_map(|index| {
                    self.lost(*index, stage, rank(index).is_some(), connection)
                }),
            );
            if !go.is_empty() {
                decided.push(stage.what);
            }
            left = stay;
        }
        let chosen = left.first().copied();
        let by_default = chosen.is_none() && self.default_filter_chain.is_some();
        let why = match (chosen, by_default) {
            (Some(_), _) if decided.is_empty() => {
                "the only filter chain, and the connection matches it".to_owned()
            }
            (Some(_), _) => format!("the most specific match, by {}", decided.join(", then ")),
            (None, true) => "no filter chain matches, so it is the default one".to_owned(),
            (None, false) => {
                "no filter chain matches and there is no default one: the connection is closed"
                    .to_owned()
            }
        };
        FilterChainChoice {
            chosen,
            by_default,
            why: why.into(),
            lost,
        }
    }

    /// The chain of a choice.
    #[must_use]
    pub fn chain(&self, choice: &FilterChainChoice) -> Option<&FilterChain> {
        match choice.chosen {
            Some(index) => self.filter_chains.get(index),
            None => self
                .default_filter_chain
                .as_ref()
                .filter(|_| choice.by_default),
        }
    }

    fn lost(
        &self,
        index: usize,
        stage: &Stage,
        holds: bool,
        connection: &Connection,
    ) -> Option<Lost> {
        let chain = self.filter_chains.get(index)?;
        let name = if chain.name.is_empty() {
            format!("filter chain {index}")
        } else {
            chain.name.clone()
        };
        let why = if holds {
            Why::LessSpecific(format!("another chain's {}", stage.what).into())
        } else {
            let (is, wants) = (
                (stage.is)(connection).into(),
                (stage.wants)(&chain.matches).into(),
            );
            Why::Differs {
                what: stage.what,
                is,
                wants,
            }
        };
        Some(Lost {
            candidate: name.into(),
            why,
        })
    }
}

/// Listener filters that only find out what chains match by are modelled; others stay unread.
fn read_listener_filter(filter: &Fields<'_>) {
    const MODELLED: [&str; 3] = [
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
        "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
        "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
    ];
    if let Some(config) = filter.any("typed_config")
        && MODELLED.contains(&config.message_name().as_str())
    {
        filter.skip("name");
    }
}

/// Whether one connection could be the most specific match of both.
fn overlap(a: &FilterChainMatch, b: &FilterChainMatch) -> bool {
    fn share<T: Ord>(a: &BTreeSet<T>, b: &BTreeSet<T>) -> bool {
        (a.is_empty() && b.is_empty()) || a.intersection(b).next().is_some()
    }
    a.destination_port == b.destination_port
        && share(&a.destinations, &b.destinations)
        && share(&a.server_names, &b.server_names)
        && a.transport_protocol == b.transport_protocol
        && share(&a.application_protocols, &b.application_protocols)
        && share(&a.direct_sources, &b.direct_sources)
        && a.source_type == b.source_type
        && share(&a.sources, &b.sources)
        && share(&a.source_ports, &b.source_ports)
}

/// The less, the more specific.
const ANYTHING: Rank = Some(Reverse(0));

fn exact(holds: bool) -> Rank {
    holds.then_some(Reverse(usize::MAX))
}

fn rank_cidrs(cidrs: &BTreeSet<Cidr>, address: IpAddr) -> Rank {
    if cidrs.is_empty() {
        return ANYTHING;
    }
    let longest = cidrs
        .iter()
        .filter(|cidr| cidr.contains(address))
        .map(|cidr| cidr.length)
        .max()?;
    Some(Reverse(usize::from(longest) + 1))
}

fn rank_server_name(names: &BTreeSet<String>, server_name: &str) -> Rank {
    if names.is_empty() {
        return ANYTHING;
    }
    if names.contains(server_name) {
        return exact(true);
    }
    let wildcards = names.iter().filter_map(|name| name.strip_prefix('*'));
    // `*` stands for at least one character.
    let longest = wildcards
        .filter(|it| server_name.len() > it.len() && server_name.ends_with(it))
        .map(str::len)
        .max()?;
    Some(Reverse(longest))
}

/// Whether the peer is on this very host. Of loopback only its first address counts
/// (`Utility::isLoopbackAddress` in `source/common/network/utility.cc`).
fn is_local(connection: &Connection) -> bool {
    let source = connection.source.ip();
    source == connection.destination.ip()
        || source == IpAddr::V4(Ipv4Addr::LOCALHOST)
        || source == IpAddr::V6(Ipv6Addr::LOCALHOST)
}

fn list<T: ToString>(items: &BTreeSet<T>) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// The properties in Envoy's order.
const STAGES: [Stage; 9] = [
    Stage {
        what: "destination port",
        rank: |it, connection| match it.destination_port {
            None => ANYTHING,
            Some(port) => exact(port == connection.destination.port()),
        },
        is: |connection| connection.destination.port().to_string(),
        wants: |it| {
            it.destination_port
                .map(|port| port.to_string())
                .unwrap_or_default()
        },
    },
    Stage {
        what: "destination address",
        rank: |it, connection| rank_cidrs(&it.destinations, connection.destination.ip()),
        is: |connection| connection.destination.ip().to_string(),
        wants: |it| list(&it.destinations),
    },
    Stage {
        what: "server name",
        rank: |it, connection| rank_server_name(&it.server_names, &connection.server_name),
        is: |connection| connection.server_name.clone(),
        wants: |it| list(&it.server_names),
    },
    Stage {
        what: "transport protocol",
        rank: |it, connection| match it.transport_protocol.as_str() {
            "" => ANYTHING,
            protocol => exact(protocol == connection.transport_protocol),
        },
        is: |connection| connection.transport_protocol.clone(),
        wants: |it| it.transport_protocol.clone(),
    },
    Stage {
        what: "application protocol",
        rank: |it, connection| {
            if it.application_protocols.is_empty() {
                return ANYTHING;
            }
            // The client's order counts.
            let place = connection
                .application_protocols
                .iter()
                .position(|p| it.application_protocols.contains(p));
            place.map(|place| Reverse(usize::MAX - place))
        },
        is: |connection| connection.application_protocols.join(", "),
        wants: |it| list(&it.application_protocols),
    },
    Stage {
        what: "direct source address",
        rank: |it, connection| rank_cidrs(&it.direct_sources, connection.direct_source),
        is: |connection| connection.direct_source.to_string(),
        wants: |it| list(&it.direct_sources),
    },
    Stage {
        what: "source type",
        rank: |it, connection| match it.source_type {
            SourceType::Any => ANYTHING,
            SourceType::SameIpOrLoopback => exact(is_local(connection)),
            SourceType::External => exact(!is_local(connection)),
        },
        is: |connection| {
            (if is_local(connection) {
                "local"
            } else {
                "external"
            })
            .to_owned()
        },
        wants: |it| {
            (if it.source_type == SourceType::External {
                "external"
            } else {
                "local"
            })
            .to_owned()
        },
    },
    Stage {
        what: "source address",
        rank: |it, connection| rank_cidrs(&it.sources, connection.source.ip()),
        is: |connection| connection.source.ip().to_string(),
        wants: |it| list(&it.sources),
    },
    Stage {
        what: "source port",
        rank: |it, connection| {
            if it.source_ports.is_empty() {
                return ANYTHING;
            }
            exact(it.source_ports.contains(&connection.source.port()))
        },
        is: |connection| connection.source.port().to_string(),
        wants: |it| list(&it.source_ports),
    },
];
