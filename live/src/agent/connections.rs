//! Who has connections to a frontend, as the kernel of a node knows it.
//!
//! Past the listener go those that connection tracking has: what is redirected is untracked. Served
//! are those whose socket on this node has the frontend's own address.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use nodeway_core::frontend::FrontendKey;
use nodeway_core::steering::Connections;

use crate::netns::NetNs;
use crate::tcp_table::{self, State};

/// The kernel's tables at one moment, read when they are first asked for.
pub(super) struct KernelConnections<'a> {
    netns: &'a NetNs,
    tracked: OnceCell<Tracked>,
    served: OnceCell<BTreeSet<SocketAddr>>,
}

/// What connection tracking knows.
enum Tracked {
    To(BTreeSet<SocketAddr>),
    /// This kernel counts connections and lists none: there may be one.
    Unknown,
}

impl<'a> KernelConnections<'a> {
    pub(super) const fn of(netns: &'a NetNs) -> Self {
        Self {
            netns,
            tracked: OnceCell::new(),
            served: OnceCell::new(),
        }
    }

    fn tracked(&self) -> &Tracked {
        self.tracked.get_or_init(|| {
            self.netns
                .run(|| {
                    let listed = fs::read_to_string("/proc/thread-self/net/nf_conntrack");
                    let counted = Path::new("/proc/sys/net/netfilter/nf_conntrack_count").exists();
                    match listed {
                        Ok(listed) => Tracked::To(listed.lines().filter_map(destination).collect()),
                        Err(_) if counted => Tracked::Unknown,
                        Err(_) => Tracked::To(BTreeSet::new()),
                    }
                })
                .unwrap_or(Tracked::Unknown)
        })
    }

    fn served(&self) -> &BTreeSet<SocketAddr> {
        self.served.get_or_init(|| {
            let tables = self.netns.run(|| {
                ["tcp", "tcp6"]
                    .map(|it| fs::read_to_string(format!("/proc/thread-self/net/{it}")))
                    .map(Result::unwrap_or_default)
            });
            let tables = tables.unwrap_or_default();
            let rows = tables.iter().flat_map(|table| tcp_table::rows(table));
            rows.filter(|row| row.state == State::Connected)
                .map(|row| row.local)
                .collect()
        })
    }
}

impl Connections for KernelConnections<'_> {
    fn older(&self, key: FrontendKey) -> bool {
        match self.tracked() {
            Tracked::To(destinations) => destinations.contains(&key.into()),
            Tracked::Unknown => true,
        }
    }

    fn served(&self, key: FrontendKey) -> bool {
        self.served().contains(&key.into())
    }
}

/// Where a tracked TCP connection that is not over was sent to, before anybody translated it.
///
/// `ipv4 2 tcp 6 431999 ESTABLISHED src=A dst=B sport=1 dport=80 src=C dst=A sport=8080 dport=1 ...`
fn destination(line: &str) -> Option<SocketAddr> {
    let mut fields = line.split_ascii_whitespace();
    if fields.nth(2)? != "tcp" {
        return None;
    }
    let state = fields.nth(2)?;
    if matches!(state, "TIME_WAIT" | "CLOSE" | "NONE") {
        return None;
    }
    let mut value = |name: &str| {
        let found = fields.find_map(|field| field.strip_prefix(name))?;
        Some(found.to_owned())
    };
    let address: IpAddr = value("dst=")?.parse().ok()?;
    let port = value("dport=")?.parse().ok()?;
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::translated(
        "ipv4     2 tcp      6 431999 ESTABLISHED src=10.244.0.2 dst=10.96.0.10 sport=40000 dport=80 src=10.244.1.3 dst=10.244.0.2 sport=9080 dport=40000 [ASSURED] mark=0 zone=0 use=2",
        Some("10.96.0.10:80")
    )]
    #[case::v6(
        "ipv6     10 tcp      6 119 SYN_SENT src=fd00::2 dst=fd00::96:10 sport=40000 dport=80 [UNREPLIED] src=fd00::3 dst=fd00::2 sport=9080 dport=40000 mark=0 use=2",
        Some("[fd00::96:10]:80")
    )]
    #[case::over(
        "ipv4     2 tcp      6 119 TIME_WAIT src=10.244.0.2 dst=10.96.0.10 sport=40000 dport=80 src=10.244.1.3 dst=10.244.0.2 sport=9080 dport=40000 [ASSURED] mark=0 use=2",
        None
    )]
    #[case::no_tcp(
        "ipv4     2 udp      17 29 src=10.244.0.2 dst=10.96.0.10 sport=40000 dport=53 src=10.244.1.3 dst=10.244.0.2 sport=53 dport=40000 mark=0 use=2",
        None
    )]
    #[case::cut_off(
        "ipv4     2 tcp      6 431999 ESTABLISHED src=10.244.0.2 dst=10.96",
        None
    )]
    fn a_tracked_connection_was_sent_to(#[case] line: &str, #[case] to: Option<&str>) {
        assert_eq!(destination(line), to.map(|to| to.parse().unwrap()));
    }
}
