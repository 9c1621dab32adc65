//! One proxy: its five kinds of resources, and what waits for what among them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::channel::{Channel, Content, Gate};
use super::entry::Turn;
use super::resources::{ResourceDelta, Served};
use super::state::{ProxyState, Rejection, ResourceState};
use crate::envoy::ResourceKind;
use crate::plan::{ResourceName, Update};

/// The number of a change of the plan, from one on. All that a delta holds has one number.
pub type Revision = u64;

/// How a stream talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// `StreamAggregatedResources`: a response has all listeners, or all clusters.
    StateOfTheWorld,
    /// `DeltaAggregatedResources`: a response has what changed.
    Incremental,
}

/// What a proxy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The kind of resources.
    pub kind: ResourceKind,
    /// The response that it answers; none for a question of its own.
    pub nonce: Option<String>,
    /// What it has against that response, in its own words; none when it took it.
    pub error: Option<String>,
    /// What it asks for.
    pub asked: Asked,
}

/// What a proxy asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// In the state-of-the-world protocol: these and no others.
    Names {
        /// All names; none, or `*`, for all listeners or clusters.
        names: Vec<String>,
        /// Whether it has nothing of this kind yet: it states no version.
        fresh: bool,
    },
    /// In the incremental protocol: these too, and those no longer.
    Change {
        /// Names to be added.
        subscribe: Vec<String>,
        /// Names to be taken away.
        unsubscribe: Vec<String>,
        /// With the first question of a stream: the versions of what it has.
        initial: BTreeMap<String, String>,
    },
}

/// What a proxy is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The kind of resources.
    pub kind: ResourceKind,
    /// The number under which the proxy answers.
    pub nonce: String,
    /// The change of the plan that this is as of.
    pub revision: Revision,
    /// New versions; in the state-of-the-world protocol all listeners or clusters.
    pub put: Vec<(ResourceName, Arc<Served>)>,
    /// What is gone; the state-of-the-world protocol cannot say it.
    pub removed: Vec<ResourceName>,
}

/// In which order kinds are told.
const ORDER: [ResourceKind; 5] = [
    ResourceKind::Cluster,
    ResourceKind::ClusterLoadAssignment,
    ResourceKind::Secret,
    ResourceKind::RouteConfiguration,
    ResourceKind::Listener,
];

/// What one proxy shall have, has, and said.
#[derive(Debug)]
pub struct Proxy {
    revision: Revision,
    /// Up to here nothing waits any longer.
    lifted: Option<Revision>,
    stream: Option<Protocol>,
    streams: u64,
    nonce: u64,
    clusters: Channel,
    endpoints: Channel,
    secrets: Channel,
    routes: Channel,
    listeners: Channel,
}

impl Proxy {
    /// A proxy that shall have these resources.
    #[must_use]
    pub fn new(resources: &ResourceDelta) -> Self {
        let mut proxy = Self {
            revision: 0,
            lifted: None,
            stream: None,
            streams: 0,
            nonce: 0,
            clusters: Channel::new(ResourceKind::Cluster),
            endpoints: Channel::new(ResourceKind::ClusterLoadAssignment),
            secrets: Channel::new(ResourceKind::Secret),
            routes: Channel::new(ResourceKind::RouteConfiguration),
            listeners: Channel::new(ResourceKind::Listener),
        };
        proxy.apply(resources);
        proxy
    }

    /// What it shall have has changed.
    pub fn apply(&mut self, delta: &ResourceDelta) {
        self.revision += 1;
        for ((kind, name), update) in &delta.changes {
            let served = match update {
                Update::Put(served) => Some(Arc::clone(served)),
                Update::Remove => None,
            };
            let revision = self.revision;
            let before = self.channel_mut(*kind).plan(name, served.clone(), revision);
            let Some(needed) = self.needed_by(*kind) else {
                continue;
            };
            let needs = |it: &Option<Arc<Served>>| {
                it.as_ref().map(|it| it.needs.clone()).unwrap_or_default()
            };
            // More first, so that what stays needed never looks as if it were not.
            needs(&served)
                .iter()
                .for_each(|name| needed.need(name, true));
            needs(&before)
                .iter()
                .for_each(|name| needed.need(name, false));
        }
    }

    /// A stream begins, in the place of an earlier one. Its number.
    pub fn connect(&mut self, protocol: Protocol) -> u64 {
        self.stream = Some(protocol);
        self.streams += 1;
        self.lifted = None;
        for kind in ORDER {
            self.channel_mut(kind).begin(protocol);
        }
        self.streams
    }

    /// A stream has ended. What it acknowledged stays known.
    pub fn disconnect(&mut self, stream: u64) {
        if stream == self.streams {
            self.stream = None;
        }
    }

