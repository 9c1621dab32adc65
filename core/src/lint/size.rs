//! Objects that are nearly, or really, too large for a cluster to keep.

use serde::Serialize;

use crate::object::{Object, ObjectRef, Objects};
use crate::problem::{Code, Problem, Severity};

/// etcd refuses requests above this by default (`--max-request-bytes`), in bytes.
const REFUSED: usize = 1_572_864;

/// From here on the next few routes or hosts may be too much, in bytes.
const NEAR: usize = 1_048_576;

/// Objects whose JSON is near the limit. Managed fields and a status
/// that a cluster adds later are not counted.
pub(super) fn too_large(objects: &Objects) -> Vec<Problem> {
    objects
        .iter()
        .filter_map(|(reference, entry)| of_size(reference, size(&entry.object)))
        .collect()
}

fn of_size(object: &ObjectRef, bytes: usize) -> Option<Problem> {
    let (severity, what) = match bytes {
        REFUSED.. => (Severity::Error, "the API server does not take it"),
        NEAR.. => (Severity::Warning, "it is near what the API server takes"),
        _ => return None,
    };
    Some(Problem {
        code: Code::TooLarge,
        severity,
        object: object.clone(),
        field: String::new(),
        reason: format!("as JSON it has {bytes} bytes; {what}: {REFUSED} by default"),
        fix: "divide it into several objects".to_owned(),
    })
}

fn size(object: &Object) -> usize {
    match object {
        Object::Node(it) => bytes(it.as_ref()),
        Object::IngressClass(it) => bytes(it.as_ref()),
        Object::Ingress(it) => bytes(it.as_ref()),
        Object::Service(it) => bytes(it.as_ref()),
        Object::EndpointSlice(it) => bytes(it.as_ref()),
        Object::Deployment(it) => bytes(it.as_ref()),
        Object::Pod(it) => bytes(it.as_ref()),
        Object::Secret(it) => bytes(it.as_ref()),
        Object::CiliumEnvoyConfig(it) | Object::CiliumClusterwideEnvoyConfig(it) => {
            bytes(it.as_ref())
        }
    }
}

/// How long a value's JSON is, in bytes; nothing is kept of it.
fn bytes<T: Serialize>(value: &T) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.saturating_add(bytes.len());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Maps with keys that are no text would fail; no object has one.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::object::Kind;

    #[rstest]
    #[case::small(1_000, None)]
    #[case::just_below(1_048_575, None)]
    #[case::near(1_048_576, Some(Severity::Warning))]
    #[case::over(1_572_864, Some(Severity::Error))]
    fn an_object_near_the_limit_is_a_warning_and_beyond_it_an_error(
        #[case] bytes: usize,
        #[case] want: Option<Severity>,
    ) {
        let object = ObjectRef::cluster(Kind::Node, "a");
        assert_eq!(of_size(&object, bytes).map(|it| it.severity), want);
    }

    #[test]
    fn the_size_is_that_of_the_json() {
        let value = serde_json::json!({ "a": ["é", 1] });
        assert_eq!(bytes(&value), value.to_string().len());
    }
}
