//! A listener as a node's Envoy is served it.

use prost_reflect::{DynamicMessage, ReflectMessage as _, Value};
use serde_json::json;

use super::complete::{set_json, walk};
use crate::plan::PlannedListener;

/// The message that a node's Envoy gets of a planned listener.
///
/// A certificate that is missing holds it up for a second: by itself Envoy waits for one for fifteen,
/// and with it every host of a shared listener.
#[must_use]
pub fn served(planned: &PlannedListener) -> DynamicMessage {
    let mut message = planned.message.clone();
    walk(&mut message, &|message| {
        if message.descriptor().full_name() == SDS
            && let Some(Value::Message(source)) = message.get_field_by_name_mut("sds_config")
            && !source.has_field_by_name("initial_fetch_timeout")
        {
            set_json(source, "initial_fetch_timeout", &json!("1s"));
        }
    });
    message
}

const SDS: &str = "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig";
