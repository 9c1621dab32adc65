//! The programs and maps in the kernel: the object that the build made, loaded with its globals
//! set and its maps pinned where a later process finds them.

use std::fmt;
use std::path::Path;

use aya::programs::{CgroupSockAddr, Program, ProgramError, SchedClassifier, SkLookup};
use aya::{Ebpf, EbpfLoader};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket};
use nix::{getsockopt_impl, libc, sockopt_impl};

use super::pins::{PinError, Pins};
use crate::cause::with_causes;
use crate::netns::{NetNs, NetNsError};

/// The object, or what is missing to build it.
#[cfg(nodeway_ebpf_object)]
const OBJECT: Result<&[u8], &str> = Ok(aya::include_bytes_aligned!(env!("NODEWAY_EBPF_OBJECT")));
#[cfg(not(nodeway_ebpf_object))]
const OBJECT: Result<&[u8], &str> = Err(env!("NODEWAY_EBPF_MISSING"));

/// Maps that outlive a process when there is a place for pins.
const MAPS: [&str; 6] = [
    "FRONTENDS",
    "SOURCES",
    "LISTEN_SOCKETS",
    "COUNTERS",
    "EVENTS",
    "PEERS",
];

sockopt_impl!(
    /// The number that the kernel gave a socket's network namespace; connect hooks compare it.
    NetNsCookie,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_NETNS_COOKIE,
    u64
);

/// Why the programs cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// This Nodeway was built on a machine that could not compile them.
    #[error("this build has no kernel programs: {0}; then build again")]
    NotBuilt(&'static str),
    /// The object is no object, or a map could not be made.
    #[error("the kernel's maps cannot be made: {said}{}", permission(said))]
    Maps {
        /// What the loader said.
        said: String,
    },
    /// The kernel refused a program.
    #[error(
        "the kernel refuses the program `{program}`: {said}{}; Linux 6.6 or newer is needed",
        permission(said)
    )]
    Refused {
        /// Its name.
        program: &'static str,
        /// The kernel's error.
        said: String,
        /// What the verifier thought, line by line; shown under `-v`.
        log: String,
    },
    /// The object has no such program or map: it is of another version.
    #[error("the object has no `{0}`: it is of another version of Nodeway; build again")]
    Missing(&'static str),
    /// The network namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// The network namespace has no number.
    #[error("the network namespace has no cookie: {0}; Linux 5.14 or newer is needed")]
    Cookie(nix::Error),
    /// The place for pins.
    #[error(transparent)]
    Pins(#[from] PinError),
}

/// What to add to an error that is about privileges.
pub(super) fn permission(said: &str) -> &'static str {
    if said.contains("os error 1)") || said.contains("os error 13)") {
        "; run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    } else {
        ""
    }
}

/// One program of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProgramName {
    /// tc ingress of devices with an Ethernet header.
    TcEthernet,
    /// tc ingress of any other device.
    TcAny,
    /// sk_lookup.
    SkLookup,
    /// `connect` to IPv4 addresses.
    Connect4,
    /// `connect` to IPv6 addresses.
    Connect6,
    /// `getpeername` of IPv4 sockets.
    GetPeerName4,
    /// `getpeername` of IPv6 sockets.
    GetPeerName6,
    /// What puts listening sockets into their table.
    Stash,
}

impl ProgramName {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::TcEthernet,
        Self::TcAny,
        Self::SkLookup,
        Self::Connect4,
        Self::Connect6,
        Self::GetPeerName4,
        Self::GetPeerName6,
        Self::Stash,
    ];

    /// What a call of the node's own passes.
    pub const CALLS: [Self; 4] = [
        Self::Connect4,
        Self::Connect6,
        Self::GetPeerName4,
        Self::GetPeerName6,
    ];

    /// Its name in the object and in the kernel.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TcEthernet => "nw_tc_ethernet",
            Self::TcAny => "nw_tc_any",
            Self::SkLookup => "nw_sk_lookup",
            Self::Connect4 => "nw_connect4",
            Self::Connect6 => "nw_connect6",
            Self::GetPeerName4 => "nw_getpeername4",
            Self::GetPeerName6 => "nw_getpeername6",
            Self::Stash => "nw_stash",
        }
    }
}

impl fmt::Display for ProgramName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is set before loading; constants to the verifier.
#[derive(Clone, Copy, Debug)]
pub struct Globals {
    /// Whether an sk_lookup program of ours stands beside tc.
    pub sk_lookup: bool,
    /// Whether each decision becomes an event.
    pub trace: bool,
    /// The number of the network namespace whose calls are redirected.
    pub netns_cookie: u64,
}

