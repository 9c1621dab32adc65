//! Cilium itself in a cluster: two that steer the same Services' packets would undo each other's work,
//! and two operators would write the same configs.
//!
//! It is found by what its charts of all versions put on what they install, whatever its names there:
//! once before anything is done, and from then on by watches, as it may be installed later.

use std::collections::BTreeSet;
use std::fmt;

use futures_util::StreamExt as _;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::sync::watch::{Receiver, Sender, channel};

use crate::cause::with_causes;

/// On its agent's DaemonSet.
const AGENT: &str = "k8s-app=cilium";
/// On its operator's Deployment.
const OPERATOR: &str = "io.cilium/app=operator";
/// On every kind that its operator has made known, and goes on to keep as it wants it.
const DEFINITION: &str = "io.cilium.k8s.crd.schema.version";
/// What such a kind is itself.
const DEFINED: &str = "CustomResourceDefinition";
/// The kinds that are both its and ours.
const DEFINITIONS: [&str; 2] = [
    "ciliumenvoyconfigs.cilium.io",
    "ciliumclusterwideenvoyconfigs.cilium.io",
];

/// Something of Cilium's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    kind: &'static str,
    /// Empty for what has none.
    namespace: String,
    name: String,
}

impl Found {
    fn of(kind: &'static str, object: &impl kube::ResourceExt) -> Self {
        Self {
            kind,
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        }
    }

    /// Of its kinds only those that are also ours are in the way.
    fn is_shared(&self) -> bool {
        self.kind != DEFINED || DEFINITIONS.contains(&self.name.as_str())
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)?;
        f.write_str(" ")?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// Why nothing is done in a cluster.
#[derive(Debug, thiserror::Error)]
pub enum BesideCilium {
    /// Cilium is there.
    #[error(
        "Cilium is in this cluster: {}; nothing of Nodeway acts beside it: take Cilium away first, or look only: `nodeway check kube`, explain and translate change nothing",
        list(.0)
    )]
    Runs(Vec<Found>),
    /// This account may not know whether it is.
    #[error(
        "whether Cilium is in this cluster is unknown: cannot list {kind}s: {said}; let this account list DaemonSets, Deployments and CustomResourceDefinitions"
    )]
    Refused {
        /// What cannot be listed.
        kind: &'static str,
        /// What the API server said.
        said: String,
    },
    /// No API server does.
    #[error(
        "whether Cilium is in this cluster is unknown, since its API server gives no answer: {said}"
    )]
    NoAnswer {
        /// What came instead.
        said: String,
    },
    /// What it says is no list.
    #[error("whether Cilium is in this cluster is unknown: cannot list {kind}s: {said}")]
    Unknown {
        /// What cannot be listed.
        kind: &'static str,
        /// What the API server said.
        said: String,
    },
}

