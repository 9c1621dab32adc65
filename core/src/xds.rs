//! What one node's proxy is told by xDS, and what it said to that.
//!
//! A plan's changes come in ([`ResourceDelta`]), a proxy's requests come in ([`Request`]), and what
//! may be said to it now comes out ([`Response`]). [`Proxy`] is all of it for one proxy: a state
//! that is turned by these events, without a socket, a clock or a task, so that a property can hold
//! it against every order in which things can happen.
//!
//! **Make before break.** New clusters and their endpoints are acknowledged before routes, and those
//! before listeners; a cluster goes when the listeners and routes that changed with it or before it
//! are acknowledged. What waits is let go when its caller says that time is up
//! ([`Proxy::time_is_up`]); what is old is never let go by the clock. A cluster that changes has its
//! endpoints sent again after it: until then Envoy keeps the old cluster.
//!
//! **Nothing is waited for in vain.** A name that Envoy asks for and that nobody has planned is
//! answered: no endpoints (503), no routes (404), as in [`mod@crate::envoy::bootstrap`].
//!
//! **A refusal is about a whole response, and Envoy has taken the good part.** Whom Envoy names is
//! the offender ([`blame`]); if it names none of those that changed, halves are tried. The offender
//! stays at the last version that was acknowledged, all else goes on; a new version clears it. Each
//! refusal finds an offender or halves the doubt, so a change costs a bounded number of responses.
//!
//! **What is sent follows what changed.** In the incremental protocol, and for endpoints, routes and
//! secrets in the state-of-the-world one too, a response holds only what changed: that protocol asks
//! for the whole set of listeners and of clusters alone. Nothing is queued: what changes while a
//! proxy is slow is sent once, in its last state.

mod assignment;
mod blame;
mod channel;
mod encode;
mod entry;
mod proxy;
mod resources;
mod state;
mod subscription;
#[cfg(test)]
mod tests;

pub use proxy::{Asked, Protocol, Proxy, Request, Response, Revision};
pub use resources::{ResourceDelta, Served, Version};
pub use state::{ProxyState, Rejection, ResourceState};
