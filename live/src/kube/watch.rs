//! Watches of an API server, one a kind, on threads of their own.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::runtime::watcher as watch;
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt as _};
use nodeway_core::object::{Change, Kind, ObjectRef};
use serde_json::Value;
use tokio::runtime::Handle;

use super::store::{Store, Told, is_config};
use super::trimmed::trim;
use crate::cause::with_causes;

/// How long the first lists may take.
const LISTED_WITHIN: Duration = Duration::from_secs(60);
/// How often is asked whether an API server whose watch broke tells of the kind again. The watcher's
/// own tries come up to half a minute apart, long after the API server is back, and a watch that is
/// too old by then fails once more before it lists: so long a node would not hear of endpoints.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A kind that is watched, and which objects of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub(super) kind: Kind,
    pub(super) fields: Option<String>,
    pub(super) labels: Option<String>,
    /// Whether configs are told with their status: it is as long as the cluster has nodes.
    pub(super) status: bool,
}

/// Not all was listed in time.
#[derive(Debug, thiserror::Error)]
#[error("the API server has not told all that is watched within {LISTED_WITHIN:?}{}", why.as_ref().map(|it| format!(": {it}")).unwrap_or_default())]
pub struct Lost {
    why: Option<String>,
}

impl Wish {
    /// What an agent needs: certificates of all Secrets, and of pods those of its node. Without a node
    /// those of all, as a simulation of the cluster needs them.
    #[must_use]
    pub fn of_agent(node: Option<&str>) -> Vec<Self> {
        let of_node = node.map(|node| format!("spec.nodeName={node}"));
        let certificates = Some("type=kubernetes.io/tls".to_owned());
        [
            (Kind::Node, None),
            (Kind::Service, None),
            (Kind::EndpointSlice, None),
            (Kind::Pod, of_node),
            (Kind::Secret, certificates),
            (Kind::CiliumEnvoyConfig, None),
            (Kind::CiliumClusterwideEnvoyConfig, None),
        ]
        .map(|(kind, fields)| Self {
            kind,
            fields,
            labels: None,
            status: false,
        })
        .to_vec()
    }

    /// What the Envoy of a pod needs. Certificates are not among it: a pod's account must not read all
    /// Secrets, and handshakes with a frontend that shows one fail at the sidecar.
    #[must_use]
    pub fn of_sidecar() -> Vec<Self> {
        [
            Kind::Node,
            Kind::Service,
            Kind::EndpointSlice,
            Kind::CiliumEnvoyConfig,
            Kind::CiliumClusterwideEnvoyConfig,
        ]
        .map(|kind| Self {
            kind,
            fields: None,
            labels: None,
            status: false,
        })
        .to_vec()
    }

    /// What the operator needs; of nodes, those whose labels a selector picks.
    #[must_use]
    pub fn of_operator(agents: Option<&str>) -> Vec<Self> {
        [
            Kind::Node,
            Kind::IngressClass,
            Kind::Ingress,
            Kind::Service,
            Kind::CiliumEnvoyConfig,
            Kind::CiliumClusterwideEnvoyConfig,
        ]
        .map(|kind| Self {
            kind,
            labels: agents.filter(|_| kind == Kind::Node).map(str::to_owned),
            fields: None,
            status: true,
        })
        .to_vec()
    }

