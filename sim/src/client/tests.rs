//! The client and the backend on a node with two pods, with buffers so small that nothing fits.

use std::net::IpAddr;

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use nodeway_core::backend::Identity;

use crate::backend::{Backend, Tls};
use crate::http::{Opening, server_flight};
use crate::net::{NodeSpec, NodewayDatapath, Place, PodSpec, Settings, Topology};
use crate::process::fake::FakeOs;
use crate::time::Time;
use crate::world::World;

const SERVER: &str = "10.244.0.3:80";

fn pod(name: &str, addresses: &[&str]) -> PodSpec {
    PodSpec {
        name: name.to_owned(),
        addresses: addresses
            .iter()
            .map(|it| it.parse::<IpAddr>().unwrap())
            .collect(),
        host_network: false,
    }
}

/// What comes of a request to a server, and the virtual time it took.
fn run(server: Box<dyn Process>, ask: Ask, to: &str) -> (Outcome, Duration) {
    let node = NodeSpec {
        name: "node-1".to_owned(),
        addresses: vec!["172.18.0.2".parse().unwrap()],
        pods: vec![
            pod("default/client", &["10.244.0.2"]),
            pod("default/server", &["10.244.0.3", "fd00::3"]),
        ],
    };
    let topology = Topology {
        nodes: vec![node],
        ..Topology::default()
    };
    let settings = Settings {
        buffer: 600,
        ..Settings::default()
    };
    let mut world = World::new(&topology, settings, Box::new(NodewayDatapath)).unwrap();
    let place = |name: &str| Place::Pod(format!("default/{name}"));
    let server_stack = world.stack(&place("server")).unwrap();
    world.spawn(server_stack, server);
    let stack = world.stack(&place("client")).unwrap();
    let client = world.spawn(stack, Box::new(Client::default()));
    let way = world.open_way();
    let process = world.process_mut::<Client>(client).unwrap();
    process
        .ask(ask, Through::New(to.parse().unwrap()), way)
        .unwrap();
    world.wake(client);
    let limit = Time::ZERO + Duration::from_secs(1_000);
    world.run_until(limit, |world| {
        world.process::<Client>(client).unwrap().has_outcome(way)
    });
    let took = world.now() - Time::ZERO;
    let process = world.process_mut::<Client>(client).unwrap();
    (process.take_outcome(way).unwrap(), took)
}

/// A server that reads a request's first bytes and answers with what it was given.
struct Scripted {
    bytes: Vec<u8>,
    then: Then,
    pipe: Option<Pipe>,
}

#[derive(Clone, Copy, PartialEq)]
enum Then {
    Close,
    Stay,
    Reset,
}

impl Process for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn on_wake(&mut self, os: &mut dyn Os) {
        os.listen(None, 80).unwrap();
    }

    fn on_socket(&mut self, socket: SocketId, event: SocketEvent, os: &mut dyn Os) {
        match event {
            SocketEvent::Readable if self.pipe.is_none() => {
                let mut pipe = Pipe::new(socket);
                pipe.read(os);
                pipe.output = std::mem::take(&mut self.bytes);
                match self.then {
                    Then::Close => pipe.close(os),
                    Then::Stay => pipe.flush(os),
                    Then::Reset => os.abort(socket),
                }
                self.pipe = Some(pipe);
            }
            SocketEvent::Writable => {
                if let Some(pipe) = &mut self.pipe {
                    pipe.flush(os);
                }
            }
            _ => {}
        }
    }

    fn on_timer(&mut self, _: TimerId, _: &mut dyn Os) {}
}

fn scripted(bytes: &[u8], then: Then, ask: Ask) -> Outcome {
    let server = Scripted {
        bytes: bytes.to_vec(),
        then,
        pipe: None,
    };
    run(Box::new(server), ask, SERVER).0
}

fn get() -> Ask {
    Ask::get("http://server/")
}

#[rstest]
#[case::a_length(
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    Then::Stay,
    "hello"
)]
#[case::chunks(
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
    Then::Stay,
    "hello"
)]
#[case::up_to_the_end("HTTP/1.1 200 OK\r\n\r\nhello", Then::Close, "hello")]
#[case::after_an_interim_answer(
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    Then::Stay,
    ""
)]
#[case::without_a_body("HTTP/1.1 204 No Content\r\n\r\n", Then::Stay, "")]
fn an_answer_is_whole_when_its_length_says_so(
    #[case] bytes: &str,
    #[case] then: Then,
    #[case] body: &str,
) {
    let outcome = scripted(bytes.as_bytes(), then, get());
    assert_eq!(outcome.client_saw, Some(SERVER.parse().unwrap()));
    assert_eq!(
        String::from_utf8(outcome.result.unwrap().body).unwrap(),
        body
    );
}

