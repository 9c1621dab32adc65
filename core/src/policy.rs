//! Network policies: not simulated, but named where they select who would answer.
//!
//! Only what an answer may hang on is read: the namespace, the selector of the pods, and whether
//! what comes in is restricted, and by what. A `NetworkPolicy` drops what it does not allow; so do
//! Cilium's two kinds, whose HTTP rules answer 403 instead.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use crate::object::namespace_of;
use crate::selector::{Labels, selects};

/// What a policy may do to a request for a pod that it selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// It restricts who may come in: packets may be dropped.
    Drop,
    /// It has HTTP rules: a request may be answered with 403.
    Forbid,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drop => "may drop",
            Self::Forbid => "may answer 403",
        })
    }
}

/// A policy that restricts what comes in to some pods.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// `NetworkPolicy shop/deny`
    pub title: String,
    /// The namespace of the pods; none for every namespace.
    pub namespace: Option<String>,
    /// Which pods, and what may happen to requests for them: one entry a rule of the policy.
    pub rules: Vec<Rule>,
    /// The file it stands in, as the user named it.
    pub file: Arc<str>,
    /// 1-based line where it begins.
    pub line: u32,
}

/// One of a policy's rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The pods' labels.
    pub pods: LabelSelector,
    /// What may happen.
    pub effect: Effect,
}

impl Policy {
    /// Reads `spec` (or Cilium's `specs`) of a policy; a document that is none has no rules.
    #[must_use]
    pub fn read(title: String, namespace: Option<String>, kind: &str, value: &Value) -> Self {
        let rules = match kind {
            "NetworkPolicy" => value
                .get("spec")
                .and_then(kubernetes_rule)
                .into_iter()
                .collect(),
            _ => {
                let one = value.get("spec").into_iter();
                let several = value.get("specs").and_then(Value::as_array);
                one.chain(several.into_iter().flatten())
                    .filter_map(cilium_rule)
                    .collect()
            }
        };
        Self {
            title,
            namespace,
            rules,
            file: Arc::from(""),
            line: 0,
        }
    }

    /// What this policy may do to a request for that pod; none when it does not select it.
    #[must_use]
    pub fn effect_on(&self, pod: &Pod) -> Option<Effect> {
        let namespace = namespace_of(&pod.metadata);
        if self
            .namespace
            .as_deref()
            .is_some_and(|own| own != namespace)
        {
            return None;
        }
        let mut labels: Labels = pod.metadata.labels.clone().unwrap_or_default();
        // Cilium's selectors see the namespace and the account as labels of the pod.
        labels.insert(
            "io.kubernetes.pod.namespace".to_owned(),
            namespace.to_owned(),
        );
        let account = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.service_account_name.clone());
        labels.insert(
            "io.cilium.k8s.policy.serviceaccount".to_owned(),
            account.unwrap_or_else(|| "default".to_owned()),
        );
        self.rules
            .iter()
            .filter(|rule| selects(&rule.pods, Some(&labels)).unwrap_or(false))
            .map(|rule| rule.effect)
            .max()
    }
}

fn kubernetes_rule(spec: &Value) -> Option<Rule> {
    let types = spec.get("policyTypes").and_then(Value::as_array);
    // Without types a policy restricts what comes in (Kubernetes, "Network Policies").
    let ingress =
        types.is_none_or(|types| types.is_empty() || types.iter().any(|it| it == "Ingress"));
    ingress.then(|| Rule {
        pods: selector(spec.get("podSelector")),
        effect: Effect::Drop,
    })
}

/// A rule of Cilium's restricts what comes in only when it has a section for it.
fn cilium_rule(rule: &Value) -> Option<Rule> {
    let sections: Vec<&Value> = ["ingress", "ingressDeny"]
        .iter()
        .filter_map(|section| rule.get(section))
        .filter(|section| section.is_array())
        .collect();
    // A node selector makes it a policy of the hosts, not of pods.
    if sections.is_empty() || rule.get("endpointSelector").is_none() {
        return None;
    }
    let ports = sections
        .iter()
        .filter_map(|section| section.as_array())
        .flatten()
        .filter_map(|entry| entry.get("toPorts")?.as_array())
        .flatten();
    let forbids = ports
        .filter_map(|ports| ports.pointer("/rules/http"))
        .any(|rules| rules.as_array().is_some_and(|rules| !rules.is_empty()));
    Some(Rule {
        pods: selector(rule.get("endpointSelector")),
        effect: if forbids {
            Effect::Forbid
        } else {
            Effect::Drop
        },
    })
}

/// A selector with Cilium's label sources (`k8s:app`, `any:app`) taken off the keys. What only
/// Cilium knows of a pod (labels of its namespace, reserved ones) is taken to hold: a policy that
/// is named too often is better than one that is missed.
fn selector(value: Option<&Value>) -> LabelSelector {
    let read: LabelSelector = value
        .and_then(|value| serde_json::from_value(value.clone()).ok())
        .unwrap_or_default();
    let labels = read.match_labels.into_iter().flatten();
    let expressions = read.match_expressions.into_iter().flatten();
    LabelSelector {
        match_labels: Some(
            labels
                .filter_map(|(key, value)| Some((pod_label(&key)?, value)))
                .collect(),
        ),
        match_expressions: Some(
            expressions
                .filter_map(|mut expression| {
                    expression.key = pod_label(&expression.key)?;
                    Some(expression)
                })
                .collect(),
        ),
    }
}

