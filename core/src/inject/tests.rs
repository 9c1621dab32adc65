use rstest::rstest;

use super::*;
use crate::source::{Text, values};

fn options() -> Options {
    Options {
        image: "nodeway:dev".to_owned(),
        excluded: vec![8081],
        access_log: false,
    }
}

fn read(yaml: &str) -> Vec<Value> {
    values(&[Text::new("shop.yaml", yaml)]).unwrap()
}

fn injected(yaml: &str) -> Injected {
    inject(read(yaml), &options())
}

/// A Deployment with that in its pods' spec.
fn deployment(spec: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: shop, namespace: web}}\n\
         spec: {{template: {{spec: {spec}}}}}\n"
    )
}

const SHOP: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      securityContext: {runAsNonRoot: true}
      initContainers: [{name: migrate, image: shop}]
      containers: [{name: shop, image: shop, env: [{name: MODE, value: 'on'}]}]
      volumes: [{name: data, emptyDir: {}}]
";

#[test]
fn a_deployments_pods_get_two_init_containers_and_their_volumes() {
    insta::assert_json_snapshot!(injected(SHOP).documents);
}

#[rstest]
#[case::pod("v1", "Pod", "spec")]
#[case::replication_controller("v1", "ReplicationController", "spec.template.spec")]
#[case::deployment("apps/v1", "Deployment", "spec.template.spec")]
#[case::stateful_set("apps/v1", "StatefulSet", "spec.template.spec")]
#[case::daemon_set("apps/v1", "DaemonSet", "spec.template.spec")]
#[case::replica_set("apps/v1", "ReplicaSet", "spec.template.spec")]
#[case::job("batch/v1", "Job", "spec.template.spec")]
#[case::cron_job("batch/v1", "CronJob", "spec.jobTemplate.spec.template.spec")]
fn whatever_makes_pods_is_rewritten(#[case] version: &str, #[case] kind: &str, #[case] path: &str) {
    let nested = path.split('.').rev().fold(
        serde_json::json!({"containers": [{"name": "shop"}]}),
        |inner, field| serde_json::json!({ field: inner }),
    );
    let mut object = nested;
    object["apiVersion"] = version.into();
    object["kind"] = kind.into();
    object["metadata"] = serde_json::json!({"name": "shop"});
    let injected = inject(vec![object], &options());
    assert_eq!(injected.with, [format!("{kind} default/shop")]);
    let pointer = format!("/{}/initContainers/1/name", path.replace('.', "/"));
    let name = injected.documents[0].pointer(&pointer).unwrap();
    assert_eq!(name, "nodeway-sidecar");
}

#[rstest]
#[case::of_another_kind(
    "apiVersion: v1\nkind: Service\nmetadata: {name: shop}\nspec: {ports: [{port: 80}]}"
)]
#[case::of_another_group(
    "apiVersion: example.com/v1\nkind: Deployment\nspec: {template: {spec: {}}}"
)]
#[case::no_object("[1, 2]")]
fn all_else_stays_as_it_is(#[case] yaml: &str) {
    let injected = injected(yaml);
    assert_eq!(injected.documents, read(yaml));
    assert!(injected.with.is_empty() && injected.left.is_empty());
}

#[test]
fn the_objects_of_a_list_are_rewritten_in_their_place() {
    let list = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {{apiVersion: v1, kind: Service}}\n- {}",
        deployment("{containers: [{name: shop}]}").replace('\n', "\n  ")
    );
    let injected = injected(&list);
    assert_eq!(injected.with, ["Deployment web/shop"]);
    let items = injected.documents[0]["items"].as_array().unwrap();
    assert_eq!(items.len(), 2);
    assert_eq!(items[0], read(&list)[0]["items"][0]);
}

#[test]
fn a_second_time_changes_nothing() {
    let once = injected(SHOP).documents;
    assert_eq!(inject(once.clone(), &options()).documents, once);
}

#[test]
fn a_second_time_with_another_image_is_the_first_with_it() {
    let other = Options {
        image: "nodeway:next".to_owned(),
        excluded: Vec::new(),
        access_log: true,
    };
    let twice = inject(injected(SHOP).documents, &other);
    assert_eq!(twice, inject(read(SHOP), &other));
}

#[rstest]
#[case::host_network("{hostNetwork: true}", NoSidecar::HostNetwork)]
#[case::its_user(
    "{containers: [{name: a, securityContext: {runAsUser: 1337}}]}",
    NoSidecar::ProxysUser("a".to_owned())
)]
#[case::its_user_by_the_pod(
    "{securityContext: {runAsUser: 1337}, containers: [{name: a, securityContext: {runAsUser: 1}}, {name: b}]}",
    NoSidecar::ProxysUser("b".to_owned())
)]
#[case::its_port(
    "{containers: [{name: a, ports: [{containerPort: 80}, {containerPort: 15006}]}]}",
    NoSidecar::ProxysPort("a".to_owned(), 15_006)
)]
#[case::no_list("{volumes: {}}", NoSidecar::Malformed("volumes".to_owned()))]
#[case::no_spec("7", NoSidecar::Malformed("spec.template.spec".to_owned()))]
fn pods_that_cannot_have_one_are_left_with_a_reason(#[case] spec: &str, #[case] why: NoSidecar) {
    let yaml = deployment(spec);
    let injected = injected(&yaml);
    assert_eq!(injected.documents, read(&yaml));
    let object = "Deployment web/shop".to_owned();
    assert_eq!(injected.left, [Left { object, why }]);
}
