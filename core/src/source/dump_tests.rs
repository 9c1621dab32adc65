//! What a user already has: `kubectl get`, Helm's output, ports that no cluster would take.

use std::collections::BTreeMap;

use rstest::rstest;

use super::*;

fn one(content: &str) -> Result<Objects, Vec<SourceError>> {
    read(&[Text::new("m.yaml", content)])
}

/// `kubectl get all,ing,cm,netpol -o yaml` of a small namespace: mixed kinds, status, managed fields.
const KUBECTL_LIST: &str = r#"apiVersion: v1
items:
- apiVersion: v1
  kind: Pod
  metadata:
    annotations:
      kubectl.kubernetes.io/last-applied-configuration: |
        {"apiVersion":"v1","kind":"Pod","metadata":{"annotations":{},"name":"web"}}
    creationTimestamp: "2026-03-01T10:00:00Z"
    generateName: web-7d4b9c-
    labels:
      app: web
      pod-template-hash: 7d4b9c
    managedFields:
    - apiVersion: v1
      fieldsType: FieldsV1
      fieldsV1:
        f:metadata:
          f:labels:
            .: {}
            f:app: {}
        f:spec:
          f:containers:
            k:{"name":"web"}:
              .: {}
              f:image: {}
              f:ports:
                .: {}
                k:{"containerPort":8080,"protocol":"TCP"}:
                  .: {}
                  f:containerPort: {}
      manager: kube-controller-manager
      operation: Update
      time: "2026-03-01T10:00:00Z"
    name: web-7d4b9c-x2x9z
    namespace: shop
    ownerReferences:
    - apiVersion: apps/v1
      blockOwnerDeletion: true
      controller: true
      kind: ReplicaSet
      name: web-7d4b9c
      uid: 6f1e7f4e-0000-4000-8000-000000000001
    resourceVersion: "4711"
    uid: 6f1e7f4e-0000-4000-8000-000000000002
  spec:
    containers:
    - image: registry.example/web:1.2
      imagePullPolicy: IfNotPresent
      name: web
      ports:
      - containerPort: 8080
        hostPort: 0
        protocol: TCP
      resources: {}
      aFieldOfNextYear: {on: true}
    nodeName: worker-1
    tolerations:
    - effect: NoExecute
      key: node.kubernetes.io/not-ready
      operator: Exists
      tolerationSeconds: 300
  status:
    conditions:
    - lastProbeTime: null
      lastTransitionTime: "2026-03-01T10:00:05Z"
      status: "True"
      type: Ready
    hostIP: 172.18.0.2
    hostIPs:
    - ip: 172.18.0.2
    phase: Running
    podIP: 10.244.1.5
    podIPs:
    - ip: 10.244.1.5
    qosClass: BestEffort
- apiVersion: v1
  kind: Service
  metadata:
    name: web
    namespace: shop
    resourceVersion: "12"
    uid: 6f1e7f4e-0000-4000-8000-000000000003
  spec:
    clusterIP: 10.96.7.7
    clusterIPs:
    - 10.96.7.7
    internalTrafficPolicy: Cluster
    ipFamilies:
    - IPv4
    ipFamilyPolicy: SingleStack
    ports:
    - name: http
      port: 80
      protocol: TCP
      targetPort: 8080
    selector:
      app: web
    sessionAffinity: None
    type: ClusterIP
  status:
    loadBalancer: {}
- apiVersion: apps/v1
  kind: ReplicaSet
  metadata:
    name: web-7d4b9c
    namespace: shop
- apiVersion: v1
  data:
    greeting: |
      ---
      kind: Service
  kind: ConfigMap
  metadata:
    name: greeting
    namespace: shop
- apiVersion: autoscaling/v2
  kind: HorizontalPodAutoscaler
  metadata: {name: web, namespace: shop}
- apiVersion: example.com/v1
  kind: Widget
  metadata: {name: w, namespace: shop}
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: deny, namespace: shop}
  spec:
    podSelector: {matchLabels: {app: web}}
    policyTypes: [Ingress]
kind: List
metadata:
  resourceVersion: ""
"#;

#[test]
fn a_namespace_as_kubectl_prints_it_is_read_and_what_cannot_matter_is_counted() {
    let objects = one(KUBECTL_LIST).unwrap();
    assert_eq!(objects.pods().count(), 1);
    assert_eq!(objects.services().count(), 1);
    let counted = [
        ("ConfigMap", 1),
        ("HorizontalPodAutoscaler", 1),
        ("Widget", 1),
    ];
    let counted = counted.map(|(kind, count)| (kind.to_owned(), count));
    assert_eq!(objects.passed_over, BTreeMap::from(counted));
    assert_eq!(objects.not_simulated, ["NetworkPolicy shop/deny"]);
    assert_eq!(objects.notes.len(), 1, "{:?}", objects.notes);
    assert!(objects.notes[0].contains("aFieldOfNextYear"));
}

