//! Protobuf JSON with `@type` becomes a message, or an error that names the field.
//!
//! Names are checked first, along the descriptors and into every nested `@type`, because that
//! walk knows the exact path and what the message does have; values are checked by prost-reflect.

use prost_reflect::{DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};
use strsim::osa_distance;

use super::pool::message_type;
use super::{Resource, ResourceKind};

/// Why a value of `spec.resources` is no resource. Paths are relative to the resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not a JSON object.
    #[error("{}expected an object with `@type`, found {found}", at(path))]
    NotAnObject {
        /// Where; empty for the resource itself.
        path: String,
        /// What stands there.
        found: &'static str,
    },
    /// No `@type`, or one that is no string.
    #[error(
        "{}`@type` is missing; add the message's type (`type.googleapis.com/…`)",
        at(path)
    )]
    MissingType {
        /// Where; empty for the resource itself.
        path: String,
    },
    /// A type that is not among Envoy's own.
    #[error(
        "{}type `{url}` is not known: it is none of Envoy's own messages",
        at(path)
    )]
    UnknownType {
        /// Where; empty for the resource itself.
        path: String,
        /// The `@type` as written.
        url: String,
    },
    /// An Envoy message that is no resource of a config.
    #[error(
        "`{url}` is no resource of a config; known are Listener, RouteConfiguration, Cluster, ClusterLoadAssignment and Secret"
    )]
    NotAResource {
        /// The `@type` as written.
        url: String,
    },
    /// A field that the message does not have.
    #[error("{path}: {message} has no such field{}", suggestion(suggested.as_deref(), known))]
    UnknownField {
        /// The field's path.
        path: String,
        /// The message's full name.
        message: String,
        /// The nearest field there is, when one is near.
        suggested: Option<String>,
        /// All fields there are.
        known: Vec<String>,
    },
    /// One field in both spellings.
    #[error("{path}: the field is given twice, as `{first}` and as `{second}`; keep one")]
    GivenTwice {
        /// The field's path.
        path: String,
        /// One spelling.
        first: String,
        /// The other.
        second: String,
    },
    /// Nested deeper than any Envoy message is.
    #[error("{path}: nested deeper than {MAX_DEPTH} levels")]
    TooDeep {
        /// Where.
        path: String,
    },
    /// A value of the wrong type or out of range.
    #[error("{}{reason}", at(path))]
    BadValue {
        /// The field's path.
        path: String,
        /// What was found and what is expected.
        reason: String,
    },
}

impl DecodeError {
    /// The path of the field in the resource; empty for the resource as a whole.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::NotAnObject { path, .. }
            | Self::MissingType { path }
            | Self::UnknownType { path, .. }
            | Self::UnknownField { path, .. }
            | Self::GivenTwice { path, .. }
            | Self::TooDeep { path }
            | Self::BadValue { path, .. } => path,
            Self::NotAResource { .. } => "",
        }
    }
}

/// Envoy itself refuses what is nested deeper than a hundred levels.
const MAX_DEPTH: usize = 100;

fn at(path: &str) -> String {
    if path.is_empty() {
        String::new()
    } else {
        format!("{path}: ")
    }
}

fn suggestion(suggested: Option<&str>, known: &[String]) -> String {
    match suggested {
        Some(name) => format!("; did you mean `{name}`?"),
        None => format!("; it has {}", known.join(", ")),
    }
}

/// Reads one value of `spec.resources`.
///
/// # Errors
///
/// What stands in the value that Envoy's descriptors do not have, by its path.
pub fn decode(value: &Value) -> Result<Resource, DecodeError> {
    let object = object(value, "")?;
    let url = type_url(object, "")?;
    let unknown = || DecodeError::UnknownType {
        path: String::new(),
        url: url.to_owned(),
    };
    let descriptor = message_type(url).ok_or_else(unknown)?;
    if ResourceKind::of(descriptor.full_name()).is_none() {
        return Err(DecodeError::NotAResource {
            url: url.to_owned(),
        });
    }
    let mut fields = object.clone();
    fields.remove("@type");
    let message = decode_message(descriptor, &Value::Object(fields))?;
    Resource::of(message).ok_or_else(unknown)
}

/// Reads the JSON form of one message of Envoy's, without `@type`.
///
/// # Errors
///
/// As [`decode`].
pub(crate) fn decode_message(
    descriptor: MessageDescriptor,
    value: &Value,
) -> Result<DynamicMessage, DecodeError> {
    check_message(&descriptor, value, "", 0)?;
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    DynamicMessage::deserialize_with_options(descriptor, tracked, &options).map_err(|error| {
        let path = track.path().to_string();
        DecodeError::BadValue {
            path: if path == "." { String::new() } else { path },
            reason: error.to_string(),
        }
    })
}

