//! The kernel's table of TCP sockets, as `/proc/net/tcp` prints it: one network namespace's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// One socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row<'a> {
    /// Its own address; of a redirected connection the frontend's.
    pub(crate) local: SocketAddr,
    pub(crate) state: State,
    /// The number by which a process's file names it.
    pub(crate) inode: &'a str,
}

/// What it is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Waiting for connections.
    Listen,
    /// One of two ends of a connection that is not over.
    Connected,
    /// Over, or not begun.
    Other,
}

/// The rows of a table; lines of another form are passed over.
pub(crate) fn rows(table: &str) -> impl Iterator<Item = Row<'_>> {
    table.lines().filter_map(row)
}

/// `0: 0100007F:2710 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 12345 ...`
fn row(line: &str) -> Option<Row<'_>> {
    let mut fields = line.split_ascii_whitespace();
    let local = address(fields.nth(1)?)?;
    let state = match fields.nth(1)? {
        "0A" => State::Listen,
        // ESTABLISHED, SYN_RECV, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING
        "01" | "03" | "04" | "05" | "08" | "09" | "0B" => State::Connected,
        _ => State::Other,
    };
    let inode = fields.nth(5)?;
    Some(Row {
        local,
        state,
        inode,
    })
}

/// `0100007F:2710`: each word of the address in the machine's byte order, the port as a number.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for at in (0..ip.len()).step_by(8) {
        let word = u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip = match (<[u8; 4]>::try_from(&*bytes), <[u8; 16]>::try_from(&*bytes)) {
        (Ok(v4), _) => IpAddr::V4(Ipv4Addr::from(v4)),
        (_, Ok(v6)) => IpAddr::V6(Ipv6Addr::from(v6)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::listens(
        "   0: 0100007F:2710 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0",
        "127.0.0.1:10000",
        State::Listen
    )]
    #[case::connected(
        "   1: 0A00600A:0050 0201F40A:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4711 1",
        "10.96.0.10:80",
        State::Connected
    )]
    #[case::waits_for_stragglers(
        "   2: 0A00600A:0050 0201F40A:9C40 06 00000000:00000000 03:00000000 00000000     0        0 4711 3",
        "10.96.0.10:80",
        State::Other
    )]
    #[case::v6(
        "   3: 00000000000000000000000001000000:2710 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 1",
        "[::1]:10000",
        State::Listen
    )]
    #[cfg(target_endian = "little")]
    fn a_line_is_a_socket(#[case] line: &str, #[case] local: &str, #[case] state: State) {
        let row = Row {
            local: local.parse().unwrap(),
            state,
            inode: "4711",
        };
        assert_eq!(rows(line).collect::<Vec<_>>(), [row]);
    }

    #[rstest]
    #[case::the_header(
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
    )]
    #[case::cut_off("   0: 0100007F:2710 00000000:0000")]
    #[case::no_address("   0: 01:zz 00000000:0000 0A 0 0 0 0 0 4711")]
    #[case::nothing("")]
    fn what_is_no_socket_is_passed_over(#[case] line: &str) {
        assert_eq!(rows(line).count(), 0);
    }
}
