//! The way of a request: each step, what was decided, on what evidence, and why the others lost.
//!
//! A [`Step`] holds facts; text is made when it is printed. The simulator fills steps while it
//! runs, the live mode from maps and `config_dump`: both are printed by the same code.

mod stage;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nodeway_datapath::{Flow, FrontendState, Hook, Reason};

use crate::netfilter;
use crate::object::ObjectRef;
use crate::plan::{FrontendKey, PlannedEndpoint, PlannedFrontend, ResourceName};
use crate::proxy;

pub use stage::{Loser, Stage, Stop, stages, stages_in_force};

/// The way of one request, in the order of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Way {
    /// How many links the request crossed from its client to whoever answered it: each veth pair,
    /// uplink or `lo` at whose end a packet with bytes of the request arrived, once for each
    /// connection that it took. What carries no bytes (SYN, ACK, FIN) and what goes back is not
    /// counted, so that a connection that stood already makes no difference.
    pub hops: usize,
    /// Steps, each with the virtual time at which it was taken.
    pub steps: Vec<(Duration, Step)>,
}

/// One step on the way of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A name was resolved, or not.
    Name(NameStep),
    /// The destination was looked up in a node's frontend table.
    Frontend(FrontendStep),
    /// A hook gave its verdict.
    Verdict(VerdictStep),
    /// A rule of the packet filter did something with the packet.
    Rule(RuleStep),
    /// kube-proxy's rules translated the destination, or refused it.
    Translation(TranslationStep),
    /// A pod's own proxy took a connection that was meant for somebody else.
    Sidecar(SidecarStep),
    /// A listener of the node's proxy, or of a pod's own, has the connection.
    Listener(ListenerStep),
    /// The listener chose a filter chain.
    FilterChain(FilterChainStep),
    /// Somebody answered a client's TLS hello, or could not.
    Handshake(HandshakeStep),
    /// The route table chose virtual host and route.
    Route(Box<RouteStep>),
    /// The route's cluster was looked up.
    Cluster(ClusterStep),
    /// The cluster chose an endpoint.
    Endpoint(EndpointStep),
    /// Something broke or was changed while the request was under way.
    Fault(FaultStep),
    /// An answer was given, or the connection failed.
    Reply(ReplyStep),
}

/// A name and its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameStep {
    /// What the client asked for (`productpage`, `10.96.0.1`).
    pub asked: String,
    /// What it is.
    pub found: Name,
}

/// What a name turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// A Service, by the cluster's DNS or, from outside, by its LoadBalancer address.
    Service {
        /// The Service.
        service: ObjectRef,
        /// The address the client connects to.
        address: IpAddr,
    },
    /// An address as it stands, with the object that has it, if any.
    Address {
        /// The address.
        address: IpAddr,
        /// The object that has it.
        owner: Option<ObjectRef>,
    },
    /// Nothing of that name.
    Unknown {
        /// The Service that the name stands for, whether it exists or not.
        service: Option<ObjectRef>,
        /// Names that are close.
        close: Vec<String>,
        /// Why a Service of that name has no address here (`headless`, `no LoadBalancer address`).
        why: String,
    },
}

/// A look-up in a node's frontend table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontendStep {
    /// The node.
    pub node: Arc<str>,
    /// What was looked up.
    pub address: FrontendKey,
    /// What the table has.
    pub frontend: Option<PlannedFrontend>,
    /// Where it stands between being switched on and being gone; without meaning if there is none.
    pub state: FrontendState,
    /// Who asks: a call's is the one that its packets will have.
    pub source: IpAddr,
}

impl FrontendStep {
    /// Whether a new connection is led to the listener: the table has the frontend, it is not
    /// being switched off, and who asks may come by it.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.frontend.is_some() && self.state != FrontendState::Draining && !self.shut_out()
    }

    /// Whether who asks is in none of the frontend's source ranges.
    #[must_use]
    pub fn shut_out(&self) -> bool {
        let frontend = self.frontend.as_ref();
        frontend.is_some_and(|it| !it.admits(self.source))
    }
}

/// A verdict of a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerdictStep {
    /// The node.
    pub node: Arc<str>,
    /// The hook.
    pub hook: Hook,
    /// The device it is attached to (`veth of default/client`, `uplink`), empty where there is none.
    pub device: Arc<str>,
    /// The packet's flow.
    pub flow: Flow,
    /// The verdict's name (`assign`).
    pub verdict: &'static str,
    /// The verdict's reason.
    pub reason: Reason,
    /// The mark it set, or zero.
    pub mark: u32,
}

/// A rule that did something with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleStep {
    /// The node.
    pub node: Arc<str>,
    /// `namespace/name` of the pod whose rule it is; none for the node's own.
    pub pod: Option<Arc<str>>,
    /// The kernel's hook.
    pub hook: netfilter::BuiltIn,
    /// The table.
    pub table: netfilter::Table,
    /// The rule, as `iptables-save` prints it (`-A NODEWAY_PRE …`).
    pub rule: String,
}

/// What kube-proxy's rules did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TranslationStep {
    /// The node.
    pub node: Arc<str>,
    /// The destination before.
    pub from: SocketAddr,
    /// The Service whose address that is.
    pub service: ObjectRef,
    /// The endpoint chosen; none when the service has none, and the connection is refused.
    pub to: Option<PlannedEndpoint>,
    /// How many endpoints there were.
    pub candidates: usize,
    /// Whether the source became the node's address.
    pub masqueraded: bool,
}

