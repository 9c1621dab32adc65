use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::cluster::Ask;
use crate::fixture::Expect;

const SERVICE: &str =
    "{apiVersion: v1, kind: Service, metadata: {name: NAME}, spec: {ports: [{port: 80}]}}\n";

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

fn load(folder: &tempfile::TempDir, path: &str) -> Result<Source, String> {
    let at = shown(folder.path());
    Source::load(&[folder.path().join(path)], None)
        .map_err(|errors| errors.to_string().replace(&format!("{at}/"), ""))
}

fn fixture_of(text: &str) -> Result<Fixture, String> {
    source::read_one(&Text::new("fixture.yaml", text))
        .map_err(|errors| LoadErrors::of(errors, Vec::new()).to_string())
}

#[test]
fn a_folder_is_read_whole_and_in_order_whatever_the_file_system_says() {
    let folder = folder(&[
        ("b.yaml", &SERVICE.replace("NAME", "b")),
        ("a/z.yml", &SERVICE.replace("NAME", "z")),
        ("notes.txt", "no manifest"),
        (".hidden/x.yaml", "no: manifest"),
    ]);
    let source = load(&folder, "").unwrap();
    let names: Vec<_> = source.texts.iter().map(|text| &text.name).collect();
    assert!(
        names[0].ends_with("a/z.yml") && names[1].ends_with("b.yaml"),
        "{names:?}"
    );
    assert_eq!(source.objects().unwrap().services().count(), 2);
}

#[test]
fn a_folder_with_a_fixture_is_one_and_so_is_its_file() {
    let folder = folder(&[
        ("fixture.yaml", "title: one\nnodes: [a, b, c]\n"),
        ("manifests/s.yaml", &SERVICE.replace("NAME", "s")),
    ]);
    for path in ["", "fixture.yaml"] {
        let fixture = load(&folder, path).unwrap().fixture.unwrap();
        assert_eq!(fixture.nodes.0, ["a", "b", "c"]);
        assert_eq!(fixture.objects().unwrap().len(), 1);
    }
}

#[test]
fn standard_input_is_given_and_read_once() {
    let dash = PathBuf::from("-");
    let text = SERVICE.replace("NAME", "s");
    let source = Source::load(std::slice::from_ref(&dash), Some(text.clone())).unwrap();
    assert_eq!(source.objects().unwrap().len(), 1);
    let twice = Source::load(&[dash.clone(), dash], Some(text)).unwrap_err();
    assert_eq!(
        twice.to_string(),
        "-: standard input was read already; name `-` once"
    );
}

#[test]
fn what_cannot_be_read_says_which_path_and_what_to_do() {
    let folder = folder(&[
        ("fixture.yaml", "title: no manifests\n"),
        ("empty/x.txt", ""),
    ]);
    let error = |path| load(&folder, path).unwrap_err();
    assert_eq!(
        error("nowhere"),
        "nowhere: there is no such file or folder; check the path"
    );
    assert_eq!(
        error(""),
        "manifests: there is no such file or folder; check the path"
    );
    assert_eq!(
        error("empty"),
        "empty: no file in this folder ends in .yaml, .yml or .json; name a folder with manifests"
    );
}

#[test]
fn a_fixture_is_short_because_everything_has_a_default() {
    let fixture =
        fixture_of("requests:\n- {from: default/client, to: http://details:9080/}\n").unwrap();
    assert_eq!(fixture.nodes.0, ["node-1", "node-2"]);
    assert_eq!(fixture.outside, ["client"]);
    let request = &fixture.requests[0];
    assert_eq!(request.ask(), Ask::get("http://details:9080/"));
    assert_eq!(request.expect, Expect::default());
}

