use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nodeway_core::envoy::decode;
use nodeway_core::object::{Kind, ObjectRef};
use nodeway_core::plan::{
    PlanDelta, PlannedCluster, PlannedEndpoint, PlannedEndpoints, PlannedListener, PlannedRoutes,
    Update,
};
use nodeway_core::proxy::{Cluster, Listener, RouteTable};
use nodeway_core::trace::{ReplyStep, Step};
use rstest::rstest;
use serde_json::json;

use super::*;
use crate::process::fake::FakeOs;
use crate::process::{SocketError, WayId};
use crate::time::Time;

const WAY: WayId = WayId(7);

fn hello(name: &str) -> Vec<u8> {
    let hello = crate::http::Hello {
        server_name: name.to_owned(),
        protocols: vec!["http/1.1".to_owned()],
    };
    let mut bytes = Vec::new();
    hello.write(&mut bytes);
    bytes
}

fn config() -> ObjectRef {
    ObjectRef::new(Kind::Service, "default", "x")
}

fn listener(tls: bool) -> PlannedListener {
    let terminal = |tcp: bool| match tcp {
        true => json!({"name": "tcp", "typedConfig": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "statPrefix": "x", "cluster": "details"}}),
        false => json!({"name": "http", "typedConfig": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "statPrefix": "x", "useRemoteAddress": true,
            "rds": {"routeConfigName": "routes", "configSource": {"ads": {}}},
            "httpFilters": [{"name": "router", "typedConfig":
                {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}),
    };
    let chains = match tls {
        false => json!([{"filters": [terminal(false)]}]),
        true => {
            json!([{"filterChainMatch": {"transportProtocol": "tls", "serverNames": ["pass.example"]},
                        "filters": [terminal(true)]}])
        }
    };
    let message = decode(&json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": "listener", "filterChains": chains}))
    .unwrap()
    .message;
    PlannedListener {
        own_address: false,
        port: 10_000,
        model: Arc::new(Listener::read(&message).unwrap()),
        message,
        config: config(),
    }
}

fn routes() -> PlannedRoutes {
    let message = decode(&json!({
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": "routes",
        "virtualHosts": [{"name": "a", "domains": ["a"], "routes": [
            {"match": {"path": "/direct"}, "directResponse": {"status": 418, "body": {"inlineString": "tea"}}},
            {"match": {"path": "/old"}, "redirect": {"pathRedirect": "/new"}},
            {"match": {"path": "/empty"}, "route": {"cluster": "empty"}},
            {"match": {"path": "/nowhere"}, "route": {"cluster": "nowhere"}},
            {"match": {"prefix": "/details"}, "route": {"cluster": "details"},
             "responseHeadersToAdd": [{"header": {"key": "x-route", "value": "yes"}}]},
        ]}]}))
    .unwrap()
    .message;
    PlannedRoutes {
        model: Arc::new(RouteTable::read(&message).unwrap()),
        message,
        config: config(),
    }
}

fn cluster(name: &str) -> PlannedCluster {
    let message = decode(&json!({
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": name, "type": "EDS", "edsClusterConfig": {"edsConfig": {"ads": {}}, "serviceName": name}}))
    .unwrap()
    .message;
    PlannedCluster {
        model: Arc::new(Cluster::read(&message).unwrap()),
        message,
        config: config(),
    }
}

fn plan(tls: bool, backends: &[&str]) -> PlanDelta {
    let endpoints = backends.iter().map(|address| PlannedEndpoint {
        address: address.parse().unwrap(),
        pod: None,
        node: None,
    });
    let endpoints = PlannedEndpoints {
        endpoints: endpoints.collect(),
        ..PlannedEndpoints::default()
    };
    let mut delta = PlanDelta::default();
    delta
        .listeners
        .insert("listener".into(), Update::Put(Arc::new(listener(tls))));
    delta
        .routes
        .insert("routes".into(), Update::Put(Arc::new(routes())));
    for name in ["details", "empty"] {
        delta
            .clusters
            .insert(name.into(), Update::Put(Arc::new(cluster(name))));
    }
    delta
        .endpoints
        .insert("details".into(), Update::Put(Arc::new(endpoints)));
    delta
}

/// A proxy between clients and backends that the test plays.
struct Bench {
    proxy: NodeProxy,
    os: FakeOs,
}

impl Bench {
    fn new(tls: bool, backends: &[&str]) -> Self {
        let mut bench = Self {
            proxy: NodeProxy::new("node-1", 1),
            os: FakeOs::default(),
        };
        bench.proxy.apply(&plan(tls, backends));
        bench.proxy.on_wake(&mut bench.os);
        bench
    }

    fn tell(&mut self, socket: SocketId, event: SocketEvent) {
        self.proxy.on_socket(socket, event, &mut self.os);
    }

    fn client(&mut self) -> SocketId {
        let local: SocketAddr = "10.96.0.10:80".parse().unwrap();
        let peer = "10.244.1.5:5000".parse().unwrap();
        let socket = self.os.open(local, peer, Some(WAY));
        let by = *self.os.listening.keys().next().unwrap();
        self.tell(socket, SocketEvent::Accepted(by));
        socket
    }

    fn say(&mut self, socket: SocketId, text: impl AsRef<[u8]>) {
        self.os.of(socket).arrived.extend_from_slice(text.as_ref());
        self.tell(socket, SocketEvent::Readable);
    }

    fn heard(&mut self, socket: SocketId) -> String {
        String::from_utf8(std::mem::take(&mut self.os.of(socket).sent)).unwrap()
    }

    /// A client that has said something, and what it heard.
    fn asked(&mut self, text: impl AsRef<[u8]>) -> (SocketId, String) {
        let client = self.client();
        self.say(client, text);
        let heard = self.heard(client);
        (client, heard)
    }

    /// The newest upstream connection, which now stands.
    fn backend(&mut self) -> SocketId {
        let socket = *self.os.connects.last().expect("the proxy connected");
        self.tell(socket, SocketEvent::Connected);
        socket
    }

    fn ended(&mut self, socket: SocketId) -> (bool, bool) {
        let socket = self.os.of(socket);
        (socket.shut, socket.aborted)
    }

    fn step_names(&self) -> Vec<&'static str> {
        let names = self.os.steps.iter().map(|(way, step)| {
            assert_eq!(*way, WAY);
            match step {
                Step::Listener(_) => "listener",
                Step::FilterChain(_) => "chain",
                Step::Route(_) => "route",
                Step::Cluster(_) => "cluster",
                Step::Endpoint(_) => "endpoint",
                Step::Reply(ReplyStep::Proxy { .. }) => "reply",
                _ => "another",
            }
        });
        names.collect()
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")
}

const ONE: &[&str] = &["10.244.2.1:9080"];

#[rstest]
#[case::no_host("GET /details HTTP/1.1\r\n\r\n", 400, "", false)]
#[case::no_http("hello\r\n\r\n", 400, "Bad Request", true)]
#[case::old("GET /details HTTP/1.0\r\nhost: a\r\n\r\n", 426, "", true)]
#[case::gzip(
    "POST /details HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n",
    501,
    "Not Implemented",
    true
)]
#[case::smuggled(
    "POST /details HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
    400,
    "Bad Request",
    true
)]
#[case::no_virtual_host("GET /details HTTP/1.1\r\nhost: b\r\n\r\n", 404, "", false)]
#[case::no_route("GET /x HTTP/1.1\r\nhost: a\r\n\r\n", 404, "", false)]
#[case::direct("GET /direct HTTP/1.1\r\nhost: a\r\n\r\n", 418, "tea", false)]
#[case::direct_to_head("HEAD /direct HTTP/1.1\r\nhost: a\r\n\r\n", 418, "", false)]
#[case::unread_body(
    "POST /direct HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n",
    418,
    "tea",
    true
)]
#[case::redirect("GET /old HTTP/1.1\r\nhost: a\r\n\r\n", 301, "", false)]
#[case::no_endpoint(
    "GET /empty HTTP/1.1\r\nhost: a\r\n\r\n",
    503,
    "no healthy upstream",
    false
)]
#[case::no_cluster("GET /nowhere HTTP/1.1\r\nhost: a\r\n\r\n", 503, "", false)]
#[case::whole_url("GET http://a/direct HTTP/1.1\r\nhost: b\r\n\r\n", 418, "tea", false)]
#[case::connect("CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n", 404, "", false)]
fn what_the_proxy_answers_by_itself(
    #[case] request: &str,
    #[case] status: u16,
    #[case] body: &str,
    #[case] closes: bool,
) {
    let mut bench = Bench::new(false, ONE);
    let (client, heard) = bench.asked(request);
    let (head, heard_body) = heard.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    assert!(head.contains("server: envoy"));
    assert_eq!(heard_body, body);
    assert_eq!(head.contains("connection: close"), closes);
    assert_eq!(bench.ended(client), (closes, false));
    assert!(bench.os.connects.is_empty());
    assert_eq!(bench.step_names().last(), Some(&"reply"));
    assert_eq!(bench.proxy.counters().responses[&status], 1);
}