/// A connection that rules led to a pod's own proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarStep {
    /// The node of the pod.
    pub node: Arc<str>,
    /// `namespace/name` of the pod.
    pub pod: Arc<str>,
    /// The proxy's port.
    pub port: u16,
    /// The peer as the proxy sees it.
    pub peer: SocketAddr,
    /// Where the connection was meant to go (`SO_ORIGINAL_DST`).
    pub meant: SocketAddr,
    /// What the proxy does with it.
    pub taken: Taken,
}

/// What a pod's own proxy does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The pod sent it to a frontend: a listener of the plan has it.
    Listened,
    /// The pod sent it to somebody else: its bytes go on to where they were meant to go.
    PassedOut,
    /// The pod got it: its bytes go on to the pod's own port.
    PassedIn {
        /// The address that the proxy connects from.
        from: IpAddr,
    },
}

/// A connection that a listener of a proxy has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerStep {
    /// The node of the proxy.
    pub node: Arc<str>,
    /// `namespace/name` of the pod whose own proxy it is; none for the node's.
    pub pod: Option<Arc<str>>,
    /// The listener's qualified name.
    pub listener: ResourceName,
    /// The port that its connections come in by: its own on loopback, or the pod's for all
    /// outbound connections.
    pub port: u16,
    /// The peer as the proxy sees it.
    pub peer: SocketAddr,
    /// The destination as the proxy sees it.
    pub destination: SocketAddr,
}

/// The filter chain taken.
#[derive(Clone, Debug, PartialEq)]
pub struct FilterChainStep {
    /// The listener.
    pub listener: ResourceName,
    /// The choice.
    pub choice: proxy::FilterChainChoice,
}

/// The answer to a client's TLS hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeStep {
    /// Who terminates TLS: the node of the proxy, or the pod.
    pub by: ObjectRef,
    /// The server name that the client sent; empty for none.
    pub server_name: String,
    /// The Secret whose certificate was shown, or the config that has it; none for a certificate
    /// that no object holds.
    pub certificate: Option<ObjectRef>,
    /// The names that the certificate is for; empty where none was shown.
    pub names: Vec<String>,
    /// Whether the certificate covers the server name.
    pub covers: bool,
    /// Why there was no certificate to show, and the handshake failed.
    pub failed: Option<String>,
}

/// The virtual host and route taken.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteStep {
    /// The RouteConfiguration.
    pub table: ResourceName,
    /// The request as the router saw it.
    pub request: proxy::Request,
    /// The choice; none when the node has no such RouteConfiguration.
    pub choice: Option<proxy::RouteChoice>,
}

/// The cluster of the route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterStep {
    /// Its name.
    pub cluster: ResourceName,
    /// The name of its endpoints; none when the node has no such cluster.
    pub endpoints: Option<ResourceName>,
}

/// The endpoint chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointStep {
    /// The name of the endpoint set.
    pub endpoints: ResourceName,
    /// The Service they come from.
    pub service: Option<ObjectRef>,
    /// The endpoint taken; none when there is none.
    pub chosen: Option<PlannedEndpoint>,
    /// All that could have been taken.
    pub candidates: Vec<PlannedEndpoint>,
    /// Endpoints that were no candidates, with the reason.
    pub left_out: Vec<(SocketAddr, &'static str)>,
}

/// What went wrong, or was changed, on purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultStep {
    /// Packets of this way were lost; told once for a link.
    Lost {
        /// Whose link: that of `default/client`, of `node/node-1`, of `outside/client`.
        link: Arc<str>,
        /// What is wrong with it (`loss 5%`).
        why: String,
    },
    /// Something else happened.
    Happened {
        /// What (`the Envoy of node-1 crashed`).
        what: String,
    },
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyStep {
    /// A backend answered.
    Backend {
        /// The pod.
        pod: ObjectRef,
        /// HTTP status.
        status: u16,
    },
    /// An endpoint answered that is no pod: of an Envoy's dump.
    Endpoint {
        /// Its address.
        address: SocketAddr,
        /// HTTP status.
        status: u16,
    },
    /// The proxy answered by itself.
    Proxy {
        /// The node of the proxy.
        node: Arc<str>,
        /// `namespace/name` of the pod whose own proxy it is; none for the node's.
        pod: Option<Arc<str>>,
        /// HTTP status.
        status: u16,
        /// Why, in Envoy's words where it has some (`no healthy upstream`).
        why: String,
    },
    /// No answer came.
    Failed(Failure),
}

/// Why no answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// The name has no address.
    UnknownName,
    /// The client has no address of the destination's family, or no port left for it.
    Unreachable,
    /// RST in answer to SYN.
    ConnectionRefused,
    /// RST on a connection that stood.
    ConnectionReset,
    /// Nothing came back in time.
    TimedOut,
    /// The connection ended before a whole answer.
    ConnectionClosed,
    /// What came back was no HTTP.
    NotHttp,
    /// The connection ended in the TLS handshake.
    HandshakeFailed,
    /// The client's own machine went off.
    ClientGone,
}

impl Failure {
    /// The failure's name in JSON and in expectations; stable.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownName => "unknown-name",
            Self::Unreachable => "unreachable",
            Self::ConnectionRefused => "connection-refused",
            Self::ConnectionReset => "connection-reset",
            Self::TimedOut => "timed-out",
            Self::ConnectionClosed => "connection-closed",
            Self::NotHttp => "not-http",
            Self::HandshakeFailed => "handshake-failed",
            Self::ClientGone => "client-gone",
        }
    }
}
