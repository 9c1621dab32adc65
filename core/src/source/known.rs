//! What is known of a cluster: its objects, or what one Envoy of it says it has.
//!
//! It is what texts are read into, and what the evidence of a way is in. A dump has everything from
//! the listener on; objects beside it would say it again, so there is never both.

use std::sync::Arc;

use crate::config_dump::ConfigDump;
use crate::object::Objects;

/// What is known of a cluster. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub enum Known {
    /// Its objects.
    Objects(Arc<Objects>),
    /// One Envoy's `config_dump`, in place of a cluster's objects.
    Dump(Arc<ConfigDump>),
}

impl From<Objects> for Known {
    fn from(objects: Objects) -> Self {
        Self::Objects(Arc::new(objects))
    }
}
