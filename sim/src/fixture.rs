//! A fixture: a folder with `manifests/`, what one would `kubectl apply`, and a `fixture.yaml`, who
//! asks for what and what must come of it. It names things, never addresses.

mod fault_spec;
mod made;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use nodeway_core::controllers::Controllers;
use nodeway_core::derive::DeriveOptions;
use nodeway_core::ingress::{Mode, Options};
use nodeway_core::netfilter::kube_proxy;
use nodeway_core::object::Objects;
use nodeway_core::redirect::Redirect;
use nodeway_core::source::Text;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::cluster::{Ask, Family};
use crate::source::{self, LoadErrors};
use crate::time::Time;

pub use fault_spec::{FaultSpec, Moment, What};
pub use made::{Made, fixture_of};

/// `fixture.yaml`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Fixture {
    /// What it shows, in a line.
    pub title: String,
    /// What one learns from it, in a sentence.
    pub about: String,
    /// The nodes of a cluster whose manifests have none.
    pub nodes: Nodes,
    /// Whether Services that say nothing of families get both.
    #[serde(rename = "dualStack")]
    pub dual_stack: bool,
    /// Whether kube-proxy translates services on every node, beside whatever redirects them:
    /// `iptables` (or `true`) or `nftables` by its rules, `none` (or `false`) not at all.
    #[serde(rename = "kubeProxy", deserialize_with = "mode_of_kube_proxy")]
    pub kube_proxy: kube_proxy::Mode,
    /// Hosts outside the cluster; one called `client` unless it says.
    pub outside: Vec<String>,
    /// How packets come to the listener, unless the command says.
    pub redirect: Redirect,
    /// The seed, unless the command says.
    pub seed: u64,
    /// How the operator is set up.
    pub ingress: IngressSpec,
    /// What breaks meanwhile, each when its time comes.
    pub faults: Vec<FaultSpec>,
    /// The folder of its manifests, seen from its own; `manifests` unless it says.
    #[serde(rename = "manifests")]
    pub manifests_folder: PathBuf,
    /// Who asks for what, in order.
    pub requests: Vec<RequestSpec>,
    /// The folder it was read from.
    #[serde(skip)]
    pub folder: PathBuf,
    /// The files of its `manifests/`.
    #[serde(skip)]
    pub manifests: Vec<Text>,
}

/// A mode of kube-proxy by name, or whether there is one.
fn mode_of_kube_proxy<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<kube_proxy::Mode, D::Error> {
    struct Mode;
    impl Visitor<'_> for Mode {
        type Value = kube_proxy::Mode;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("`iptables`, `nftables` or `none`")
        }

        fn visit_bool<E: de::Error>(self, stands: bool) -> Result<kube_proxy::Mode, E> {
            Ok(match stands {
                true => kube_proxy::Mode::Iptables,
                false => kube_proxy::Mode::None,
            })
        }

        fn visit_str<E: de::Error>(self, mode: &str) -> Result<kube_proxy::Mode, E> {
            mode.parse().map_err(E::custom)
        }
    }
    deserializer.deserialize_any(Mode)
}

impl Fixture {
    /// How its cluster's operator and controllers complete the objects.
    #[must_use]
    pub fn controllers(&self) -> Controllers {
        Controllers {
            ingress: self.ingress.options(),
            derive: DeriveOptions {
                nodes: self.nodes.0.clone(),
                dual_stack: self.dual_stack,
                ..DeriveOptions::default()
            },
        }
    }

    /// Reads the folder of a fixture.
    ///
    /// # Errors
    ///
    /// What cannot be read, and everything that is wrong with `fixture.yaml`.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self, LoadErrors> {
        source::fixture(folder.as_ref())
    }

    /// The objects of its manifests.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with them.
    pub fn objects(&self) -> Result<Objects, LoadErrors> {
        source::objects(&self.manifests)
    }
}

