use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn request(text: &str) -> RequestHead {
    RequestHead::parse(text.as_bytes()).unwrap().unwrap().0
}

fn response(text: &str) -> ResponseHead {
    ResponseHead::parse(text.as_bytes()).unwrap().unwrap().0
}

#[test]
fn a_head_comes_out_as_it_was_written() {
    let mut head = RequestHead::new("PUT", "/a?b=c");
    head.headers.add("host", "x");
    head.headers.add("x-a", "1");
    head.headers.add("x-a", "2");
    let mut bytes = Vec::new();
    head.write(&mut bytes);
    let length = bytes.len();
    bytes.extend_from_slice(b"body");
    assert_eq!(RequestHead::parse(&bytes), Ok(Some((head, length))));
}

#[rstest]
#[case::nothing("GET / HTTP/1.1\r\n\r\n", Ok(BodyLength::None))]
#[case::a_length(
    "GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
    Ok(BodyLength::Length(5))
)]
#[case::the_same_twice(
    "GET / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n",
    Ok(BodyLength::Length(5))
)]
#[case::two_lengths("GET / HTTP/1.1\r\ncontent-length: 5, 6\r\n\r\n", Err(HttpError::ContentLength("5, 6".to_owned())))]
#[case::a_sign("GET / HTTP/1.1\r\ncontent-length: +5\r\n\r\n", Err(HttpError::ContentLength("+5".to_owned())))]
#[case::chunks(
    "GET / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n",
    Ok(BodyLength::Chunked)
)]
#[case::both("GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n", Err(HttpError::TransferEncoding("chunked".to_owned())))]
#[case::gzip("GET / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n", Err(HttpError::TransferEncoding("gzip, chunked".to_owned())))]
fn a_request_says_how_long_its_body_is(
    #[case] text: &str,
    #[case] want: Result<BodyLength, HttpError>,
) {
    assert_eq!(request(text).body(), want);
}

#[rstest]
#[case::of_get("GET", 200, BodyLength::Length(9))]
#[case::of_head("HEAD", 200, BodyLength::None)]
#[case::no_content("GET", 204, BodyLength::None)]
#[case::not_modified("GET", 304, BodyLength::None)]
fn a_response_has_a_body_by_method_and_status(
    #[case] method: &str,
    #[case] status: u16,
    #[case] want: BodyLength,
) {
    let head = response(&format!("HTTP/1.1 {status} x\r\ncontent-length: 9\r\n\r\n"));
    assert_eq!(head.body(method), Ok(want));
}

#[test]
fn three_digits_that_are_no_status_are_no_head() {
    let read = ResponseHead::parse(b"HTTP/1.1 020 x\r\n\r\n");
    assert_eq!(read, Err(HttpError::Head("020 is no status".to_owned())));
}

#[test]
fn a_response_without_a_length_ends_with_its_connection() {
    assert_eq!(
        response("HTTP/1.1 200 OK\r\n\r\n").body("GET"),
        Ok(BodyLength::UntilClose)
    );
}

#[rstest]
#[case("GET / HTTP/1.1\r\n\r\n", true)]
#[case("GET / HTTP/1.1\r\nconnection: Close\r\n\r\n", false)]
#[case("GET / HTTP/1.0\r\n\r\n", false)]
#[case("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", true)]
fn a_connection_stays_unless_somebody_says_otherwise(#[case] text: &str, #[case] want: bool) {
    assert_eq!(request(text).keeps_alive(), want);
}

#[test]
fn a_head_without_end_is_refused_at_the_limit() {
    let mut bytes = b"GET / HTTP/1.1\r\nx: ".to_vec();
    bytes.resize(MAX_HEAD - 1, b'a');
    assert_eq!(RequestHead::parse(&bytes), Ok(None));
    bytes.push(b'a');
    assert_eq!(RequestHead::parse(&bytes), Err(HttpError::HeadTooLong));
}

#[rstest]
#[case::no_size("x\r\n")]
#[case::a_sign("+1\r\na\r\n")]
#[case::no_carriage_return("1\na\r\n")]
#[case::too_long_a_chunk("1\r\nab\r\n")]
#[case::too_large("fffffffffffffffff\r\n")]
fn malformed_chunks_are_refused(#[case] text: &str) {
    let mut out = Vec::new();
    let result =
        Decoder::new(BodyLength::Chunked).decode(&mut text.as_bytes().to_vec(), &mut out, 100);
    assert_eq!(result, Err(HttpError::Chunk));
}

#[test]
fn a_body_that_ends_early_is_an_error() {
    assert_eq!(
        Decoder::new(BodyLength::Length(3)).end(),
        Err(HttpError::Truncated)
    );
    assert_eq!(Decoder::new(BodyLength::UntilClose).end(), Ok(()));
}

