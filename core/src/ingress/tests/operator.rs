//! Change by change: what follows, and that the order of changes does not matter.

use std::sync::Arc;

use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;

use super::*;
use crate::ingress::Operator;
use crate::object::{Change, Kind, ObjectRef};
use crate::problem::Code;

fn put(ingress: &Ingress) -> Change {
    Change::Put(Object::Ingress(Arc::new(ingress.clone())))
}

fn simple(name: &str, annotations: &[(&str, &str)]) -> Ingress {
    ingress(
        name,
        annotations,
        &json!({"rules": [rule("a.example", &["Prefix / web"])]}),
    )
}

fn shared(name: &str) -> Ingress {
    simple(name, &[("ingress.cilium.io/loadbalancer-mode", "shared")])
}

fn names(changes: &[Change]) -> Vec<String> {
    let name = |change: &Change| match change {
        Change::Put(object) => format!("put {}", object.reference()),
        Change::Delete(reference) => format!("delete {reference}"),
    };
    changes.iter().map(name).collect()
}

const CONFIG: &str = "CiliumEnvoyConfig default/cilium-ingress-default-shop";
const SERVICE: &str = "Service default/cilium-ingress-shop";
const SHARED: &str = "CiliumEnvoyConfig kube-system/cilium-ingress";

#[test]
fn a_dedicated_ingress_brings_its_own_and_takes_it_with_it() {
    let mut operator = Operator::new(Options::default());
    let shop = simple("shop", &[]);
    assert_eq!(
        names(&operator.apply(&put(&shop))),
        [format!("put {SERVICE}"), format!("put {CONFIG}")]
    );
    assert_eq!(
        names(&operator.apply(&put(&shop))),
        [""; 0],
        "nothing changed"
    );
    let changed = ingress(
        "shop",
        &[],
        &json!({"rules": [rule("b.example", &["Prefix / web"])]}),
    );
    assert_eq!(
        names(&operator.apply(&put(&changed))),
        [format!("put {CONFIG}")],
        "the Service is as it was"
    );
    let gone = Change::Delete(ObjectRef::new(Kind::Ingress, "default", "shop"));
    assert_eq!(
        names(&operator.apply(&gone)),
        [format!("delete {SERVICE}"), format!("delete {CONFIG}")]
    );
    assert_eq!(names(&operator.apply(&gone)), [""; 0]);
}

#[test]
fn shared_ingresses_have_one_config_until_the_last_one_goes() {
    let mut operator = Operator::new(Options::default());
    for name in ["one", "two"] {
        assert_eq!(
            names(&operator.apply(&put(&shared(name)))),
            [format!("put {SHARED}")]
        );
    }
    let delete = |name| Change::Delete(ObjectRef::new(Kind::Ingress, "default", name));
    assert_eq!(
        names(&operator.apply(&delete("one"))),
        [format!("put {SHARED}")]
    );
    assert_eq!(
        names(&operator.apply(&delete("two"))),
        [format!("delete {SHARED}")]
    );
}

#[test]
fn a_change_of_mode_cleans_up_behind_it() {
    let mut operator = Operator::new(Options::default());
    operator.apply(&put(&simple("shop", &[])));
    let to_shared = operator.apply(&put(&shared("shop")));
    assert_eq!(
        names(&to_shared),
        [
            format!("delete {SERVICE}"),
            format!("delete {CONFIG}"),
            format!("put {SHARED}")
        ]
    );
    let back = operator.apply(&put(&simple("shop", &[])));
    assert_eq!(
        names(&back),
        [
            format!("put {SERVICE}"),
            format!("put {CONFIG}"),
            format!("delete {SHARED}")
        ]
    );
}

#[test]
fn what_somebody_deletes_or_changes_is_put_back() {
    let mut operator = Operator::new(Options::default());
    operator.apply(&put(&simple("shop", &[])));
    let service = ObjectRef::new(Kind::Service, "default", "cilium-ingress-shop");
    assert_eq!(
        names(&operator.apply(&Change::Delete(service))),
        [format!("put {SERVICE}")]
    );
    let changed = manifest(
        "metadata: {name: cilium-ingress-shop, namespace: default}\nspec: {type: NodePort}",
    );
    let back = operator.apply(&Change::Put(Object::Service(Arc::new(changed))));
    assert_eq!(names(&back), [format!("put {SERVICE}")]);
    assert_eq!(
        names(&operator.apply(&back[0])),
        [""; 0],
        "its own echo moves nothing"
    );
}

