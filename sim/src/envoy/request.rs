//! A request: from its head to the router's decision, and to an endpoint.

use std::sync::Arc;
use std::time::Duration;

use nodeway_core::plan::ResourceName;
use nodeway_core::proxy::{
    Action, Context, Forward, Request, ResolvedEdits, RouteSource, RouteTable,
};
use nodeway_core::trace::{ClusterStep, EndpointStep, RouteStep, Step};

use super::NodeProxy;
use super::answer::Answer;
use super::exchange::{Exchange, Progress};
use super::forwarded::{Client, sanitize};
use super::session::Session;
use crate::http::{BodyLength, Headers, HttpError, Pipe, RequestHead};
use crate::process::{Os, WayId};

/// A request as it goes to a cluster, and what its response is to have.
struct Outgoing {
    head: RequestHead,
    timeout: Option<Duration>,
    edits: ResolvedEdits,
}

impl NodeProxy {
    /// Begins the next request, when its head is whole.
    pub(super) fn begin(
        &mut self,
        pipe: &mut Pipe,
        session: &Session,
        os: &mut dyn Os,
    ) -> Progress {
        let parsed = RequestHead::parse(&pipe.input);
        if matches!(parsed, Ok(None)) {
            return Progress::Wait(None);
        }
        let way = os.way(pipe.socket);
        session.arrival.note(way, os);
        self.counters.requests += 1;
        let head = match parsed {
            Ok(Some((head, length))) => {
                pipe.input.drain(..length);
                head
            }
            Ok(None) => return Progress::Wait(None),
            Err(error) => {
                self.answer(pipe, ("", way), refusal(&error), false, os);
                return Progress::Done { keep: false };
            }
        };
        let length = match head.body() {
            Ok(length) => length,
            Err(error) => {
                self.answer(pipe, (&head.method, way), refusal(&error), false, os);
                return Progress::Done { keep: false };
            }
        };
        let has_body = !matches!(length, BodyLength::None | BodyLength::Length(0));
        let keep = head.keeps_alive();
        let method = head.method.clone();
        match self.decide(pipe, session, (head, length), way, os) {
            Ok(exchange) => Progress::Begun(Box::new(exchange)),
            Err(answer) => {
                // A body that nobody reads cannot be told from the next request.
                let keep = keep && !has_body && answer.status != 426;
                self.answer(pipe, (&method, way), *answer, keep, os);
                Progress::Done { keep }
            }
        }
    }

