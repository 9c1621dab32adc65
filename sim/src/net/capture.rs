//! What a capture on every device of the network would have seen, and what was decided there.
//!
//! A device sees a packet when it leaves over it and when it comes in over it, as tcpdump does;
//! `lo` sees each packet once, when it comes in, as Linux's libpcap shows it, with what was decided
//! when it was sent. What hooks, rules and routes decide is told while a packet is worked on: it
//! stands with the packet as it came in, and with what the same work sends on. Nothing here touches
//! a file.

use std::fmt::Write as _;
use std::net::SocketAddr;

use nodeway_core::datapath::{Flow, Hook, Verdict};

use super::checksum;
use super::hop::{Happening, hook_name};
use super::kernel::SimSocket;
use super::link::Port;
use super::network::Network;
use super::packet::{Packet, destination, source};
use super::stack::{Role, StackId};
use super::topology::Place;
use crate::time::Time;

/// One network interface, and the packets that went over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedInterface {
    /// In which network namespace.
    pub place: Place,
    /// `eth0`, `lo`, or on a node `veth of default/client`. The device that leads out of a node or
    /// of a host outside is `uplink`.
    pub device: String,
    /// In the order of time.
    pub packets: Vec<CapturedPacket>,
}

/// A packet as an interface saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedPacket {
    /// When.
    pub time: Time,
    /// From the IP header on, with right checksums.
    pub bytes: Vec<u8>,
    /// What was decided about it here, in order.
    pub comments: Vec<String>,
}

/// A device of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    /// The one that leads out: `eth0`, `uplink`.
    Own(StackId),
    /// The node's end of a pod's veth pair.
    Veth(StackId),
    /// `lo`.
    Loopback(StackId),
}

/// Where each of a stack's devices stands among the interfaces.
#[derive(Clone, Copy, Debug)]
struct Devices {
    own: usize,
    loopback: usize,
    veth: Option<usize>,
}

/// Keeps what every device sees.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    interfaces: Vec<CapturedInterface>,
    /// By stack.
    devices: Vec<Devices>,
    /// The node that was added last: the pods that follow are its own.
    node: Option<Place>,
    /// What was decided about the packet at work.
    told: Vec<String>,
    /// The packet at work: interface and place in it, once it came in over one.
    at: Option<(usize, usize)>,
}

impl Recorder {
    /// Adds the devices of the next stack; a pod's other end stands on the node added before it.
    pub(crate) fn add(&mut self, place: &Place, role: Role) {
        if matches!(role, Role::Host { .. }) {
            self.node = Some(place.clone());
        }
        let own = match role {
            Role::Pod { .. } => "eth0",
            Role::Host { .. } | Role::Outside => "uplink",
        };
        let devices = Devices {
            own: self.interface(place.clone(), own.to_owned()),
            loopback: self.interface(place.clone(), "lo".to_owned()),
            veth: match (role, self.node.clone()) {
                (Role::Pod { .. }, Some(node)) => {
                    Some(self.interface(node, format!("veth of {place}")))
                }
                _ => None,
            },
        };
        self.devices.push(devices);
    }

    fn interface(&mut self, place: Place, device: String) -> usize {
        self.interfaces.push(CapturedInterface {
            place,
            device,
            packets: Vec::new(),
        });
        self.interfaces.len() - 1
    }

    /// A stack made a packet that no device has seen yet.
    pub(crate) fn made(&mut self) {
        self.told.clear();
        self.at = None;
    }

    /// A packet comes in over a device, with what was decided when it was sent: what is told from
    /// now on is about it.
    fn came(&mut self, now: Time, device: Device, bytes: &[u8], sent: &[String]) {
        self.made();
        self.told.extend_from_slice(sent);
        self.at = self.keep(now, device, bytes);
    }

