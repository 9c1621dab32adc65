//! Simulated packets per second, beside bare smoltcp on the same traffic.
//!
//! Each flow sends 64 bytes to and fro. In the simulation two pods of one node do it, through
//! links, the tc hook and routes; bare, two interfaces hand each other their packets, with one
//! `SocketSet` a connection, as the simulation has it too.

use std::collections::VecDeque;
use std::time::Duration;

use nodeway_sim::{
    NodeSpec, NodewayDatapath, Os, Place, PodSpec, Process, Settings, SocketEvent, SocketId, Time,
    TimerId, Topology, TopologyError, World,
};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress};

use super::{Line, short, turns};

const MESSAGE: [u8; 64] = [7; 64];
const BUFFER: usize = 4096;
const PORT: u16 = 80;
const FIRST_PORT: u16 = 10_000;

/// Measures 1, 64 and 1,000 flows, that many packets a round.
///
/// # Errors
/// When the simulation cannot be built.
pub fn run(rounds: usize, packets: u64) -> Result<Vec<Line>, TopologyError> {
    let mut lines = Vec::new();
    for flows in [1, 64, 1_000] {
        let mut world = ping_pong(flows)?;
        let mut bare = Bare::new(flows);
        // Connections stand before the clock starts.
        through_world(&mut world, u64::from(flows) * 8);
        bare.carry(u64::from(flows) * 8);
        let (sim, reference, ratio) = turns(
            rounds,
            || through_world(&mut world, packets),
            || bare.carry(packets),
        );
        lines.push(Line::beside(
            format!("simulated packets, {flows} flows"),
            format!("{}/s", short(sim)),
            format!("bare smoltcp, {}/s", short(reference)),
            ratio,
        ));
    }
    Ok(lines)
}

fn ping_pong(flows: u16) -> Result<World, TopologyError> {
    let pod = |name: &str, last: u8| PodSpec {
        name: name.to_owned(),
        addresses: vec![[10, 0, 0, last].into()],
        host_network: false,
    };
    let topology = Topology {
        nodes: vec![NodeSpec {
            name: "node".to_owned(),
            addresses: vec![[192, 168, 0, 1].into()],
            pods: vec![pod("bench/ping", 1), pod("bench/pong", 2)],
        }],
        ..Topology::default()
    };
    let settings = Settings {
        buffer: BUFFER,
        ..Settings::default()
    };
    let mut world = World::new(&topology, settings, Box::new(NodewayDatapath))?;
    for (name, flows) in [("bench/pong", 0), ("bench/ping", flows)] {
        if let Some(stack) = world.stack(&Place::Pod(name.to_owned())) {
            world.spawn(
                stack,
                Box::new(Player {
                    flows,
                    got: Vec::new(),
                }),
            );
        }
    }
    Ok(world)
}

fn through_world(world: &mut World, packets: u64) -> u64 {
    let before = world.delivered();
    world.run_until(Time::ZERO + Duration::from_secs(1_000_000), |world| {
        world.delivered() - before >= packets
    });
    world.delivered() - before
}

/// Sends back what it gets; one with flows begins them.
struct Player {
    flows: u16,
    got: Vec<u8>,
}

impl Process for Player {
    fn name(&self) -> &str {
        "player"
    }

    fn on_wake(&mut self, os: &mut dyn Os) {
        if self.flows == 0 {
            // Nobody else is in this pod; were the port taken, no packet would be counted.
            let _ = os.listen(None, PORT);
        }
        for _ in 0..self.flows {
            let _ = os.connect(([10, 0, 0, 2], PORT).into(), None);
        }
    }

    fn on_socket(&mut self, socket: SocketId, event: SocketEvent, os: &mut dyn Os) {
        match event {
            SocketEvent::Connected => {
                os.send(socket, &MESSAGE);
            }
            SocketEvent::Readable => {
                self.got.clear();
                os.receive(socket, &mut self.got);
                os.send(socket, &self.got);
            }
            _ => {}
        }
    }

    fn on_timer(&mut self, _: TimerId, _: &mut dyn Os) {}
}

