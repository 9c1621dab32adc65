//! A document's value becomes an object of its type; what the type does not know is told.
//!
//! `k8s-openapi` alone passes over a field that it does not know: `pathtype:` would be an Ingress
//! without a `pathType`, in silence. So each field that nobody read is collected with its path.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::object::{EnvoyConfig, Kind, Object};

use super::fields::did_you_mean;
use super::path::FieldPath;

/// An object and the fields of its document that its type does not have.
pub(crate) struct Typed {
    pub(crate) object: Object,
    pub(crate) unknown: Vec<Unknown>,
}

/// A field that the type does not have.
pub(crate) struct Unknown {
    pub(crate) path: FieldPath,
    pub(crate) did_you_mean: Option<&'static str>,
}

/// A value of the wrong type.
pub(crate) struct Mistyped {
    pub(crate) path: FieldPath,
    pub(crate) reason: String,
    /// Fields before it that the type does not have: a missing one may be there, misspelt.
    pub(crate) unknown: Vec<Unknown>,
}

/// Reads a value as an object of that kind.
pub(crate) fn typed(kind: Kind, value: Value) -> Result<Typed, Mistyped> {
    match kind {
        Kind::Node => read(value, Object::Node),
        Kind::IngressClass => read(value, Object::IngressClass),
        Kind::Ingress => read(value, Object::Ingress),
        Kind::Service => read(value, Object::Service),
        Kind::EndpointSlice => read(value, Object::EndpointSlice),
        Kind::Deployment => read(value, Object::Deployment),
        Kind::Pod => read(value, Object::Pod),
        Kind::Secret => read(value, Object::Secret),
        Kind::CiliumEnvoyConfig => {
            read::<EnvoyConfig>(envoy_config(value), Object::CiliumEnvoyConfig)
        }
        Kind::CiliumClusterwideEnvoyConfig => {
            read::<EnvoyConfig>(envoy_config(value), Object::CiliumClusterwideEnvoyConfig)
        }
    }
}

/// The two Cilium types have neither `apiVersion` nor `kind`, and a status says nothing.
fn envoy_config(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        for field in ["apiVersion", "kind", "status"] {
            fields.remove(field);
        }
    }
    value
}

fn read<T>(value: Value, wrap: fn(Arc<T>) -> Object) -> Result<Typed, Mistyped>
where
    T: for<'de> Deserialize<'de>,
{
    let (object, unknown) = read_as(value)?;
    Ok(Typed {
        object: wrap(Arc::new(object)),
        unknown,
    })
}

/// Reads a value as any type, with the fields that it does not have.
pub(crate) fn read_as<T>(value: Value) -> Result<(T, Vec<Unknown>), Mistyped>
where
    T: for<'de> Deserialize<'de>,
{
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    let read =
        serde_ignored::deserialize::<_, _, T>(tracked, |path| unknown.push(FieldPath::from(&path)));
    let unknown = unknown
        .into_iter()
        .map(|path| {
            let meant = path
                .key()
                .and_then(|key| did_you_mean::<T>(path.parent(), key));
            Unknown {
                did_you_mean: meant,
                path,
            }
        })
        .collect();
    match read {
        Ok(object) => Ok((object, unknown)),
        Err(error) => Err(Mistyped {
            path: FieldPath::from(&track.path()),
            reason: error.to_string(),
            unknown,
        }),
    }
}