#[test]
fn an_ingress_that_is_being_deleted_keeps_what_it_has() {
    let mut operator = Operator::new(Options::default());
    let mut shop = simple("shop", &[]);
    operator.apply(&put(&shop));
    shop.metadata.deletion_timestamp =
        serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    assert_eq!(names(&operator.apply(&put(&shop))), [""; 0]);
    assert_eq!(operator.objects().count(), 2);
    let mut newcomer = Operator::new(Options::default());
    assert_eq!(names(&newcomer.apply(&put(&shop))), [""; 0]);
}

#[test]
fn the_default_class_takes_those_without_a_class_and_lets_them_go() {
    let mut operator = Operator::new(Options::default());
    let mut shop = simple("shop", &[]);
    shop.spec.as_mut().unwrap().ingress_class_name = None;
    assert_eq!(names(&operator.apply(&put(&shop))), [""; 0]);
    assert_eq!(operator.problems()[0].code, Code::ForeignIngressClass);
    let class = |default: &str| {
        let key = "ingressclass.kubernetes.io/is-default-class";
        let class = json!({"metadata": {"name": "cilium", "annotations": {key: default}}});
        Change::Put(Object::IngressClass(Arc::new(
            serde_json::from_value(class).unwrap(),
        )))
    };
    assert_eq!(
        names(&operator.apply(&class("true"))),
        [format!("put {SERVICE}"), format!("put {CONFIG}")]
    );
    assert_eq!(operator.problems(), []);
    assert_eq!(
        names(&operator.apply(&class("maybe"))),
        [format!("delete {SERVICE}"), format!("delete {CONFIG}")]
    );
    let codes: Vec<_> = operator
        .problems()
        .iter()
        .map(|problem| problem.code)
        .collect();
    assert_eq!(codes, [Code::ForeignIngressClass, Code::BadAnnotation]);
}

#[test]
fn a_missing_certificate_is_a_problem_until_it_is_there() {
    let spec = json!({"rules": [rule("a.example", &["Prefix / a"])], "tls": [{"hosts": ["a.example"], "secretName": "cert"}]});
    let mut operator = Operator::new(Options::default());
    operator.apply(&put(&ingress("shop", &[], &spec)));
    let problems = operator.problems();
    assert_eq!(
        (problems[0].code, problems[0].field.as_str()),
        (Code::MissingSecret, "spec.tls[0].secretName")
    );
    let secret = Arc::new(manifest("metadata: {name: cert, namespace: default}"));
    assert_eq!(
        names(&operator.apply(&Change::Put(Object::Secret(secret)))),
        [""; 0]
    );
    assert_eq!(operator.problems(), []);
}

#[rstest]
#[case::shared("shared", 1)]
#[case::dedicated("dedicated", 0)]
fn two_ingresses_collide_only_when_they_share_an_address(#[case] mode: &str, #[case] want: usize) {
    let annotations = [("ingress.cilium.io/loadbalancer-mode", mode)];
    let translation = translated(
        &[simple("one", &annotations), simple("two", &annotations)],
        &Options::default(),
    );
    let claimed: Vec<_> = translation
        .problems
        .iter()
        .filter(|p| p.code == Code::RouteClaimedTwice)
        .collect();
    assert_eq!(claimed.len(), want);
    if let [problem] = claimed.as_slice() {
        assert_eq!(
            (problem.object.name.as_str(), problem.field.as_str()),
            ("two", "spec.rules[0].http.paths[0].path")
        );
        assert!(
            problem.reason.contains("Ingress default/one"),
            "{}",
            problem.reason
        );
    }
}

