//! Label selectors: what a Deployment, a Service or a config's `nodeSelector` picks.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// A selector that none can match, because it is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{operator}` is no operator of a label selector")]
pub struct BadSelector {
    /// The place in `matchExpressions`.
    pub index: usize,
    /// What stands there as operator.
    pub operator: String,
}

/// Whether a selector picks an object with these labels. An empty selector picks all.
///
/// # Errors
///
/// An operator other than `In`, `NotIn`, `Exists` and `DoesNotExist`.
pub fn selects(selector: &LabelSelector, labels: Option<&Labels>) -> Result<bool, BadSelector> {
    let mut all = selector
        .match_labels
        .as_ref()
        .is_none_or(|wanted| has_all(wanted, labels));
    for (index, expression) in selector.match_expressions.iter().flatten().enumerate() {
        let value = labels.and_then(|labels| labels.get(&expression.key));
        let listed = value.is_some_and(|value| {
            expression
                .values
                .iter()
                .flatten()
                .any(|listed| listed == value)
        });
        all &= match expression.operator.as_str() {
            "In" => listed,
            // An object without the label is not in any list (Kubernetes, "Labels and Selectors").
            "NotIn" => !listed,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            other => {
                return Err(BadSelector {
                    index,
                    operator: other.to_owned(),
                });
            }
        };
    }
    Ok(all)
}

/// Whether an object has all wanted labels.
#[must_use]
pub fn has_all(wanted: &Labels, labels: Option<&Labels>) -> bool {
    wanted
        .iter()
        .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, from_value, json};

    use super::*;

    #[rstest]
    #[case::empty(json!({}), true)]
    #[case::label(json!({"matchLabels": {"app": "web"}}), true)]
    #[case::other_value(json!({"matchLabels": {"app": "db"}}), false)]
    #[case::listed(json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["db", "web"]}]}), true)]
    #[case::not_listed(json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}), false)]
    #[case::absent_is_not_listed(json!({"matchExpressions": [{"key": "x", "operator": "NotIn", "values": ["web"]}]}), true)]
    #[case::exists(json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]}), true)]
    #[case::does_not_exist(json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}), false)]
    #[case::both_must_hold(json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "x", "operator": "Exists"}]}), false)]
    fn a_selector_picks_by_all_it_says(#[case] selector: Value, #[case] want: bool) {
        let labels = Labels::from([("app".to_owned(), "web".to_owned())]);
        assert_eq!(
            selects(&from_value(selector).unwrap(), Some(&labels)),
            Ok(want)
        );
    }

    #[test]
    fn an_operator_that_is_none_is_told_with_its_place() {
        let selector = from_value(
            json!({"matchExpressions": [{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Gt"}]}),
        );
        let error = selects(&selector.unwrap(), None).unwrap_err();
        assert_eq!((error.index, error.operator.as_str()), (1, "Gt"));
    }
}
