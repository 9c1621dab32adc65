//! Expectations of a request, each held against what came of it.

use std::fmt::Display;

use nodeway_core::trace::Step;
use serde::Serialize;
use serde_json::Value;

use crate::cluster::{Cause, Failed};
use crate::fixture::{Expect, Moment};
use crate::reply::{Reply, Seen, Who};

/// One expectation, and whether it held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// The field of [`Expect`] (`status`, `headers.location`).
    pub what: String,
    /// What was expected.
    pub want: String,
    /// What came; `none` when nothing of the kind did.
    pub got: String,
    /// Whether it held.
    pub held: bool,
}

/// Holds everything that is expected against what came, in the order of [`Expect`]'s fields.
///
/// `redirected` is a look-up that found a frontend: a request that is led to a proxy which is not
/// there was redirected all the same.
#[must_use]
pub fn check(expect: &Expect, outcome: Result<&Reply, &Failed>) -> Vec<Checked> {
    let mut sheet = Sheet::default();
    let reply = outcome.ok();
    let failed = outcome.err();
    let way = reply.map(|it| &it.way).or(failed.map(|it| &it.way));
    let redirected = way.is_some_and(|way| {
        way.steps.iter().any(|(_, step)| match step {
            Step::Frontend(step) => step.leads(),
            Step::Listener(_) => true,
            _ => false,
        })
    });
    let version = reply.and_then(|it| it.body.get("version").and_then(Value::as_str));
    let listener = reply.and_then(|it| it.listener.as_deref());
    let cluster = reply.and_then(|it| it.cluster.as_deref());
    let proxy_node = reply
        .and_then(|it| it.proxy_node.as_deref())
        .or(failed.and_then(|it| it.proxy_node.as_deref()));
    let client_saw = reply
        .and_then(|it| it.client_saw.as_ref())
        .or(failed.and_then(|it| it.client_saw.as_ref()));
    let failure = match failed.map(|it| &it.failure) {
        Some(Cause::Network(failure)) => failure.name().to_owned(),
        Some(Cause::Ask(error)) => error.to_string(),
        None => "none".to_owned(),
    };

    sheet.equal("status", expect.status, reply.map(|it| it.status));
    sheet.who(
        "service",
        &expect.service,
        reply.map(|it| &it.service),
        Who::is,
    );
    sheet.who("pod", &expect.pod, reply.map(|it| &it.pod), is_pod);
    sheet.text("version", &expect.version, version, str::eq);
    sheet.text(
        "node",
        &expect.node,
        reply.and_then(|it| it.node.as_deref()),
        str::eq,
    );
    sheet.text("proxy_node", &expect.proxy_node, proxy_node, str::eq);
    sheet.equal("redirected", expect.redirected, Some(redirected));
    sheet.text("listener", &expect.listener, listener, ends_with_name);
    let route = reply.and_then(|it| it.route.as_deref());
    sheet.text("route", &expect.route, route, is_route);
    sheet.text("cluster", &expect.cluster, cluster, ends_with_name);
    sheet.text("failure", &expect.failure, Some(&failure), str::eq);
    sheet.seen("client_saw", &expect.client_saw, client_saw);
    sheet.seen(
        "proxy_saw",
        &expect.proxy_saw,
        reply.and_then(|it| it.proxy_saw.as_ref()),
    );
    sheet.seen(
        "backend_saw",
        &expect.backend_saw,
        reply.and_then(|it| it.backend_saw.as_ref()),
    );
    let tls = reply.and_then(|it| it.tls.as_ref());
    let certificate = tls.and_then(|it| it.certificate.as_deref());
    sheet.text("certificate", &expect.certificate, certificate, is_secret);
    let by = tls.map(|it| it.terminated_by.as_str());
    sheet.text("terminated_by", &expect.terminated_by, by, is_terminator);
    sheet.equal("covers", expect.covers, tls.map(|it| it.covers));
    let took = reply
        .map(|it| it.took)
        .or(failed.map(|it| it.took))
        .map(Moment);
    sheet.time("within", expect.within, took, |took, want| took <= want);
    sheet.time("after", expect.after, took, |took, want| took >= want);
    for (name, want) in &expect.headers {
        let lower = name.to_ascii_lowercase();
        let got = reply.and_then(|it| it.headers.get(&lower));
        let want = Some(want.clone());
        sheet.text(&format!("headers.{name}"), &want, got, str::eq);
    }
    sheet.0
}