/// A packet in, packets out.
#[derive(Default)]
struct Wire {
    input: Vec<u8>,
    output: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

struct Received<'a>(&'a mut Vec<u8>);
struct Sending<'a>(&'a mut VecDeque<Vec<u8>>, &'a mut Vec<Vec<u8>>);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        let result = read(self.0);
        self.0.clear();
        result
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut bytes = self.1.pop().unwrap_or_default();
        bytes.clear();
        bytes.resize(length, 0);
        let result = write(&mut bytes);
        self.0.push_back(bytes);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        (!self.input.is_empty()).then(|| {
            let sending = Sending(&mut self.output, &mut self.spare);
            (Received(&mut self.input), sending)
        })
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.output, &mut self.spare))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1500;
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities
    }
}

struct Side {
    interface: Interface,
    sockets: Vec<(SocketSet<'static>, SocketHandle)>,
}

/// Two interfaces without anything between them.
struct Bare {
    wire: Wire,
    sides: [Side; 2],
    queue: VecDeque<(bool, Vec<u8>)>,
    micros: i64,
}

impl Bare {
    fn new(flows: u16) -> Self {
        let mut wire = Wire::default();
        let mut side = |active: bool| {
            let config = Config::new(HardwareAddress::Ip);
            let mut interface = Interface::new(config, &mut wire, Instant::ZERO);
            interface.set_any_ip(true);
            let sockets = (0..flows)
                .map(|flow| {
                    let mut socket = Socket::new(
                        SocketBuffer::new(vec![0; BUFFER]),
                        SocketBuffer::new(vec![0; BUFFER]),
                    );
                    socket.set_nagle_enabled(false);
                    let (ping, pong) = (IpAddress::v4(10, 0, 0, 1), IpAddress::v4(10, 0, 0, 2));
                    // Neither can fail: the socket is new, addresses and ports are not zero.
                    if active {
                        let local = (ping, FIRST_PORT + flow);
                        let _ = socket.connect(interface.context(), (pong, PORT), local);
                    } else {
                        let _ = socket.listen(PORT);
                    }
                    let mut set = SocketSet::new(Vec::with_capacity(1));
                    let handle = set.add(socket);
                    (set, handle)
                })
                .collect();
            Side { interface, sockets }
        };
        let sides = [side(true), side(false)];
        let mut bare = Self {
            wire,
            sides,
            queue: VecDeque::new(),
            micros: 0,
        };
        for flow in 0..usize::from(flows) {
            bare.poll(false, flow);
        }
        bare
    }

    /// Polls one connection, and lets it send back what it got.
    fn poll(&mut self, pong: bool, flow: usize) {
        let now = Instant::from_micros(self.micros);
        let [first, second] = &mut self.sides;
        let side = if pong { second } else { first };
        let Some((set, handle)) = side.sockets.get_mut(flow) else {
            return;
        };
        side.interface.poll(now, &mut self.wire, set);
        let socket = set.get_mut::<Socket<'_>>(*handle);
        let mut bytes = [0; MESSAGE.len()];
        let got = socket.recv_slice(&mut bytes).unwrap_or(0);
        let begins = !pong && socket.may_send() && socket.send_queue() == 0 && got == 0;
        let message = bytes.get(..got).filter(|_| got > 0);
        if let Some(message) = message.or(begins.then_some(&MESSAGE[..])) {
            // The buffer is larger than what is under way.
            let _ = socket.send_slice(message);
            side.interface.poll(now, &mut self.wire, set);
        }
        while let Some(bytes) = self.wire.output.pop_front() {
            self.queue.push_back((!pong, bytes));
        }
    }

    /// Carries that many packets.
    fn carry(&mut self, packets: u64) -> u64 {
        let mut carried = 0;
        while carried < packets {
            let Some((pong, bytes)) = self.queue.pop_front() else {
                return carried;
            };
            self.micros += 1;
            // The port on ping's side tells the flow.
            let at = if pong { 20 } else { 22 };
            let port = match bytes.get(at..at + 2) {
                Some([high, low]) => u16::from_be_bytes([*high, *low]),
                _ => 0,
            };
            let buffer = std::mem::replace(&mut self.wire.input, bytes);
            self.wire.spare.push(buffer);
            self.poll(pong, usize::from(port.saturating_sub(FIRST_PORT)));
            carried += 1;
        }
        carried
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_contestants_carry_what_they_are_asked_to() {
        let mut world = ping_pong(3).unwrap();
        assert!(through_world(&mut world, 1_000) >= 1_000);
        assert_eq!(Bare::new(3).carry(1_000), 1_000);
    }
}