#[rstest]
#[case::misspelt(
    "titel: x",
    "fixture.yaml:1:1: titel: there is no field `titel` here; did you mean `title`?"
)]
#[case::misspelt_below(
    "requests:\n- from: a\n  to: http://b\n  expect:\n    statsu: 200",
    "fixture.yaml:5:5: requests[0].expect.statsu: there is no field `statsu` here; did you mean `status`?"
)]
#[case::wrong_type(
    "requests:\n- from: a\n  to: http://b\n  expect: {status: fine}",
    "requests[0].expect.status: invalid type: string \"fine\""
)]
#[case::missing("requests:\n- from: a", "requests[0]: missing field `to`; add `to`")]
#[case::missing_and_misspelt(
    "requests:\n- {from: a, too: b}",
    "requests[0].too: there is no field `too` here; did you mean `to`?"
)]
#[case::no_nodes(
    "nodes: 0",
    "nodes: invalid value: integer `0`, expected a number of nodes from 1 to 5000"
)]
#[case::a_node_twice("nodes: [a, a]", "`a` is no name, or is there twice")]
#[case::redirect(
    "redirect: magic",
    "unknown variant `magic`, expected one of `tc`, `sk-lookup`, `iptables`"
)]
#[case::ipvs("kubeProxy: ipvs", "no redirect holds beside it")]
#[case::no_mode(
    "kubeProxy: ebpf",
    "`ebpf` is no mode of kube-proxy; use `iptables`, `nftables` or `none`"
)]
#[case::a_fault_of_nothing(
    "faults:\n- { at: 5ms }",
    "faults[0]: it does not say what breaks; add one of `link`"
)]
#[case::a_fault_of_two(
    "faults:\n- { crash: node-1, nodeOff: node-2 }",
    "faults[0]: it says twice what breaks"
)]
#[case::a_link_with_nothing_wrong(
    "faults:\n- { link: a }",
    "go with `link`, which needs at least one"
)]
#[case::loss_of_no_link("faults:\n- { crash: node-1, loss: 5% }", "go with `link`")]
#[case::no_share(
    "faults:\n- { link: a, loss: 5 }",
    "a share of packets from `0%` to `100%`"
)]
#[case::no_time("faults:\n- { at: soon, crash: node-1 }", "a time, as in `5ms`")]
#[case::no_object("faults:\n- { delete: shop }", "write `KIND NAMESPACE/NAME`")]
#[case::a_misspelt_fault("faults:\n- { crsh: node-1 }", "did you mean `crash`")]
#[case::empty("", "the file is empty")]
#[case::two_documents("title: a\n---\ntitle: b", "fixture.yaml:3:1: a second document")]
#[case::no_mapping("- a", "fixture.yaml:1:1: this is no mapping of fields")]
fn a_bad_fixture_names_file_line_and_field(#[case] text: &str, #[case] want: &str) {
    let error = fixture_of(text).unwrap_err();
    assert!(error.contains(want), "{error}");
}

proptest! {
    #[test]
    fn a_mangled_fixture_is_an_error_and_never_a_panic(
        at in 0_usize..200,
        noise in "[\\PC\n\t]{0,12}",
    ) {
        let good = "title: one\nnodes: 2\noutside: [a]\nseed: 7\nrequests:\n- name: n\n  from: default/client\n  to: http://x/y\n  headers: {a: b}\n  expect: {status: 200, redirected: true}\n";
        let mut text = good.to_owned();
        text.insert_str(at.min(good.len()), &noise);
        let _ = fixture_of(&text);
    }
}

#[test]
fn a_source_that_is_named_twice_is_one_error() {
    let folder = folder(&[("m/a.yaml", &SERVICE.replace("NAME", "a"))]);
    let name = |path: &str| folder.path().join(path);
    let errors = |paths: &[PathBuf]| {
        Source::load(paths, None)
            .unwrap_err()
            .to_string()
            .replace(&format!("{}/", shown(folder.path())), "")
    };
    assert_eq!(
        errors(&[name("m/a.yaml"), name("m/../m/a.yaml")]),
        "m/../m/a.yaml: it is named twice; name it once"
    );
    assert_eq!(
        errors(&[name("m/a.yaml"), name("m")]),
        "m/a.yaml: it is in m, which is named too; name it once"
    );
}

const TIME: &str = "20260301-101500";