    fn decide(
        &mut self,
        pipe: &mut Pipe,
        session: &Session,
        (head, length): (RequestHead, BodyLength),
        way: Option<WayId>,
        os: &mut dyn Os,
    ) -> Result<Exchange, Box<Answer>> {
        if head.old {
            return Err(Box::new(Answer::silent(426, "HTTP/1.0 is not accepted")));
        }
        let keep = head.keeps_alive();
        let continues = head.headers.has_token("expect", "100-continue");
        let (request, context) = self.read_request(head, session, os)?;
        let (forward, edits) = self.route(&request, &context, session, way, os)?;
        let outgoing = outgoing(&request, forward.as_ref(), length, edits);
        let (endpoint, cluster) = self.endpoint(&forward, way, os)?;
        let key = (cluster, endpoint);
        let connected = self.connect((Arc::clone(&key.0), key.1), pipe.socket, way, true, os);
        let Ok(upstream) = connected else {
            return Err(Box::new(Answer::reset(503, "remote connection failure")));
        };
        if continues {
            pipe.output
                .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let mut exchange = Exchange::new(request.method, way, key, upstream, length, keep);
        exchange.edits = outgoing.edits;
        exchange.timeout = outgoing.timeout;
        exchange.began = os.now();
        let mut bytes = Vec::new();
        outgoing.head.write(&mut bytes);
        if let Some(upstream) = self.upstreams.get_mut(&upstream) {
            exchange.send(upstream, &bytes);
        }
        Ok(exchange)
    }

    /// The request as the router sees it.
    fn read_request(
        &mut self,
        head: RequestHead,
        session: &Session,
        os: &mut dyn Os,
    ) -> Result<(Request, Context), Box<Answer>> {
        let RequestHead {
            method,
            target,
            mut headers,
            ..
        } = head;
        let hosts: Vec<&str> = headers.all("host").collect();
        let host = hosts.join(",");
        let is_there = !hosts.is_empty();
        let (authority, path) = match absolute(&target) {
            Some((authority, path)) => (authority, path),
            None if method == "CONNECT" => (target, String::new()),
            None if !is_there || host.is_empty() => {
                return Err(Box::new(Answer::silent(400, "the request has no host")));
            }
            None if target.starts_with('/') || target == "*" => (host, target),
            None => return Err(Box::new(Answer::saying(400, "Bad Request"))),
        };
        headers.remove("host");
        headers.remove("expect");
        let peer = session.arrival.listener.peer;
        let client = Client {
            peer: peer.ip(),
            own: self.own,
            tls: session.tls,
        };
        let address = sanitize(&mut headers, &session.manager, &client, || {
            (os.random(), os.random())
        });
        let scheme = match headers.get("x-forwarded-proto") {
            Some(proto) if proto.eq_ignore_ascii_case("https") => "https",
            Some(proto) if proto.eq_ignore_ascii_case("http") => "http",
            _ if session.tls => "https",
            _ => "http",
        };
        let request = Request {
            method,
            scheme: scheme.to_owned(),
            authority,
            path,
            headers: headers.0,
            random: os.random(),
        };
        let port = if address == peer.ip() { peer.port() } else { 0 };
        let context = Context {
            remote: Some((address, port).into()),
            ..Context::default()
        };
        Ok((request, context))
    }

    /// Asks the router.
    fn route(
        &mut self,
        request: &Request,
        context: &Context,
        session: &Session,
        way: Option<WayId>,
        os: &mut dyn Os,
    ) -> Result<(Box<Forward>, ResolvedEdits), Box<Answer>> {
        let (name, table): (ResourceName, Option<Arc<RouteTable>>) = match &session.manager.routes {
            RouteSource::Rds(name) => {
                let planned = self.resources.routes.get(name.as_str());
                (
                    name.as_str().into(),
                    planned.map(|it| Arc::clone(&it.model)),
                )
            }
            RouteSource::Inline(table) => (table.name.as_str().into(), Some(Arc::clone(table))),
            RouteSource::Other(kind) => {
                return Err(Box::new(not_simulated(&[format!("routes from {kind}")])));
            }
        };
        let choice = table.map(|table| table.route_in(request, context));
        if let Some(way) = way {
            let step = RouteStep {
                table: name,
                request: request.clone(),
                choice: choice.clone(),
            };
            os.note(way, Step::Route(Box::new(step)));
        }
        let Some(choice) = choice else {
            let why = "the node has no such route configuration";
            return Err(Box::new(Answer::silent(404, why)));
        };
        let answer = match choice.action {
            Action::Forward(_) if request.method == "CONNECT" => {
                Answer::silent(403, "CONNECT is not enabled")
            }
            Action::Forward(forward) => return Ok((forward, choice.response)),
            Action::Redirect { status, location } => Answer {
                location: Some(location),
                edits: choice.response,
                ..Answer::silent(status, "the route redirects")
            },
            Action::Direct { status, body } => Answer {
                body: body.to_vec(),
                edits: choice.response,
                ..Answer::silent(status, "the route answers directly")
            },
            Action::NotFound { why, .. } => Answer::silent(404, &why.to_string()),
            Action::NotSimulated { fields } => not_simulated(&fields),
        };
        Err(Box::new(answer))
    }

    /// The endpoint that a request goes to, and its cluster.
    fn endpoint(
        &mut self,
        forward: &Forward,
        way: Option<WayId>,
        os: &mut dyn Os,
    ) -> Result<(std::net::SocketAddr, ResourceName), Box<Answer>> {
        let name: ResourceName = forward.cluster.as_str().into();
        self.endpoint_of(&name, way, os).map_err(|missing| {
            Box::new(match missing {
                Missing::Cluster => {
                    Answer::silent(forward.cluster_not_found, "the node has no such cluster")
                }
                Missing::Endpoint => Answer::saying(503, "no healthy upstream"),
                Missing::Model(field) => not_simulated(&[field]),
            })
        })
    }

    /// The endpoint of a cluster whose turn it is, noted on the way.
    pub(super) fn endpoint_of(
        &mut self,
        name: &ResourceName,
        way: Option<WayId>,
        os: &mut dyn Os,
    ) -> Result<(std::net::SocketAddr, ResourceName), Missing> {
        let cluster = self.resources.clusters.get(name).cloned();
        if let Some(way) = way {
            let step = ClusterStep {
                cluster: Arc::clone(name),
                endpoints: cluster
                    .as_ref()
                    .map(|it| it.model.endpoints.as_str().into()),
            };
            os.note(way, Step::Cluster(step));
        }
        let cluster = cluster.ok_or(Missing::Cluster)?;
        let candidates = self
            .resources
            .candidates(&cluster)
            .map_err(Missing::Model)?;
        let chosen = self.balance(name, &cluster, &candidates.endpoints, os);
        let address = chosen.as_ref().map(|it| it.address);
        if let Some(way) = way {
            let step = EndpointStep {
                endpoints: candidates.name,
                service: candidates.service,
                chosen,
                candidates: candidates.endpoints,
                left_out: candidates.left_out,
            };
            os.note(way, Step::Endpoint(step));
        }
        let address = address.ok_or(Missing::Endpoint)?;
        Ok((address, Arc::clone(name)))
    }
}

/// Why there is no endpoint.
pub(super) enum Missing {
    /// The node has no such cluster.
    Cluster,
    /// The cluster has no healthy endpoint.
    Endpoint,
    /// What the endpoints hang on is not modelled.
    Model(String),
}

fn not_simulated(fields: &[String]) -> Answer {
    Answer::saying(500, &format!("not simulated: {}", fields.join(", ")))
}

/// What Envoy answers to bytes that are no request.
pub(super) fn refusal(error: &HttpError) -> Answer {
    let (status, body) = match error {
        HttpError::HeadTooLong => (431, "Request Header Fields Too Large"),
        HttpError::TransferEncoding(coding) if !coding.eq_ignore_ascii_case("chunked") => {
            (501, "Not Implemented")
        }
        _ => (400, "Bad Request"),
    };
    Answer {
        why: error.to_string(),
        ..Answer::saying(status, body)
    }
}

/// Host and path of a target that is a whole URL.
fn absolute(target: &str) -> Option<(String, String)> {
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let slash = if path.starts_with('/') { "" } else { "/" };
    Some((authority.to_owned(), format!("{slash}{path}")))
}

/// The request as it goes to the cluster.
fn outgoing(
    request: &Request,
    forward: &Forward,
    length: BodyLength,
    edits: ResolvedEdits,
) -> Outgoing {
    let mut headers = Headers(vec![("host".to_owned(), forward.authority.clone())]);
    headers.0.extend(forward.headers.iter().cloned());
    let asked = headers.get("x-envoy-upstream-rq-timeout-ms");
    let asked = asked.and_then(|it| it.parse().ok().map(Duration::from_millis));
    let timeout = asked.or(forward.timeout).filter(|it| !it.is_zero());
    headers.remove("x-envoy-upstream-rq-timeout-ms");
    if let Some(timeout) = timeout {
        let millis = timeout.as_millis().to_string();
        headers.set("x-envoy-expected-rq-timeout-ms", millis);
    }
    match length {
        BodyLength::Chunked => headers.set("transfer-encoding", "chunked"),
        BodyLength::None if matches!(request.method.as_str(), "POST" | "PUT" | "PATCH") => {
            headers.set("content-length", "0");
        }
        _ => {}
    }
    let mut head = RequestHead::new(request.method.as_str(), forward.path.as_str());
    head.headers = headers;
    Outgoing {
        head,
        timeout,
        edits,
    }
}