#[test]
fn an_address_is_that_of_the_service() {
    let mut operator = Operator::new(Options::default());
    operator.apply(&put(&simple("shop", &[])));
    let reference = ObjectRef::new(Kind::Ingress, "default", "shop");
    assert_eq!(operator.addresses(&reference), [""; 0]);
    let mut service = operator.service(&reference).unwrap().as_ref().clone();
    service.status =
        serde_json::from_value(json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}))
            .unwrap();
    assert_eq!(
        names(&operator.apply(&Change::Put(Object::Service(Arc::new(service))))),
        [""; 0]
    );
    assert_eq!(operator.addresses(&reference), ["192.0.2.1"]);
}

/// A few objects that have to do with each other.
fn change() -> impl Strategy<Value = Change> {
    let class = |default: bool| {
        let key = "ingressclass.kubernetes.io/is-default-class";
        let class =
            json!({"metadata": {"name": "cilium", "annotations": {key: default.to_string()}}});
        Change::Put(Object::IngressClass(Arc::new(
            serde_json::from_value(class).unwrap(),
        )))
    };
    let written = (
        0..3_usize,
        any::<bool>(),
        any::<bool>(),
        0..3_usize,
        "/[a-c]",
    )
        .prop_map(|(name, is_shared, has_class, host, path)| {
            let mode = if is_shared { "shared" } else { "dedicated" };
            let host = ["", "a.example", "*.example"][host];
            let spec = json!({"rules": [rule(host, &[&format!("Prefix {path} web")])]});
            let name = ["one", "two", "three"][name];
            let mut ingress = ingress(
                name,
                &[("ingress.cilium.io/loadbalancer-mode", mode)],
                &spec,
            );
            if !has_class {
                ingress.spec.as_mut().unwrap().ingress_class_name = None;
            }
            put(&ingress)
        });
    prop_oneof![
        6 => written,
        1 => any::<bool>().prop_map(class),
        1 => Just(Change::Delete(ObjectRef::cluster(Kind::IngressClass, "cilium"))),
        2 => (0..3_usize).prop_map(|name| {
            Change::Delete(ObjectRef::new(Kind::Ingress, "default", ["one", "two", "three"][name]))
        }),
    ]
}

/// What a cluster has when all changes are through.
fn after(changes: &[Change]) -> Objects {
    let mut objects = Objects::default();
    follow(&mut objects, changes);
    objects
}

fn follow(objects: &mut Objects, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put(object) => {
                objects.insert(
                    object.clone(),
                    Provenance::Written {
                        file: "-".into(),
                        line: 1,
                    },
                );
            }
            Change::Delete(reference) => {
                objects.remove(reference);
            }
        }
    }
}

proptest! {
    #[test]
    fn any_way_to_a_cluster_gives_what_the_whole_gives(changes in prop::collection::vec(change(), 1..24)) {
        let mut operator = Operator::new(Options::default());
        let mut made = Objects::default();
        for change in &changes {
            follow(&mut made, &operator.apply(change));
        }
        let whole = translate(&after(&changes), &Options::default());
        let kept: Vec<&Object> = operator.objects().collect();
        let followed: Vec<&Object> = made.iter().map(|(_, entry)| &entry.object).collect();
        prop_assert_eq!(&kept, &followed, "the changes that were given lead to what is kept");
        prop_assert_eq!(kept.len(), whole.configs.len() + whole.services.len());
        for object in kept {
            match object {
                Object::CiliumEnvoyConfig(config) => prop_assert!(whole.configs.contains(config)),
                Object::Service(service) => prop_assert!(whole.services.contains(service)),
                other => prop_assert!(false, "an operator makes no {}", other.kind()),
            }
        }
        prop_assert_eq!(operator.problems(), whole.problems);
    }

    #[test]
    fn the_order_of_different_objects_does_not_matter(
        changes in prop::collection::vec(change(), 1..8).prop_shuffle(),
    ) {
        let objects = after(&changes);
        let mut forwards: Vec<Change> = objects.iter().map(|(_, entry)| Change::Put(entry.object.clone())).collect();
        let mut one = Operator::new(Options::default());
        one.apply_all(&forwards);
        forwards.reverse();
        let mut other = Operator::new(Options::default());
        for change in &forwards {
            other.apply(change);
        }
        prop_assert_eq!(one.objects().collect::<Vec<_>>(), other.objects().collect::<Vec<_>>());
        prop_assert_eq!(one.problems(), other.problems());
    }
}