impl Default for Fixture {
    fn default() -> Self {
        Self {
            title: String::new(),
            about: String::new(),
            nodes: Nodes::default(),
            dual_stack: false,
            kube_proxy: kube_proxy::Mode::default(),
            outside: vec!["client".to_owned()],
            redirect: Redirect::default(),
            seed: 1,
            ingress: IngressSpec::default(),
            faults: Vec::new(),
            manifests_folder: PathBuf::from("manifests"),
            requests: Vec::new(),
            folder: PathBuf::new(),
            manifests: Vec::new(),
        }
    }
}

/// The operator's settings that a fixture may choose; all others are Cilium's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IngressSpec {
    /// The mode of an Ingress that does not say: `dedicated` or `shared`.
    #[serde(with = "ModeName")]
    pub mode: Mode,
    /// Whether plain text is redirected where an Ingress has TLS and does not say.
    pub enforce_https: bool,
}

#[derive(Deserialize)]
#[serde(remote = "Mode", rename_all = "lowercase")]
enum ModeName {
    Dedicated,
    Shared,
}

impl Default for IngressSpec {
    fn default() -> Self {
        let cilium = Options::default();
        Self {
            mode: cilium.default_mode,
            enforce_https: cilium.enforce_https,
        }
    }
}

impl IngressSpec {
    /// What the operator is told.
    #[must_use]
    pub fn options(self) -> Options {
        Options {
            default_mode: self.mode,
            enforce_https: self.enforce_https,
            ..Options::default()
        }
    }
}

/// How many nodes, or which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nodes(pub Vec<String>);

impl Default for Nodes {
    fn default() -> Self {
        Self::count(2)
    }
}

/// More nodes than this in one fixture is a typing error: Kubernetes itself ends at 5,000.
const MAX_NODES: u64 = 5_000;

impl Nodes {
    /// That many: `node-1`, `node-2`, …
    #[must_use]
    pub fn count(count: u64) -> Self {
        Self((1..=count).map(|n| format!("node-{n}")).collect())
    }
}

impl<'de> Deserialize<'de> for Nodes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CountOrNames;
        impl<'de> Visitor<'de> for CountOrNames {
            type Value = Nodes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a number of nodes from 1 to {MAX_NODES}, or their names")
            }

            fn visit_u64<E: de::Error>(self, count: u64) -> Result<Nodes, E> {
                if (1..=MAX_NODES).contains(&count) {
                    Ok(Nodes::count(count))
                } else {
                    Err(E::invalid_value(de::Unexpected::Unsigned(count), &self))
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Nodes, A::Error> {
                let mut all: Vec<String> = Vec::new();
                while let Some(name) = names.next_element::<String>()? {
                    if name.is_empty() || all.contains(&name) {
                        return Err(de::Error::custom(format!(
                            "`{name}` is no name, or is there twice; name each node once"
                        )));
                    }
                    all.push(name);
                }
                if all.is_empty() {
                    return Err(de::Error::invalid_length(0, &self));
                }
                Ok(Nodes(all))
            }
        }
        deserializer.deserialize_any(CountOrNames)
    }
}

/// One request of a fixture and what must come of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct RequestSpec {
    /// What it shows.
    #[serde(default)]
    pub name: String,
    /// Who asks, as in [`crate::Cluster::request`].
    pub from: String,
    /// The URL.
    pub to: String,
    /// `GET` unless it says.
    #[serde(default = "get")]
    pub method: String,
    /// Header fields.
    #[serde(default)]
    pub headers: std::collections::BTreeMap<String, String>,
    /// The body.
    #[serde(default)]
    pub body: String,
    /// Which of a name's addresses is taken: `ipv4` or `ipv6`; the first unless it says.
    #[serde(default)]
    pub family: Family,
    /// When it is sent, in virtual time, whether those before it are over or not; after they are
    /// over unless it says.
    #[serde(default, deserialize_with = "moment")]
    pub at: Option<Time>,
    /// The connection that it goes over: requests of one name and client share one.
    #[serde(default)]
    pub connection: Option<String>,
    /// What must come of it.
    #[serde(default)]
    pub expect: Expect,
    /// What must come of it instead by some redirect: each field takes the place of the one above.
    #[serde(default)]
    pub differs: BTreeMap<Redirect, Expect>,
}

fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Time>, D::Error> {
    let moment = Option::<Moment>::deserialize(deserializer)?;
    Ok(moment.map(|moment| Time::ZERO + moment.0))
}

fn get() -> String {
    "GET".to_owned()
}

impl RequestSpec {
    /// What must come of it by a redirect.
    #[must_use]
    pub fn expected(&self, redirect: Redirect) -> Expect {
        match self.differs.get(&redirect) {
            Some(differs) => differs.clone().or(&self.expect),
            None => self.expect.clone(),
        }
    }

    /// The request to send.
    #[must_use]
    pub fn ask(&self) -> Ask {
        let mut ask = Ask::get(&self.to)
            .method(&self.method)
            .body(self.body.as_bytes())
            .family(self.family);
        for (name, value) in &self.headers {
            ask = ask.header(name, value);
        }
        ask.connection.clone_from(&self.connection);
        ask
    }
}

/// What must come of a request; what is absent may be anything. Everything goes by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Expect {
    /// HTTP status.
    pub status: Option<u16>,
    /// The Service whose backend answers.
    pub service: Option<String>,
    /// The pod that answers, or its Deployment.
    pub pod: Option<String>,
    /// The `version` label of the pod that answers.
    pub version: Option<String>,
    /// The node of that pod.
    pub node: Option<String>,
    /// The node whose Envoy has the request.
    pub proxy_node: Option<String>,
    /// Whether a node's Envoy has the request.
    pub redirected: Option<bool>,
    /// The listener's name, its last part is enough.
    pub listener: Option<String>,
    /// What the route matches: `path_separated_prefix /details`, or `/details`.
    pub route: Option<String>,
    /// The cluster's name, its last part is enough.
    pub cluster: Option<String>,
    /// Why there is no answer (`connection-refused`); `none` where there is one.
    pub failure: Option<String>,
    /// The peer that the client's socket sees.
    pub client_saw: Option<String>,
    /// The peer that the proxy sees.
    pub proxy_saw: Option<String>,
    /// The peer that the backend sees.
    pub backend_saw: Option<String>,
    /// The Secret whose certificate the client is shown; its bare name is enough.
    pub certificate: Option<String>,
    /// Who terminates TLS: `Node node-1`, or `Pod default/shop-1`, or the pod's Deployment.
    pub terminated_by: Option<String>,
    /// Whether the certificate covers the server name.
    pub covers: Option<bool>,
    /// The longest that it may take, in virtual time.
    pub within: Option<Moment>,
    /// The shortest that it may take, in virtual time.
    pub after: Option<Moment>,
    /// Header fields of the response.
    pub headers: std::collections::BTreeMap<String, String>,
}

impl Expect {
    /// What is expected here, and of the rest what `other` expects.
    fn or(self, other: &Self) -> Self {
        let other = other.clone();
        let mut headers = other.headers;
        headers.extend(self.headers);
        Self {
            status: self.status.or(other.status),
            service: self.service.or(other.service),
            pod: self.pod.or(other.pod),
            version: self.version.or(other.version),
            node: self.node.or(other.node),
            proxy_node: self.proxy_node.or(other.proxy_node),
            redirected: self.redirected.or(other.redirected),
            listener: self.listener.or(other.listener),
            route: self.route.or(other.route),
            cluster: self.cluster.or(other.cluster),
            failure: self.failure.or(other.failure),
            client_saw: self.client_saw.or(other.client_saw),
            proxy_saw: self.proxy_saw.or(other.proxy_saw),
            backend_saw: self.backend_saw.or(other.backend_saw),
            certificate: self.certificate.or(other.certificate),
            terminated_by: self.terminated_by.or(other.terminated_by),
            covers: self.covers.or(other.covers),
            within: self.within.or(other.within),
            after: self.after.or(other.after),
            headers,
        }
    }
}
