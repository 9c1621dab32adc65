//! What comes over a wire, or out of a program that runs: packets, HTTP, TLS, certificates, lines of an access log.

use std::sync::OnceLock;

use nodeway_core::certificate::{Certificate, check_key};
use nodeway_core::datapath::{ethertype, parse, parse_frame};
use nodeway_core::envoy::bootstrap::AccessEntry;
use nodeway_core::plan::NodePlan;
use nodeway_core::proxy::{Context, Format, Request};
use nodeway_sim::http::{BodyLength, Decoder, Opening, RequestHead, ResponseHead};

use crate::texts;

/// A packet is a flow or has a reason; cut short, it is never another flow.
pub(crate) fn packet(bytes: &[u8]) {
    let flow = parse(bytes);
    for ethertype in [ethertype::IPV4, ethertype::IPV6, 0] {
        if let Ok(framed) = parse_frame(ethertype, bytes) {
            assert_eq!(Ok(framed), flow, "a frame's packet is the packet");
        }
    }
    for end in 0..bytes.len().min(128) {
        if let Ok(cut) = parse(bytes.get(..end).unwrap_or_default()) {
            assert_eq!(
                Ok(cut),
                flow,
                "the first {end} bytes are a flow of their own"
            );
        }
    }
}

/// A head that is whole stays the same when more comes, and is written as what is read as the same, but for the version of
/// HTTP, which is that of whoever writes.
pub(crate) fn http(bytes: &[u8]) {
    if let Ok(Some((head, taken))) = RequestHead::parse(bytes) {
        let front = bytes.get(..taken).unwrap_or_default();
        assert_eq!(
            RequestHead::parse(front),
            Ok(Some((head.clone(), taken))),
            "no more is needed"
        );
        let mut written = Vec::new();
        head.write(&mut written);
        let head = RequestHead { old: false, ..head };
        let again = RequestHead::parse(&written);
        assert_eq!(
            again,
            Ok(Some((head.clone(), written.len()))),
            "what is written is read"
        );
        if let Ok(length) = head.body() {
            body(length, bytes.get(taken..).unwrap_or_default());
        }
    }
    if let Ok(Some((head, taken))) = ResponseHead::parse(bytes) {
        let mut written = Vec::new();
        head.write(&mut written);
        let head = ResponseHead { old: false, ..head };
        let again = ResponseHead::parse(&written);
        assert_eq!(
            again,
            Ok(Some((head.clone(), written.len()))),
            "what is written is read"
        );
        for method in ["GET", "HEAD", "CONNECT"] {
            if let Ok(length) = head.body(method) {
                body(length, bytes.get(taken..).unwrap_or_default());
            }
        }
    }
}

/// A body is the same whole and byte by byte.
fn body(length: BodyLength, bytes: &[u8]) {
    let (mut whole, mut out) = (Decoder::new(length), Vec::new());
    let mut input = bytes.to_vec();
    let said = whole.decode(&mut input, &mut out, usize::MAX);
    let (mut slow, mut pieces) = (Decoder::new(length), Vec::new());
    let mut waiting = Vec::new();
    let mut failed = None;
    for byte in bytes {
        if slow.is_done() {
            break;
        }
        waiting.push(*byte);
        if let Err(error) = slow.decode(&mut waiting, &mut pieces, usize::MAX) {
            failed = Some(error);
            break;
        }
    }
    assert_eq!(said.err(), failed, "the same mistake");
    assert_eq!(out, pieces, "the same body");
    assert_eq!(whole.is_done(), slow.is_done(), "the same end");
}

/// The beginning of a connection is told from as few bytes as of all.
pub(crate) fn tls_hello(bytes: &[u8]) {
    let Ok(Some(opening)) = Opening::detect(bytes) else {
        return;
    };
    if let Opening::Tls(hello, used) = &opening {
        assert!(*used <= bytes.len(), "no more is used than there is");
        let front = bytes.get(..*used).unwrap_or_default();
        assert_eq!(
            Opening::detect(front),
            Ok(Some(opening.clone())),
            "no more is needed"
        );
        let mut written = Vec::new();
        hello.write(&mut written);
        if let Ok(Some(Opening::Tls(again, _))) = Opening::detect(&written) {
            assert_eq!(&again, hello, "what is written is read");
        }
    }
}

/// A chain names hosts or is refused with a reason.
pub(crate) fn certificate(bytes: &[u8]) {
    let read = [
        Certificate::from_pem(bytes),
        Certificate::from_der(vec![bytes.to_vec()]),
    ];
    for certificate in read.into_iter().flatten() {
        for name in certificate.names() {
            let host = name.replacen('*', "www", 1);
            let _ = certificate.covers(&host);
        }
    }
    if let Err(error) = check_key(bytes) {
        assert!(!error.to_string().is_empty(), "why it is no key");
    }
}

/// A line of Envoy's access log is refused, or leads to what an Envoy with the example's plan has.
pub(crate) fn access_log(bytes: &[u8]) {
    static PLAN: OnceLock<NodePlan> = OnceLock::new();
    let Ok(line) = std::str::from_utf8(bytes) else {
        return;
    };
    match AccessEntry::parse(line) {
        Ok(entry) => {
            let plan = PLAN.get_or_init(texts::plan_of_bookinfo);
            let has_chain = entry.chain(plan).is_some();
            assert!(
                has_chain || entry.matched(plan).is_none(),
                "a route is one of a chain"
            );
        }
        Err(error) => assert!(!error.to_string().is_empty(), "why it is none"),
    }
}

/// A format of Envoy is refused, or is filled in for a request.
pub(crate) fn format(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let request = Request {
        method: "GET".to_owned(),
        scheme: "http".to_owned(),
        authority: "shop".to_owned(),
        path: "/a?b=c".to_owned(),
        headers: vec![("x-a".to_owned(), "ä".to_owned())],
        random: 0,
    };
    match Format::parse(text) {
        Ok(format) => {
            let filled = format.text(&request, &Context::default());
            assert!(
                filled.is_some() || text.contains('%'),
                "text alone is known"
            );
        }
        Err(error) => assert!(!error.is_empty(), "why it is none"),
    }
}
