//! Packets of a node's namespace, as all its devices see them, for as long as it is watched.
//!
//! They begin at their IP header, whatever device they are of, so that one file has them all.

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, socket,
};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, PcapError};

use crate::clock::{Clock, time_of_day};
use crate::netns::{NetNs, NetNsError};

/// No more bytes than these are kept.
const MOST: usize = 64 << 20;
/// The longest packet that a device gives: with segmentation left to it, a whole IP packet.
const LONGEST: usize = 1 << 16;
/// How often is looked whether the time is over.
const LOOK: u16 = 100;

/// Why packets cannot be captured.
#[derive(Debug, thiserror::Error)]
pub enum PacketsError {
    /// The kernel refused.
    #[error("cannot capture packets: {0}; it takes CAP_NET_RAW")]
    Refused(io::Error),
    /// The namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// They cannot be written.
    #[error("cannot write packets: {0}")]
    Form(PcapError),
    /// The thread that captures has ended.
    #[error("the capture of packets ended before its time")]
    Ended,
}

/// Packets that are being captured.
pub(super) struct Capture {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<u8>, PacketsError>>,
}

impl Capture {
    /// Ends it: the file.
    pub(super) fn end(self) -> Result<Vec<u8>, PacketsError> {
        self.over.store(true, Ordering::Release);
        self.thread.join().map_err(|_| PacketsError::Ended)?
    }
}

/// Begins to capture, for no longer than that.
pub(super) fn begin(netns: &NetNs, within: Duration) -> Result<Capture, PacketsError> {
    let open = || {
        socket(
            AddressFamily::Packet,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        )
    };
    let socket = netns.run(open)?;
    let socket = socket.map_err(|errno| PacketsError::Refused(errno.into()))?;
    let over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&over);
    let thread = thread::spawn(move || capture(&socket, &ends, within));
    Ok(Capture { over, thread })
}

fn capture(socket: &OwnedFd, over: &AtomicBool, within: Duration) -> Result<Vec<u8>, PacketsError> {
    let form = PacketsError::Form;
    let mut writer = PcapNgWriter::new(Vec::new()).map_err(form)?;
    let microseconds = InterfaceDescriptionOption::IfTsResol(6);
    let device = InterfaceDescriptionBlock {
        linktype: DataLink::RAW,
        snaplen: 0,
        options: vec![microseconds],
    };
    writer.write_pcapng_block(device).map_err(form)?;
    let mut packet = vec![0; LONGEST];
    let (clock, longest) = (Clock::start(), within.saturating_add(SLACK));
    while !over.load(Ordering::Acquire) && clock.now() < longest {
        let mut waits = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut waits, PollTimeout::from(LOOK));
        if ready.map_err(|errno| PacketsError::Refused(errno.into()))? == 0 {
            continue;
        }
        let got = recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut packet);
        let (length, from) = got.map_err(|errno| PacketsError::Refused(errno.into()))?;
        let is_ip = from.is_some_and(|it| matches!(u16::from_be(it.protocol()), IPV4 | IPV6));
        let data = packet.get(..length).unwrap_or_default();
        if !is_ip || writer.get_ref().len() + length > MOST {
            continue;
        }
        let mut block = EnhancedPacketBlock::default();
        block.timestamp = time_of_day();
        block.original_len = u32::try_from(length).unwrap_or(u32::MAX);
        block.data = Cow::Borrowed(data);
        writer.write_pcapng_block(block).map_err(form)?;
    }
    Ok(writer.into_inner())
}

/// `ETH_P_IP` and `ETH_P_IPV6`.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// What it takes to look at the node afterwards.
const SLACK: Duration = Duration::from_secs(60);