pub(crate) fn list(found: &[Found]) -> String {
    let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

/// Refuses a cluster in which Cilium is.
///
/// # Errors
/// When it is there, or nobody says so.
pub(crate) async fn refuse_beside_cilium(client: &Client) -> Result<(), BesideCilium> {
    let agents = Api::<DaemonSet>::all(client.clone());
    let mut found = labelled(&agents, "DaemonSet", AGENT).await?;
    let operators = Api::<Deployment>::all(client.clone());
    found.extend(labelled(&operators, "Deployment", OPERATOR).await?);
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    let definitions = labelled(&definitions, DEFINED, DEFINITION).await?;
    found.extend(definitions.into_iter().filter(Found::is_shared));
    if found.is_empty() {
        Ok(())
    } else {
        Err(BesideCilium::Runs(found))
    }
}

async fn labelled<K>(
    api: &Api<K>,
    kind: &'static str,
    labels: &str,
) -> Result<Vec<Found>, BesideCilium>
where
    K: Resource + Clone + fmt::Debug + DeserializeOwned,
{
    let wanted = ListParams::default().labels(labels);
    // Their names are enough.
    let all = api.list_metadata(&wanted).await;
    let all = all.map_err(|error| unknown(kind, &error))?;
    let all = all.items.iter().map(|it| Found::of(kind, it));
    Ok(all.collect())
}

fn unknown(kind: &'static str, error: &kube::Error) -> BesideCilium {
    let said = with_causes(error);
    match error {
        kube::Error::Api(status) if status.is_forbidden() => BesideCilium::Refused { kind, said },
        kube::Error::Service(_) => BesideCilium::NoAnswer { said },
        _ => BesideCilium::Unknown { kind, said },
    }
}

/// What of Cilium's is in a cluster, followed as long as the watches' runtime lives.
#[derive(Clone, Debug)]
pub(crate) struct Beside(Receiver<BTreeSet<Found>>);

impl Beside {
    /// Begins to follow; `wake` is called when there is something else. A watch that breaks changes
    /// nothing.
    pub(crate) fn follow(
        runtime: &Handle,
        client: &Client,
        wake: impl Fn() + Clone + Send + 'static,
    ) -> Self {
        let (sender, found) = channel(BTreeSet::new());
        let (all, told) = (sender.clone(), wake.clone());
        runtime.spawn(follow::<DaemonSet>(
            client.clone(),
            "DaemonSet",
            AGENT,
            all,
            told,
        ));
        let (all, told) = (sender.clone(), wake.clone());
        runtime.spawn(follow::<Deployment>(
            client.clone(),
            "Deployment",
            OPERATOR,
            all,
            told,
        ));
        let client = client.clone();
        runtime.spawn(follow::<CustomResourceDefinition>(
            client, DEFINED, DEFINITION, sender, wake,
        ));
        Self(found)
    }

    /// What is there.
    pub(crate) fn found(&self) -> Vec<Found> {
        self.0.borrow().iter().cloned().collect()
    }
}

async fn follow<K>(
    client: Client,
    kind: &'static str,
    labels: &str,
    all: Sender<BTreeSet<Found>>,
    wake: impl Fn(),
) where
    K: Resource<DynamicType = ()> + Clone + fmt::Debug + DeserializeOwned + Send + 'static,
{
    // Their names are enough.
    let api = Api::<PartialObjectMeta<K>>::all(client);
    let config = Config::default().labels(labels);
    let mut events = watcher(api, config).default_backoff().boxed();
    let mut listing = BTreeSet::new();
    let mut broken = false;
    while let Some(event) = events.next().await {
        if let Err(error) = &event
            && !broken
        {
            tracing::warn!(
                error = with_causes(error),
                "whether a {kind} of Cilium's comes or goes is not told; what was there counts as there"
            );
        }
        broken = event.is_err();
        let changed = match event {
            Ok(Event::Init) => {
                listing.clear();
                false
            }
            Ok(Event::InitApply(object)) => {
                listing.insert(Found::of(kind, &object));
                false
            }
            Ok(Event::InitDone) => {
                let listed = std::mem::take(&mut listing);
                change(&all, |found| {
                    found.retain(|it| it.kind != kind);
                    found.extend(listed.into_iter().filter(Found::is_shared));
                })
            }
            Ok(Event::Apply(object)) => {
                let object = Found::of(kind, &object);
                change(&all, |found| {
                    found.extend(Some(object).filter(Found::is_shared));
                })
            }
            Ok(Event::Delete(object)) => {
                let object = Found::of(kind, &object);
                change(&all, |found| {
                    found.remove(&object);
                })
            }
            Err(_) => false,
        };
        if changed {
            wake();
        }
    }
}

/// Whether something else is there afterwards.
fn change(all: &Sender<BTreeSet<Found>>, by: impl FnOnce(&mut BTreeSet<Found>)) -> bool {
    all.send_if_modified(|found| {
        let before = found.clone();
        by(found);
        *found != before
    })
}
