//! What an agent must know after it was killed: which generation has a listener on which port, and
//! where each frontend leads. One file in the run directory, written whole or not at all.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use nodeway_core::frontend::{FrontendKey, Life};
use nodeway_core::steering::{Bounds, Led, Steering};
use serde::{Deserialize, Serialize};

use super::ports::Ports;
use crate::whole_file;

/// Bytes of another form than these are of another version of Nodeway.
const VERSION: u32 = 1;

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Memory {
    /// The ports of listeners: by generation, then by listener.
    pub(super) ports: BTreeMap<String, BTreeMap<String, u16>>,
    /// Where frontends lead, in the order of their addresses.
    pub(super) frontends: Vec<Remembered>,
}

/// One frontend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Remembered {
    pub(super) address: std::net::IpAddr,
    pub(super) port: u16,
    pub(super) generation: String,
    pub(super) listener: String,
    pub(super) listener_port: u16,
    pub(super) state: State,
    /// Who may come by it, if not everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ranges: Option<Vec<IpNet>>,
}

/// Where it stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    Arming,
    Active,
    Draining,
}

impl Remembered {
    fn of(key: FrontendKey, led: &Led<Duration>) -> Self {
        Self {
            address: key.address,
            port: key.port,
            generation: led.generation.to_string(),
            listener: led.listener.to_string(),
            listener_port: led.port,
            state: match led.life {
                Life::Arming { .. } => State::Arming,
                Life::Active => State::Active,
                Life::Draining { .. } => State::Draining,
            },
            ranges: led.ranges.as_ref().map(|it| it.to_vec()),
        }
    }

    /// One that arms or drains has all of its time again.
    fn led(&self, bounds: Bounds<Duration>) -> (FrontendKey, Led<Duration>) {
        let key = FrontendKey {
            address: self.address,
            port: self.port,
        };
        let (armed, drained) = (bounds.armed, bounds.drained);
        let led = Led {
            generation: self.generation.as_str().into(),
            listener: self.listener.as_str().into(),
            port: self.listener_port,
            life: match self.state {
                State::Arming => Life::Arming { until: armed },
                State::Active => Life::Active,
                State::Draining => Life::Draining { until: drained },
            },
            ranges: self.ranges.as_deref().map(Into::into),
        };
        (key, led)
    }
}

/// The file as it is written.
#[derive(Serialize, Deserialize)]
struct Versioned {
    version: u32,
    #[serde(flatten)]
    memory: serde_json::Value,
}

/// Why there is no memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The file cannot be read or written.
    #[error("cannot {action} {path}: {cause}", path = path.display())]
    File {
        /// `read`, `write`
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// It holds something else.
    #[error(
        "{path} is not what an agent left: {reason}; if no frontend of this node leads anywhere, delete it, or else run the version of nodeway that wrote it",
        path = path.display()
    )]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Memory {
    /// What is to be remembered of this.
    pub(super) fn of(ports: &Ports, steering: &Steering<Duration>) -> Self {
        let frontends = steering.iter();
        Self {
            ports: ports.all().clone(),
            frontends: frontends
                .map(|(key, led)| Remembered::of(key, led))
                .collect(),
        }
    }

    /// Where frontends lead.
    pub(super) fn led(&self, bounds: Bounds<Duration>) -> BTreeMap<FrontendKey, Led<Duration>> {
        self.frontends.iter().map(|it| it.led(bounds)).collect()
    }

    /// What an earlier agent left; nothing if there was none.
    pub(super) fn read(path: &Path) -> Result<Self, MemoryError> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(cause) => {
                return Err(MemoryError::File {
                    action: "read",
                    path: path.to_owned(),
                    cause,
                });
            }
        };
        let bad = |reason: String| MemoryError::Bad {
            path: path.to_owned(),
            reason,
        };
        let versioned: Versioned =
            serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        if versioned.version != VERSION {
            let version = versioned.version;
            return Err(bad(format!("it is of version {version}, not {VERSION}")));
        }
        serde_json::from_value(versioned.memory).map_err(|error| bad(error.to_string()))
    }

    /// Writes it in the place of what is there.
    pub(super) fn write(&self, path: &Path) -> Result<(), MemoryError> {
        let versioned = serde_json::to_value(self).map(|memory| Versioned {
            version: VERSION,
            memory,
        });
        let text = versioned.and_then(|it| serde_json::to_vec(&it));
        let written = text.map_err(io::Error::from);
        let written = written.and_then(|text| whole_file::write(path, &text));
        written.map_err(|cause| MemoryError::File {
            action: "write",
            path: path.to_owned(),
            cause,
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.json");
        assert_eq!(Memory::read(&path).unwrap(), Memory::default());
        let memory = Memory {
            ports: [("g1".to_owned(), [("a/b/c".to_owned(), 10_000)].into())].into(),
            frontends: vec![Remembered {
                address: [10, 96, 0, 1].into(),
                port: 80,
                generation: "g1".to_owned(),
                listener: "a/b/c".to_owned(),
                listener_port: 10_000,
                state: State::Arming,
                ranges: Some(vec!["192.0.2.0/24".parse().unwrap()]),
            }],
        };
        memory.write(&path).unwrap();
        assert_eq!(Memory::read(&path).unwrap(), memory);
    }

    #[rstest]
    #[case::arming(Life::Arming { until: Duration::from_secs(7) }, Life::Arming { until: Duration::from_secs(1) })]
    #[case::in_force(Life::Active, Life::Active)]
    #[case::draining(Life::Draining { until: Duration::from_secs(7) }, Life::Draining { until: Duration::from_secs(2) })]
    fn a_frontend_stands_where_it_stood_and_has_all_of_its_time_again(
        #[case] before: Life<Duration>,
        #[case] after: Life<Duration>,
    ) {
        let key = FrontendKey {
            address: [10, 96, 0, 1].into(),
            port: 80,
        };
        let led = Led {
            generation: "g1".into(),
            listener: "a/b/c".into(),
            port: 10_000,
            life: before,
            ranges: Some(["192.0.2.0/24".parse().unwrap()].into()),
        };
        let steering = Steering::adopt([(key, led.clone())].into());
        let memory = Memory::of(&Ports::restore(BTreeMap::new(), []), &steering);
        let bounds = Bounds {
            now: Duration::ZERO,
            armed: Duration::from_secs(1),
            drained: Duration::from_secs(2),
        };
        assert_eq!(
            memory.led(bounds),
            [(key, Led { life: after, ..led })].into()
        );
    }

    #[rstest]
    #[case::cut_off(r#"{"version":1,"ports":{"#, "EOF")]
    #[case::of_another_version(r#"{"version":7,"ports":{},"frontends":[]}"#, "version 7, not 1")]
    #[case::of_something_else(
        r#"{"version":1,"ports":{},"frontends":[],"x":1}"#,
        "unknown field `x`"
    )]
    fn what_is_no_memory_says_what_to_do(#[case] text: &str, #[case] reason: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.json");
        fs::write(&path, text).unwrap();
        let error = Memory::read(&path).unwrap_err().to_string();
        assert!(
            error.contains(reason) && error.contains("delete it"),
            "{error}"
        );
    }
}
