//! Which Ingresses are ours.
//!
//! The old annotation is asked first, then the field; an Ingress that names no class is ours if
//! our IngressClass is marked as the cluster's default.

use std::fmt;

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

/// The annotation from before `spec.ingressClassName` existed; it still wins.
pub const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// Marks the IngressClass of Ingresses that name none.
pub const DEFAULT_CLASS_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";

/// Whether an Ingress is ours, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClassVerdict {
    /// Its annotation names our class.
    OursByAnnotation,
    /// Its `spec.ingressClassName` names our class.
    OursByField,
    /// It names no class, and ours is the default.
    OursByDefault,
    /// Its annotation names another class.
    ForeignByAnnotation(String),
    /// Its `spec.ingressClassName` names another class.
    ForeignByField(String),
    /// It names no class, and ours is not the default.
    NoClass,
}

impl ClassVerdict {
    /// Looks at an Ingress. `ours` is the name of our class, `class` the object of that name.
    #[must_use]
    pub fn of(ingress: &Ingress, ours: &str, class: Option<&IngressClass>) -> Self {
        let annotation = ingress
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(CLASS_ANNOTATION));
        let field = ingress
            .spec
            .as_ref()
            .and_then(|spec| spec.ingress_class_name.as_ref());
        match (annotation, field) {
            (Some(name), _) if name == ours => Self::OursByAnnotation,
            (Some(name), _) if !name.is_empty() => Self::ForeignByAnnotation(name.clone()),
            (None, Some(name)) if name == ours => Self::OursByField,
            (None, Some(name)) if !name.is_empty() => Self::ForeignByField(name.clone()),
            _ if class.and_then(is_default) == Some(true) => Self::OursByDefault,
            _ => Self::NoClass,
        }
    }

    /// Whether the Ingress is ours.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        matches!(
            self,
            Self::OursByAnnotation | Self::OursByField | Self::OursByDefault
        )
    }

    /// The field that decided.
    #[must_use]
    pub fn field(&self) -> String {
        match self {
            Self::OursByAnnotation | Self::ForeignByAnnotation(_) => {
                format!("metadata.annotations[{CLASS_ANNOTATION}]")
            }
            _ => "spec.ingressClassName".to_owned(),
        }
    }
}

impl fmt::Display for ClassVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OursByAnnotation => {
                write!(f, "its annotation {CLASS_ANNOTATION} names our class")
            }
            Self::OursByField => f.write_str("its spec.ingressClassName names our class"),
            Self::OursByDefault => f.write_str("it names no class and ours is the default"),
            Self::ForeignByAnnotation(name) => {
                write!(
                    f,
                    "its annotation {CLASS_ANNOTATION} names the class `{name}`"
                )
            }
            Self::ForeignByField(name) => write!(f, "its spec.ingressClassName is `{name}`"),
            Self::NoClass => {
                f.write_str("it names no class, and our IngressClass is not the default")
            }
        }
    }
}

/// Whether an IngressClass is marked as the default; none if its mark is no boolean.
#[must_use]
pub fn is_default(class: &IngressClass) -> Option<bool> {
    match class
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(DEFAULT_CLASS_ANNOTATION))
    {
        None => Some(false),
        Some(value) => go_bool(value),
    }
}

/// A boolean as Go's `strconv.ParseBool` reads it.
pub(super) fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn verdict(
        annotation: Option<&str>,
        field: Option<&str>,
        default: Option<&str>,
    ) -> ClassVerdict {
        let ingress: Ingress = serde_json::from_value(json!({
            "metadata": {"annotations": annotation.map(|a| json!({CLASS_ANNOTATION: a}))},
            "spec": {"ingressClassName": field},
        }))
        .unwrap();
        let class: Option<IngressClass> = default.map(|value| {
            serde_json::from_value(
                json!({"metadata": {"annotations": {DEFAULT_CLASS_ANNOTATION: value}}}),
            )
            .unwrap()
        });
        ClassVerdict::of(&ingress, "cilium", class.as_ref())
    }

    #[rstest]
    #[case::field(None, Some("cilium"), None, ClassVerdict::OursByField)]
    #[case::annotation_over_field(
        Some("cilium"),
        Some("nginx"),
        None,
        ClassVerdict::OursByAnnotation
    )]
    #[case::foreign_annotation(Some("nginx"), Some("cilium"), None, ClassVerdict::ForeignByAnnotation("nginx".into()))]
    #[case::foreign_field(None, Some("nginx"), Some("true"), ClassVerdict::ForeignByField("nginx".into()))]
    #[case::default(None, None, Some("true"), ClassVerdict::OursByDefault)]
    #[case::default_as_a_digit(None, None, Some("1"), ClassVerdict::OursByDefault)]
    #[case::an_empty_field_is_none(None, Some(""), Some("true"), ClassVerdict::OursByDefault)]
    #[case::an_empty_annotation_hides_the_field(
        Some(""),
        Some("cilium"),
        None,
        ClassVerdict::NoClass
    )]
    #[case::not_default(None, None, Some("false"), ClassVerdict::NoClass)]
    #[case::no_boolean(None, None, Some("yes"), ClassVerdict::NoClass)]
    #[case::no_class_object(None, None, None, ClassVerdict::NoClass)]
    fn the_annotation_decides_then_the_field_then_the_default(
        #[case] annotation: Option<&str>,
        #[case] field: Option<&str>,
        #[case] default: Option<&str>,
        #[case] want: ClassVerdict,
    ) {
        assert_eq!(verdict(annotation, field, default), want);
    }
}
