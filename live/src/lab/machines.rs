//! The machines of a lab: network namespaces, wired together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nodeway_sim::{Place, Topology};

use super::name::LabName;
use super::wiring::{Space, Wiring};
use crate::netns::{NetNs, NetNsError};

/// Why machines cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// A setting of the kernel.
    #[error(
        "{namespace}: cannot set {path} to {value}: {cause}{}",
        setting_hint(path)
    )]
    Setting {
        /// The namespace.
        namespace: String,
        /// The file.
        path: String,
        /// What was to be written.
        value: &'static str,
        /// What the kernel said.
        cause: io::Error,
    },
    /// `ip` cannot be run.
    #[error("cannot run `ip`: {0}; install it (Debian package iproute2)")]
    NoIp(io::Error),
    /// `ip` refused.
    #[error("{namespace}: `ip -batch` failed: {words}; the line was `{line}`")]
    Ip {
        /// The namespace.
        namespace: String,
        /// What it said.
        words: String,
        /// The line it said it about.
        line: String,
    },
}

fn setting_hint(path: &str) -> &'static str {
    if path.contains("/ipv6/") {
        "; the lab needs a kernel with IPv6, whose own addresses every link has"
    } else {
        ""
    }
}

/// The network namespaces of a lab by place.
#[derive(Clone, Debug, Default)]
pub struct Machines {
    spaces: BTreeMap<Place, Arc<NetNs>>,
}

impl Machines {
    /// Makes and wires all machines. What there is when this fails is for [`Machines::delete`].
    ///
    /// # Errors
    /// When a namespace is there already, or the kernel refuses.
    pub fn create(topology: &Topology, lab: &LabName) -> Result<Self, MachineError> {
        let wiring = Wiring::of(topology, lab);
        let mut open = Vec::new();
        for space in &wiring.spaces {
            let netns = NetNs::create(&space.namespace)?;
            settings(&netns, space)?;
            open.push(netns);
        }
        for (space, netns) in wiring.spaces.iter().zip(&open) {
            batch(netns, &["-batch", "-"], &space.links)?;
            batch(netns, &["-4", "-batch", "-"], &space.v4)?;
            batch(netns, &["-6", "-batch", "-"], &space.v6)?;
        }
        let places = wiring.spaces.into_iter().map(|space| space.place);
        let spaces = places
            .zip(open)
            .filter_map(|(place, netns)| Some((place?, Arc::new(netns))));
        Ok(Self::with_host_pods(spaces.collect(), topology))
    }

    /// Opens the machines of a lab that stands.
    ///
    /// # Errors
    /// When one is not there.
    pub fn open(topology: &Topology, lab: &LabName) -> Result<Self, NetNsError> {
        let wiring = Wiring::of(topology, lab);
        let mut spaces = BTreeMap::new();
        for space in wiring.spaces {
            if let Some(place) = space.place {
                spaces.insert(place, Arc::new(NetNs::open(&space.namespace)?));
            }
        }
        Ok(Self::with_host_pods(spaces, topology))
    }

    /// A pod in its node's network is at its node.
    fn with_host_pods(mut spaces: BTreeMap<Place, Arc<NetNs>>, topology: &Topology) -> Self {
        for node in &topology.nodes {
            let Some(host) = spaces.get(&Place::Node(node.name.clone())).cloned() else {
                continue;
            };
            for pod in node.pods.iter().filter(|pod| pod.host_network) {
                spaces.insert(Place::Pod(pod.name.clone()), Arc::clone(&host));
            }
        }
        Self { spaces }
    }

    /// The namespace of a place.
    #[must_use]
    pub fn get(&self, place: &Place) -> Option<&Arc<NetNs>> {
        self.spaces.get(place)
    }

    /// Ends everything that runs in a lab's namespaces, and takes them away.
    ///
    /// # Errors
    /// When the kernel refuses one; all others are gone then.
    pub fn delete(lab: &LabName) -> Result<(), NetNsError> {
        let mut own = NetNs::list()?;
        own.retain(|name| lab.owns(name));
        let inodes: BTreeSet<u64> = own
            .iter()
            .filter_map(|name| NetNs::open(name).ok()?.inode().ok())
            .collect();
        for pid in processes_in(&inodes) {
            // One that has ended by itself meanwhile is what we want.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let mut result = Ok(());
        for namespace in own {
            match NetNs::delete(&namespace) {
                Ok(()) | Err(NetNsError::Missing(_)) => {}
                Err(error) => result = Err(error),
            }
        }
        result
    }
}

/// Processes, ours left out, whose first thread is in one of these namespaces.
fn processes_in(inodes: &BTreeSet<u64>) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| u32::try_from(*pid) != Ok(std::process::id()))
        .filter(|pid| {
            let netns = fs::metadata(format!("/proc/{pid}/ns/net"));
            netns.is_ok_and(|it| inodes.contains(&it.ino()))
        })
        .collect()
}

fn settings(netns: &NetNs, space: &Space) -> Result<(), MachineError> {
    netns.run(|| {
        for (name, value) in &space.sysctls {
            // What `/proc/sys/net` shows is the namespace of the thread that looks.
            let path = Path::new("/proc/sys/net").join(name);
            fs::write(&path, value).map_err(|cause| MachineError::Setting {
                namespace: space.namespace.clone(),
                path: path.display().to_string(),
                value,
                cause,
            })?;
        }
        Ok(())
    })?
}

/// Runs `ip` inside, with lines on its standard input.
fn batch(netns: &NetNs, arguments: &[&str], lines: &str) -> Result<(), MachineError> {
    if lines.is_empty() {
        return Ok(());
    }
    let output = netns.run(|| {
        let mut ip = Command::new("ip")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut input) = ip.stdin.take() {
            // It may end before it has read everything: its own words tell why.
            let _ = input.write_all(lines.as_bytes());
        }
        ip.wait_with_output()
    })?;
    let output = output.map_err(MachineError::NoIp)?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let number = words
        .rsplit_once("Command failed -:")
        .map(|(_, it)| it.trim());
    let number: Option<usize> = number.and_then(|it| it.parse().ok());
    let line = number.and_then(|it| lines.lines().nth(it.checked_sub(1)?));
    Err(MachineError::Ip {
        namespace: netns.name().to_owned(),
        words: words.trim().replace('\n', "; "),
        line: line.unwrap_or("unknown").to_owned(),
    })
}
