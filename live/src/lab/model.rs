//! The cluster as it is planned: what the simulator runs on, for what a lab can do.

use std::fmt;

use nodeway_sim::{Fixture, Redirect, Sim};

use super::error::LabError;

/// The cluster as it is planned.
pub(super) struct Model(pub(super) Sim);

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Model")
    }
}

/// What a fixture makes, by the redirect that was asked for or its own.
pub(super) fn model(fixture: &Fixture, redirect: Option<Redirect>) -> Result<Sim, LabError> {
    if let Some(what) = not_yet(fixture) {
        return Err(LabError::NotYet(what));
    }
    let mut builder = Sim::from_fixture(fixture)?;
    if let Some(redirect) = redirect {
        builder = builder.redirect(redirect);
    }
    Ok(builder.start()?)
}

/// What a fixture asks for and a lab cannot do yet.
fn not_yet(fixture: &Fixture) -> Option<String> {
    if !fixture.faults.is_empty() {
        return Some("`faults`".to_owned());
    }
    let mut requests = fixture.requests.iter().enumerate();
    requests.find_map(|(index, spec)| {
        let field = match (&spec.at, &spec.connection) {
            (Some(_), _) => "at",
            (_, Some(_)) => "connection",
            (None, None) => return None,
        };
        Some(format!("`requests[{index}].{field}`"))
    })
}