#[test]
fn a_request_is_forwarded_with_its_headers_changed() {
    let mut bench = Bench::new(false, ONE);
    let (client, heard) = bench.asked(
        "GET /details/0?x=1 HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, x-mine\r\nx-mine: 1\r\nx-forwarded-for: 1.2.3.4\r\nx-envoy-retry-on: 5xx\r\n\r\n",
    );
    assert_eq!(heard, "");
    let backend = bench.backend();
    assert_eq!(bench.os.of(backend).peer, ONE[0].parse().unwrap());
    assert_eq!(bench.os.of(backend).way, Some(WAY));
    let sent = bench.heard(backend);
    let id = sent.split("x-request-id: ").nth(1).unwrap()[..36].to_owned();
    assert_eq!(&id[14..15], "4");
    insta::assert_snapshot!(sent.replace(&id, "<id>").replace('\r', ""), @r"
    GET /details/0?x=1 HTTP/1.1
    host: a
    x-forwarded-for: 1.2.3.4,10.244.1.5
    x-forwarded-proto: http
    x-envoy-external-address: 10.244.1.5
    x-request-id: <id>
    x-envoy-expected-rq-timeout-ms: 15000

    ");
    bench.os.now = Time::from_nanos(12_000_000);
    bench.say(
        backend,
        "HTTP/1.1 200 OK\r\nserver: nginx\r\nkeep-alive: x\r\ncontent-length: 2\r\n\r\nok",
    );
    insta::assert_snapshot!(bench.heard(client).replace('\r', ""), @r"
    HTTP/1.1 200 OK
    content-length: 2
    x-envoy-upstream-service-time: 12
    x-route: yes
    server: envoy

    ok
    ");
    let names = ["listener", "chain", "route", "cluster", "endpoint"];
    assert_eq!(bench.step_names(), names);
    assert_eq!(bench.proxy.counters().responses[&200], 1);
    assert!(bench.os.timers.is_empty(), "no timer outlives the request");
}

#[test]
fn pipelined_requests_are_answered_in_order_on_one_upstream_connection() {
    let mut bench = Bench::new(false, ONE);
    let text = format!(
        "{}{}{}",
        get("/details/1"),
        get("/direct"),
        get("/details/2")
    );
    let (client, heard) = bench.asked(&text);
    assert_eq!(heard, "");
    let backend = bench.backend();
    assert!(bench.heard(backend).starts_with("GET /details/1 "));
    bench.say(backend, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none");
    assert!(bench.heard(backend).starts_with("GET /details/2 "));
    bench.say(backend, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntwo");
    let heard = bench.heard(client);
    let places = ["one", "tea", "two"].map(|it| heard.find(it).unwrap());
    assert!(places.is_sorted(), "{heard}");
    let counters = bench.proxy.counters();
    assert_eq!(
        (counters.upstream_connects, counters.upstream_reuses),
        (1, 1)
    );
    assert_eq!(counters.requests, 3);
}

#[test]
fn endpoints_take_turns() {
    let mut bench = Bench::new(false, &["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    for _ in 0..6 {
        bench.asked(get("/details"));
    }
    let peers: Vec<SocketAddr> = bench
        .os
        .connects
        .clone()
        .iter()
        .map(|it| bench.os.of(*it).peer)
        .collect();
    let mut sorted = peers[..3].to_vec();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), 3);
    assert_eq!(peers[..3], peers[3..]);
}

#[rstest]
#[case::refused(Some(SocketError::Refused), "remote connection failure")]
#[case::timed_out(Some(SocketError::TimedOut), "connection timeout")]
#[case::reset(None, "connection termination")]
fn a_failed_upstream_is_503_with_the_reason(
    #[case] before: Option<SocketError>,
    #[case] reason: &str,
) {
    let mut bench = Bench::new(false, ONE);
    let (client, _) = bench.asked(get("/details"));
    match before {
        Some(error) => {
            let socket = bench.os.connects[0];
            bench.tell(socket, SocketEvent::Failed(error));
        }
        None => {
            let backend = bench.backend();
            bench.tell(backend, SocketEvent::Failed(SocketError::Reset));
        }
    }
    let heard = bench.heard(client);
    assert!(heard.starts_with("HTTP/1.1 503 "), "{heard}");
    let body = format!(
        "upstream connect error or disconnect/reset before headers. reset reason: {reason}"
    );
    assert!(heard.ends_with(&body), "{heard}");
    assert_eq!(bench.proxy.counters().upstream_active, 0);
    assert_eq!(
        bench.os.connects.len(),
        1,
        "a fresh connection is not tried again"
    );
}

#[test]
fn a_kept_connection_that_turns_out_closed_is_replaced_once() {
    let mut bench = Bench::new(false, ONE);
    let (client, _) = bench.asked(get("/details/1"));
    let first = bench.backend();
    bench.say(first, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    bench.heard(client);
    bench.say(client, get("/details/2"));
    bench.tell(first, SocketEvent::Failed(SocketError::Reset));
    assert_eq!(bench.os.connects.len(), 2);
    let second = bench.backend();
    assert!(bench.heard(second).starts_with("GET /details/2 "));
    bench.tell(second, SocketEvent::Failed(SocketError::Reset));
    assert!(bench.heard(client).starts_with("HTTP/1.1 503 "));
    assert_eq!(bench.os.connects.len(), 2);
    assert_eq!(bench.proxy.counters().retries, 1);
}

#[test]
fn a_kept_connection_that_ends_while_it_waits_is_not_used() {
    let mut bench = Bench::new(false, ONE);
    let (client, _) = bench.asked(get("/details/1"));
    let first = bench.backend();
    bench.say(first, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    bench.tell(first, SocketEvent::PeerClosed);
    assert_eq!(bench.ended(first), (true, false));
    bench.say(client, get("/details/2"));
    assert_eq!(bench.os.connects.len(), 2);
}

#[test]
fn a_request_that_takes_too_long_is_504() {
    let mut bench = Bench::new(false, ONE);
    let (client, _) = bench.asked(get("/details"));
    let backend = bench.backend();
    let (timer, at) = bench.os.timers.pop_first().unwrap();
    assert_eq!(at.since_start(), Duration::from_secs(15));
    bench.proxy.on_timer(timer, &mut bench.os);
    let heard = bench.heard(client);
    assert!(
        heard.starts_with("HTTP/1.1 504 ") && heard.ends_with("upstream request timeout"),
        "{heard}"
    );
    assert_eq!(bench.ended(backend), (false, true));
}

#[test]
fn an_endpoint_that_does_not_take_the_connection_is_given_up_after_the_connect_timeout() {
    let mut bench = Bench::new(false, ONE);
    let (client, _) = bench.asked(get("/details"));
    let (timer, _) = bench
        .os
        .timers
        .iter()
        .find(|(_, at)| at.since_start() == Duration::from_secs(5))
        .unwrap();
    bench.proxy.on_timer(*timer, &mut bench.os);
    assert!(
        bench
            .heard(client)
            .ends_with("reset reason: connection timeout")
    );
}

#[rstest]
#[case::head(
    "HEAD",
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
    "content-length: 5",
    ""
)]
#[case::chunked(
    "GET",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    "transfer-encoding: chunked",
    "2\r\nab\r\n0\r\n\r\n"
)]
#[case::no_content("GET", "HTTP/1.1 204 No Content\r\n\r\n", "204", "")]
#[case::after_an_interim_one(
    "GET",
    "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx",
    "200",
    "x"
)]
fn responses_keep_their_framing(
    #[case] method: &str,
    #[case] response: &str,
    #[case] header: &str,
    #[case] body: &str,
) {
    let mut bench = Bench::new(false, ONE);
    let (client, _) = bench.asked(get("/details").replace("GET", method));
    let backend = bench.backend();
    bench.say(backend, response);
    let heard = bench.heard(client);
    let (head, heard_body) = heard.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(header), "{head}");
    assert_eq!(heard_body, body);
    bench.say(client, get("/details"));
    assert_eq!(
        bench.os.connects.len(),
        1,
        "the upstream connection is kept"
    );
}