fn object<'a>(value: &'a Value, path: &str) -> Result<&'a Map<String, Value>, DecodeError> {
    value.as_object().ok_or_else(|| DecodeError::NotAnObject {
        path: path.to_owned(),
        found: match value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        },
    })
}

fn type_url<'a>(object: &'a Map<String, Value>, path: &str) -> Result<&'a str, DecodeError> {
    object
        .get("@type")
        .and_then(Value::as_str)
        .ok_or_else(|| DecodeError::MissingType {
            path: path.to_owned(),
        })
}

/// Checks names below one message. What is of the wrong shape is left to the second pass.
fn check_message(
    descriptor: &MessageDescriptor,
    value: &Value,
    path: &str,
    depth: usize,
) -> Result<(), DecodeError> {
    if depth > MAX_DEPTH {
        return Err(DecodeError::TooDeep {
            path: path.to_owned(),
        });
    }
    let name = descriptor.full_name();
    if name == "google.protobuf.Any" {
        return check_any(value, path, depth);
    }
    let Value::Object(object) = value else {
        return Ok(());
    };
    if name.starts_with("google.protobuf.") {
        return check_depth(value, path, depth);
    }
    for (key, value) in object {
        let path = join(path, key);
        let field = descriptor
            .get_field_by_json_name(key)
            .or_else(|| descriptor.get_field_by_name(key))
            .ok_or_else(|| unknown_field(descriptor, key, &path))?;
        if field.name() == key && field.json_name() != key && object.contains_key(field.json_name())
        {
            let (first, second) = (field.json_name().to_owned(), key.clone());
            return Err(DecodeError::GivenTwice {
                path,
                first,
                second,
            });
        }
        check_field(&field, value, &path, depth)?;
    }
    Ok(())
}

fn check_field(
    field: &FieldDescriptor,
    value: &Value,
    path: &str,
    depth: usize,
) -> Result<(), DecodeError> {
    let Kind::Message(descriptor) = field.kind() else {
        return Ok(());
    };
    match value {
        Value::Array(items) if field.is_list() => {
            items.iter().enumerate().try_for_each(|(i, item)| {
                check_message(&descriptor, item, &format!("{path}[{i}]"), depth + 1)
            })
        }
        Value::Object(entries) if field.is_map() => match descriptor.map_entry_value_field().kind()
        {
            Kind::Message(descriptor) => entries.iter().try_for_each(|(key, entry)| {
                check_message(&descriptor, entry, &join(path, key), depth + 1)
            }),
            _ => Ok(()),
        },
        value if !field.is_list() && !field.is_map() => {
            check_message(&descriptor, value, path, depth + 1)
        }
        _ => Ok(()),
    }
}

fn check_any(value: &Value, path: &str, depth: usize) -> Result<(), DecodeError> {
    if value.is_null() {
        return Ok(());
    }
    let object = object(value, path)?;
    let url = type_url(object, path)?;
    let descriptor = message_type(url).ok_or_else(|| DecodeError::UnknownType {
        path: path.to_owned(),
        url: url.to_owned(),
    })?;
    if descriptor.full_name().starts_with("google.protobuf.") {
        return check_depth(value, path, depth);
    }
    let mut fields = object.clone();
    fields.remove("@type");
    check_message(&descriptor, &Value::Object(fields), path, depth + 1)
}

/// Bounds the nesting of free-form values (`google.protobuf.Struct`).
fn check_depth(value: &Value, path: &str, depth: usize) -> Result<(), DecodeError> {
    if depth > MAX_DEPTH {
        return Err(DecodeError::TooDeep {
            path: path.to_owned(),
        });
    }
    match value {
        Value::Array(items) => items
            .iter()
            .enumerate()
            .try_for_each(|(i, item)| check_depth(item, &format!("{path}[{i}]"), depth + 1)),
        Value::Object(entries) => entries
            .iter()
            .try_for_each(|(key, entry)| check_depth(entry, &join(path, key), depth + 1)),
        _ => Ok(()),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

fn unknown_field(descriptor: &MessageDescriptor, key: &str, path: &str) -> DecodeError {
    let known: Vec<String> = descriptor
        .fields()
        .map(|field| field.json_name().to_owned())
        .collect();
    let plain = |name: &str| name.replace(['_', '-'], "").to_ascii_lowercase();
    let suggested = known
        .iter()
        .map(|name| (osa_distance(&plain(name), &plain(key)), name))
        .filter(|(distance, name)| *distance <= 2.min(name.len() / 3))
        .min()
        .map(|(_, name)| name.clone());
    DecodeError::UnknownField {
        path: path.to_owned(),
        message: descriptor.full_name().to_owned(),
        suggested,
        known,
    }
}