/// The object in the kernel, with none of its programs attached.
#[derive(Debug)]
pub struct Object(Ebpf);

impl Object {
    /// Makes or opens the maps; loads no program yet.
    ///
    /// # Errors
    /// Without an object, without privileges, or when pinned maps are of another shape.
    pub fn open(globals: Globals, pins: Option<&Pins>) -> Result<Self, LoadError> {
        let bytes = OBJECT.map_err(LoadError::NotBuilt)?;
        Self::of(bytes, globals, pins)
    }

    /// The same, of an object that was built elsewhere.
    ///
    /// # Errors
    /// As [`Object::open`].
    pub fn of(bytes: &[u8], globals: Globals, pins: Option<&Pins>) -> Result<Self, LoadError> {
        let sk_lookup = u32::from(globals.sk_lookup);
        let trace = u32::from(globals.trace);
        let mut loader = EbpfLoader::new();
        loader
            .override_global("SK_LOOKUP", &sk_lookup, true)
            .override_global("TRACE", &trace, true)
            .override_global("NETNS_COOKIE", &globals.netns_cookie, true);
        for map in MAPS {
            if let Some(pins) = pins {
                loader.map_pin_path(map, pins.map(map));
            }
        }
        let ebpf = loader.load(bytes).map_err(|error| LoadError::Maps {
            said: with_causes(&error),
        })?;
        Ok(Self(ebpf))
    }

    /// Gives a program to the verifier.
    ///
    /// # Errors
    /// When it refuses, with its log.
    pub fn load(&mut self, name: ProgramName) -> Result<&mut Program, LoadError> {
        let program = self
            .0
            .program_mut(name.as_str())
            .ok_or(LoadError::Missing(name.as_str()))?;
        let loaded = match program {
            Program::SchedClassifier(program) => program.load(),
            Program::SkLookup(program) => program.load(),
            Program::CgroupSockAddr(program) => program.load(),
            _ => Err(ProgramError::UnexpectedProgramType),
        };
        match loaded {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(program),
            Err(ProgramError::LoadError {
                io_error,
                verifier_log,
            }) => Err(LoadError::Refused {
                program: name.as_str(),
                said: io_error.to_string(),
                log: verifier_log.to_string(),
            }),
            Err(error) => Err(LoadError::Refused {
                program: name.as_str(),
                said: error.to_string(),
                log: String::new(),
            }),
        }
    }

    /// A loaded tc program.
    pub(super) fn tc(&mut self, name: ProgramName) -> Result<&mut SchedClassifier, ProgramError> {
        self.loaded(name)?.try_into()
    }

    /// The loaded sk_lookup program.
    pub(super) fn sk_lookup(&mut self) -> Result<&mut SkLookup, ProgramError> {
        self.loaded(ProgramName::SkLookup)?.try_into()
    }

    /// A loaded program of calls.
    pub(super) fn call(&mut self, name: ProgramName) -> Result<&mut CgroupSockAddr, ProgramError> {
        self.loaded(name)?.try_into()
    }

    fn loaded(&mut self, name: ProgramName) -> Result<&mut Program, ProgramError> {
        self.0
            .program_mut(name.as_str())
            .ok_or(ProgramError::NotLoaded)
    }

    /// The maps.
    pub(super) const fn maps(&mut self) -> &mut Ebpf {
        &mut self.0
    }

    /// Instructions of a loaded program: how many the verifier walked through, and how many bytes
    /// the program has in the kernel.
    #[must_use]
    pub fn size(&self, name: ProgramName) -> Option<(u32, u32)> {
        let info = self.0.program(name.as_str())?.info().ok()?;
        Some((info.verified_instruction_count()?, info.size_translated()?))
    }
}

/// The number of a network namespace.
pub(super) fn cookie(netns: &NetNs) -> Result<u64, LoadError> {
    netns
        .run(|| {
            let socket = socket(
                AddressFamily::Inet,
                SockType::Datagram,
                SockFlag::SOCK_CLOEXEC,
                None,
            )?;
            getsockopt(&socket, NetNsCookie)
        })?
        .map_err(LoadError::Cookie)
}

/// Whether a file is what the object was built from; for tests that build it another way.
#[must_use]
pub fn is_built() -> bool {
    OBJECT.is_ok()
}

/// Reads an object file, 8-byte aligned as the loader wants it.
///
/// # Errors
/// When the file cannot be read.
pub fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    std::fs::read(path)
}
