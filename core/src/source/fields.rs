//! Which fields there are at a place of a type, asked of its own `Deserialize`.
//!
//! The types of Kubernetes' API tell their field names to whatever deserializes them. So a
//! deserializer that walks down one path and only listens learns what a misspelt field could have
//! been, without a second list of names that could go stale.

use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use strsim::osa_distance;

use super::path::Step;

/// The field that was probably meant: of those that `T` has where `path` ends, the one whose name
/// is nearest, unless that is not near at all.
pub(crate) fn did_you_mean<'de, T: Deserialize<'de>>(
    parent: &[Step],
    key: &str,
) -> Option<&'static str> {
    let mut known: &'static [&'static str] = &[];
    // The listener always ends in an error: it has nothing to make a value from.
    let _ = T::deserialize(Listener {
        path: parent,
        known: &mut known,
    });
    nearest(key, known.iter().copied())
}

/// The name that is nearest to a misspelt one, ignoring case, unless none is near.
pub(crate) fn nearest<'a>(misspelt: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let lower = misspelt.to_lowercase();
    let allowed = (misspelt.chars().count() / 3).clamp(1, 3);
    names
        .map(|name| (osa_distance(&lower, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| name)
}

/// Why a walk ended; nobody reads it.
#[derive(Debug)]
struct Done;

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("done")
    }
}

impl std::error::Error for Done {}

impl de::Error for Done {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

struct Listener<'a> {
    path: &'a [Step],
    known: &'a mut &'static [&'static str],
}

impl Listener<'_> {
    fn go<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Done> {
        match self.path.split_first() {
            Some((Step::Key(key), rest)) => visitor.visit_map(OneEntry {
                key: Some(key),
                rest,
                known: self.known,
            }),
            Some((Step::Index(_), rest)) => visitor.visit_seq(OneItem {
                rest: Some(rest),
                known: self.known,
            }),
            None => Err(Done),
        }
    }
}

impl<'de> de::Deserializer<'de> for Listener<'_> {
    type Error = Done;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Done> {
        self.go(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Done> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Done> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Done> {
        if self.path.is_empty() {
            *self.known = fields;
            return Err(Done);
        }
        self.go(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct OneEntry<'a> {
    key: Option<&'a str>,
    rest: &'a [Step],
    known: &'a mut &'static [&'static str],
}

impl<'de> MapAccess<'de> for OneEntry<'_> {
    type Error = Done;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Done> {
        let Some(key) = self.key.take() else {
            return Ok(None);
        };
        seed.deserialize(de::value::StrDeserializer::new(key))
            .map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Done> {
        seed.deserialize(Listener {
            path: self.rest,
            known: self.known,
        })
    }
}

struct OneItem<'a> {
    rest: Option<&'a [Step]>,
    known: &'a mut &'static [&'static str],
}

impl<'de> SeqAccess<'de> for OneItem<'_> {
    type Error = Done;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Done> {
        let Some(path) = self.rest.take() else {
            return Ok(None);
        };
        seed.deserialize(Listener {
            path,
            known: self.known,
        })
        .map(Some)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::networking::v1::Ingress;
    use rstest::rstest;

    use super::super::path::Step;
    use super::*;

    fn steps(path: &str) -> Vec<Step> {
        path.split('.')
            .filter(|step| !step.is_empty())
            .map(|step| {
                step.parse()
                    .map_or_else(|_| Step::Key(step.to_owned()), Step::Index)
            })
            .collect()
    }

    #[rstest]
    #[case::at_the_root("", "sepc", Some("spec"))]
    #[case::through_lists("spec.rules.0.http.paths.0", "pathtype", Some("pathType"))]
    #[case::in_metadata("metadata", "lables", Some("labels"))]
    #[case::of_another_type("spec.rules.0.http.paths.0", "ingressClassName", None)]
    #[case::far_from_all("spec", "qqqqqqqqq", None)]
    #[case::below_what_does_not_exist("spec.nothing", "rules", None)]
    fn a_misspelt_field_is_near_one_that_its_own_type_has(
        #[case] parent: &str,
        #[case] key: &str,
        #[case] want: Option<&str>,
    ) {
        assert_eq!(did_you_mean::<Ingress>(&steps(parent), key), want);
    }
}
