//! A cluster changes while it runs: each node's plan, hook and proxy follow, and no more than that.

use nodeway_core::object::{Change, Kind, Object, ObjectRef};
use nodeway_sim::{Cluster, Redirect, Sim};
use rstest::rstest;

const DETAILS: &str = "http://cilium-ingress-basic-ingress/details/0";

fn bookinfo(redirect: Redirect) -> Sim {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/bookinfo");
    Sim::load(fixture)
        .unwrap()
        .redirect(redirect)
        .start()
        .unwrap()
}

/// The slices behind a Service.
fn slices(cluster: &Sim, service: &str) -> Vec<Object> {
    let of = |object: &Object| match object {
        Object::EndpointSlice(slice) => nodeway_core::service::of_slice(slice),
        _ => None,
    };
    let wanted = ObjectRef::new(Kind::Service, "default", service);
    let entries = cluster
        .objects()
        .iter()
        .map(|(_, entry)| entry.object.clone());
    entries
        .filter(|object| of(object).as_ref() == Some(&wanted))
        .collect()
}

#[rstest]
fn a_service_that_loses_its_endpoints_answers_503_until_they_are_back(
    #[values(
        Redirect::Tc,
        Redirect::SkLookup,
        Redirect::Iptables,
        Redirect::Sidecar
    )]
    redirect: Redirect,
) {
    let mut cluster = bookinfo(redirect);
    let slices = slices(&cluster, "details");
    assert_eq!(cluster.get("default/client", DETAILS).unwrap().status, 200);

    for slice in &slices {
        cluster.change(&Change::Delete(slice.reference()));
    }
    let reply = cluster.get("default/client", DETAILS).unwrap();
    assert_eq!(
        (reply.status, reply.bytes.as_slice()),
        (503, b"no healthy upstream".as_slice())
    );
    assert!(
        cluster
            .problems()
            .iter()
            .any(|problem| problem.code.to_string() == "NW0006")
    );
    let page = cluster
        .get("default/client", "http://cilium-ingress-basic-ingress/")
        .unwrap();
    assert_eq!(page.status, 200, "productpage has lost nothing");

    for slice in slices {
        cluster.change(&Change::Put(slice));
    }
    assert_eq!(
        cluster.get("default/client", DETAILS).unwrap().service,
        "details"
    );
}

#[rstest]
fn a_config_that_goes_takes_the_redirect_with_it(
    #[values(
        Redirect::Tc,
        Redirect::SkLookup,
        Redirect::Iptables,
        Redirect::Sidecar
    )]
    redirect: Redirect,
) {
    let mut cluster = bookinfo(redirect);
    assert!(cluster.get("default/client", DETAILS).unwrap().redirected());
    let config = "cilium-ingress-default-basic-ingress";
    let config = ObjectRef::new(Kind::CiliumEnvoyConfig, "default", config);
    cluster.change(&Change::Delete(config));
    // The Ingress's Service has no endpoints of its own: nobody is left to answer.
    let failed = cluster.get("default/client", DETAILS).unwrap_err();
    let ends = match redirect {
        // Its own proxy has taken the connection before it learns that.
        Redirect::Sidecar => nodeway_sim::Failure::ConnectionReset,
        _ => nodeway_sim::Failure::ConnectionRefused,
    };
    assert_eq!(failed.failure, ends);
    assert!(cluster.plan("node-1").unwrap().frontends.is_empty());
}

#[test]
fn a_service_that_is_deleted_has_no_name_any_more() {
    let mut cluster = bookinfo(Redirect::Tc);
    let service = ObjectRef::new(Kind::Service, "default", "productpage");
    cluster.change(&Change::Delete(service));
    let failed = cluster
        .get("default/client", "http://productpage:9080/")
        .unwrap_err();
    assert_eq!(failed.failure, nodeway_sim::Failure::UnknownName);
}