#[test]
fn an_answer_to_head_has_a_length_and_no_body() {
    let bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
    let answer = scripted(bytes, Then::Stay, get().method("HEAD"))
        .result
        .unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(answer.headers.get("content-length"), Some("5"));
}

#[test]
fn an_answer_longer_than_every_buffer_comes_whole() {
    let mut bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n".to_vec();
    bytes.resize(bytes.len() + 100_000, b'x');
    assert_eq!(
        scripted(&bytes, Then::Stay, get())
            .result
            .unwrap()
            .body
            .len(),
        100_000
    );
}

#[rstest]
#[case::nothing("", Then::Close, Failure::ConnectionClosed)]
#[case::half_a_head("HTTP/1.1 200 OK\r\nser", Then::Close, Failure::ConnectionClosed)]
#[case::half_a_body(
    "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhel",
    Then::Close,
    Failure::ConnectionClosed
)]
#[case::half_a_chunk(
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nhel",
    Then::Close,
    Failure::ConnectionClosed
)]
#[case::no_http("220 mail.example ESMTP\r\n", Then::Stay, Failure::NotHttp)]
#[case::reset("", Then::Reset, Failure::ConnectionReset)]
#[case::silence("", Then::Stay, Failure::TimedOut)]
fn a_failure_says_what_happened(#[case] bytes: &str, #[case] then: Then, #[case] failure: Failure) {
    let outcome = scripted(bytes.as_bytes(), then, get());
    assert_eq!(outcome.result, Err(failure));
    assert!(outcome.client_saw.is_some());
}

#[test]
fn nobody_listening_is_a_refusal_and_no_address_is_unreachable() {
    let nobody = || Box::new(Backend::new(Identity::default(), vec![81]));
    let (refused, took) = run(nobody(), get(), SERVER);
    assert_eq!(
        (refused.result, refused.client_saw),
        (Err(Failure::ConnectionRefused), None)
    );
    assert!(took < Duration::from_millis(10), "{took:?}");
    let (unreachable, _) = run(nobody(), get(), "[fd00::3]:80");
    assert_eq!(unreachable.result, Err(Failure::Unreachable));
}

fn backend(image: &str) -> Box<Backend> {
    let identity = Identity {
        service: "server".to_owned(),
        pod: "default/server".to_owned(),
        node: "node-1".to_owned(),
        version: "v1".to_owned(),
        image: image.to_owned(),
    };
    Box::new(Backend::new(identity, vec![80]))
}

fn json(outcome: Outcome) -> serde_json::Value {
    let mut body: serde_json::Value =
        serde_json::from_slice(&outcome.result.unwrap().body).unwrap();
    let peer = body["saw"]["peer"].as_str().unwrap().to_owned();
    body["saw"]["peer"] = peer.rsplit_once(':').unwrap().0.into();
    body
}