#[test]
fn a_response_up_to_the_end_of_its_connection_goes_on_in_chunks() {
    let mut bench = Bench::new(false, ONE);
    let (client, _) = bench.asked(get("/details"));
    let backend = bench.backend();
    bench.say(backend, "HTTP/1.1 200 OK\r\n\r\nabc");
    bench.tell(backend, SocketEvent::PeerClosed);
    let heard = bench.heard(client);
    assert!(heard.ends_with("3\r\nabc\r\n0\r\n\r\n"), "{heard}");
    assert_eq!(bench.ended(client), (false, false));
}

#[test]
fn a_response_that_breaks_off_resets_the_client() {
    let mut bench = Bench::new(false, ONE);
    let (client, _) = bench.asked(get("/details"));
    let backend = bench.backend();
    bench.say(backend, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc");
    bench.tell(backend, SocketEvent::PeerClosed);
    assert!(bench.heard(client).ends_with("abc"));
    assert_eq!(bench.ended(client), (false, true));
    assert_eq!(bench.proxy.counters().upstream_active, 0);
}

#[test]
fn a_large_response_waits_for_a_client_that_does_not_read() {
    let mut bench = Bench::new(false, ONE);
    let client = bench.client();
    bench.os.of(client).room = 10;
    bench.say(client, get("/details"));
    let backend = bench.backend();
    let body = "x".repeat(1_000_000);
    bench.say(
        backend,
        format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{}",
            body.len(),
            &body[..300_000]
        ),
    );
    bench
        .os
        .of(backend)
        .arrived
        .extend_from_slice(&body.as_bytes()[300_000..]);
    bench.tell(backend, SocketEvent::Readable);
    assert_eq!(
        bench.os.of(backend).arrived.len(),
        700_000,
        "it stays with the backend"
    );
    bench.os.of(client).room = usize::MAX;
    bench.tell(client, SocketEvent::Writable);
    let heard = bench.heard(client);
    assert_eq!(heard.split_once("\r\n\r\n").unwrap().1.len(), body.len());
    assert_eq!(bench.os.of(backend).arrived.len(), 0);
}

