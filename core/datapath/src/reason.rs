//! Why a verdict was given: one closed set of reasons with stable numbers.
//!
//! The eBPF programs count them per CPU by number, the simulator prints them, `explain` explains
//! them. A number is never given to another reason.

/// Declares [`Reason`] once: number, stable name, and the sentence that explains it.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $text:literal;)*) => {
        /// Why a packet got its verdict.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[$doc])* $variant = $number,)*
        }

        impl Reason {
            /// Every reason, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name by which reports, metrics and JSON call it; stable.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// One sentence for people, without a full stop.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

reasons! {
    /// The destination is no frontend of the table.
    NotAFrontend = 0, "not-a-frontend",
        "the destination is not in the frontend table, so nothing is redirected";
    /// Not IPv4 or IPv6.
    NotIp = 1, "not-ip",
        "the packet is neither IPv4 nor IPv6";
    /// Shorter than its headers say.
    Truncated = 2, "truncated",
        "the packet is shorter than its headers say";
    /// A header length that no packet can have.
    BadHeader = 3, "bad-header",
        "a header of the packet contradicts itself";
    /// A fragment: only the first has ports, so none is redirected.
    Fragment = 4, "fragment",
        "fragments carry no ports and are passed on";
    /// An IPv6 extension header that is not walked, or more of them than the bound.
    ExtensionHeader = 5, "extension-header",
        "the packet has IPv6 extension headers that are not walked";
    /// Neither TCP nor an ICMP error about TCP.
    NotTcp = 6, "not-tcp",
        "only TCP is redirected; a listener of Envoy's takes nothing else";
    /// The flow has an established socket of this node: the packet is its own.
    Established = 7, "established",
        "the flow has an established socket on this node";
    /// The flow has a connection request of this node.
    RequestSocket = 8, "request-socket",
        "the flow has a half-open connection on this node";
    /// The flow's socket is in TIME_WAIT: delivered locally, where the kernel's own rules hold.
    TimeWait = 9, "time-wait",
        "the flow's socket is in TIME_WAIT; the node's TCP decides";
    /// A new connection to an active frontend, assigned to the listener's socket.
    NewConnection = 10, "new-connection",
        "a new connection to a frontend: given to the listener's socket";
    /// The frontend's listener has no socket.
    NoListener = 11, "no-listener",
        "the frontend's listener has no listening socket on this node";
    /// The frontend is draining: only known sockets are served.
    Draining = 12, "draining",
        "the redirect is being switched off: only known connections are served";
    /// The frontend is arming and the packet belongs to an older connection.
    OlderConnection = 13, "older-connection",
        "the redirect was just switched on and the packet belongs to an older connection";
    /// A socket call to a frontend: the call goes to the listener's own address.
    NodeCall = 14, "node-call",
        "a process of the node itself calls a frontend: it is connected to the listener's port";
    /// An ICMP error about a redirected connection: delivered locally, where its socket is.
    IcmpError = 15, "icmp-error",
        "an ICMP error about a redirected connection is delivered to this node";
    /// A new connection that is delivered locally, where the sk_lookup program picks the socket.
    LeftToSkLookup = 16, "left-to-sk-lookup",
        "delivered to this node, where the sk_lookup program picks the socket";
    /// The frontend is open to some source ranges alone, and the packet comes from none of them.
    SourceNotInRanges = 17, "source-not-in-ranges",
        "the source is in none of the Service's loadBalancerSourceRanges";
}

impl core::fmt::Display for Reason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}