/// A Secret in full, or by its bare name.
fn is_secret(got: &str, want: &str) -> bool {
    got == want || got.rsplit('/').next() == Some(want)
}

/// `Node node-1`, `Pod default/shop-1` or the pod's Deployment.
fn is_terminator(got: &str, want: &str) -> bool {
    got == want || got.starts_with(&format!("{want}-"))
}

#[derive(Default)]
struct Sheet(Vec<Checked>);

impl Sheet {
    fn add(&mut self, what: &str, want: impl Display, got: Option<impl Display>, held: bool) {
        self.0.push(Checked {
            what: what.to_owned(),
            want: want.to_string(),
            got: got.map_or_else(|| "none".to_owned(), |got| got.to_string()),
            held,
        });
    }

    fn equal<T: Display + PartialEq>(&mut self, what: &str, want: Option<T>, got: Option<T>) {
        if let Some(want) = want {
            let held = got.as_ref() == Some(&want);
            self.add(what, want, got, held);
        }
    }

    fn time(
        &mut self,
        what: &str,
        want: Option<Moment>,
        got: Option<Moment>,
        holds: impl Fn(Moment, Moment) -> bool,
    ) {
        if let Some(want) = want {
            let held = got.is_some_and(|got| holds(got, want));
            self.add(what, want, got, held);
        }
    }

    fn text(
        &mut self,
        what: &str,
        want: &Option<String>,
        got: Option<&str>,
        same: impl Fn(&str, &str) -> bool,
    ) {
        if let Some(want) = want {
            let held = got.is_some_and(|got| same(got, want));
            self.add(what, want, got, held);
        }
    }

    fn who(
        &mut self,
        what: &str,
        want: &Option<String>,
        got: Option<&Who>,
        same: impl Fn(&Who, &str) -> bool,
    ) {
        if let Some(want) = want {
            let held = got.is_some_and(|got| same(got, want));
            self.add(what, want, got, held);
        }
    }

    fn seen(&mut self, what: &str, want: &Option<String>, got: Option<&Seen>) {
        if let Some(want) = want {
            let held = got.is_some_and(|got| got.is(want));
            self.add(what, want, got, held);
        }
    }
}

/// A pod by its own name or its Deployment's: `<deployment>-<n>`, or `<deployment>-<hash>-<hash>`.
fn is_pod(pod: &Who, want: &str) -> bool {
    let Some(object) = &pod.0 else { return false };
    let of_deployment = |name: &str| {
        name.strip_prefix(want)
            .and_then(|rest| rest.strip_prefix('-'))
            .is_some_and(is_pod_suffix)
    };
    pod.is(want) || of_deployment(&object.name) || of_deployment(&object.path())
}

/// `1`, or `5d8c7b9f6-x2x4z`: hashes are made of consonants and digits, so they hold no word.
fn is_pod_suffix(suffix: &str) -> bool {
    let is_hash = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_digit() || b"bcdfghjklmnpqrstvwxz".contains(&byte))
    };
    match suffix.split_once('-') {
        None => suffix.bytes().all(|byte| byte.is_ascii_digit()) && !suffix.is_empty(),
        Some((set, pod)) => set.len() >= 5 && pod.len() == 5 && is_hash(set) && is_hash(pod),
    }
}

/// A qualified name in full, or its last part.
fn ends_with_name(got: &str, want: &str) -> bool {
    got == want
        || got
            .strip_suffix(want)
            .is_some_and(|before| before.ends_with('/'))
}

