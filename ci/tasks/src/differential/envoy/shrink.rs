//! A difference made small: whatever can be left out of the listener and of what came to it, with
//! the same thing still differing, is left out.

#![expect(
    clippy::disallowed_methods,
    reason = "a real Envoy takes its real time"
)]

use std::time::{Duration, Instant};

use serde_json::Value;

use super::real::Real;
use super::subject::{Probe, Subject};
use super::trial::{self, Difference, Trial};
use crate::differential::decision::Trouble;

/// How many listeners are tried at once.
const AT_ONCE: usize = 30;
/// How long it may take; what is small by then is small enough.
const WITHIN: Duration = Duration::from_secs(10);

/// The smallest listener, probe and difference that were found.
pub(super) fn shrink(
    envoy: &mut Real,
    subject: &Subject,
    difference: &Difference,
) -> Result<(Value, Option<Probe>, Difference), Trouble> {
    let probe = difference
        .probe
        .and_then(|at| subject.probes.get(at))
        .cloned();
    let mut small = (subject.listener.clone(), probe, difference.clone());
    let deadline = Instant::now() + WITHIN;
    while Instant::now() < deadline {
        let Some(smaller) = smaller(envoy, &small)? else {
            break;
        };
        small = smaller;
    }
    Ok(small)
}

type Small = (Value, Option<Probe>, Difference);

/// The first of all smaller ones that still differs in the same.
fn smaller(envoy: &mut Real, small: &Small) -> Result<Option<Small>, Trouble> {
    let (listener, probe, difference) = small;
    let mut listeners: Vec<Value> = Vec::new();
    for place in places(listener, "") {
        listeners.extend(without(listener, &place));
    }
    let mut candidates: Vec<(Value, Option<Probe>)> = listeners
        .into_iter()
        .map(|listener| (listener, probe.clone()))
        .collect();
    for probe in probe.iter().flat_map(Probe::smaller) {
        candidates.push((listener.clone(), Some(probe)));
    }
    for some in candidates.chunks(AT_ONCE) {
        let trials: Vec<Trial<'_>> = some
            .iter()
            .map(|(listener, probe)| Trial {
                listener,
                probes: probe.as_slice(),
            })
            .collect();
        // What is left may be so broken that Envoy takes none of them: small enough then.
        let Ok(verdicts) = trial::run(envoy, &trials) else {
            return Ok(None);
        };
        for ((listener, probe), verdict) in some.iter().zip(verdicts) {
            if let Some(like) = verdict
                .differences
                .into_iter()
                .find(|it| it.is_like(difference))
            {
                return Ok(Some((listener.clone(), probe.clone(), like)));
            }
        }
    }
    Ok(None)
}

/// What Envoy gives no answer at all without, and what is no field that can be absent.
const STAYS: [&str; 4] = [
    "/typed_config",
    "/filters",
    "/http_filters",
    "/listener_filters",
];

/// Where something stands that can be left out, what is outside first.
fn places(value: &Value, at: &str) -> Vec<String> {
    let mut all = Vec::new();
    let inner: Vec<(String, &Value)> = match value {
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(index, item)| (format!("{at}/{index}"), item))
            .collect(),
        Value::Object(fields) => fields
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "@type" | "typed_config" | "name"))
            .map(|(name, item)| (format!("{at}/{name}"), item))
            .chain(
                fields
                    .get("typed_config")
                    .map(|item| (format!("{at}/typed_config"), item)),
            )
            .collect(),
        _ => Vec::new(),
    };
    for (place, _) in &inner {
        if !STAYS
            .iter()
            .any(|name| place.ends_with(name) || at.ends_with(name) && value.is_array())
        {
            all.push(place.clone());
        }
    }
    for (place, item) in inner.into_iter() {
        all.extend(places(item, &place));
    }
    all
}

fn without(value: &Value, place: &str) -> Option<Value> {
    let mut value = value.clone();
    let (outer, name) = place.rsplit_once('/')?;
    match value.pointer_mut(outer)? {
        Value::Array(items) => {
            items.remove(name.parse().ok()?);
        }
        Value::Object(fields) => {
            fields.remove(name)?;
        }
        _ => return None,
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whatever_stands_in_a_listener_is_left_out_once_but_types_and_names() {
        let listener =
            json!({ "name": "l", "chains": [{ "typed_config": { "@type": "t", "a": 1 } }] });
        let places = places(&listener, "");
        assert_eq!(places, ["/chains", "/chains/0", "/chains/0/typed_config/a"]);
        let without = places.iter().filter_map(|place| without(&listener, place));
        assert_eq!(
            without.collect::<Vec<_>>(),
            [
                json!({ "name": "l" }),
                json!({ "name": "l", "chains": [] }),
                json!({ "name": "l", "chains": [{ "typed_config": { "@type": "t" } }] }),
            ]
        );
    }
}
