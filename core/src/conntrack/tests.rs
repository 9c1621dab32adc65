//! A few connections by hand, and what must hold of any.

use proptest::prelude::*;
use rstest::rstest;

use super::*;

const SYN: u8 = tcp_flags::SYN;
const ACK: u8 = tcp_flags::ACK;
const FIN: u8 = tcp_flags::FIN | ACK;
const RST: u8 = tcp_flags::RST;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn tuple(source: &str, destination: &str) -> Tuple {
    Tuple {
        source: at(source),
        destination: at(destination),
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A connection from a client to a service that is led to an endpoint.
fn translated(conntrack: &mut Conntrack, client: &str) -> Connection {
    let Tracked::New(mut connection) =
        conntrack.segment(Duration::ZERO, tuple(client, "10.96.0.1:80"), SYN)
    else {
        panic!("a SYN begins a connection");
    };
    conntrack.change_destination(&mut connection, at("10.0.0.9:8080"));
    conntrack.change_source(&mut connection, Some(at("172.18.0.2:0").ip()), None);
    conntrack.confirm((*connection).clone());
    *connection
}

#[rstest]
#[case::a_first_packet(SYN, true)]
#[case::one_from_the_middle(ACK, true)]
#[case::an_answer_to_nothing(SYN | ACK, false)]
#[case::an_end_of_nothing(FIN, false)]
#[case::a_reset_of_nothing(RST, false)]
#[case::without_any_flag(0, false)]
fn a_segment_of_no_connection_begins_one_or_is_invalid(#[case] flags: u8, #[case] begins: bool) {
    let got =
        Conntrack::default().segment(Duration::ZERO, tuple("10.0.0.1:5", "10.0.0.2:80"), flags);
    assert_eq!(matches!(got, Tracked::New(_)), begins);
    assert_eq!(got == Tracked::Invalid, !begins);
}

#[test]
fn a_first_packet_that_is_dropped_leaves_nothing() {
    let mut conntrack = Conntrack::default();
    let first = tuple("10.0.0.1:5", "10.0.0.2:80");
    assert!(matches!(
        conntrack.segment(Duration::ZERO, first, SYN),
        Tracked::New(_)
    ));
    assert!(conntrack.is_empty());
}

#[test]
fn replies_undo_what_was_done_to_the_first_packet() {
    let mut conntrack = Conntrack::default();
    let connection = translated(&mut conntrack, "10.0.0.1:5000");
    let reply = tuple("10.0.0.9:8080", "172.18.0.2:5000");
    let Tracked::Of {
        direction,
        answered,
        ..
    } = conntrack.segment(seconds(1), reply, SYN | ACK)
    else {
        panic!("the reply is known");
    };
    assert_eq!((direction, answered), (Direction::Reply, true));
    assert_eq!(connection.destination(direction), at("10.0.0.1:5000"));
    assert_eq!(connection.source(direction), at("10.96.0.1:80"));
    assert_eq!(
        conntrack.original_destination(at("172.18.0.2:5000"), at("10.0.0.9:8080")),
        Some(at("10.96.0.1:80"))
    );
}

#[test]
fn a_source_port_that_is_taken_is_moved_to_the_next() {
    let mut conntrack = Conntrack::default();
    let first = translated(&mut conntrack, "10.0.0.1:5000");
    let second = translated(&mut conntrack, "10.0.0.2:5000");
    assert_eq!(first.reply.destination, at("172.18.0.2:5000"));
    assert_eq!(second.reply.destination, at("172.18.0.2:5001"));
}

#[rstest]
#[case::while_it_stands(&[SYN], &[], 3, false)]
#[case::after_both_have_ended(&[SYN, FIN], &[FIN], 3, true)]
#[case::after_one_has_ended(&[SYN, FIN], &[ACK], 3, false)]
#[case::after_a_reset(&[SYN], &[RST], 3, true)]
fn the_ports_of_a_connection_that_is_over_are_free(
    #[case] forth: &[u8],
    #[case] back: &[u8],
    #[case] now: u64,
    #[case] free: bool,
) {
    let mut conntrack = Conntrack::default();
    let connection = translated(&mut conntrack, "10.0.0.1:5000");
    for flags in forth {
        conntrack.segment(seconds(1), connection.original, *flags);
    }
    for flags in back {
        conntrack.segment(seconds(2), connection.reply, *flags);
    }
    let again = conntrack.segment(seconds(now), connection.original, SYN);
    assert_eq!(matches!(again, Tracked::New(_)), free);
}

#[rstest]
#[case::unanswered(false, &[], 119, 1)]
#[case::unanswered_for_long(false, &[], 121, 0)]
#[case::answered(true, &[], 3_600, 1)]
#[case::answered_for_very_long(true, &[], 6 * 24 * 3_600, 0)]
#[case::reset(true, &[RST], 12, 0)]
fn a_silent_connection_is_forgotten_in_its_time(
    #[case] answered: bool,
    #[case] then: &[u8],
    #[case] after: u64,
    #[case] left: usize,
) {
    let mut conntrack = Conntrack::default();
    let connection = translated(&mut conntrack, "10.0.0.1:5000");
    if answered {
        conntrack.segment(Duration::ZERO, connection.reply, SYN | ACK);
    }
    for flags in then {
        conntrack.segment(Duration::ZERO, connection.reply, *flags);
    }
    // Anything that comes looks at the clock.
    conntrack.segment(seconds(after), tuple("10.9.9.9:1", "10.9.9.8:1"), RST);
    assert_eq!(conntrack.len(), left);
}

proptest! {
    /// Whatever comes, every remembered connection is found by both of its tuples, and by no other's.
    #[test]
    fn no_two_connections_share_a_tuple(
        packets in proptest::collection::vec((0_u8..4, 0_u8..3, 0_u8..2, 0_usize..4, 0_u64..200), 0..120),
    ) {
        let mut conntrack = Conntrack::default();
        let mut now = Duration::ZERO;
        for (client, port, service, flags, wait) in packets {
            now += seconds(wait);
            let from = format!("10.0.0.{client}:{}", 5000 + u16::from(port));
            let to = format!("10.96.0.{service}:80");
            let flags = [SYN, ACK, FIN, RST][flags];
            if let Tracked::New(mut connection) = conntrack.segment(now, tuple(&from, &to), flags) {
                conntrack.change_destination(&mut connection, at("10.0.0.9:8080"));
                conntrack.change_source(&mut connection, Some(at("172.18.0.2:0").ip()), None);
                conntrack.confirm(*connection);
            }
            let mut seen = BTreeSet::new();
            for connection in conntrack.connections() {
                prop_assert!(seen.insert(connection.original));
                prop_assert!(seen.insert(connection.reply));
            }
            prop_assert_eq!(conntrack.by_tuple.len(), 2 * conntrack.len());
        }
    }
}