    /// What was decided about the packet at work, which goes over `lo`.
    pub(crate) fn take_told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }

    /// The packet at work leaves over a device.
    pub(crate) fn went(&mut self, now: Time, device: Device, bytes: &[u8]) {
        self.keep(now, device, bytes);
    }

    fn keep(&mut self, now: Time, device: Device, bytes: &[u8]) -> Option<(usize, usize)> {
        let index = match device {
            Device::Own(stack) => self.devices.get(stack.index())?.own,
            Device::Loopback(stack) => self.devices.get(stack.index())?.loopback,
            Device::Veth(stack) => self.devices.get(stack.index())?.veth?,
        };
        let packets = &mut self.interfaces.get_mut(index)?.packets;
        let mut bytes = bytes.to_vec();
        checksum::fill(&mut bytes);
        packets.push(CapturedPacket {
            time: now,
            bytes,
            comments: self.told.clone(),
        });
        Some((index, packets.len() - 1))
    }

    fn tell(&mut self, words: String) {
        let at = self.at;
        let packet = at.and_then(|(interface, index)| {
            let interface = self.interfaces.get_mut(interface)?;
            interface.packets.get_mut(index)
        });
        if let Some(packet) = packet {
            packet.comments.push(words.clone());
        }
        self.told.push(words);
    }

    /// What a hook says of the packet at work. A connect hook is asked by a call, not by a packet.
    pub(crate) fn verdict(&mut self, hook: Hook, verdict: &Verdict<SimSocket>) {
        if hook == Hook::Connect {
            return;
        }
        let mut words = format!(
            "{}: {} ({})",
            hook_name(hook),
            verdict.name(),
            verdict.reason()
        );
        if let Verdict::Deliver { mark, .. } | Verdict::Assign { mark, .. } = verdict
            && *mark != 0
        {
            // Writing to a String never fails.
            let _ = write!(words, ", mark {mark:#010x}");
        }
        self.tell(words);
    }

    /// A rule gives the packet at work to the socket that listens there, with a mark.
    pub(crate) fn assigned(&mut self, to: SocketAddr, mark: u32) {
        self.tell(format!(
            "TPROXY in PREROUTING: to the socket at {to}, mark {mark:#010x}"
        ));
    }

    /// What happens to the packet at work, where that is a decision.
    pub(crate) fn happens(&mut self, flow: Option<&Flow>, what: Happening) {
        let words = match (what, flow) {
            // A hook's verdict is told by the hook; the rest is what everybody expects.
            (
                Happening::Verdict(..)
                | Happening::Sent
                | Happening::Forwarded
                | Happening::Delivered,
                _,
            ) => return,
            (
                Happening::Translated {
                    source: from,
                    destination: to,
                },
                Some(flow),
            ) => translation((source(flow), destination(flow)), (from, to)),
            (Happening::Translated { destination, .. }, None) => {
                format!("translated: to {destination}")
            }
            (Happening::Rejected, _) => "rejected: by a rule, answered by an ICMP error".to_owned(),
            (Happening::Refused, _) => "refused: no socket takes it, answered by RST".to_owned(),
            (Happening::BacklogFull, _) => "dropped: the listener's backlog is full".to_owned(),
            (Happening::TimeWait, _) => "its connection is in TIME_WAIT".to_owned(),
            (Happening::NotTcp, _) => "dropped: neither TCP nor an ICMP error about TCP".to_owned(),
            (Happening::NoRoute, _) => "dropped: nobody has its destination".to_owned(),
            (Happening::Martian, _) => "dropped: an address that must not be on a wire".to_owned(),
            (Happening::TimeToLive, _) => "dropped: its last hop is used up".to_owned(),
            (Happening::Filtered, _) => "dropped: by a rule".to_owned(),
            (Happening::Dropped, _) => "dropped: by the hook's verdict".to_owned(),
            (Happening::Lost, _) => "lost: by a fault on the link".to_owned(),
            (Happening::Doubled, _) => "doubled: by a fault on the link".to_owned(),
        };
        self.tell(words);
    }

    /// Takes what was captured so far; the interfaces stay.
    pub(crate) fn take(&mut self) -> Vec<CapturedInterface> {
        self.made();
        let packets: Vec<_> = self
            .interfaces
            .iter_mut()
            .map(|it| std::mem::take(&mut it.packets))
            .collect();
        let interfaces = self.interfaces.iter().zip(packets);
        interfaces
            .map(|(interface, packets)| CapturedInterface {
                packets,
                ..interface.clone()
            })
            .collect()
    }
}

impl Network {
    /// Whether anybody wants to know what happens to packets.
    #[inline]
    pub(crate) fn watched(&self) -> bool {
        self.settings.trace_packets || self.recorder.is_some()
    }

    /// Captures a packet that leaves over a device, if captures are asked for.
    #[inline]
    pub(crate) fn went(&mut self, device: Device, bytes: &[u8]) {
        if let Some(recorder) = &mut self.recorder {
            recorder.went(self.now, device, bytes);
        }
    }

    /// Captures a packet that comes in.
    pub(crate) fn came(&mut self, port: Port, packet: &Packet) {
        let device = match port {
            Port::Stack(stack) => Device::Own(stack),
            Port::Loopback(stack) => Device::Loopback(stack),
            Port::Veth(pod) => Device::Veth(pod),
            Port::Uplink(index) => match self.node(index) {
                Some(node) => Device::Own(node.host),
                None => return,
            },
            // No device is there.
            Port::Fabric(_) => return,
        };
        if let Some(recorder) = &mut self.recorder {
            let carried = packet.carried.as_deref();
            let sent = carried.map_or(&[][..], |carried| &carried.told);
            recorder.came(self.now, device, &packet.bytes, sent);
        }
    }
}

/// `10.96.0.1:80 -> 10.0.1.3:8080`, for each end that gets another address.
fn translation(was: (SocketAddr, SocketAddr), is: (SocketAddr, SocketAddr)) -> String {
    let ends = [("destination", was.1, is.1), ("source", was.0, is.0)];
    let changed: Vec<String> = ends
        .iter()
        .filter(|(_, was, is)| was != is)
        .map(|(end, was, is)| format!("{end} {was} -> {is}"))
        .collect();
    if changed.is_empty() {
        return "translated: to itself".to_owned();
    }
    format!("translated: {}", changed.join(", "))
}
