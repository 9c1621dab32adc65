//! Whether a process listens: the kernel's own table, and the process's files.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;

use crate::tcp_table::{self, State};

/// Those of `wanted` on which the process does not listen (yet) in its network namespace.
/// Another's socket on such an address does not count.
pub(crate) fn not_listening(pid: u32, wanted: &BTreeSet<SocketAddr>) -> BTreeSet<SocketAddr> {
    let own = inodes(pid);
    let mut listening = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        let ours = tcp_table::rows(&table)
            .filter(|row| row.state == State::Listen && own.contains(row.inode));
        listening.extend(ours.map(|row| row.local));
    }
    wanted.difference(&listening).copied().collect()
}

/// The sockets that a process has open.
fn inodes(pid: u32) -> BTreeSet<String> {
    let files = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    let links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    let inode = |link: std::path::PathBuf| {
        let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        Some(inode.to_owned())
    };
    links.filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_socket_that_listens_is_found_and_one_that_does_not_is_not() {
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let v6 = TcpListener::bind("[::1]:0").unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap();
        let closed_at = closed.local_addr().unwrap();
        drop(closed);
        let open = [v4.local_addr().unwrap(), v6.local_addr().unwrap()];
        let wanted = BTreeSet::from([open[0], open[1], closed_at]);
        let missing = not_listening(std::process::id(), &wanted);
        assert_eq!(missing, BTreeSet::from([closed_at]));
    }

    #[test]
    fn anothers_socket_does_not_count() {
        let own = TcpListener::bind("127.0.0.1:0").unwrap();
        let wanted = BTreeSet::from([own.local_addr().unwrap()]);
        assert_eq!(not_listening(1, &wanted), wanted);
    }
}
