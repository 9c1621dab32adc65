//! A program run by hand on a made-up packet or look-up (`BPF_PROG_TEST_RUN`): what the
//! differential suite and the benchmark do.
//!
//! It runs in the calling thread's network namespace, with that namespace's real sockets. What the
//! kernel keeps from such a run: `bpf_sk_assign` of a packet is refused (counted as
//! `assign-refused`), and a packet shorter than its IP header is not taken.

use std::time::Duration;

use aya::programs::{ProgramError, SchedClassifier, TestRun, TestRunOptions};

use super::object::{LoadError, Object, ProgramName};
use super::pins::Pins;

/// Why a program cannot be run by hand.
#[derive(Debug, thiserror::Error)]
pub enum DryRunError {
    /// It cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The kernel refused.
    #[error("the kernel does not run `{program}` by hand: {said}")]
    Refused {
        /// The program.
        program: ProgramName,
        /// What the kernel said.
        said: String,
    },
}

/// What a run gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ran {
    /// What the program returned.
    pub returned: i32,
    /// The packet's mark afterwards; of a look-up, whether a socket was chosen.
    pub mark: u32,
    /// How long one run took, on average.
    pub took: Duration,
}

/// A look-up as the kernel makes it for an incoming connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookUp {
    /// `AF_INET` (2) or `AF_INET6` (10).
    pub family: u32,
    /// IANA's number.
    pub protocol: u32,
    /// From where, network byte order; IPv4 in the first four bytes.
    pub remote: [u8; 16],
    /// From which port.
    pub remote_port: u16,
    /// To where.
    pub local: [u8; 16],
    /// To which port.
    pub local_port: u16,
}

impl LookUp {
    /// `struct bpf_sk_lookup` of the kernel's ABI.
    fn context(&self) -> [u8; 72] {
        let mut context = [0; 72];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(field) = context.get_mut(at..at + bytes.len()) {
                field.copy_from_slice(bytes);
            }
        };
        put(8, &self.family.to_ne_bytes());
        put(12, &self.protocol.to_ne_bytes());
        let is_ipv4 = self.family == 2;
        // The IPv4 address has a field of its own before the IPv6 one.
        for (at, address) in [(16, &self.remote), (40, &self.local)] {
            match address.first_chunk::<4>() {
                Some(ipv4) if is_ipv4 => put(at, ipv4),
                _ => put(at + 4, address),
            }
        }
        put(36, &self.remote_port.to_be_bytes());
        put(60, &u32::from(self.local_port).to_ne_bytes());
        context
    }
}

/// A loaded program, by its descriptor alone: the kernel knows of which type it is.
pub struct DryRun {
    program: ProgramName,
    handle: SchedClassifier,
}

impl DryRun {
    /// Opens a program of an object; `scratch` is a folder of pins, where nothing stays.
    ///
    /// # Errors
    /// When it cannot be loaded or pinned.
    pub fn of(
        object: &mut Object,
        program: ProgramName,
        scratch: &Pins,
    ) -> Result<Self, DryRunError> {
        object.load(program)?;
        let pin = scratch.map(&format!("run_{program}"));
        let refused = |said: String| DryRunError::Refused { program, said };
        let pinned = if program == ProgramName::SkLookup {
            object.sk_lookup().map(|program| program.pin(&pin))
        } else {
            object.tc(program).map(|program| program.pin(&pin))
        };
        let handle = match pinned {
            Ok(Ok(())) => SchedClassifier::from_pin(&pin),
            Ok(Err(error)) => return Err(refused(error.to_string())),
            Err(error) => Err(error),
        };
        let _ = std::fs::remove_file(&pin);
        let handle = handle.map_err(|error| refused(error.to_string()))?;
        Ok(Self { program, handle })
    }

    /// Runs a tc program on a frame, `repeat` times.
    ///
    /// # Errors
    /// When the kernel refuses the frame.
    pub fn packet(&self, frame: &[u8], repeat: u32) -> Result<Ran, DryRunError> {
        // The kernel's context may grow.
        let mut context = [0; 256];
        let ran = self.handle.test_run(TestRunOptions {
            data_in: Some(frame),
            ctx_out: Some(&mut context),
            repeat,
            ..TestRunOptions::new()
        });
        let [_, _, _, _, _, _, _, _, a, b, c, d, ..] = context;
        self.ran(ran, u32::from_ne_bytes([a, b, c, d]))
    }

    /// Runs the sk_lookup program on a look-up, `repeat` times.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn look_up(&self, look_up: &LookUp, repeat: u32) -> Result<Ran, DryRunError> {
        let mut context = [0; 72];
        let ran = self.handle.test_run(TestRunOptions {
            ctx_in: Some(&look_up.context()),
            ctx_out: Some(&mut context),
            repeat,
            ..TestRunOptions::new()
        });
        let [a, b, c, d, e, f, g, h, ..] = context;
        let cookie = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
        self.ran(ran, u32::from(cookie != 0))
    }

    fn ran(
        &self,
        ran: Result<aya::TestRunResult, ProgramError>,
        mark: u32,
    ) -> Result<Ran, DryRunError> {
        let ran = ran.map_err(|error| DryRunError::Refused {
            program: self.program,
            said: match &error {
                ProgramError::SyscallError(call) => call.io_error.to_string(),
                _ => error.to_string(),
            },
        })?;
        Ok(Ran {
            returned: i32::from_ne_bytes(ran.return_value.to_ne_bytes()),
            mark,
            took: ran.duration,
        })
    }
}