#[test]
fn a_chunked_request_streams_to_the_backend() {
    let mut bench = Bench::new(false, ONE);
    let head = "POST /details HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n";
    let (client, heard) = bench.asked(head);
    assert_eq!(heard, "HTTP/1.1 100 Continue\r\n\r\n");
    let backend = bench.backend();
    assert!(bench.heard(backend).contains("transfer-encoding: chunked"));
    bench.say(client, "3\r\nabc\r\n2\r\nd");
    assert_eq!(bench.heard(backend), "4\r\nabcd\r\n");
    bench.say(client, "e\r\n0\r\n\r\n");
    assert_eq!(bench.heard(backend), "1\r\ne\r\n0\r\n\r\n");
}

#[test]
fn a_client_that_goes_away_takes_its_upstream_connection_along() {
    let mut bench = Bench::new(false, ONE);
    let (client, _) = bench.asked(get("/details"));
    let backend = bench.backend();
    bench.tell(client, SocketEvent::Failed(SocketError::Reset));
    assert_eq!(bench.ended(backend), (false, true));
    let counters = bench.proxy.counters();
    assert_eq!(
        (counters.downstream_active, counters.upstream_active),
        (0, 0)
    );
    assert!(bench.os.timers.is_empty());
}

#[rstest]
#[case::of_another_name(hello("other.example"))]
#[case::plain(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec())]
fn a_connection_without_a_filter_chain_is_reset(#[case] text: Vec<u8>) {
    let mut bench = Bench::new(true, ONE);
    let (client, heard) = bench.asked(text);
    assert_eq!(heard, "");
    assert_eq!(bench.ended(client), (false, true));
    assert_eq!(bench.step_names(), ["listener", "chain"]);
    assert_eq!(bench.proxy.counters().no_filter_chain, 1);
}

