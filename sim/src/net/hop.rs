//! One hop of one packet: where it was, when, and what was done with it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use nodeway_core::datapath::{Flow, Hook, Packet as Kind, Reason, tcp_flags};

use super::packet::{destination, source};
use crate::process::WayId;
use crate::time::Time;

/// A hop of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// When.
    pub time: Time,
    /// In which network namespace, or `fabric`.
    pub place: Arc<str>,
    /// On which device (`veth of default/client`, `uplink`), empty where there is none.
    pub device: Arc<str>,
    /// The packet's flow; none if there is none to read.
    pub flow: Option<Flow>,
    /// Its length from the IP header on.
    pub length: usize,
    /// The way it is on.
    pub way: Option<WayId>,
    /// What was done.
    pub what: Happening,
    /// The datapath's reason, where it was asked.
    pub reason: Option<Reason>,
}

/// What was done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A stack sent it.
    Sent,
    /// A hook gave that verdict.
    Verdict(Hook, &'static str),
    /// kube-proxy's rules or connection tracking gave it other addresses.
    Translated {
        /// Its source now.
        source: SocketAddr,
        /// Its destination now.
        destination: SocketAddr,
    },
    /// kube-proxy's rules refused it: the service has no endpoint.
    Rejected,
    /// The node sent it on.
    Forwarded,
    /// A socket took it.
    Delivered,
    /// No socket takes it: RST.
    Refused,
    /// The ListenSocket's backlog is full: dropped.
    BacklogFull,
    /// It came for a connection in TIME_WAIT.
    TimeWait,
    /// Neither TCP nor an error about TCP: dropped.
    NotTcp,
    /// Nobody has its destination: dropped.
    NoRoute,
    /// An address that must not be on a wire: dropped.
    Martian,
    /// Its last hop is used up: dropped.
    TimeToLive,
    /// A rule dropped it.
    Filtered,
    /// A hook dropped it.
    Dropped,
    /// A fault on the link took it, or its machine is off.
    Lost,
    /// A fault on the link lets it arrive twice.
    Doubled,
}

impl Happening {
    /// Its name in traces; stable.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Verdict(..) => "verdict",
            Self::Translated { .. } => "translated",
            Self::Rejected => "rejected",
            Self::Forwarded => "forwarded",
            Self::Delivered => "delivered",
            Self::Refused => "refused",
            Self::BacklogFull => "backlog-full",
            Self::TimeWait => "time-wait",
            Self::NotTcp => "not-tcp",
            Self::NoRoute => "no-route",
            Self::Martian => "martian",
            Self::TimeToLive => "time-to-live",
            Self::Filtered => "filtered",
            Self::Dropped => "dropped",
            Self::Lost => "lost",
            Self::Doubled => "doubled",
        }
    }
}

/// A hook's name in traces and counters.
#[must_use]
pub const fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::TcIngress { .. } => "tc-ingress",
        Hook::SkLookup => "sk-lookup",
        Hook::Connect => "connect",
    }
}

/// `SYN,ACK`; a dot where there is none of the flags that are told.
fn flags(flow: &Flow) -> String {
    if flow.packet == Kind::IcmpError {
        return "ICMP".to_owned();
    }
    let names = [
        (tcp_flags::SYN, "SYN"),
        (tcp_flags::FIN, "FIN"),
        (tcp_flags::RST, "RST"),
        (tcp_flags::ACK, "ACK"),
    ];
    let set: Vec<&str> = names
        .iter()
        .filter(|(bit, _)| flow.tcp_flags & bit != 0)
        .map(|(_, name)| *name)
        .collect();
    if set.is_empty() {
        ".".to_owned()
    } else {
        set.join(",")
    }
}

impl fmt::Display for Hop {
    /// Time, place, device, source > destination, flags, length, what, reason; in columns.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (packet, flags) = match &self.flow {
            Some(flow) => (
                format!("{} > {}", source(flow), destination(flow)),
                flags(flow),
            ),
            None => ("no flow".to_owned(), ".".to_owned()),
        };
        write!(
            f,
            "{:>14}  {:<26} {:<34} {:<44} {:<8} {:>5}  {}",
            self.time.to_string(),
            self.place,
            self.device,
            packet,
            flags,
            self.length,
            self.what.name(),
        )?;
        match self.what {
            Happening::Verdict(hook, verdict) => write!(f, " {}: {verdict}", hook_name(hook))?,
            Happening::Translated {
                source,
                destination,
            } => write!(f, " to {source} > {destination}")?,
            _ => {}
        }
        match self.reason {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}