#[test]
fn json_of_kubectl_is_the_same_as_its_yaml() {
    let json: serde_json::Value = serde_saphyr::from_str(KUBECTL_LIST).unwrap();
    let from_json = one(&serde_json::to_string_pretty(&json).unwrap()).unwrap();
    let from_yaml = one(KUBECTL_LIST).unwrap();
    let objects = |all: &Objects| {
        all.iter()
            .map(|(_, entry)| entry.object.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(objects(&from_json), objects(&from_yaml));
}

#[test]
fn json_indented_with_tabs_is_read() {
    let text = "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"List\",\n\t\"items\": [\n\t\t{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"a\"}, \"spec\": {\"ports\": [{\"port\": 80}]}}\n\t]\n}\n";
    assert_eq!(one(text).unwrap().services().count(), 1);
}

/// A list of one kind leaves `kind` and `apiVersion` of its items out (as `cilium sysdump` writes it).
#[test]
fn a_typed_list_says_what_its_items_are() {
    let text = "apiVersion: v1\nitems:\n- metadata: {name: a, namespace: shop, uid: x}\n  spec: {ports: [{port: 80}], clusterIP: 10.96.0.4}\nkind: ServiceList\nmetadata: {resourceVersion: \"838\"}\n---\napiVersion: v1\nkind: List\nitems: null\n---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: List\n  items:\n  - {apiVersion: v1, kind: Service, metadata: {name: b}, spec: {ports: [{port: 80}]}}\n";
    let names: Vec<_> = one(text)
        .unwrap()
        .services()
        .filter_map(|service| service.metadata.name.clone())
        .collect();
    assert_eq!(names, ["b", "a"]);
}

/// `helm template`: comments, empty documents, a hook, a test pod, quoted ports, an NOTES-free end.
const HELM_TEMPLATE: &str = r#"---
# Source: shop/templates/serviceaccount.yaml
apiVersion: v1
kind: ServiceAccount
metadata:
  name: shop
automountServiceAccountToken: true
---
# Source: shop/templates/empty.yaml
---

---
# Source: shop/templates/service.yaml
apiVersion: v1
kind: Service
metadata:
  name: shop
  labels:
    helm.sh/chart: shop-0.1.0
    app.kubernetes.io/managed-by: Helm
spec:
  type: ClusterIP
  ports:
    - port: 80
      targetPort: http
      protocol: TCP
      name: http
  selector:
    app.kubernetes.io/name: shop
---
# Source: shop/templates/deployment.yaml
apiVersion: apps/v1
kind: Deployment
metadata:
  name: shop
spec:
  replicas: 2
  selector:
    matchLabels:
      app.kubernetes.io/name: shop
  template:
    metadata:
      labels:
        app.kubernetes.io/name: shop
    spec:
      serviceAccountName: shop
      securityContext:
        {}
      containers:
        - name: shop
          securityContext: {}
          image: "registry.example/shop:1.16.0"
          imagePullPolicy: IfNotPresent
          ports:
            - name: http
              containerPort: 8080
              protocol: TCP
          livenessProbe:
            httpGet:
              path: /
              port: http
          resources: {}
---
# Source: shop/templates/tests/test-connection.yaml
apiVersion: v1
kind: Pod
metadata:
  name: "shop-test-connection"
  annotations:
    "helm.sh/hook": test
spec:
  containers:
    - name: wget
      image: busybox
      command: ['wget']
      args: ['shop:80']
  restartPolicy: Never
"#;

#[test]
fn what_helm_template_prints_is_read_without_its_hooks() {
    let objects = one(HELM_TEMPLATE).unwrap();
    assert_eq!(objects.services().count(), 1);
    assert_eq!(objects.deployments().count(), 1);
    assert_eq!(
        objects.pods().count(),
        0,
        "a hook's pod is not one of the release"
    );
    assert_eq!(objects.passed_over["ServiceAccount"], 1);
    assert_eq!(objects.passed_over["Pod (a Helm hook)"], 1);
}

/// `helm get manifest` ends documents with blank lines, `helm install --dry-run` begins with its own words.
#[test]
fn what_helm_install_dry_run_prints_is_read() {
    let text = format!(
        "NAME: shop\nLAST DEPLOYED: Sun Mar  1 10:00:00 2026\nNAMESPACE: default\nSTATUS: pending-install\nREVISION: 1\nTEST SUITE: None\nHOOKS:\nMANIFEST:\n{HELM_TEMPLATE}\nNOTES:\n1. Get the application URL by running these commands:\n  export POD_NAME=$(kubectl get pods)\n  echo \"Visit http://127.0.0.1:8080\"\n"
    );
    let errors = one(&text).unwrap_err();
    assert!(
        errors
            .iter()
            .all(|error| error.fix.contains("helm template")
                || error.fix.contains("helm get manifest")),
        "{errors:#?}"
    );
}

#[rstest]
#[case::zero("port: 0", "spec.ports[0].port", "0 is no port")]
#[case::too_great("port: 70000", "spec.ports[0].port", "70000 is no port")]
#[case::negative("port: -1", "spec.ports[0].port", "-1 is no port")]
#[case::target(
    "{port: 80, targetPort: 70000}",
    "spec.ports[0].targetPort",
    "70000 is no port"
)]
#[case::node(
    "{port: 80, nodePort: 70000}",
    "spec.ports[0].nodePort",
    "70000 is no port"
)]
fn a_service_port_is_from_1_to_65535(
    #[case] port: &str,
    #[case] field: &str,
    #[case] reason: &str,
) {
    let text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec:\n  ports:\n  - {port}\n"
    );
    let errors = one(&text).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert_eq!(errors[0].fault, Fault::BadPort);
    assert_eq!(errors[0].field, field);
    assert_eq!(errors[0].reason, reason);
    assert_eq!(errors[0].place.line, 6);
    assert!(errors[0].fix.contains("65535"));
}

