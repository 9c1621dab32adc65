//! A fixture's request in a cluster, by curl, from where the fixture says.

use miette::{IntoDiagnostic as _, miette};
use nodeway_core::object::{Kind, ObjectRef};
use nodeway_core::trace::{ListenerStep, Step, Way};
use nodeway_sim::http::ResponseHead;
use nodeway_sim::{Expect, Redirect, Reply, RequestSpec, Target, Who, check};
use serde_json::Value;

use super::Outcome;
use super::cluster::Cluster;
use crate::kubectl::run;

/// What curl says of a connection that does not come about, in the fixtures' words.
const FAILURES: [(&str, &str); 3] = [
    ("7", "connection-refused"),
    ("28", "timed-out"),
    ("56", "connection-reset"),
];

/// Sends a request, and holds what came against what is expected.
pub(super) fn one(
    cluster: &Cluster,
    request: &RequestSpec,
    redirect: Redirect,
    outcome: &mut Outcome,
) -> miette::Result<()> {
    let ask = request.ask();
    let target = ask.target().map_err(|error| miette!("{error}"))?;
    let expected = request.expected(redirect);
    let came = send(cluster, request, &target)?;
    let (expect, unseen) = visible(expected);
    outcome.requests += 1;
    outcome.unseen += unseen;
    let told = |what: &str| {
        format!(
            "{} from {} to {}: {what}",
            request.name, request.from, request.to
        )
    };
    match came {
        Ok(reply) => {
            for checked in check(&expect, Ok(&reply)) {
                if checked.held {
                    outcome.held += 1;
                } else {
                    let what = format!(
                        "{} shall be {}, is {}",
                        checked.what, checked.want, checked.got
                    );
                    outcome.broken.push(told(&what));
                }
            }
        }
        Err(failure) if expect.failure.as_deref() == Some(&failure) => outcome.held += 1,
        Err(failure) => outcome.broken.push(told(&format!("no answer: {failure}"))),
    }
    Ok(())
}

/// What a client sees of what is expected, and how much it does not.
fn visible(mut expect: Expect) -> (Expect, usize) {
    let hidden = [
        expect.proxy_node.take(),
        expect.listener.take(),
        expect.route.take(),
        expect.cluster.take(),
        expect.client_saw.take(),
        expect.proxy_saw.take(),
        expect.backend_saw.take(),
        expect.certificate.take(),
        expect.terminated_by.take(),
        // Names of nodes are this cluster's own.
        expect.node.take(),
    ];
    let times = [expect.within.take(), expect.after.take()];
    let covers = usize::from(expect.covers.take().is_some());
    let unseen = hidden.iter().flatten().count() + times.iter().flatten().count() + covers;
    (expect, unseen)
}

/// The answer, or why there is none in the words of fixtures.
fn send(
    cluster: &Cluster,
    request: &RequestSpec,
    target: &Target,
) -> miette::Result<Result<Reply, String>> {
    let mut curl: Vec<String> = [
        "curl",
        "-s",
        "-i",
        "-k",
        "--http1.1",
        "--path-as-is",
        "--max-time",
        "8",
    ]
    .map(str::to_owned)
    .into();
    curl.extend(["-X".to_owned(), request.method.clone()]);
    for (name, value) in &request.headers {
        curl.extend(["-H".to_owned(), format!("{name}: {value}")]);
    }
    if !request.body.is_empty() {
        curl.extend(["--data-raw".to_owned(), request.body.clone()]);
    }
    // How it ended, behind the answer.
    curl.extend(["-w".to_owned(), "\nENDED %{exitcode}".to_owned()]);
    let host = &target.host;
    let service = host.replace('.', "/");
    let from_pod = !request.from.starts_with("node/") && !request.from.starts_with("outside");
    if !from_pod && target.address().is_none() {
        let (name, namespace) = service.split_once('/').unwrap_or((&service, "default"));
        let (address, node_port) = cluster.service(&format!("{namespace}/{name}"))?;
        // Who has no name server of the cluster knows addresses.
        let to = match node_port.filter(|_| request.from.starts_with("outside")) {
            Some(port) => format!("{}:{port}", cluster.node.1),
            None => format!("{address}:{}", target.port),
        };
        curl.extend([
            "--connect-to".to_owned(),
            format!("{host}:{}:{to}", target.port),
        ]);
    }
    curl.push(request.to.clone());
    let command: Vec<&str> = curl.iter().map(String::as_str).collect();
    let shell = ["sh", "-c", "\"$@\"; true", "sh"];
    let quiet: Vec<&str> = shell
        .iter()
        .copied()
        .chain(command.iter().copied())
        .collect();
    let text = match request.from.as_str() {
        from if from.starts_with("node/") => cluster.on_node(&quiet)?,
        from if from.starts_with("outside") => {
            run("sh", quiet.get(1..).unwrap_or_default(), "").into_diagnostic()?
        }
        from => cluster.in_pod(from, &quiet)?,
    };
    let (answer, code) = text
        .rsplit_once("\nENDED ")
        .ok_or_else(|| miette!("curl says nothing of how it ended: {text}"))?;
    let code = code.trim();
    if code != "0" {
        let known = FAILURES.iter().find(|(own, _)| *own == code);
        return Ok(Err(known.map_or_else(
            || format!("curl ended with {code}"),
            |(_, failure)| (*failure).to_owned(),
        )));
    }
    reply(answer).map(Ok)
}

/// What a client sees of an answer.
fn reply(answer: &str) -> miette::Result<Reply> {
    let parsed =
        ResponseHead::parse(answer.as_bytes()).map_err(|error| miette!("{error}: {answer}"))?;
    let (head, length) = parsed.ok_or_else(|| miette!("no whole answer: {answer}"))?;
    let bytes = answer.as_bytes().get(length..).unwrap_or_default().to_vec();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let text = |name: &str| {
        body.get(name)
            .and_then(Value::as_str)
            .filter(|it| !it.is_empty())
    };
    let object = |kind, path: &str| {
        let (namespace, name) = path.split_once('/').unwrap_or(("default", path));
        ObjectRef::new(kind, namespace, name)
    };
    // Envoy says who it is in each answer.
    let by_envoy = head.headers.get("server") == Some("envoy");
    Ok(Reply {
        status: head.status,
        service: Who(text("service").map(|it| object(Kind::Service, it))),
        pod: Who(text("pod").map(|it| object(Kind::Pod, it))),
        node: None,
        proxy_node: None,
        proxy_pod: None,
        listener: None,
        route: None,
        cluster: None,
        endpoint: None,
        client_saw: None,
        proxy_saw: None,
        proxy_destination: None,
        backend_saw: None,
        tls: None,
        headers: head.headers,
        body: body.clone(),
        bytes,
        took: std::time::Duration::ZERO,
        way: if by_envoy {
            through_envoy()
        } else {
            Way::default()
        },
    })
}

/// The way of a request of which is known that an Envoy had it.
fn through_envoy() -> Way {
    let nobody = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
    let step = ListenerStep {
        node: "".into(),
        pod: None,
        listener: "".into(),
        port: 0,
        peer: nobody,
        destination: nobody,
    };
    Way {
        steps: vec![(std::time::Duration::ZERO, Step::Listener(step))],
        ..Way::default()
    }
}