#[test]
fn a_backend_says_who_it_is_and_what_it_saw() {
    let ask = Ask::get("http://server/a?b=c")
        .method("POST")
        .header("X-One", "1")
        .header("host", "other.example")
        .body(vec![b'x'; 50_000]);
    let (outcome, _) = run(backend("echo"), ask, SERVER);
    insta::assert_json_snapshot!(json(outcome), @r#"
    {
      "node": "node-1",
      "pod": "default/server",
      "saw": {
        "body_bytes": 50000,
        "headers": {
          "accept": "*/*",
          "content-length": "50000",
          "host": "other.example",
          "user-agent": "nodeway",
          "x-one": "1"
        },
        "host": "other.example",
        "method": "POST",
        "path": "/a?b=c",
        "peer": "10.244.0.2"
      },
      "service": "server",
      "version": "v1"
    }
    "#);
}

#[test]
fn a_backend_with_a_certificate_answers_by_tls() {
    let server = Box::new(backend("echo").with_tls(Some(Tls::default())));
    let (outcome, _) = run(server, Ask::get("https://server:80/a"), SERVER);
    assert_eq!(json(outcome)["saw"]["path"], "/a");
}

#[test]
fn a_backend_that_speaks_plain_text_takes_no_hello() {
    let ask = Ask::get("https://server:80/a");
    let (outcome, _) = run(backend("echo"), ask, SERVER);
    assert_eq!(outcome.result, Err(Failure::HandshakeFailed));
}

#[test]
fn a_backend_answers_404_itself_where_it_has_no_such_page() {
    let image = "docker.io/istio/examples-bookinfo-productpage-v1:1.20.3";
    let (outcome, _) = run(backend(image), Ask::get("http://server/ratings"), SERVER);
    assert_eq!(outcome.result.as_ref().unwrap().status, 404);
    assert_eq!(json(outcome)["service"], "server");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_a_server_sends_the_request_ends(
        at in 0_usize..60,
        noise in proptest::collection::vec(any::<u8>(), 0..30),
        close in any::<bool>(),
    ) {
        let mut bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n0\r\n\r\n".to_vec();
        bytes.splice(at..at, noise);
        scripted(&bytes, if close { Then::Close } else { Then::Stay }, get());
    }

    #[test]
    fn whatever_a_client_sends_the_backend_lives(
        noise in proptest::collection::vec(any::<u8>(), 0..30),
        target in "/[ -~]{0,20}",
    ) {
        // A body that is a pipelined request, mangled.
        let body = [b"GET / HTTP/1.1\r\n".as_slice(), &noise].concat();
        let ask = Ask::get(format!("http://server{target}")).body(body);
        if ask.target().is_ok() {
            let (outcome, _) = run(backend("echo"), ask, SERVER);
            prop_assert!(outcome.result.is_ok());
        }
    }
}

/// A client that has sent a request and is connected, without a network.
fn asked(ask: Ask) -> (Client, FakeOs, SocketId) {
    let mut client = Client::default();
    let mut os = FakeOs::default();
    client
        .ask(ask, Through::New(SERVER.parse().unwrap()), WayId(1))
        .unwrap();
    client.on_wake(&mut os);
    let socket = *os.sockets.keys().next().unwrap();
    client.on_socket(socket, SocketEvent::Connected, &mut os);
    (client, os, socket)
}

#[rstest]
#[case::by_name(Ask::get("https://shop.example/"), "shop.example")]
#[case::by_host_field(Ask::get("https://a/").header("host", "Shop.Example:8443"), "shop.example")]
#[case::by_address(Ask::get("https://192.0.2.10/"), "")]
fn a_request_by_https_says_the_name_first(#[case] ask: Ask, #[case] name: &str) {
    let (mut client, mut os, socket) = asked(ask);
    let sent = &os.sockets[&socket].sent;
    let Some(Opening::Tls(hello, length)) = Opening::detect(sent).unwrap() else {
        panic!("{sent:?}");
    };
    assert_eq!(hello.server_name, name);
    assert_eq!(
        sent.len(),
        length,
        "the request waits for the server's answer"
    );
    let flight = server_flight(&hello, &hello.protocols, [].into_iter());
    os.deliver(&mut client, socket, &flight);
    // Application data, of TLS 1.2, and its length.
    let record = &os.sockets[&socket].sent[length..];
    assert!(record.starts_with(&[23, 3, 3, 0]) && record[5..].starts_with(b"GET / HTTP/1.1\r\n"));
}

#[rstest]
#[case::an_alert(&[21, 3, 3, 0, 2, 2, 40])]
#[case::plain_text(b"HTTP/1.1 400 Bad Request\r\n\r\n")]
#[case::nothing(b"")]
fn a_server_that_answers_no_hello_fails_the_handshake(#[case] answer: &[u8]) {
    let (mut client, mut os, socket) = asked(Ask::get("https://shop.example/"));
    os.deliver(&mut client, socket, answer);
    client.on_socket(socket, SocketEvent::PeerClosed, &mut os);
    let outcome = client.take_outcome(WayId(1)).unwrap();
    assert_eq!(outcome.result, Err(Failure::HandshakeFailed));
}

#[test]
fn an_answer_ends_its_connection_and_leaves_no_timer() {
    let (mut client, mut os, socket) = asked(get());
    os.deliver(&mut client, socket, b"HTTP/1.1 204 No Content\r\n");
    assert!(!os.sockets[&socket].shut && !client.has_outcome(WayId(1)));
    os.deliver(&mut client, socket, b"\r\n");
    assert!(os.sockets[&socket].shut && os.timers.is_empty());
    assert_eq!(os.sockets[&socket].way, Some(WayId(1)));
    assert!(client.take_outcome(WayId(1)).is_some());
    assert!(client.take_outcome(WayId(1)).is_none());
}

#[test]
fn silence_ends_at_the_clients_own_patience() {
    let (mut client, mut os, socket) = asked(get());
    let (timer, at) = os.timers.pop_first().unwrap();
    assert_eq!(at.since_start(), PATIENCE);
    client.on_timer(timer, &mut os);
    let outcome = client.take_outcome(WayId(1)).unwrap();
    assert_eq!(outcome.result, Err(Failure::TimedOut));
    assert!(os.sockets[&socket].aborted);
}