/// The key of a pod's own label; none for what is not one.
fn pod_label(key: &str) -> Option<String> {
    let key = key
        .strip_prefix("k8s:")
        .or_else(|| key.strip_prefix("any:"))
        .unwrap_or(key);
    // Cilium also takes a dot for the colon, as its own examples write it.
    let key = key.strip_prefix("k8s.").unwrap_or(key);
    let foreign = key.contains(':') || key.starts_with("io.cilium.k8s.namespace.labels.");
    (!foreign).then(|| key.to_owned())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{from_value, json};

    use super::*;

    fn pod() -> Pod {
        from_value(json!({
            "metadata": {"name": "web-1", "namespace": "shop", "labels": {"app": "web", "tier": "front"}},
            "spec": {"containers": []},
        }))
        .unwrap()
    }

    fn effect(kind: &str, namespace: Option<&str>, value: &Value) -> Option<Effect> {
        Policy::read(String::new(), namespace.map(str::to_owned), kind, value).effect_on(&pod())
    }

    #[rstest]
    #[case::all_pods(json!({"podSelector": {}}), Some(Effect::Drop))]
    #[case::its_label(json!({"podSelector": {"matchLabels": {"app": "web"}}}), Some(Effect::Drop))]
    #[case::its_expression(json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}}), Some(Effect::Drop))]
    #[case::anothers_label(json!({"podSelector": {"matchLabels": {"app": "db"}}}), None)]
    #[case::only_what_goes_out(json!({"podSelector": {}, "policyTypes": ["Egress"]}), None)]
    #[case::both_ways(json!({"podSelector": {}, "policyTypes": ["Egress", "Ingress"]}), Some(Effect::Drop))]
    fn a_network_policy_may_drop_what_its_pods_are_asked(
        #[case] spec: Value,
        #[case] want: Option<Effect>,
    ) {
        let value = json!({"spec": spec});
        assert_eq!(effect("NetworkPolicy", Some("shop"), &value), want);
        assert_eq!(effect("NetworkPolicy", Some("other"), &value), None);
    }

    #[rstest]
    #[case::no_section_restricts_nothing(json!({"endpointSelector": {}}), None)]
    #[case::an_empty_section_restricts_all(json!({"endpointSelector": {}, "ingress": []}), Some(Effect::Drop))]
    #[case::a_deny_section(json!({"endpointSelector": {}, "ingressDeny": [{"fromEntities": ["world"]}]}), Some(Effect::Drop))]
    #[case::ports(json!({"endpointSelector": {}, "ingress": [{"toPorts": [{"ports": [{"port": "80"}]}]}]}), Some(Effect::Drop))]
    #[case::http(json!({"endpointSelector": {}, "ingress": [{"toPorts": [{"rules": {"http": [{"method": "GET"}]}}]}]}), Some(Effect::Forbid))]
    #[case::no_http_rule(json!({"endpointSelector": {}, "ingress": [{"toPorts": [{"rules": {"http": []}}]}]}), Some(Effect::Drop))]
    #[case::a_label_with_its_source(json!({"endpointSelector": {"matchLabels": {"k8s:app": "web"}}, "ingress": []}), Some(Effect::Drop))]
    #[case::any_source(json!({"endpointSelector": {"matchLabels": {"any:app": "db"}}, "ingress": []}), None)]
    #[case::the_namespace(json!({"endpointSelector": {"matchLabels": {"k8s:io.kubernetes.pod.namespace": "shop"}}, "ingress": []}), Some(Effect::Drop))]
    #[case::another_namespace(json!({"endpointSelector": {"matchLabels": {"k8s:io.kubernetes.pod.namespace": "db"}}, "ingress": []}), None)]
    #[case::what_only_cilium_knows(json!({"endpointSelector": {"matchLabels": {"k8s:io.cilium.k8s.namespace.labels.team": "a"}}, "ingress": []}), Some(Effect::Drop))]
    #[case::of_hosts(json!({"nodeSelector": {}, "ingress": []}), None)]
    fn a_policy_of_ciliums_may_drop_or_forbid(#[case] rule: Value, #[case] want: Option<Effect>) {
        let one = json!({"spec": rule.clone()});
        assert_eq!(effect("CiliumNetworkPolicy", Some("shop"), &one), want);
        assert_eq!(effect("CiliumClusterwideNetworkPolicy", None, &one), want);
        let several = json!({"specs": [{"endpointSelector": {}}, rule]});
        assert_eq!(effect("CiliumNetworkPolicy", Some("shop"), &several), want);
    }

    #[test]
    fn http_rules_are_named_before_what_only_drops() {
        let value = json!({"specs": [
            {"endpointSelector": {}, "ingress": []},
            {"endpointSelector": {}, "ingress": [{"toPorts": [{"rules": {"http": [{}]}}]}]},
        ]});
        assert_eq!(
            effect("CiliumNetworkPolicy", Some("shop"), &value),
            Some(Effect::Forbid)
        );
    }
}
