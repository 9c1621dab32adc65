//! A frontend's state by its name, as status and recordings have it: `#[serde(with = "state_name")]`.

use nodeway_datapath::FrontendState;
use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

/// Writes the name.
///
/// # Errors
/// When it cannot be written.
pub fn serialize<S: Serializer>(it: &FrontendState, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(it.name())
}

/// Reads the name.
///
/// # Errors
/// When it is the name of no state.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<FrontendState, D::Error> {
    let name = String::deserialize(from)?;
    let known = FrontendState::ALL.into_iter().find(|it| it.name() == name);
    known.ok_or_else(|| D::Error::custom(format!("no state of a frontend: `{name}`")))
}
