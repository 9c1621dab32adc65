//! A decision of the kernel's programs, as a line of a recording.

use std::net::SocketAddr;

use nodeway_datapath::{Reason, tcp_flags};
use serde::{Deserialize, Serialize};

/// What a hook decided on one packet or call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// When, in microseconds since the node was started.
    pub at: u64,
    /// Which hook: `tc`, `sk-lookup` or `connect`.
    pub hook: String,
    /// The verdict's name: `pass`, `drop`, `deliver`, `assign`, `connect`.
    pub verdict: String,
    /// Why.
    #[serde(with = "by_name")]
    pub reason: Reason,
    /// From where; absent at a connect hook, and of a packet that could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<SocketAddr>,
    /// To where; absent of a packet that could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<SocketAddr>,
    /// The segment's flags, as TCP numbers them; 0 where there is no segment.
    #[serde(default)]
    pub flags: u8,
    /// The mark that it set.
    #[serde(default)]
    pub mark: u32,
}

impl Decision {
    /// Whether it is about a connection that is being opened: at tc a SYN, at the other hooks always.
    #[must_use]
    pub fn opens(&self) -> bool {
        let flags = self.flags & (tcp_flags::SYN | tcp_flags::ACK);
        self.hook != "tc" || flags == tcp_flags::SYN
    }
}

/// A reason by its name.
mod by_name {
    use nodeway_datapath::Reason;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(it: &Reason, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(it.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Reason, D::Error> {
        let name = String::deserialize(from)?;
        let known = Reason::ALL.iter().find(|it| it.name() == name);
        let unknown = || D::Error::custom(format!("no reason of a decision: `{name}`"));
        known.copied().ok_or_else(unknown)
    }
}
