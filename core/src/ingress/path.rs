//! Paths of an Ingress: which are allowed, and what they match.

use k8s_openapi::api::networking::v1::HTTPIngressPath;
use regex::Regex;

use super::model::PathMatch;

/// What a path of an Ingress matches.
///
/// # Errors
/// A sentence without a subject: what is wrong with the path or its type.
pub fn read(path: &HTTPIngressPath) -> Result<PathMatch, PathMistake> {
    let text = path.path.as_deref().unwrap_or_default();
    match path.path_type.as_str() {
        "Exact" => plain(text).map(|exact| PathMatch {
            exact,
            ..PathMatch::default()
        }),
        "Prefix" => plain(text).map(|prefix| PathMatch {
            prefix,
            ..PathMatch::default()
        }),
        "ImplementationSpecific" => expression(text).map(|regex| PathMatch {
            regex,
            ..PathMatch::default()
        }),
        "" => Err(PathMistake::new(
            "pathType",
            "is missing",
            "set it to Exact, Prefix or ImplementationSpecific",
        )),
        other => Err(PathMistake::new(
            "pathType",
            format!("is {other:?}, which is no path type"),
            "set it to Exact, Prefix or ImplementationSpecific",
        )),
    }
}

/// What is wrong with a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathMistake {
    /// `path` or `pathType`
    pub field: &'static str,
    /// What is wrong, without a subject.
    pub reason: String,
    /// What to do.
    pub fix: &'static str,
}

impl PathMistake {
    fn new(field: &'static str, reason: impl Into<String>, fix: &'static str) -> Self {
        Self {
            field,
            reason: reason.into(),
            fix,
        }
    }
}

/// Kubernetes' rules, and one of Envoy's, for the paths of `Exact` and `Prefix`.
fn plain(text: &str) -> Result<String, PathMistake> {
    const FIX: &str = "write an absolute path without empty, dot or escaped-slash segments";
    if !text.starts_with('/') {
        return Err(PathMistake::new(
            "path",
            format!("{text:?} does not begin with a slash"),
            FIX,
        ));
    }
    if let Some(part) = ["//", "/./", "/../", "%2f", "%2F"]
        .into_iter()
        .find(|part| text.contains(part))
    {
        return Err(PathMistake::new(
            "path",
            format!("{text:?} contains {part:?}"),
            FIX,
        ));
    }
    if let Some(end) = ["/..", "/."].into_iter().find(|end| text.ends_with(end)) {
        return Err(PathMistake::new(
            "path",
            format!("{text:?} ends with {end:?}"),
            FIX,
        ));
    }
    // Envoy refuses such a prefix, and with it the whole config.
    if let Some(mark) = text.chars().find(|c| matches!(c, '?' | '#')) {
        return Err(PathMistake::new(
            "path",
            format!("{text:?} contains {mark:?}, where the path of a request ends"),
            "leave out the query and the fragment",
        ));
    }
    Ok(text.to_owned())
}

/// An implementation-specific path is a regular expression here; an empty one matches every path.
fn expression(text: &str) -> Result<String, PathMistake> {
    if !text.is_empty() && !text.starts_with('/') {
        return Err(PathMistake::new(
            "path",
            format!("{text:?} does not begin with a slash"),
            "write a regular expression that begins with a slash",
        ));
    }
    match Regex::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => {
            let last = error.to_string();
            let why = last
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .to_owned();
            Err(PathMistake::new(
                "path",
                format!("{text:?} is no regular expression ({why})"),
                "correct the expression, or use the path type Exact or Prefix",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn path(text: &str, path_type: &str) -> HTTPIngressPath {
        HTTPIngressPath {
            path: Some(text.into()),
            path_type: path_type.into(),
            ..HTTPIngressPath::default()
        }
    }

    #[rstest]
    #[case("/shop", "Exact", "path /shop")]
    #[case("/shop/", "Prefix", "prefix /shop/")]
    #[case("/shop.*", "ImplementationSpecific", "regular expression /shop.*")]
    #[case("", "ImplementationSpecific", "every path")]
    fn a_path_matches_by_its_type(#[case] text: &str, #[case] path_type: &str, #[case] want: &str) {
        assert_eq!(read(&path(text, path_type)).unwrap().to_string(), want);
    }

    #[rstest]
    #[case("", "Prefix", "path", "slash")]
    #[case("shop", "Exact", "path", "slash")]
    #[case("/a//b", "Prefix", "path", "\"//\"")]
    #[case("/a/./b", "Prefix", "path", "\"/./\"")]
    #[case("/a/../b", "Exact", "path", "\"/../\"")]
    #[case("/a%2Fb", "Exact", "path", "\"%2F\"")]
    #[case("/a/..", "Exact", "path", "ends with \"/..\"")]
    #[case("/a?b=c", "Prefix", "path", "'?'")]
    #[case("/a#b", "Exact", "path", "'#'")]
    #[case("/(", "ImplementationSpecific", "path", "unclosed group")]
    #[case(".*", "ImplementationSpecific", "path", "slash")]
    #[case("/a", "", "pathType", "missing")]
    #[case("/a", "prefix", "pathType", "no path type")]
    fn what_kubernetes_or_envoy_refuses_is_refused(
        #[case] text: &str,
        #[case] path_type: &str,
        #[case] field: &str,
        #[case] reason: &str,
    ) {
        let mistake = read(&path(text, path_type)).unwrap_err();
        assert_eq!(mistake.field, field);
        assert!(mistake.reason.contains(reason), "{}", mistake.reason);
    }

    proptest! {
        #[test]
        fn any_path_has_an_answer(text in ".{0,40}", path_type in "Exact|Prefix|ImplementationSpecific|.{0,3}") {
            let _ = read(&path(&text, &path_type));
        }
    }
}
