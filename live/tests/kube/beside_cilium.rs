//! Nothing acts where Cilium itself is.

use nodeway_core::source;
use nodeway_live::agent::Agent;
use nodeway_live::kube::listed;
use nodeway_live::operator::{Operator, OperatorOptions};
use nodeway_sim::Redirect;
use rstest::rstest;

use super::control_plane::ControlPlane;
use super::{INGRESS, agent_options, cluster};

pub(super) const AGENT: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: some-cilium, namespace: kube-system, labels: {k8s-app: cilium}}
spec:
  selector: {matchLabels: {k8s-app: cilium}}
  template:
    metadata: {labels: {k8s-app: cilium}}
    spec: {containers: [{name: cilium-agent, image: cilium}]}
";
const OPERATOR: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: cilium-operator, namespace: default, labels: {io.cilium/app: operator}}
spec:
  selector: {matchLabels: {name: cilium-operator}}
  template:
    metadata: {labels: {name: cilium-operator}}
    spec: {containers: [{name: cilium-operator, image: cilium}]}
";

/// Whoever begins there is refused; these are its words.
fn refusals(cluster: &ControlPlane) -> [String; 2] {
    let operator = Operator::start(OperatorOptions {
        kubeconfig: Some(cluster.kubeconfig()),
        namespace: "default".to_owned(),
        identity: "one".to_owned(),
        ..OperatorOptions::default()
    });
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(agent_options(
        cluster,
        Redirect::Tc,
        &folder.path().join("run"),
    ));
    [
        operator.unwrap_err().to_string(),
        agent.unwrap_err().to_string(),
    ]
}

#[rstest]
#[case::agent(AGENT, "DaemonSet kube-system/some-cilium;")]
#[case::operator(OPERATOR, "Deployment default/cilium-operator;")]
fn beside_cilium_nothing_acts_and_what_was_found_is_named(
    #[case] of_cilium: &str,
    #[case] named: &str,
) {
    let cluster = cluster();
    until_there(&cluster);
    cluster.apply(of_cilium);
    for words in refusals(&cluster) {
        assert!(words.contains(named), "{words}");
        assert!(words.contains("look only"), "{words}");
    }
}

#[test]
fn kinds_that_ciliums_operator_keeps_are_not_ours() {
    let cluster = cluster();
    let label = "io.cilium.k8s.crd.schema.version=1.31.11";
    let kind = "crd/ciliumenvoyconfigs.cilium.io";
    cluster.kubectl(&["label", kind, label]).unwrap();
    for words in refusals(&cluster) {
        assert!(
            words.contains("CustomResourceDefinition ciliumenvoyconfigs.cilium.io;"),
            "{words}"
        );
    }
}

#[test]
fn a_cluster_of_ciliums_can_be_looked_at_and_a_certificate_alone_is_told_of_secrets() {
    let cluster = cluster();
    until_there(&cluster);
    cluster.apply(AGENT);
    cluster.apply(INGRESS);
    cluster.apply(SECRETS);
    cluster.apply(NOT_SIMULATED);
    let texts = listed(Some(&cluster.kubeconfig())).unwrap_or_else(|error| panic!("{error}"));
    let objects = source::read(&texts).unwrap();
    assert!(
        objects
            .ingresses()
            .any(|it| it.metadata.name.as_deref() == Some("basic-ingress"))
    );
    assert!(objects.service("default", "kubernetes").is_some());
    let told = |name: &str| {
        let text = texts.iter().find(|it| &*it.name == name).unwrap();
        text.content.clone()
    };
    assert!(told("kube/networkpolicies").contains("closed"));
    let settings = told("kube/configmaps");
    assert!(settings.contains("enable-bpf-tproxy") && !settings.contains("another"));
    let secrets = texts.iter().find(|it| &*it.name == "kube/secrets").unwrap();
    assert!(secrets.content.contains("shop-cert"), "{}", secrets.content);
    assert!(!secrets.content.contains("password"), "{}", secrets.content);
}

/// What an answer names: a policy, and Cilium's settings.
const NOT_SIMULATED: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: default}
spec: {podSelector: {}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: cilium-config, namespace: kube-system}
data: {enable-bpf-tproxy: 'true'}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: another, namespace: kube-system}
";

const SECRETS: &str = "
apiVersion: v1
kind: Secret
metadata: {name: shop-cert, namespace: default}
type: kubernetes.io/tls
stringData: {tls.crt: a, tls.key: b}
---
apiVersion: v1
kind: Secret
metadata: {name: password, namespace: default}
stringData: {password: secret}
";

/// A new API server makes its namespaces after it has begun to answer.
pub(super) fn until_there(cluster: &ControlPlane) {
    super::until("kube-system", || {
        cluster
            .kubectl(&["get", "namespace", "kube-system", "default"])
            .ok()
    });
}