#[test]
fn a_tcp_proxy_relays_bytes_and_both_ends() {
    let mut bench = Bench::new(true, ONE);
    let said = [hello("pass.example"), b"more".to_vec()].concat();
    let (client, _) = bench.asked(&said);
    let backend = bench.backend();
    assert_eq!(std::mem::take(&mut bench.os.of(backend).sent), said);
    bench.tell(client, SocketEvent::PeerClosed);
    assert_eq!(bench.ended(backend), (true, false));
    bench.say(backend, "bye");
    bench.tell(backend, SocketEvent::PeerClosed);
    assert_eq!(bench.heard(client), "bye");
    assert_eq!(bench.ended(client), (true, false));
}

#[test]
fn listening_sockets_follow_the_plan() {
    let mut bench = Bench::new(false, ONE);
    let listens: Vec<String> = bench
        .os
        .listening
        .values()
        .map(|(a, p)| SocketAddr::new(a.unwrap(), *p).to_string())
        .collect();
    assert_eq!(listens, ["127.0.0.1:10000", "[::1]:10000"]);
    let mut delta = PlanDelta::default();
    delta.listeners.insert("listener".into(), Update::Remove);
    bench.proxy.apply(&delta);
    bench.proxy.on_wake(&mut bench.os);
    assert!(bench.os.listening.is_empty());
    bench.os.taken.push(10_000);
    bench.proxy.apply(&plan(false, ONE));
    bench.proxy.on_wake(&mut bench.os);
    assert_eq!(
        bench.proxy.not_listening()["listener"],
        CallError::AddressInUse
    );
    bench.os.taken.clear();
    bench.proxy.on_wake(&mut bench.os);
    assert_eq!(bench.os.listening.len(), 2);
    assert!(bench.proxy.not_listening().is_empty());
}