    /// What changes an answer: what an agent or the operator needs, of all nodes.
    #[must_use]
    pub fn of_whoever_looks() -> Vec<Self> {
        let mut all = Self::of_agent(None);
        let has = |kind| all.iter().any(|it| it.kind == kind);
        let of_operator = Self::of_operator(None).into_iter();
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
    told: Receiver<Told>,
    store: Store,
}

impl Watched {
    /// Begins, and waits until all kinds were listed once; `wake` is called when something was told
    /// since.
    ///
    /// # Errors
    /// When not all is listed in time.
    pub fn begin(
        runtime: &Handle,
        client: &Client,
        wishes: Vec<Wish>,
        wake: impl Fn() + Clone + Send + Sync + 'static,
    ) -> Result<Self, Lost> {
        let (sender, told) = channel();
        let kinds: Vec<Kind> = wishes.iter().map(|it| it.kind).collect();
        for wish in wishes {
            runtime.spawn(follow(client.clone(), wish, sender.clone(), wake.clone()));
        }
        let mut watched = Self {
            told,
            store: Store::default(),
        };
        watched.wait(&kinds)?;
        Ok(watched)
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

    /// The configs whose status says something else since this was asked last.
    pub fn restated(&mut self) -> BTreeSet<ObjectRef> {
        self.store.restated()
    }

    fn wait(&mut self, kinds: &[Kind]) -> Result<(), Lost> {
        /// Between two looks at the bound.
        const LOOK: Duration = Duration::from_millis(100);
        let mut waited = Duration::ZERO;
        while !self.store.has_listed(kinds) {
            match self.told.recv_timeout(LOOK) {
                Ok(told) => {
                    self.store.take(told);
                }
                Err(RecvTimeoutError::Timeout) if waited < LISTED_WITHIN => waited += LOOK,
                Err(_) => {
                    let why = self.store.error();
                    return Err(Lost { why });
                }
            }
        }
        Ok(())
    }
}

/// Follows one kind until nobody listens. A watch that broke is begun anew as soon as the API server
/// answers, with a whole list: until that is told, the kind is broken, and nobody takes what is known
/// of it for what there is.
async fn follow(client: Client, wish: Wish, sender: Sender<Told>, wake: impl Fn()) {
    let kind = wish.kind;
    let api: Api<DynamicObject> = Api::all_with(client, &wish.resource());
    let mut config = watcher::Config::default();
    if let Some(fields) = &wish.fields {
        config = config.fields(fields);
    }
    if let Some(labels) = &wish.labels {
        config = config.labels(labels);
    }
    let begin = || watch(api.clone(), config.clone()).boxed();
    let mut events = begin();
    while let Some(event) = events.next().await {
        let told = match event {
            Ok(Event::Init) => Told::Listing(kind),
            Ok(Event::InitApply(object) | Event::Apply(object)) => has(&wish, object),
            Ok(Event::InitDone) => Told::Listed(kind),
            Ok(Event::Delete(object)) => Told::Gone(
                kind,
                object.namespace().unwrap_or_default(),
                object.name_any(),
            ),
            Err(error) => {
                if sender
                    .send(Told::Broken(kind, with_causes(&error)))
                    .is_err()
                {
                    return;
                }
                wake();
                until_it_answers(&api, &wish).await;
                events = begin();
                continue;
            }
        };
        if sender.send(told).is_err() {
            return;
        }
        wake();
    }
}

fn has(wish: &Wish, object: DynamicObject) -> Told {
    let kind = wish.kind;
    let mut value = serde_json::to_value(object).unwrap_or_default();
    trim(kind, &mut value);
    if let Some(fields) = value.as_object_mut().filter(|_| is_config(kind))
        && !wish.status
    {
        fields.remove("status");
    }
    Told::Has(kind, typed(&resource(kind), value))
}

/// An object that says what it is: items of a list do not.
pub(crate) fn typed(resource: &ApiResource, mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        let text = |it: &String| Value::from(it.as_str());
        fields.insert("apiVersion".to_owned(), text(&resource.api_version));
        fields.insert("kind".to_owned(), text(&resource.kind));
    }
    object
}

/// Waits a second, and then until objects of a kind can be listed.
async fn until_it_answers(api: &Api<DynamicObject>, wish: &Wish) {
    let one = ListParams {
        field_selector: wish.fields.clone(),
        label_selector: wish.labels.clone(),
        limit: Some(1),
        ..ListParams::default()
    };
    loop {
        tokio::time::sleep(ASK_AGAIN).await;
        if api.list_metadata(&one).await.is_ok() {
            return;
        }
    }
}
