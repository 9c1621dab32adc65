//! Decisions as the kernel's programs report them while tracing is on.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nodeway_core::datapath::layout::Event as Raw;
use nodeway_core::datapath::{Hook, Reason, layout};
use nodeway_core::recording::Decision;

use super::table::address;

/// One decision of the kernel's programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, since the machine was started.
    pub at: Duration,
    /// Which hook decided: `tc`, `sk-lookup` or `connect`.
    pub hook: &'static str,
    /// The verdict's name: `pass`, `drop`, `deliver`, `assign`, `connect`.
    pub verdict: &'static str,
    /// Why.
    pub reason: Reason,
    /// From where; nothing at a connect hook, and of a packet that could not be read.
    pub src: Option<SocketAddr>,
    /// To where; nothing of a packet that could not be read.
    pub dst: Option<SocketAddr>,
    /// The bytes as the ring had them.
    pub raw: Raw,
}

impl Event {
    /// Reads what the ring holds; nothing of what another version wrote.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let raw = Raw::from_bytes(bytes)?;
        let place = |bytes, port| address(raw.family, bytes).map(|it| SocketAddr::new(it, port));
        let src = place(raw.src, raw.sport);
        Some(Self {
            at: Duration::from_nanos(raw.time),
            hook: hook(raw.hook)?,
            verdict: verdict(raw.verdict)?,
            reason: *Reason::ALL.get(usize::from(raw.reason))?,
            src: src.filter(|src| !IpAddr::is_unspecified(&src.ip())),
            dst: place(raw.dst, raw.dport),
            raw,
        })
    }

    /// The same as a recording has it.
    #[must_use]
    pub fn decision(&self) -> Decision {
        Decision {
            at: u64::try_from(self.at.as_micros()).unwrap_or(u64::MAX),
            hook: self.hook.to_owned(),
            verdict: self.verdict.to_owned(),
            reason: self.reason,
            from: self.src,
            to: self.dst,
            flags: self.raw.tcp_flags,
            mark: self.raw.mark,
        }
    }
}

/// The hooks, as reports and metrics name them.
pub(super) const HOOKS: [(&str, Hook); 3] = [
    ("tc", Hook::TcIngress { sk_lookup: false }),
    ("sk-lookup", Hook::SkLookup),
    ("connect", Hook::Connect),
];

fn hook(row: u8) -> Option<&'static str> {
    let (name, _) = HOOKS.iter().find(|(_, hook)| layout::row(*hook) == row)?;
    Some(name)
}

fn verdict(number: u8) -> Option<&'static str> {
    ["pass", "drop", "deliver", "assign", "connect"]
        .get(usize::from(number))
        .copied()
}
