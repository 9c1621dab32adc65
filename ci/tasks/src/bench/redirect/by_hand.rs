//! The tc program by hand (`BPF_PROG_TEST_RUN`): nanoseconds a packet, beside an empty program and
//! beside the same job written by hand in C (`twin.c`).
//!
//! All three run on the same frames in the node's namespace, with its real sockets: an established
//! connection is one that the client holds open through the redirect meanwhile. The twin must return
//! and mark as ours does, or it is no twin. What cannot be measured so: the kernel refuses
//! `bpf_sk_assign` outside of a real ingress, so the cost of assigning itself is missing on both
//! sides, and the refusal is counted on both. Frames repeat, so caches are warm.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use aya::maps::HashMap;
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use nodeway_core::datapath::layout::{FrontendKey as Key, FrontendValue};
use nodeway_core::datapath::{Family, Frontend, Reason, tcp_flags};
use nodeway_core::frontend::FrontendKey;
use nodeway_live::bpf::{DryRun, DryRunError, Pins, ProgramName, Ran};
use nodeway_live::netns::NetNsError;
use serde::Serialize;

use super::bed::{Bed, BedError};
use super::cpu;
use super::way::{Way, turns};
use crate::bench::spread::Spread;

/// Runs of one frame at a time.
const REPEAT: u32 = 100_000;

/// Why nothing can be run by hand.
#[derive(Debug, thiserror::Error)]
pub enum ByHandError {
    /// The bed.
    #[error(transparent)]
    Bed(#[from] BedError),
    /// The namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// Our program.
    #[error(transparent)]
    DryRun(#[from] DryRunError),
    /// The compiler does not start.
    #[error("cannot run `clang`: {0}; ci/setup installs it, or: apt-get install clang")]
    NoClang(io::Error),
    /// The compiler refuses.
    #[error("clang does not compile twin.c:\n{0}")]
    Compile(String),
    /// The loader or the kernel refuses.
    #[error("the program `{program}` of twin.c: {said}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What was said.
        said: String,
    },
    /// A connection or a core.
    #[error("cannot {action}: {source}")]
    Kernel {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The packets are not those that they should be.
    #[error("by {way} our program never said `{reason}`: another packet was measured", way = way.name())]
    NotDecided {
        /// The way.
        way: Way,
        /// What it should have said.
        reason: Reason,
    },
    /// The twin is none.
    #[error(
        "`{packet}` by {way}: our program returns {ours:?} and the one in C {twin:?} (verdict and mark), so their times cannot be compared", way = way.name()
    )]
    NoTwin {
        /// The packet.
        packet: &'static str,
        /// The way.
        way: Way,
        /// Ours.
        ours: Option<(i32, u32)>,
        /// The other.
        twin: Option<(i32, u32)>,
    },
}

fn refused<E: std::error::Error>(program: &'static str) -> impl FnOnce(E) -> ByHandError {
    move |error| {
        let mut said = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            said = format!("{said}: {error}");
            cause = error.source();
        }
        ByHandError::Program { program, said }
    }
}

/// A packet by a way, run by three programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ByHand {
    /// `miss`, `hit, established`, `hit, new`
    pub packet: &'static str,
    /// [`Way::Tc`] or [`Way::TcSkLookup`].
    pub way: Way,
    /// Nanoseconds a packet.
    pub empty_ns: Spread,
    /// Nanoseconds a packet.
    pub twin_ns: Spread,
    /// Nanoseconds a packet.
    pub ours_ns: Spread,
    /// Each round's ours over its empty.
    pub over_empty: Spread,
    /// Each round's ours over its twin.
    pub over_twin: Spread,
}

/// Which program.
#[derive(Clone, Copy)]
enum Program {
    Empty,
    Twin,
    Ours,
}

