//! A listener as a node's Envoy is served it.

use prost_reflect::DynamicMessage;

use crate::plan::PlannedListener;

/// The message that a node's Envoy gets of a planned listener.
#[must_use]
pub fn served(planned: &PlannedListener) -> DynamicMessage {
    planned.message.clone()
}
