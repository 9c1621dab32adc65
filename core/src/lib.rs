//! What decides in a service mesh that has one Envoy per node.
//!
//! Nothing here does I/O, asks for the time or draws a random number: objects go in, a plan comes
//! out; a packet goes in, a verdict comes out; a request goes in, a route comes out. The simulator
//! and the real agent are thin shells around these functions, so that they cannot disagree.
//!
//! Read it in the order in which data walks through it:
//!
//! 1. [`source`]: text that a user has (manifests, `kubectl get -o yaml`) becomes [`object`]s; [`cilium_config`]: what a dumped
//!    cluster's own settings say. What is wrong with one is a numbered [`problem`].
//! 2. [`controllers`]: what a cluster's controllers would add is added and marked: an Ingress becomes a
//!    `CiliumEnvoyConfig` and its Service ([`ingress`]).
//! 3. [`mod@derive`]: pods, addresses and endpoint slices where nobody wrote them.
//! 4. [`envoy`]: the resources of a `CiliumEnvoyConfig` are read against Envoy's own descriptors.
//! 5. [`plan`]: changes to objects become changes to a [`plan::NodePlan`], by what they share: a [`service`] with its
//!    [`frontend`]s and [`endpoint`]s, an [`address`], a [`selector`], a [`certificate`].
//! 6. [`lint`]: what is probably not meant, though nothing is refused; [`policy`]: what would select who answers, and is only named.
//! 7. [`datapath`]: a packet's bytes become a flow, the flow becomes a verdict; [`redirect`] says by
//!    which way the packet then comes to its listener, and what becomes of it when something is missing.
//! 8. [`netfilter`]: the packet filter's rules, Nodeway's and kube-proxy's, made, read and evaluated; [`conntrack`]: what they
//!    decided for a connection's first packet is done to all that follow.
//! 9. [`steering`]: each frontend leads to the generation of the node's Envoy that has its listener.
//! 10. [`proxy`]: a connection finds its filter chain, a request its virtual host, route, cluster; [`backend`]: what answers.
//! 11. [`xds`]: a plan's resources become what a real Envoy is told, and its answers are judged; [`config_dump`]: what it says it has.
//! 12. [`in_force`]: what a node's kernel and Envoys say they have becomes a plan again.
//! 13. [`recording`]: that, the objects and what was decided and answered, as texts to be replayed.
//! 14. [`condition`]: what of all that a config's status says.
//! 15. [`inject`]: manifests whose pods get an Envoy of their own.
//! 16. [`trace`]: each of these steps, with its reason, its evidence and the candidates that lost.

pub mod address;
pub mod backend;
pub mod certificate;
pub mod cilium_config;
pub mod condition;
pub mod config_dump;
pub mod conntrack;
pub mod controllers;
pub mod derive;
pub mod endpoint;
pub mod envoy;
pub mod frontend;
pub mod in_force;
pub mod ingress;
pub mod inject;
pub mod lint;
pub mod netfilter;
pub mod object;
pub mod plan;
pub mod policy;
pub mod problem;
pub mod proxy;
pub mod recording;
pub mod redirect;
pub mod selector;
pub mod service;
pub mod source;
pub mod steering;
pub mod trace;
pub mod xds;

pub use nodeway_datapath as datapath;

// Crates whose types stand in this one's interface: objects are Kubernetes' own, a listener of a plan is Envoy's message. Whoever
// makes or reads such a value takes these, and has the same version.
#[doc(no_inline)]
pub use {bytes, ipnet, k8s_openapi, prost_reflect, serde_json};

/// What the package says of itself holds.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
