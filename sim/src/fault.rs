//! What a test breaks in a running cluster, or changes: now, or when its time comes.

use std::fmt;

use nodeway_core::controllers::NoSuchObject;
use nodeway_core::object::{Change, ObjectRef};

use crate::cluster::AskError;
use crate::net::{Impairment, Toward};

/// Something that breaks or changes a running cluster. Everything goes by name; whoever is named as
/// `from` of a request can be named here.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// The link of a pod, a node or a host outside is bad. A second one of the same link takes the
    /// place of the first.
    Link {
        /// Whose link.
        of: String,
        /// Which of its packets.
        toward: Toward,
        /// What is wrong with it.
        impairment: Impairment,
    },
    /// Nothing gets through between two machines: nodes, or a node and a host outside.
    Partition {
        /// The two.
        between: [String; 2],
    },
    /// The Envoy of a node crashes; where pods have their own, those of all its pods. Mended, a new
    /// one is started.
    Proxy {
        /// The node; or a pod that has its own.
        node: String,
    },
    /// The agent of a node is down: nobody tells hook and proxy of changes, and a proxy that is
    /// started meanwhile gets no resources. Mended, it catches up.
    Agent {
        /// The node.
        node: String,
    },
    /// A node is off, and so are its pods: whatever ran there is gone without a word, and all that
    /// its kernel knew. Mended, it boots, with the same pods at the same addresses. Nobody takes
    /// their endpoints away meanwhile: that would be the control plane's doing, and a change.
    Node {
        /// The node.
        node: String,
    },
    /// Endpoints leave a Service. Mended, they are back.
    Endpoints {
        /// The Service.
        service: ObjectRef,
        /// Bare names of the pods that leave; empty for all.
        pods: Vec<String>,
    },
    /// Objects are applied or deleted, with what controllers make of that. Mended, all is as before.
    Objects {
        /// How they are named (`changes/routes.yaml`).
        what: String,
        /// The changes.
        changes: Vec<Change>,
    },
}

impl Fault {
    /// What it is when it is over.
    #[must_use]
    pub fn mended(&self) -> String {
        match self {
            Self::Link { of, .. } => format!("the link of {of} is well again"),
            Self::Partition { between: [a, b] } => {
                format!("packets get through between {a} and {b} again")
            }
            Self::Proxy { node } => format!("a new Envoy of {node} is started"),
            Self::Agent { node } => format!("the agent of {node} is back"),
            Self::Node { node } => format!("{node} is on again"),
            Self::Endpoints { service, .. } => format!("the endpoints of {service} are back"),
            Self::Objects { what, .. } => format!("{what} is taken back"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link {
                of,
                toward,
                impairment,
            } => {
                let which = match toward {
                    Toward::Both => "",
                    Toward::In => " towards it",
                    Toward::Out => " away from it",
                };
                write!(f, "the link of {of} is bad{which}: {impairment}")
            }
            Self::Partition { between: [a, b] } => {
                write!(f, "nothing gets through between {a} and {b}")
            }
            Self::Proxy { node } => write!(f, "the Envoy of {node} crashes"),
            Self::Agent { node } => write!(f, "the agent of {node} is down"),
            Self::Node { node } => write!(f, "{node} is off"),
            Self::Endpoints { service, pods } if pods.is_empty() => {
                write!(f, "all endpoints of {service} leave")
            }
            Self::Endpoints { service, pods } => {
                write!(f, "endpoints of {service} leave: {}", pods.join(", "))
            }
            Self::Objects { what, .. } => write!(f, "{what}"),
        }
    }
}

/// Why a fault cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// It names nobody, or no node.
    #[error(transparent)]
    Who(#[from] AskError),
    /// A partition is between machines on the fabric.
    #[error(
        "`{0}` is a pod, and no machine of its own on the fabric; name its node, or make its `link` lose 100%"
    )]
    NotAMachine(String),
    /// A partition of one machine.
    #[error("`{0}` is not parted from itself; name two machines")]
    Itself(String),
    /// No Service of that name has endpoints.
    #[error("no EndpointSlice belongs to {0}; name a Service with endpoints")]
    NoEndpoints(ObjectRef),
    /// The Service has no endpoint of that pod.
    #[error("{service} has no endpoint of a pod `{pod}`; it has {}", .has.join(", "))]
    NoSuchEndpoint {
        /// The Service.
        service: ObjectRef,
        /// The pod.
        pod: String,
        /// The pods whose endpoints it has.
        has: Vec<String>,
    },
    /// What is to be deleted is not there.
    #[error(transparent)]
    NoSuchObject(#[from] NoSuchObject),
    /// A machine that is not there.
    #[error("{0} is new, but machines are there from the start; put it among the manifests")]
    NewMachine(ObjectRef),
}