/// `path_separated_prefix /details`, or `/details`.
fn is_route(got: &str, want: &str) -> bool {
    got == want || got.split_once(' ').is_some_and(|(_, what)| what == want)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nodeway_core::object::{Kind, ObjectRef};
    use nodeway_core::trace::Way;
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::http::Headers;

    fn reply() -> Reply {
        let seen = |address: &str, name: &str| {
            Some(Seen {
                address: address.parse().unwrap(),
                name: Some(name.to_owned()),
            })
        };
        Reply {
            status: 200,
            service: Who(Some(ObjectRef::new(Kind::Service, "default", "details"))),
            pod: Who(Some(ObjectRef::new(Kind::Pod, "default", "details-v1-1"))),
            node: Some("node-2".to_owned()),
            proxy_node: Some("node-1".to_owned()),
            proxy_pod: None,
            listener: Some("default/cec/listener".into()),
            route: Some("path_separated_prefix /details".to_owned()),
            cluster: Some("default/cec/default:details:9080".into()),
            endpoint: None,
            client_saw: seen("10.96.0.9:80", "Service default/x:80"),
            proxy_saw: seen("10.244.0.9:40000", "Pod default/client"),
            proxy_destination: None,
            backend_saw: seen("[fd00::1]:40000", "Node node-1"),
            tls: None,
            headers: Headers(vec![("server".to_owned(), "envoy".to_owned())]),
            body: json!({"version": "v1"}),
            bytes: Vec::new(),
            took: Duration::ZERO,
            way: Way::default(),
        }
    }

    #[rstest]
    #[case::status("status: 200", true)]
    #[case::another_status("status: 404", false)]
    #[case::service("service: details", true)]
    #[case::service_in_full("service: default/details", true)]
    #[case::another_service("service: detail", false)]
    #[case::pod("pod: details-v1-1", true)]
    #[case::its_deployment("pod: default/details-v1", true)]
    #[case::a_longer_deployment("pod: details", false)]
    #[case::version("version: v1", true)]
    #[case::listener("listener: listener", true)]
    #[case::another_listener("listener: tener", false)]
    #[case::cluster("cluster: default:details:9080", true)]
    #[case::route("route: /details", true)]
    #[case::route_in_full("route: path_separated_prefix /details", true)]
    #[case::another_route("route: details", false)]
    #[case::client_saw("client_saw: Service default/x:80", true)]
    #[case::client_saw_without_port("client_saw: default/x", true)]
    #[case::proxy_saw("proxy_saw: default/client", true)]
    #[case::proxy_saw_somebody_else("proxy_saw: default/other", false)]
    #[case::backend_saw("backend_saw: Node node-1", true)]
    #[case::not_redirected("redirected: false", true)]
    #[case::a_failure_that_is_none("failure: timed-out", false)]
    #[case::a_header("headers: {Server: envoy}", true)]
    #[case::another_header("headers: {location: /}", false)]
    fn an_expectation_holds_or_not(#[case] expect: &str, #[case] held: bool) {
        let expect: Expect = serde_saphyr::from_str(expect).unwrap();
        let checked = check(&expect, Ok(&reply()));
        assert_eq!(checked.len(), 1);
        assert_eq!(checked[0].held, held, "{checked:?}");
    }

    #[rstest]
    #[case("details-v1-5d8c7b9f6-x2x4z", "details-v1", true)]
    #[case("details-v1-5d8c7b9f6-x2x4z", "details", false)]
    #[case("details-10", "details", true)]
    #[case("details-canary", "details", false)]
    #[case("details-", "details", false)]
    fn a_pod_goes_by_its_deployments_name(#[case] pod: &str, #[case] want: &str, #[case] is: bool) {
        let pod = Who(Some(ObjectRef::new(Kind::Pod, "default", pod)));
        assert_eq!(is_pod(&pod, want), is);
    }

    #[test]
    fn what_did_not_come_is_none_and_does_not_hold() {
        let mut reply = reply();
        reply.service = Who(None);
        reply.proxy_saw = None;
        let expect: Expect = serde_saphyr::from_str("{service: details, proxy_saw: x}").unwrap();
        let got: Vec<_> = check(&expect, Ok(&reply))
            .into_iter()
            .map(|it| (it.got, it.held))
            .collect();
        assert_eq!(
            got,
            [("nobody".to_owned(), false), ("none".to_owned(), false)]
        );
    }
}
