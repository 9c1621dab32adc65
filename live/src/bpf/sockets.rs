//! Which listening sockets `sk_lookup` may pick: the kernel's table follows what listens.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use aya::programs::{TestRun, TestRunOptions};
use nodeway_core::datapath::Family;
use nodeway_core::datapath::layout::SocketKey;

use super::table::TableError;
use super::{Datapath, ProgramName};
use crate::netns::NetNsError;

/// Why sockets cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum SocketsError {
    /// The kernel refused.
    #[error("cannot put the socket that listens on {address} into the kernel's table: {said}")]
    Refused {
        /// Where it listens.
        address: SocketAddr,
        /// What the kernel said.
        said: String,
    },
    /// The table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The network namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
}

impl Datapath {
    /// Makes the table of listening sockets hold what listens on these ports of `127.0.0.1` and
    /// `::1` now, and nothing else. All sockets that share a port (`SO_REUSEPORT`) are served by
    /// the one entry. Says where nobody listens.
    ///
    /// To be called again whenever a listener has come or gone: an entry goes with its socket.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take_sockets(&mut self, ports: &[u16]) -> Result<Vec<SocketAddr>, SocketsError> {
        let mut missing = Vec::new();
        for port in ports {
            for family in [Family::V4, Family::V6] {
                let address = loopback(family, *port);
                match self.stash(family, *port)? {
                    0 => {}
                    // ENOENT
                    2 => {
                        self.sockets.remove(SocketKey::new(family, *port))?;
                        missing.push(address);
                    }
                    errno => {
                        let said = nix::Error::from_raw(errno).to_string();
                        return Err(SocketsError::Refused { address, said });
                    }
                }
            }
        }
        for key in self.sockets.keys()? {
            if !ports.contains(&key.port) {
                self.sockets.remove(key)?;
            }
        }
        Ok(missing)
    }

    /// Runs the program that finds a socket by its port, in our namespace.
    fn stash(&mut self, family: Family, port: u16) -> Result<i32, SocketsError> {
        let refuse = |said: String| SocketsError::Refused {
            address: loopback(family, port),
            said,
        };
        let program = self
            .object
            .tc(ProgramName::Stash)
            .map_err(|error| refuse(error.to_string()))?;
        let context = control_block([u32::from(port), u32::from(family as u8)]);
        let run = self.netns.run(|| {
            program.test_run(TestRunOptions {
                // The shortest that the kernel runs a program with.
                data_in: Some(&[0; 64]),
                ctx_in: Some(&context),
                ..TestRunOptions::new()
            })
        })?;
        let run = run.map_err(|error| refuse(error.to_string()))?;
        Ok(i32::from_ne_bytes(run.return_value.to_ne_bytes()))
    }
}

fn loopback(family: Family, port: u16) -> SocketAddr {
    match family {
        Family::V4 => (Ipv4Addr::LOCALHOST, port).into(),
        Family::V6 => (Ipv6Addr::LOCALHOST, port).into(),
    }
}

/// A `struct __sk_buff` whose control block begins with these two words.
fn control_block([first, second]: [u32; 2]) -> [u8; 68] {
    const CB: usize = 48;
    let mut context = [0; 68];
    for (at, word) in [(CB, first), (CB + 4, second)] {
        if let Some(bytes) = context.get_mut(at..at + 4) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
    }
    context
}
