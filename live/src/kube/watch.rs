//! Watches of an API server, one a kind, on threads of their own.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Client, ResourceExt as _};
use nodeway_core::object::{Change, Kind};
use serde_json::Value;
use tokio::runtime::Handle;

use super::store::{Store, Told};
use super::trimmed::trim;

/// How often is asked whether an API server that did not answer does again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A kind that is watched, and which objects of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub(super) kind: Kind,
    pub(super) fields: Option<String>,
}

/// Not all was listed in time.
#[derive(Debug, thiserror::Error)]
#[error("the API server has not told all that is watched within {within:?}{}", why.as_ref().map(|it| format!(": {it}")).unwrap_or_default())]
pub struct Lost {
    within: Duration,
    why: Option<String>,
}

impl Wish {
    /// What the agent of a node needs: of pods its node's, of Secrets the certificates.
    #[must_use]
    pub fn of_agent(node: &str) -> Vec<Self> {
        let all = |kind| Self { kind, fields: None };
        let some = |kind, fields: String| Self {
            kind,
            fields: Some(fields),
        };
        vec![
            all(Kind::Node),
            all(Kind::Service),
            all(Kind::EndpointSlice),
            some(Kind::Pod, format!("spec.nodeName={node}")),
            some(Kind::Secret, "type=kubernetes.io/tls".to_owned()),
            all(Kind::CiliumEnvoyConfig),
            all(Kind::CiliumClusterwideEnvoyConfig),
        ]
    }

    /// What a simulation of the whole cluster needs: the pods of all nodes, too.
    #[must_use]
    pub fn of_simulation() -> Vec<Self> {
        let mut all = Self::of_agent("");
        for wish in all.iter_mut().filter(|it| it.kind == Kind::Pod) {
            wish.fields = None;
        }
        all
    }

    /// What the operator needs.
    #[must_use]
    pub fn of_operator() -> Vec<Self> {
        [
            Kind::IngressClass,
            Kind::Ingress,
            Kind::Service,
            Kind::CiliumEnvoyConfig,
        ]
        .map(|kind| Self { kind, fields: None })
        .to_vec()
    }

    /// What changes an answer: what an agent or the operator needs, of all nodes.
    #[must_use]
    pub fn of_whoever_looks() -> Vec<Self> {
        let mut all = Self::of_simulation();
        let has = |kind| all.iter().any(|it| it.kind == kind);
        let of_operator = Self::of_operator().into_iter();
        let more: Vec<Self> = of_operator.filter(|it| !has(it.kind)).collect();
        all.extend(more);
        all
    }

    pub(super) fn resource(&self) -> ApiResource {
        resource(self.kind)
    }
}

/// Where an API server has a kind.
pub(crate) fn resource(kind: Kind) -> ApiResource {
    let (group, version, plural) = match kind {
        Kind::Node => ("", "v1", "nodes"),
        Kind::Service => ("", "v1", "services"),
        Kind::Pod => ("", "v1", "pods"),
        Kind::Secret => ("", "v1", "secrets"),
        Kind::EndpointSlice => ("discovery.k8s.io", "v1", "endpointslices"),
        Kind::Ingress => ("networking.k8s.io", "v1", "ingresses"),
        Kind::IngressClass => ("networking.k8s.io", "v1", "ingressclasses"),
        Kind::Deployment => ("apps", "v1", "deployments"),
        Kind::CiliumEnvoyConfig => ("cilium.io", "v2", "ciliumenvoyconfigs"),
        Kind::CiliumClusterwideEnvoyConfig => ("cilium.io", "v2", "ciliumclusterwideenvoyconfigs"),
    };
    let kind = GroupVersionKind::gvk(group, version, kind.name());
    ApiResource::from_gvk_with_plural(&kind, plural)
}

/// A cluster that is watched as long as this lives.
#[derive(Debug)]
pub struct Watched {
    kinds: Vec<Kind>,
    told: Receiver<Told>,
    store: Store,
}

impl Watched {
    /// Begins; `wake` is called when something was told.
    #[must_use]
    pub fn begin(
        runtime: &Handle,
        client: &Client,
        wishes: Vec<Wish>,
        wake: impl Fn() + Clone + Send + Sync + 'static,
    ) -> Self {
        let (sender, told) = channel();
        let kinds = wishes.iter().map(|it| it.kind).collect();
        for wish in wishes {
            runtime.spawn(follow(client.clone(), wish, sender.clone(), wake.clone()));
        }
        Self {
            kinds,
            told,
            store: Store::default(),
        }
    }

    /// The objects, and what is wrong with them.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Takes what was told since, and says what has changed.
    pub fn take(&mut self) -> Vec<Change> {
        let told: Vec<Told> = self.told.try_iter().collect();
        told.into_iter()
            .flat_map(|it| self.store.take(it))
            .collect()
    }

    /// Waits until all kinds were listed once. What has changed by then is everything.
    ///
    /// # Errors
    /// When that is not so in time.
    pub fn wait(&mut self, within: Duration) -> Result<(), Lost> {
        /// Between two looks at the bound.
        const LOOK: Duration = Duration::from_millis(100);
        let mut waited = Duration::ZERO;
        while !self.store.has_listed(&self.kinds) {
            match self.told.recv_timeout(LOOK) {
                Ok(told) => {
                    self.store.take(told);
                }
                Err(RecvTimeoutError::Timeout) if waited < within => waited += LOOK,
                Err(_) => {
                    let why = self.store.error();
                    return Err(Lost { within, why });
                }
            }
        }
        Ok(())
    }
}

/// Follows one kind until nobody listens.
async fn follow(
    client: Client,
    wish: Wish,
    sender: Sender<Told>,
    wake: impl Fn() + Send + Sync + 'static,
) {
    let kind = wish.kind;
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &wish.resource());
    let mut config = watcher::Config::default();
    if let Some(fields) = &wish.fields {
        config = config.fields(fields);
    }
    let mut events = watch(api, config).default_backoff().boxed();
    while let Some(event) = events.next().await {
        let told = match event {
            Ok(Event::Init) => Told::Listing(kind),
            Ok(Event::InitApply(object) | Event::Apply(object)) => has(kind, object),
            Ok(Event::InitDone) => Told::Listed(kind),
            Ok(Event::Delete(object)) => Told::Gone(
                kind,
                object.namespace().unwrap_or_default(),
                object.name_any(),
            ),
            Err(error) => {
                // A quiet watch that goes on again tells nothing by itself.
                tokio::spawn(answers(client.clone(), sender.clone()));
                Told::Broken(kind, error.to_string())
            }
        };
        if sender.send(told).is_err() {
            return;
        }
        wake();
    }
}

fn has(kind: Kind, object: DynamicObject) -> Told {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    trim(kind, &mut value);
    Told::Has(kind, typed(kind, value))
}

/// An object that says what it is: items of a list do not.
pub(crate) fn typed(kind: Kind, mut object: Value) -> Value {
    let resource = resource(kind);
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".to_owned(), resource.api_version.into());
        fields.insert("kind".to_owned(), resource.kind.into());
    }
    object
}

/// Tells when the API server answers again.
async fn answers(client: Client, sender: Sender<Told>) {
    loop {
        tokio::time::sleep(ASK_AGAIN).await;
        if client.apiserver_version().await.is_ok() {
            // Nobody may listen any more.
            let _ = sender.send(Told::Answers);
            return;
        }
    }
}
