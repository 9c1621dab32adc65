use rstest::rstest;
use serde_json::Value;

use super::*;
use crate::http::BodyLength;
use crate::process::fake::FakeOs;

const PEER: &str = "10.244.0.7:41000";

/// A running echo that listens on 8080.
fn echo() -> (Backend, FakeOs) {
    running("echo:1")
}

fn running(image: &str) -> (Backend, FakeOs) {
    let identity = Identity {
        service: "shop".to_owned(),
        pod: "default/shop-1".to_owned(),
        node: "node-2".to_owned(),
        version: "v3".to_owned(),
        image: image.to_owned(),
    };
    let mut backend = Backend::new(identity, vec![8080]);
    let mut os = FakeOs::default();
    backend.on_wake(&mut os);
    (backend, os)
}

/// The answers to requests that came as these bytes on one connection.
fn answers(backend: &mut Backend, os: &mut FakeOs, bytes: &str, methods: &[&str]) -> Vec<Read> {
    let socket = os.visit(backend, 8080, PEER);
    os.deliver(backend, socket, bytes.as_bytes());
    let mut stream = os.sockets[&socket].sent.clone();
    let answers = methods
        .iter()
        .map(|method| take(&mut stream, method))
        .collect();
    assert_eq!(stream, b"", "more was sent than was asked for");
    answers
}

struct Read {
    head: ResponseHead,
    length: BodyLength,
    body: Vec<u8>,
}

impl Read {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

fn take(stream: &mut Vec<u8>, method: &str) -> Read {
    let (head, used) = ResponseHead::parse(stream).unwrap().unwrap();
    stream.drain(..used);
    let length = head.body(method).unwrap();
    let mut decoder = Decoder::new(length);
    let mut body = Vec::new();
    decoder.decode(stream, &mut body, usize::MAX).unwrap();
    assert!(decoder.is_done(), "cut off: {head:?}");
    Read { head, length, body }
}

#[test]
fn an_answer_says_who_answers_and_what_it_saw() {
    let (mut backend, mut os) = echo();
    let request =
        "POST /a/b?c=d HTTP/1.1\r\nHost: shop\r\nX-Trace: 1\r\ncontent-length: 3\r\n\r\nabc";
    let answer = answers(&mut backend, &mut os, request, &["POST"]).remove(0);
    assert_eq!(answer.head.status, 200);
    let body = answer.json();
    let who = ["service", "pod", "node", "version"].map(|field| body[field].as_str().unwrap());
    assert_eq!(who, ["shop", "default/shop-1", "node-2", "v3"]);
    let saw = &body["saw"];
    let seen = ["peer", "method", "path", "host"].map(|field| saw[field].as_str().unwrap());
    assert_eq!(seen, [PEER, "POST", "/a/b?c=d", "shop"]);
    assert_eq!(saw["body_bytes"], 3);
}

#[rstest]
#[case::by_length("POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\nabcd", 4)]
#[case::in_chunks(
    "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    5
)]
#[case::none("GET / HTTP/1.1\r\n\r\n", 0)]
fn a_request_is_read_to_its_end_in_whatever_pieces_it_comes(
    #[case] request: &str,
    #[case] bytes: u64,
) {
    let (mut backend, mut os) = echo();
    let socket = os.visit(&mut backend, 8080, PEER);
    let (last, before) = request.as_bytes().split_last().unwrap();
    for byte in before {
        os.deliver(&mut backend, socket, &[*byte]);
    }
    assert_eq!(os.sent(socket), "", "answered before the request was whole");
    os.deliver(&mut backend, socket, &[*last]);
    let answer = take(&mut os.sockets[&socket].sent.clone(), "POST");
    assert_eq!(answer.json()["saw"]["body_bytes"], bytes);
}

#[rstest]
#[case::none("GET / HTTP/1.1\r\n\r\n", 200)]
#[case::in_the_query("GET /x?a=b&status=503 HTTP/1.1\r\n\r\n", 503)]
#[case::in_a_header("GET / HTTP/1.1\r\nX-Answer-Status: 418\r\n\r\n", 418)]
#[case::no_final_status("GET /?status=100 HTTP/1.1\r\n\r\n", 400)]
#[case::no_status("GET /?status=fine HTTP/1.1\r\n\r\n", 400)]
#[case::too_much("GET /?bytes=99999999999999999999 HTTP/1.1\r\n\r\n", 400)]
fn an_echo_answers_the_status_that_is_wished(#[case] request: &str, #[case] status: u16) {
    let (mut backend, mut os) = echo();
    let answer = answers(&mut backend, &mut os, request, &["GET"]).remove(0);
    assert_eq!(answer.head.status, status);
}

#[test]
fn bookinfos_programs_grant_no_wishes() {
    let (mut backend, mut os) = running("docker.io/istio/examples-bookinfo-details-v1:1.20.2");
    let request = "GET /details/0?status=503&bytes=9 HTTP/1.1\r\n\r\n";
    let answer = answers(&mut backend, &mut os, request, &["GET"]).remove(0);
    assert_eq!(answer.head.status, 200);
    assert_eq!(answer.json()["padding"], Value::Null);
}