/// Which clang it is.
///
/// # Errors
/// When there is none.
pub fn clang_version() -> Result<String, ByHandError> {
    let output = Command::new("clang").arg("--version").output();
    let output = output.map_err(ByHandError::NoClang)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Runs every packet by both ways that have a tc program, that many rounds.
///
/// # Errors
/// When something cannot be compiled, loaded or run.
pub fn run(
    bed: &Bed,
    pins: &Pins,
    frontends: u32,
    rounds: usize,
) -> Result<Vec<ByHand>, ByHandError> {
    let object = compile()?;
    let mut rows = Vec::new();
    for way in [Way::Tc, Way::TcSkLookup] {
        rows.extend(by_way(bed, pins, &object, (way, frontends), rounds)?);
    }
    Ok(rows)
}

fn by_way(
    bed: &Bed,
    pins: &Pins,
    object: &[u8],
    (way, frontends): (Way, u32),
    rounds: usize,
) -> Result<Vec<ByHand>, ByHandError> {
    let mut installed = bed.install(way, frontends)?;
    installed.check(0)?;
    let open = |action| move |source| ByHandError::Kernel { action, source };
    let (client, to) = installed.path(0)?;
    let patience = Duration::from_secs(3);
    let connection = client.run(|| TcpStream::connect_timeout(&to, patience))?;
    let connection = connection.map_err(open("hold a connection open"))?;
    let from = connection.local_addr().map_err(open("see its address"))?;
    let Some(datapath) = &mut installed.datapath else {
        return Ok(Vec::new());
    };
    let ours = DryRun::of(datapath.object(), ProgramName::TcEthernet, pins)?;
    let twin = Twin::load(object, way, &bed.frontends(frontends))?;
    let mut programs = Programs { ours, twin, way };
    let netns = bed.node()?;
    let rounds = || netns.run(|| programs.rounds((from, to), rounds));
    let rows = cpu::on_core(bed.cores().load, rounds).map_err(open("stay on one core"))?;
    let rows = rows??;
    let counters = datapath.counters().map_err(BedError::from)?;
    for reason in reasons(way) {
        if counters.of("tc", reason) < u64::from(REPEAT) {
            return Err(ByHandError::NotDecided { way, reason });
        }
    }
    drop(connection);
    installed.remove()?;
    Ok(rows)
}

/// What our program must have said of the three packets, or others were measured.
const fn reasons(way: Way) -> [Reason; 3] {
    let new = match way {
        Way::TcSkLookup => Reason::LeftToSkLookup,
        _ => Reason::NewConnection,
    };
    [Reason::NotAFrontend, Reason::Established, new]
}

/// The programs, ready to run.
struct Programs {
    ours: DryRun,
    twin: Twin,
    way: Way,
}

impl Programs {
    /// Rounds in the calling thread's namespace, on its core: a row for each packet.
    fn rounds(
        &mut self,
        (from, to): (SocketAddr, SocketAddr),
        rounds: usize,
    ) -> Result<Vec<ByHand>, ByHandError> {
        let nobody = SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).into(), to.port());
        // Below the ports that clients draw.
        let new = SocketAddr::new(from.ip(), 1_000);
        let packets = [
            ("miss", frame(from, nobody, tcp_flags::ACK)),
            ("hit, established", frame(from, to, tcp_flags::ACK)),
            ("hit, new", frame(new, to, tcp_flags::SYN)),
        ];
        let mut took = packets.each_ref().map(|_| Vec::new());
        for round in 0..rounds.max(1) {
            for ((packet, frame), took) in packets.iter().zip(&mut took) {
                took.push(self.once(packet, frame, round)?);
            }
        }
        let rows = packets.iter().zip(&took);
        let rows = rows.map(|((packet, _), took)| ByHand::of(packet, self.way, took));
        Ok(rows.collect())
    }

    /// Nanoseconds of the empty program, of the twin and of ours, each run once.
    fn once(
        &mut self,
        packet: &'static str,
        frame: &[u8],
        round: usize,
    ) -> Result<[f64; 3], ByHandError> {
        let (mut empty, mut twin, mut ours) = (None, None, None);
        for program in turns(&[Program::Empty, Program::Twin, Program::Ours], round) {
            match program {
                Program::Empty => empty = Some(self.twin.run("empty", frame)?),
                Program::Twin => twin = Some(self.twin.run("twin", frame)?),
                Program::Ours => ours = Some(self.ours.packet(frame, REPEAT)?),
            }
        }
        let said = |ran: Option<Ran>| ran.map(|ran| (ran.returned, ran.mark));
        if said(twin) != said(ours) {
            return Err(ByHandError::NoTwin {
                packet,
                way: self.way,
                ours: said(ours),
                twin: said(twin),
            });
        }
        let took = |ran: Option<Ran>| ran.map_or(0.0, |ran| ran.took.as_secs_f64() * 1e9);
        Ok([took(empty), took(twin), took(ours)])
    }
}

impl ByHand {
    /// Of each round's empty, twin and ours.
    fn of(packet: &'static str, way: Way, took: &[[f64; 3]]) -> Self {
        let each = |figure: fn(&[f64; 3]) -> f64| Spread::of(took.iter().map(figure));
        Self {
            packet,
            way,
            empty_ns: each(|[empty, _, _]| *empty),
            twin_ns: each(|[_, twin, _]| *twin),
            ours_ns: each(|[_, _, ours]| *ours),
            over_empty: each(|[empty, _, ours]| ours / empty.max(1.0)),
            over_twin: each(|[_, twin, ours]| ours / twin.max(1.0)),
        }
    }
}

