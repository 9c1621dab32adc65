//! As whom an Envoy runs: somebody who may open transparent sockets, and nothing else.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use nix::unistd::{Gid, Uid, chown, geteuid};

/// The user who owns nothing.
pub(super) const NOBODY: u32 = 65_534;

/// The user that a node's Envoys run as, when we may choose.
#[must_use]
pub fn user_of_node() -> Option<u32> {
    geteuid().is_root().then_some(NOBODY)
}

/// As whom a process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunsAs {
    /// As this user and group, with `CAP_NET_ADMIN` alone, which a transparent socket needs.
    User(u32),
    /// As we do.
    Ourselves {
        /// Our user.
        uid: u32,
        /// Why it is not the one that was asked for.
        why: String,
    },
}

impl RunsAs {
    /// A command that runs a program so.
    pub(super) fn command(&self, program: &Path) -> Command {
        let Self::User(uid) = self else {
            return Command::new(program);
        };
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--reuid={uid}"))
            .arg(format!("--regid={uid}"))
            .args(["--clear-groups", "--no-new-privs"])
            .args(["--inh-caps=-all,+net_admin", "--ambient-caps=+net_admin"])
            .args(["--bounding-set=-all,+net_admin", "--"])
            .arg(program);
        command
    }

    /// As we do, by choice.
    pub(super) fn ourselves() -> Self {
        Self::Ourselves {
            uid: geteuid().as_raw(),
            why: "it was wanted so".to_owned(),
        }
    }

    /// The user.
    #[must_use]
    pub fn uid(&self) -> u32 {
        match self {
            Self::User(uid) | Self::Ourselves { uid, .. } => *uid,
        }
    }
}

/// As whom a program can run, when `uid` is wanted.
pub(super) fn choose(uid: u32, program: &Path) -> RunsAs {
    let own = geteuid();
    let ourselves = |why: String| RunsAs::Ourselves {
        uid: own.as_raw(),
        why,
    };
    if !own.is_root() {
        return ourselves("only root can lower a process's rights".to_owned());
    }
    let resolved = fs::canonicalize(program).unwrap_or_else(|_| program.to_owned());
    for part in resolved.ancestors() {
        let metadata = match part.metadata() {
            Ok(metadata) => metadata,
            Err(error) => return ourselves(format!("{}: {error}", part.display())),
        };
        let mode = metadata.permissions().mode();
        let bit = match (metadata.uid() == uid, metadata.gid() == uid) {
            (true, _) => 0o100,
            (_, true) => 0o010,
            _ => 0o001,
        };
        if mode & bit == 0 {
            let part = part.display();
            return ourselves(format!(
                "user {uid} cannot pass {part} to the program: let it by `chmod o+x {part}`, or name an Envoy elsewhere by $ENVOY"
            ));
        }
    }
    RunsAs::User(uid)
}

/// Gives a folder and files in it to whoever runs there.
pub(super) fn give(runs_as: &RunsAs, folder: &Path, files: &[&str]) -> io::Result<()> {
    let RunsAs::User(uid) = runs_as else {
        return Ok(());
    };
    let owner = (Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*uid)));
    for file in files {
        chown(&folder.join(file), owner.0, owner.1)?;
    }
    chown(folder, owner.0, owner.1)?;
    Ok(())
}

/// As whom a process runs that is there already.
pub(super) fn of_process(pid: u32) -> RunsAs {
    let uid = fs::metadata(format!("/proc/{pid}")).map_or(0, |it| it.uid());
    if uid == geteuid().as_raw() {
        let why = "it was started so".to_owned();
        RunsAs::Ourselves { uid, why }
    } else {
        RunsAs::User(uid)
    }
}