#[rstest]
#[case::pod(
    "v1",
    "Pod",
    "containers: [{name: a, ports: [{containerPort: 0}]}]",
    "spec.containers[0].ports[0].containerPort"
)]
#[case::init(
    "v1",
    "Pod",
    "containers: []\n  initContainers: [{name: a, ports: [{containerPort: 65536}]}]",
    "spec.initContainers[0].ports[0].containerPort"
)]
#[case::deployment(
    "apps/v1",
    "Deployment",
    "selector: {}\n  template: {spec: {containers: [{name: a}, {name: b, ports: [{containerPort: 80}, {containerPort: 80, hostPort: 99999}]}]}}",
    "spec.template.spec.containers[1].ports[1].hostPort"
)]
fn a_containers_port_is_from_1_to_65535(
    #[case] version: &str,
    #[case] kind: &str,
    #[case] spec: &str,
    #[case] field: &str,
) {
    let text =
        format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\nspec:\n  {spec}\n");
    let errors = one(&text).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert_eq!(
        (errors[0].fault, errors[0].field.as_str()),
        (Fault::BadPort, field)
    );
}

#[test]
fn a_node_port_of_0_asks_for_one() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {type: NodePort, ports: [{port: 80, nodePort: 0}]}\n";
    assert!(one(text).is_ok());
}

#[test]
fn ciliums_own_config_is_kept_and_other_config_maps_are_counted() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cilium-config, namespace: kube-system}\ndata:\n  enable-bpf-tproxy: \"true\"\n  debug: false\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\n";
    let objects = one(text).unwrap();
    let config = objects.cilium_config.unwrap();
    assert_eq!(config.to_string(), "ConfigMap kube-system/cilium-config");
    assert_eq!(config.bpf_tproxy(), Ok(true));
    assert_eq!(config.data["debug"], "false");
    assert_eq!((&*config.file, config.line), ("m.yaml", 1));
    assert_eq!(objects.passed_over["ConfigMap"], 2);
}

#[test]
fn policies_are_read_for_whom_they_select() {
    let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny, namespace: shop}\nspec: {podSelector: {}}\n---\napiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: wide}\nspec: {endpointSelector: {}, ingress: []}\n---\napiVersion: cilium.io/v2\nkind: CiliumEgressGatewayPolicy\nmetadata: {name: out}\n";
    let objects = one(text).unwrap();
    let policies: Vec<_> = objects
        .policies
        .iter()
        .map(|policy| {
            (
                policy.title.as_str(),
                policy.namespace.as_deref(),
                policy.line,
            )
        })
        .collect();
    assert_eq!(
        policies,
        [
            ("NetworkPolicy shop/deny", Some("shop"), 1),
            ("CiliumClusterwideNetworkPolicy wide", None, 6)
        ]
    );
    assert_eq!(objects.not_simulated.len(), 3);
}

const CONFIG_DUMP: &str = r#"{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump", "dynamic_active_clusters": [{"cluster": {"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "c"}}]}, {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "dynamic_listeners": [{"name": "l", "active_state": {"listener": {"@type": "type.googleapis.com/envoy.config.listener.v3.Listener", "name": "l", "address": {"socket_address": {"address": "10.0.0.1", "port_value": 80}}}}}]}]}"#;

#[test]
fn an_envoys_dump_alone_is_known_in_place_of_objects() {
    let known = read_any(&[Text::new("d.json", CONFIG_DUMP)]).unwrap();
    let Known::Dump(dump) = known else {
        panic!("{known:?}");
    };
    assert_eq!(&*dump.file, "d.json");
}

#[test]
fn an_envoys_dump_is_refused_where_objects_are_needed() {
    let errors = read(&[Text::new("d.json", CONFIG_DUMP)]).unwrap_err();
    assert_eq!(
        errors[0].reason,
        "this is Envoy's config_dump, and objects are needed here"
    );
}

#[test]
fn an_envoys_dump_is_refused_beside_objects() {
    let texts = [
        Text::new("d.json", CONFIG_DUMP),
        Text::new(
            "m.yaml",
            "apiVersion: v1\nkind: Node\nmetadata: {name: n}\n",
        ),
    ];
    let errors = read_any(&texts).unwrap_err();
    assert_eq!(
        errors[0].reason,
        "Envoy's config_dump stands beside other texts"
    );
}