/// `twin.c` as an object for the kernel.
fn compile() -> Result<Vec<u8>, ByHandError> {
    let source = include_bytes!("twin.c");
    let mut clang = Command::new("clang")
        .args(["-O2", "-g", "-Wall", "-Werror", "-target", "bpf"])
        .args(["-x", "c", "-c", "-", "-o", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(ByHandError::NoClang)?;
    if let Some(mut input) = clang.stdin.take() {
        // It may end before it has read everything: its own words tell why.
        let _ = input.write_all(source);
    }
    let output = clang.wait_with_output().map_err(ByHandError::NoClang)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(ByHandError::Compile(words))
}

/// The programs of `twin.c`, loaded.
struct Twin(Ebpf);

impl Twin {
    fn load(
        object: &[u8],
        way: Way,
        frontends: &[(FrontendKey, Frontend)],
    ) -> Result<Self, ByHandError> {
        let sk_lookup = u32::from(way == Way::TcSkLookup);
        let loaded = EbpfLoader::new()
            .override_global("SK_LOOKUP", &sk_lookup, true)
            .load(object);
        let mut ebpf = loaded.map_err(refused("twin"))?;
        let missing = |program, what: &str| ByHandError::Program {
            program,
            said: format!("there is no {what}"),
        };
        let map = ebpf.map_mut("FRONTENDS");
        let map = map.ok_or_else(|| missing("twin", "map FRONTENDS"))?;
        let mut map: HashMap<_, [u8; Key::SIZE], [u8; FrontendValue::SIZE]> =
            HashMap::try_from(map).map_err(refused("twin"))?;
        for (key, frontend) in frontends {
            if let IpAddr::V4(address) = key.address {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&address.octets());
                let key = Key::new(Family::V4, bytes, key.port).to_bytes();
                let value = FrontendValue::from(*frontend).to_bytes();
                map.insert(key, value, 0).map_err(refused("twin"))?;
            }
        }
        for program in ["empty", "twin"] {
            let found = ebpf.program_mut(program);
            let found = found.ok_or_else(|| missing(program, "such program"))?;
            let found: &mut SchedClassifier = found.try_into().map_err(refused(program))?;
            found.load().map_err(refused(program))?;
        }
        Ok(Self(ebpf))
    }

    fn run(&mut self, program: &'static str, frame: &[u8]) -> Result<Ran, ByHandError> {
        let missing = || ByHandError::Program {
            program,
            said: "it is not loaded".to_owned(),
        };
        let found = self.0.program_mut(program).ok_or_else(missing)?;
        let found: &mut SchedClassifier = found.try_into().map_err(refused(program))?;
        // The kernel's context may grow.
        let mut context = [0; 256];
        let ran = found
            .test_run(TestRunOptions {
                data_in: Some(frame),
                ctx_out: Some(&mut context),
                repeat: REPEAT,
                ..TestRunOptions::new()
            })
            .map_err(refused(program))?;
        let [_, _, _, _, _, _, _, _, a, b, c, d, ..] = context;
        Ok(Ran {
            returned: i32::from_ne_bytes(ran.return_value.to_ne_bytes()),
            mark: u32::from_ne_bytes([a, b, c, d]),
            took: ran.duration,
        })
    }
}

/// An Ethernet frame with a TCP segment of no data; an empty one if an address is not IPv4.
fn frame(from: SocketAddr, to: SocketAddr, flags: u8) -> Vec<u8> {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else {
        return Vec::new();
    };
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00]);
    frame.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(from.ip().octets());
    frame.extend(to.ip().octets());
    frame.extend(from.port().to_be_bytes());
    frame.extend(to.port().to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}

#[cfg(test)]
mod tests {
    use nodeway_core::datapath::{Packet, parse};

    use super::*;

    #[test]
    fn a_frame_is_the_segment_that_it_was_made_for() {
        let [from, to] = ["10.244.0.2:1000", "10.96.0.1:80"].map(|it| it.parse().unwrap());
        let frame = frame(from, to, tcp_flags::SYN);
        let flow = parse(&frame[14..]).unwrap();
        assert_eq!((flow.sport, flow.dport), (1_000, 80));
        assert_eq!((flow.packet, flow.tcp_flags), (Packet::Segment, 2));
        assert_eq!(flow.src[..4], [10, 244, 0, 2]);
        assert_eq!(flow.dst[..4], [10, 96, 0, 1]);
    }
}
