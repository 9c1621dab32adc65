//! Both sides of a connection that speaks TLS, without sockets.

use proptest::prelude::*;

use super::{Hello, Records, Shown, server_flight};

fn hello() -> Hello {
    Hello {
        server_name: "shop.example".to_owned(),
        protocols: vec!["h2".to_owned(), "http/1.1".to_owned()],
    }
}

fn chain() -> [&'static [u8]; 2] {
    [b"own", &[7; 40_000]]
}

fn sealed(text: &str) -> Vec<u8> {
    let mut server = Records::server(Vec::new());
    server.seal(&mut text.as_bytes().to_vec());
    server.output
}

#[test]
fn a_client_takes_the_first_protocol_of_the_servers_that_it_speaks() {
    let wanted = ["spdy".to_owned(), "http/1.1".to_owned(), "h2".to_owned()];
    let mut client = Records::client(&hello());
    assert!(client.take(
        &server_flight(&hello(), &wanted, [].into_iter()),
        &mut Vec::new()
    ));
    assert_eq!(client.shown().unwrap().protocol, "http/1.1");
}

#[test]
fn a_client_sends_nothing_of_its_own_before_the_server_has_answered() {
    let mut client = Records::client(&hello());
    client.output.clear();
    let mut text = b"GET /".to_vec();
    client.seal(&mut text);
    assert!(client.output.is_empty() && client.is_waiting());
    client.take(
        &server_flight(&hello(), &[], [].into_iter()),
        &mut Vec::new(),
    );
    client.seal(&mut text);
    assert!(client.output.ends_with(b"GET /") && !client.is_waiting());
}

#[test]
fn the_others_end_is_told() {
    let mut server = Records::server(Vec::new());
    let mut data = Vec::new();
    assert!(server.take(&sealed("bye"), &mut data));
    let mut other = Records::server(Vec::new());
    other.close();
    assert!(!server.take(&other.output, &mut data));
    assert_eq!(data, b"bye");
}

proptest! {
    #[test]
    fn an_answer_is_read_however_it_is_cut(cut in 1_usize..9_000) {
        let mut bytes = server_flight(&hello(), &["h2".to_owned()], chain().into_iter());
        bytes.extend(sealed("HTTP/1.1 200 OK"));
        let (mut client, mut data) = (Records::client(&hello()), Vec::new());
        for piece in bytes.chunks(cut) {
            prop_assert!(client.take(piece, &mut data));
        }
        let shown = Shown { protocol: "h2".to_owned(), chain: chain().map(<[u8]>::to_vec).into() };
        prop_assert_eq!(client.shown(), Some(&shown));
        prop_assert_eq!(data, b"HTTP/1.1 200 OK");
    }

    #[test]
    fn nothing_that_comes_makes_either_side_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        kind in 20_u8..25,
    ) {
        let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        let mut framed = vec![kind, 3, 3, length[0], length[1]];
        framed.extend_from_slice(&bytes);
        for bytes in [&bytes, &framed] {
            Records::client(&hello()).take(bytes, &mut Vec::new());
            Records::server(Vec::new()).take(bytes, &mut Vec::new());
        }
    }
}