#[test]
fn what_belongs_to_one_connection_goes_no_further() {
    let mut head = request(
        "GET / HTTP/1.1\r\nconnection: X-Mine, close\r\nx-mine: 1\r\nte: trailers\r\nx-other: 2\r\n\r\n",
    );
    head.headers.remove_hop_by_hop();
    assert_eq!(head.headers.0, [("x-other".to_owned(), "2".to_owned())]);
}

#[test]
fn a_hello_says_name_and_protocols() {
    let hello = Hello {
        server_name: "bookinfo.example".to_owned(),
        protocols: vec!["h2".to_owned(), "http/1.1".to_owned()],
    };
    let mut bytes = Vec::new();
    hello.write(&mut bytes);
    for end in 0..bytes.len() {
        assert_eq!(Opening::detect(&bytes[..end]), Ok(None));
    }
    let length = bytes.len();
    bytes.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(
        Opening::detect(&bytes),
        Ok(Some(Opening::Tls(hello, length)))
    );
    assert_eq!(Opening::detect(b"GET"), Ok(Some(Opening::Plain)));
}

#[rstest]
#[case::no_record(&[22, 9, 9, 0, 1, 0], "version")]
#[case::a_record_of_another_kind(&[22, 3, 1, 0, 1, 1, 23, 3, 3, 0, 1, 0], "no such record")]
#[case::a_longer_record_than_any(&[22, 3, 1, 0xff, 0xff], "longer")]
#[case::another_message(&[22, 3, 1, 0, 4, 2, 0, 0, 0], "ClientHello")]
#[case::an_empty_hello(&[22, 3, 1, 0, 4, 1, 0, 0, 0], "ClientHello")]
fn what_begins_as_tls_and_is_none_says_why(#[case] bytes: &[u8], #[case] why: &str) {
    let error = Opening::detect(bytes).unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
}

#[test]
fn a_hello_may_come_in_many_records() {
    let hello = Hello {
        server_name: "shop.example".to_owned(),
        protocols: Vec::new(),
    };
    let mut whole = Vec::new();
    hello.write(&mut whole);
    let mut bytes = Vec::new();
    for piece in whole[5..].chunks(7) {
        bytes.extend_from_slice(&[22, 3, 1, 0, u8::try_from(piece.len()).unwrap()]);
        bytes.extend_from_slice(piece);
    }
    let length = bytes.len();
    assert_eq!(
        Opening::detect(&bytes),
        Ok(Some(Opening::Tls(hello, length)))
    );
}

proptest! {
    #[test]
    fn a_body_survives_any_cut(
        body in proptest::collection::vec(any::<u8>(), 0..600),
        cut in 1_usize..50,
        piece in 1_usize..80,
        room in 1_usize..40,
        chunked in any::<bool>(),
    ) {
        let length = if chunked { BodyLength::Chunked } else { BodyLength::Length(body.len() as u64) };
        let encoder = Encoder::new(length);
        let mut wire = Vec::new();
        for piece in body.chunks(piece) {
            encoder.write(piece, &mut wire);
        }
        encoder.finish(&mut wire);
        wire.extend_from_slice(b"next");
        let mut decoder = Decoder::new(length);
        let (mut input, mut out) = (Vec::new(), Vec::new());
        for arrival in wire.chunks(cut) {
            input.extend_from_slice(arrival);
            loop {
                let before = (out.len(), input.len());
                decoder.decode(&mut input, &mut out, room).unwrap();
                prop_assert!(out.len() - before.0 <= room);
                if before == (out.len(), input.len()) {
                    break;
                }
            }
        }
        prop_assert!(decoder.is_done());
        prop_assert_eq!(out, body);
        prop_assert_eq!(input, b"next");
    }

    #[test]
    fn mangled_bytes_are_an_error_and_never_a_panic(
        flips in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..12),
        noise in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut bytes = b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n".to_vec();
        for (at, byte) in flips {
            let at = usize::from(at) % bytes.len();
            bytes[at] = byte;
        }
        bytes.extend_from_slice(&noise);
        let _ = Opening::detect(&bytes);
        let mut framed = vec![22, 3, 1, 0, u8::try_from(bytes.len().min(255)).unwrap()];
        framed.extend_from_slice(&bytes);
        let _ = Opening::detect(&framed);
        let _ = ResponseHead::parse(&bytes).map(|head| head.map(|(head, _)| head.body("GET")));
        if let Ok(Some((head, length))) = RequestHead::parse(&bytes)
            && let Ok(body) = head.body()
        {
            let mut rest = bytes[length..].to_vec();
            let mut out = Vec::new();
            let _ = Decoder::new(body).decode(&mut rest, &mut out, 10_000);
            prop_assert!(rest.len() + out.len() <= bytes.len());
        }
    }
}