/// A sysdump as Cilium's CLI names and writes it: one list of one kind a file, items without kind.
fn sysdump() -> tempfile::TempDir {
    let at = format!("cilium-sysdump-{TIME}");
    let file = |stem: &str, content: &str| (format!("{at}/{stem}-{TIME}.yaml"), content.to_owned());
    let files = [
        file(
            "k8s-nodes",
            "apiVersion: v1\nitems:\n- metadata: {name: worker, uid: u}\n  status: {addresses: [{type: InternalIP, address: 172.18.0.9}]}\nkind: NodeList\nmetadata: {resourceVersion: '1'}\n",
        ),
        file(
            "k8s-pods",
            "apiVersion: v1\nitems:\n- metadata: {name: web-1, namespace: shop, uid: u, labels: {app: web}}\n  spec: {nodeName: worker, containers: [{name: web, ports: [{containerPort: 8080}]}]}\n  status: {phase: Running, podIP: 10.0.1.7, podIPs: [{ip: 10.0.1.7}], conditions: [{type: Ready, status: 'True'}]}\nkind: PodList\n",
        ),
        file(
            "k8s-services",
            "apiVersion: v1\nitems:\n- metadata: {name: web, namespace: shop, uid: u}\n  spec: {clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7], selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}\nkind: ServiceList\n",
        ),
        file(
            "ciliumingresses",
            "apiVersion: networking.k8s.io/v1\nitems: []\nkind: IngressList\n",
        ),
        file(
            "cilium-configmap",
            "apiVersion: v1\ndata: {enable-bpf-tproxy: 'true'}\nkind: ConfigMap\nmetadata: {name: cilium-config, namespace: kube-system}\n",
        ),
        file(
            "cilium-etcd-secrets-secret",
            "apiVersion: v1\ndata: {a: no base64!}\nkind: Secret\nmetadata: {name: s}\n",
        ),
        file("cilium-helm-values", "bpf: {tproxy: true}\n"),
        (
            format!("{at}/hubble-flows-cilium-x-{TIME}.json"),
            "{\"flow\":{}}\n{\"flow\":{}}\n".to_owned(),
        ),
        (
            format!("{at}/cilium-bugtool-cilium-x-{TIME}/cmd/bpf.json"),
            "[".to_owned(),
        ),
        (
            format!("{at}/k8s-pods-{TIME}.txt"),
            "NAMESPACE NAME".to_owned(),
        ),
    ];
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, content)| (name.as_str(), content.as_str()))
        .collect();
    folder(&files)
}

#[rstest]
#[case::the_folder("")]
#[case::its_own_folder("cilium-sysdump-20260301-101500")]
fn a_sysdump_gives_the_objects_that_it_holds(#[case] path: &str) {
    let folder = sysdump();
    let source = load(&folder, path).unwrap();
    assert_eq!(source.texts.len(), 5, "{:?}", source.texts);
    let objects = source.objects().unwrap();
    assert_eq!(objects.pods().count(), 1);
    assert_eq!(objects.services().count(), 1);
    assert!(objects.cilium_config.is_some());
}

#[test]
fn a_sysdump_without_endpoint_slices_answers_from_its_pods() {
    let folder = sysdump();
    let source = load(&folder, "").unwrap();
    let mut sim = crate::Sim::from_source(&source).unwrap().start().unwrap();
    let reply = crate::Cluster::request(&mut sim, "node/worker", Ask::get("http://web.shop/"));
    assert_eq!(reply.unwrap().pod, "web-1");
}

#[test]
fn a_truncated_file_of_a_sysdump_is_told_by_name_and_line() {
    let folder = folder(&[(
        "d/k8s-pods-20260301-101500.yaml",
        "apiVersion: v1\nitems:\n- metadata:\n    name: \"web",
    )]);
    let error = load(&folder, "d")
        .unwrap()
        .objects()
        .unwrap_err()
        .to_string();
    assert!(error.contains("k8s-pods-20260301-101500.yaml:"), "{error}");
}

/// A recording's folder, with as little in it as one can have.
fn recording(folder: &std::path::Path, node: &str, redirect: &str) {
    let manifests = folder.join("manifests");
    std::fs::create_dir_all(&manifests).unwrap();
    let header = format!(
        "version: 1\nnodeway: 0.1.0\nnode: {node}\nat: 2026-11-27T06:00:00Z\nredirect: {redirect}\nkubeProxy: iptables\n"
    );
    std::fs::write(folder.join("recording.yaml"), header).unwrap();
    let led = r#"{"table": "map 1", "frontends": [], "rules": "", "differences": []}"#;
    std::fs::write(folder.join("frontends.json"), led).unwrap();
}

#[rstest::rstest]
#[case::of_two_nodes("node-2", "tc", None)]
#[case::of_one_node("node-1", "tc", Some("it is of node node-1, and so is"))]
#[case::led_otherwise("node-2", "iptables", Some("it is led by iptables, and"))]
fn recordings_of_one_cluster_belong_together(
    #[case] node: &str,
    #[case] redirect: &str,
    #[case] refused: Option<&str>,
) {
    let place = tempfile::tempdir().unwrap();
    let folders = ["a", "b"].map(|name| place.path().join(name));
    recording(&folders[0], "node-1", "tc");
    recording(&folders[1], node, redirect);
    let loaded = Source::load(&folders, None);
    match (loaded, refused) {
        (Ok(source), None) => assert_eq!(source.recordings.len(), 2),
        (Err(errors), Some(told)) => {
            assert!(errors.to_string().contains(told), "{errors}");
        }
        (loaded, _) => panic!("{loaded:?}"),
    }
}
