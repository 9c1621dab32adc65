//! Envoy's descriptors: made by `ci/tasks/src/bin/descriptors.rs`, checked in beside this file.

use std::sync::OnceLock;

use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

/// The checked-in descriptor set, with Envoy's validation rules.
static DESCRIPTORS: &[u8] = include_bytes!("descriptors.bin");

/// Every message of Envoy's configuration API. Decoded at the first call.
#[must_use]
pub fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    // The file is part of the program and a test decodes it: an empty pool, in which no type is
    // known, is never seen outside a broken build.
    POOL.get_or_init(|| DescriptorPool::decode(DESCRIPTORS).unwrap_or_default())
}

/// The message that an `@type` or `type_url` names.
pub(crate) fn message_type(url: &str) -> Option<MessageDescriptor> {
    let name = url.rsplit_once('/').map_or(url, |(_, name)| name);
    pool().get_message_by_name(name)
}

/// Whether an `@type` names one of Envoy's own messages.
#[must_use]
pub fn is_known_type(url: &str) -> bool {
    message_type(url).is_some()
}

/// What a `google.protobuf.Any` holds, when its type is known and its bytes are of that type.
pub(crate) fn unpack(any: &DynamicMessage) -> Option<DynamicMessage> {
    let url = any.get_field_by_name("type_url")?;
    let value = any.get_field_by_name("value")?;
    DynamicMessage::decode(message_type(url.as_str()?)?, value.as_bytes()?.as_ref()).ok()
}