    /// Whether there is a stream.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether all that is planned, and can be said on this stream, was said and answered.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.is_connected()
            && ORDER
                .into_iter()
                .all(|kind| self.channel(kind).is_settled())
    }

    /// Whether a stream is the one that is talked on.
    #[must_use]
    pub fn is_current(&self, stream: u64) -> bool {
        self.stream.is_some() && stream == self.streams
    }

    /// Takes in what the proxy says.
    pub fn request(&mut self, request: &Request) {
        let nonce = request.nonce.as_deref().map(str::parse::<u64>);
        let channel = self.channel_mut(request.kind);
        match (&request.asked, &nonce) {
            // It answers an older response than the last: its next word has all its names again.
            (Asked::Names { .. }, Some(nonce)) if !channel.is_latest(nonce.as_ref().ok()) => return,
            (Asked::Names { names, fresh }, _) => channel.ask_for(names, *fresh),
            (
                Asked::Change {
                    subscribe,
                    unsubscribe,
                    initial,
                },
                _,
            ) => {
                channel.ask(subscribe, unsubscribe, initial);
            }
        }
        let Some(Ok(nonce)) = nonce else {
            return;
        };
        if let Some(words) = &request.error {
            channel.refuse(nonce, words);
            return;
        }
        let changes = channel.acknowledge(nonce);
        if let Some(needed) = self.needed_by(request.kind) {
            let needs = changes.values().flatten().flat_map(|it| &it.needs);
            needs.for_each(|name| needed.expect(name));
        }
    }

    /// What can be said now; none when all is said, or the rest waits.
    pub fn response(&mut self) -> Option<Response> {
        self.stream?;
        for kind in ORDER {
            let gate = self.gate(kind);
            let nonce = self.nonce + 1;
            let Some(content) = self.channel_mut(kind).next(&gate, nonce) else {
                continue;
            };
            self.nonce = nonce;
            if kind == ResourceKind::Cluster {
                self.warm(&content);
            }
            return Some(Response {
                kind,
                nonce: nonce.to_string(),
                revision: self.revision,
                put: content.put,
                removed: content.removed,
            });
        }
        None
    }

    /// The first change that waits for another kind to be acknowledged. If it is the same after a
    /// while, say so to [`Proxy::time_is_up`].
    #[must_use]
    pub fn waits(&self) -> Option<Revision> {
        let held = |kind| self.channel(kind).held(&self.gate(kind));
        ORDER.into_iter().filter_map(held).min()
    }

    /// New versions up to a change wait no longer.
    pub fn time_is_up(&mut self, revision: Revision) {
        self.lifted = self.lifted.max(Some(revision));
    }

    /// All of it, for `nodeway status`. It takes as long as there are resources.
    #[must_use]
    pub fn state(&self) -> ProxyState {
        let resources = ResourceKind::ALL.into_iter().flat_map(|kind| {
            let entries = self.channel(kind).entries().iter();
            entries.map(move |(name, entry)| ResourceState::of(kind, name, entry))
        });
        ProxyState {
            stream: self.stream,
            streams: self.streams,
            revision: self.revision,
            resources: resources.collect(),
        }
    }

    /// One resource; none when nobody planned it and the proxy has none.
    #[must_use]
    pub fn resource(&self, kind: ResourceKind, name: &str) -> Option<ResourceState> {
        let (name, entry) = self.channel(kind).entries().get_key_value(name)?;
        Some(ResourceState::of(kind, name, entry))
    }

    /// What the proxy refuses of that which is planned now.
    #[must_use]
    pub fn rejections(&self) -> Vec<Rejection> {
        let all = ResourceKind::ALL.into_iter().flat_map(|kind| {
            let channel = self.channel(kind);
            let rejected = channel.rejected().iter();
            rejected.filter_map(move |name| Rejection::of(kind, name, channel.entries().get(name)?))
        });
        all.collect()
    }

    /// A cluster that changes is served by its old self until its endpoints come once more: who
    /// waits for the cluster waits for them.
    fn warm(&mut self, content: &Content) {
        for (name, served) in &content.changes {
            let Some(cluster) = self.clusters.entries().get(name) else {
                continue;
            };
            for needed in served.iter().flat_map(|it| &it.needs) {
                self.endpoints.again(needed, cluster.changed);
            }
        }
    }

    /// What waits for what: new things for those that they need, old things for those that need them.
    fn gate(&self, kind: ResourceKind) -> Gate {
        let first = |turn, channels: &[&Channel]| {
            let firsts = channels.iter().filter_map(|channel| channel.first(turn));
            firsts.min()
        };
        let (clusters, endpoints) = (&self.clusters, &self.endpoints);
        let (routes, listeners) = (&self.routes, &self.listeners);
        let puts: &[&Channel] = match kind {
            ResourceKind::RouteConfiguration => &[clusters, endpoints],
            ResourceKind::Listener => &[clusters, endpoints, routes],
            _ => &[],
        };
        let removals: &[&Channel] = match kind {
            ResourceKind::Cluster => &[routes, listeners],
            ResourceKind::Secret | ResourceKind::Listener => &[listeners],
            _ => &[],
        };
        let put = first(Turn::Put, removals);
        // Among listeners new ones come before old ones go.
        let removal = first(Turn::Removal, removals).filter(|_| kind != ResourceKind::Listener);
        Gate {
            puts: first(Turn::Put, puts),
            removals: put.into_iter().chain(removal).min(),
            lifted: self.lifted,
        }
    }

    fn channel(&self, kind: ResourceKind) -> &Channel {
        match kind {
            ResourceKind::Cluster => &self.clusters,
            ResourceKind::ClusterLoadAssignment => &self.endpoints,
            ResourceKind::Secret => &self.secrets,
            ResourceKind::RouteConfiguration => &self.routes,
            ResourceKind::Listener => &self.listeners,
        }
    }

    fn channel_mut(&mut self, kind: ResourceKind) -> &mut Channel {
        match kind {
            ResourceKind::Cluster => &mut self.clusters,
            ResourceKind::ClusterLoadAssignment => &mut self.endpoints,
            ResourceKind::Secret => &mut self.secrets,
            ResourceKind::RouteConfiguration => &mut self.routes,
            ResourceKind::Listener => &mut self.listeners,
        }
    }

    /// Where that stands which resources of a kind need by name.
    fn needed_by(&mut self, kind: ResourceKind) -> Option<&mut Channel> {
        match kind {
            ResourceKind::Cluster => Some(&mut self.endpoints),
            ResourceKind::Listener => Some(&mut self.routes),
            _ => None,
        }
    }
}
