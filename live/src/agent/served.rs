//! What an agent answers: its status on a Unix socket that only its user may open, metrics and
//! health also on a port of their own.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use hyper::{StatusCode, Uri};
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Handle, Runtime};

use super::status::Status;
use super::watching::LONGEST;
use super::{AgentOptions, Event, metrics, serving};
use crate::http::{Answer, PortError, not_found, serve, serve_at, text, with_type};
use crate::metrics::CONTENT;

/// The socket's name in the run directory.
pub(super) const SOCKET: &str = "agent.sock";
/// Where decisions are told for a while.
pub(super) const DECISIONS: &str = "/decisions";
/// Who asks and is not answered by then is told that the agent hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
pub enum ServedError {
    /// The Unix socket.
    #[error("cannot serve the status at {path}: {cause}", path = path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The port.
    #[error(transparent)]
    Port(#[from] PortError),
}

/// It serves as long as it lives.
#[derive(Debug)]
pub(super) struct Served {
    socket: PathBuf,
    handle: Handle,
    /// It is taken when this ends.
    runtime: Option<Runtime>,
}

/// To whom is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    /// The agent's own user.
    Own,
    /// Everybody who reaches the port: no names of objects.
    Open,
}

impl Served {
    pub(super) fn at(options: &AgentOptions, agent: Sender<Event>) -> Result<Self, ServedError> {
        let path = options.run.join(SOCKET);
        let socket = |cause| ServedError::Socket {
            path: path.clone(),
            cause,
        };
        let mut runtime = Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(socket)?;
        let own = {
            let _inside = runtime.enter();
            bind(&path).map_err(socket)?
        };
        let handle = runtime.handle().clone();
        let asked = agent.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = own.accept().await {
                let agent = asked.clone();
                serve(&handle, stream, move |asked| {
                    answer(asked, Door::Own, agent.clone())
                });
            }
        });
        if let Some(address) = options.metrics {
            serve_at(&runtime, address, move |asked| {
                answer(asked, Door::Open, agent.clone())
            })?;
        }
        Ok(Self {
            socket: path,
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }
}

impl Served {
    /// What its connections run on.
    pub(super) const fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // A file that a later agent would replace anyway.
        let _ = fs::remove_file(&self.socket);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What an agent that was killed left is replaced: the run directory is this agent's alone. It is
/// reached by way of its open file, since a socket's address has room for 107 bytes only.
fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let folder = File::open(path.parent().unwrap_or_else(|| Path::new(".")))?;
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn answer(asked: Uri, door: Door, agent: Sender<Event>) -> Answer {
    let path = asked.path();
    if (path, door) == (DECISIONS, Door::Own) {
        return decisions(asked.query().unwrap_or_default(), agent).await;
    }
    let known = match path {
        "/healthz" | "/readyz" | "/metrics" => true,
        "/status" => door == Door::Own,
        _ => false,
    };
    if !known {
        return not_found();
    }
    let Some(status) = ask(agent).await else {
        return text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the agent does not answer\n",
        );
    };
    match path {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => ready(&status),
        "/metrics" => with_type(StatusCode::OK, CONTENT, metrics::text(&status)),
        _ => {
            let json = serde_json::to_vec(&status).unwrap_or_default();
            with_type(StatusCode::OK, "application/json", json)
        }
    }
}

/// What is decided from now on, for as many seconds as the query says; null where nobody tells.
async fn decisions(query: &str, agent: Sender<Event>) -> Answer {
    let Some(seconds) = query
        .strip_prefix("seconds=")
        .and_then(|it| it.parse().ok())
    else {
        return text(StatusCode::BAD_REQUEST, "ask for ?seconds=NUMBER\n");
    };
    let within = Duration::from_secs(seconds);
    let (sender, answer) = channel();
    if agent.send(Event::Watch(within, sender)).is_err() {
        return text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the agent does not answer\n",
        );
    }
    let watched = tokio::task::spawn_blocking(move || {
        // Who cannot tell drops the sender.
        answer.recv_timeout(within.min(LONGEST) + ANSWER_WITHIN)
    });
    let watched = watched.await.ok().and_then(Result::ok);
    let json = serde_json::to_vec(&watched).unwrap_or_default();
    with_type(StatusCode::OK, "application/json", json)
}

/// The kernel has what is planned, as far as there are Envoys to lead to.
fn ready(status: &Status) -> Answer {
    if status.datapath_error.is_some() {
        let why = "the kernel does not have all of the plan\n";
        return text(StatusCode::SERVICE_UNAVAILABLE, why);
    }
    if !status.unserved.is_empty() {
        let why = "frontends wait for their listeners\n";
        return text(StatusCode::SERVICE_UNAVAILABLE, why);
    }
    // What was told before is served on, also beside Cilium: another agent would have nothing more.
    let ready = match status.source.lost_for() {
        None => "ready\n".to_owned(),
        Some(since) => format!("ready; the source cannot be taken for {since} s\n"),
    };
    text(StatusCode::OK, ready)
}

async fn ask(agent: Sender<Event>) -> Option<Status> {
    let (sender, answer) = channel();
    agent.send(Event::Asked(sender)).ok()?;
    let answered = tokio::task::spawn_blocking(move || {
        let (mut status, records) = answer.recv_timeout(ANSWER_WITHIN).ok()?;
        serving::ask(&mut status, &records);
        Some(status)
    });
    answered.await.ok()?
}
