//! A packet as the decision sees it: five-tuple, flags, and whether it is an ICMP error about one.

/// Numbers of the protocols that the decision knows (IANA, "Protocol Numbers").
pub mod protocol {
    /// ICMP for IPv4
    pub const ICMP: u8 = 1;
    /// TCP
    pub const TCP: u8 = 6;
    /// UDP
    pub const UDP: u8 = 17;
    /// ICMP for IPv6
    pub const ICMPV6: u8 = 58;
}

/// The flags of a TCP header that the decision reads (RFC 9293, section 3.1).
pub mod tcp_flags {
    /// No more data from sender
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers
    pub const SYN: u8 = 0x02;
    /// Reset the connection
    pub const RST: u8 = 0x04;
    /// The acknowledgement number is valid
    pub const ACK: u8 = 0x10;
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// IPv4
    V4 = 4,
    /// IPv6
    V6 = 6,
}

/// An address of either family in network byte order; IPv4 fills the first four bytes, the rest is zero.
pub type Address = [u8; 16];

/// What kind of packet a [`Flow`] was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Packet {
    /// A segment of the flow itself.
    Segment = 0,
    /// An ICMP error about a segment that `dst` once sent: the flow is turned round, so that it
    /// reads as if the other side of that segment had sent this packet.
    IcmpError = 1,
    /// No packet at all: a socket call, or a hook that sees no header. Flags and, at a connect
    /// hook, the source are absent (zero): [`Flow::call`].
    Call = 2,
}

/// Who sends to whom. Ports are in host byte order, addresses in network byte order.
///
/// It is flat, and what is absent is zero. A variant that carried the flags would leave bytes
/// unwritten in the others; LLVM copies them at some levels, and the verifier refuses the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Where this was read from.
    pub packet: Packet,
    /// IANA protocol number of the segment.
    pub protocol: u8,
    /// [`tcp_flags`]; zero for anything but a TCP segment.
    pub tcp_flags: u8,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Source address.
    pub src: Address,
    /// Destination address.
    pub dst: Address,
}

impl Flow {
    /// What a socket call asks for, or a hook that sees no header: who asks may be absent, flags are.
    #[inline(always)]
    #[must_use]
    pub const fn call(
        family: Family,
        protocol: u8,
        from: Option<(Address, u16)>,
        to: (Address, u16),
    ) -> Self {
        let (src, sport) = match from {
            Some(from) => from,
            None => ([0; 16], 0),
        };
        let (dst, dport) = to;
        Self {
            family,
            packet: Packet::Call,
            protocol,
            tcp_flags: 0,
            sport,
            dport,
            src,
            dst,
        }
    }

    /// Whether this packet asks for a new connection: SYN without ACK.
    #[must_use]
    pub const fn opens(&self) -> bool {
        self.tcp_flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN
    }
}
