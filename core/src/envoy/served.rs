//! A listener as a node's Envoy is served it.

use prost_reflect::{DynamicMessage, ReflectMessage as _, Value};
use serde_json::json;

use super::complete::{set_json, walk};
use crate::plan::PlannedListener;

/// The message that a node's Envoy gets of a planned listener.
///
/// * A certificate that is missing holds it up for a second: by itself Envoy waits for one for
///   fifteen, and with it every host of a shared listener.
/// * Routes that stand in it may name a cluster that is not there, as fetched ones may: their
///   requests get 503. By itself Envoy refuses the whole listener, also when the cluster comes a
///   moment later.
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
        if message.descriptor().full_name() == ROUTES
            && !message.has_field_by_name("validate_clusters")
        {
            set_json(message, "validate_clusters", &json!(false));
        }
    });
    message
}

const ROUTES: &str = "envoy.config.route.v3.RouteConfiguration";
const SDS: &str = "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig";