#[rstest]
#[case(0)]
#[case(1)]
#[case(CHUNK)]
#[case(200_000)]
fn a_longer_body_comes_in_chunks(#[case] bytes: usize) {
    let (mut backend, mut os) = echo();
    let request = format!("GET /?bytes={bytes} HTTP/1.1\r\n\r\n");
    let answer = answers(&mut backend, &mut os, &request, &["GET"]).remove(0);
    assert_eq!(answer.length, BodyLength::Chunked);
    assert_eq!(answer.json()["padding"].as_str().unwrap().len(), bytes);
}

#[rstest]
#[case::head("HEAD", "/?bytes=9")]
#[case::no_content("GET", "/?status=204")]
#[case::not_modified("GET", "/?status=304&bytes=9")]
fn an_answer_without_a_body_leaves_the_connection_usable(#[case] method: &str, #[case] path: &str) {
    let (mut backend, mut os) = echo();
    let requests = format!("{method} {path} HTTP/1.1\r\n\r\nGET /next HTTP/1.1\r\n\r\n");
    let answers = answers(&mut backend, &mut os, &requests, &[method, "GET"]);
    assert_eq!(answers[0].body, b"");
    assert_eq!(answers[1].json()["saw"]["path"], "/next");
}

#[rstest]
#[case::kept("GET / HTTP/1.1\r\n\r\n", false)]
#[case::closed("GET / HTTP/1.1\r\nconnection: close\r\n\r\n", true)]
#[case::of_old("GET / HTTP/1.0\r\n\r\n", true)]
#[case::no_http("what is this\r\n\r\n", true)]
fn a_connection_is_kept_unless_the_request_says_otherwise(
    #[case] request: &str,
    #[case] shut: bool,
) {
    let (mut backend, mut os) = echo();
    let socket = os.visit(&mut backend, 8080, PEER);
    os.deliver(&mut backend, socket, request.as_bytes());
    assert_eq!(os.sockets[&socket].shut, shut);
    let asked_to_close = os.sent(socket).contains("connection: close");
    assert_eq!(asked_to_close, shut);
}

#[test]
fn what_is_no_http_is_a_400() {
    let (mut backend, mut os) = echo();
    let answer = answers(&mut backend, &mut os, "\u{1}\u{2}\r\n\r\n", &["GET"]).remove(0);
    assert_eq!(answer.head.status, 400);
}

#[test]
fn an_answer_goes_out_as_there_is_room() {
    let (mut backend, mut os) = echo();
    let socket = os.visit(&mut backend, 8080, PEER);
    os.sockets.get_mut(&socket).unwrap().room = 10;
    os.deliver(
        &mut backend,
        socket,
        b"GET /?bytes=1000 HTTP/1.1\r\nconnection: close\r\n\r\n",
    );
    assert_eq!(os.sent(socket), "HTTP/1.1 2");
    assert!(!os.sockets[&socket].shut, "ended before all was sent");
    os.drain(&mut backend, socket, usize::MAX);
    let answer = take(&mut os.sockets[&socket].sent.clone(), "GET");
    assert_eq!(answer.json()["padding"].as_str().unwrap().len(), 1000);
    assert!(os.sockets[&socket].shut);
}

#[test]
fn a_backend_listens_on_its_ports_once() {
    let mut backend = Backend::new(Identity::default(), vec![80, 9080, 80]);
    let mut os = FakeOs::default();
    backend.on_wake(&mut os);
    let ports: Vec<u16> = os.listening.values().map(|at| at.1).collect();
    assert_eq!(ports, [80, 9080]);
}

#[test]
fn a_visitor_who_leaves_is_forgotten() {
    let (mut backend, mut os) = echo();
    let socket = os.visit(&mut backend, 8080, PEER);
    backend.on_socket(socket, SocketEvent::Closed, &mut os);
    assert!(backend.visitors.is_empty());
}

#[test]
fn answers_that_nobody_reads_do_not_pile_up() {
    let (mut backend, mut os) = echo();
    let socket = os.visit(&mut backend, 8080, PEER);
    os.sockets.get_mut(&socket).unwrap().room = 0;
    let request = "GET /?bytes=50000 HTTP/1.1\r\nhost: x\r\n\r\n";
    os.deliver(&mut backend, socket, request.repeat(40).as_bytes());
    let waiting = backend.visitors[&socket].pipe.output.len();
    assert!((50_000..200_000).contains(&waiting), "{waiting}");
    os.sockets.get_mut(&socket).unwrap().room = usize::MAX;
    backend.on_socket(socket, SocketEvent::Writable, &mut os);
    let sent = String::from_utf8_lossy(&os.sockets[&socket].sent);
    assert_eq!(sent.matches("HTTP/1.1 200 OK").count(), 40);
}
