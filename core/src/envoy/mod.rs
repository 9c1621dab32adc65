//! Envoy's resources, read by reflection against Envoy's own descriptors.
//!
//! A `CiliumEnvoyConfig` holds protobuf JSON with `@type`. [`decode`] turns one such value into a
//! [`Resource`], or says which field is wrong; what a stock Envoy lacks is taken out before
//! ([`leave_out_ciliums`]). [`complete`] gives the resources of one config the
//! names, references and config sources that Cilium's agent gives them, [`bind`] gives a listener
//! its port, [`validate`] holds a message against the rules that Envoy's protos state, and
//! [`Fields`] is how the model in [`crate::proxy`] reads a message: what is set and was not read
//! is known by its path afterwards, so that nothing is ignored in silence. [`mod@bootstrap`] writes a
//! whole plan as one file that an Envoy starts from.

mod bind;
pub mod bootstrap;
mod complete;
mod decode;
mod fields;
mod pool;
mod resource;
mod served;
mod stock;
mod validate;

#[cfg(test)]
mod tests;

pub use bind::{bind, rebind};
pub use complete::complete;
pub use decode::{DecodeError, decode};
pub use fields::{Fields, Unread};
pub(crate) use pool::unpack;
pub use pool::{is_known_type, pool};
pub use resource::{Resource, ResourceKind};
pub use served::served;
pub use stock::{LeftOut, leave_out_ciliums};
pub use validate::{Violation, validate};
