//! An xDS server for the Envoys of a machine, on a Unix socket.
//!
//! What is said to whom is decided in [`nodeway_core::xds`]; here is a socket, a thread and a clock.
//! Each proxy is registered under its node id, with what it shall have, before it may ask: a proxy
//! that comes back to a server that does not know its plan yet would lose all it has.
//!
//! **What is not done here.** A frontend is led to a listener by whoever applies the plan: when
//! [`ProxyHandle::resource`] says that the listener is acknowledged, and its socket listens, which is
//! later. A listener that is to go is taken out of what is served when no frontend leads to it.
//!
//! **Nobody holds up another.** A stream makes a response when its proxy is ready to read one, out
//! of what is planned at that moment; nothing is queued, so one that reads nothing costs nothing. A
//! proxy that connects again takes the place of its earlier stream; a peer that is gone or stopped is
//! noticed by HTTP/2 pings.
//!
//! **Who may ask.** The socket is its owner's alone (mode 0600), and a peer must be that user, root
//! or the user of this process: what is served has private keys. Within one user nothing tells
//! proxies apart but the node id that they state; whoever runs as Envoy's user can read what each
//! Envoy of this server has, and acknowledge in its name. It can change nothing.

mod discovery;
mod proxies;
mod service;
mod socket;
mod stream;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use nodeway_core::xds::ResourceDelta;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tonic::transport::Server;

pub use proxies::ProxyHandle;

use proxies::Proxies;
use service::Discovery;
use socket::Socket;

/// Streams of one connection: a proxy needs one.
const STREAMS: u32 = 16;

/// How a server serves.
#[derive(Clone, Debug)]
pub struct XdsOptions {
    /// The user who may connect, and who owns the socket; none for the user of this process.
    pub owner: Option<u32>,
    /// The socket's permissions.
    pub mode: u32,
    /// How long new routes and listeners wait for clusters to be acknowledged.
    pub patience: Duration,
    /// How often a peer is asked whether it is there. It is gone after half as long again.
    pub keepalive: Duration,
}

impl Default for XdsOptions {
    fn default() -> Self {
        Self {
            owner: None,
            mode: 0o600,
            patience: Duration::from_secs(5),
            keepalive: Duration::from_secs(10),
        }
    }
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum XdsError {
    /// Another server listens there.
    #[error("{path} is in use: another agent runs; end it, or name another path", path = .0.display())]
    InUse(PathBuf),
    /// Something about the socket.
    #[error("cannot {action} {path}: {cause}", path = path.display())]
    Socket {
        /// `open the folder of`, `bind`, `give away`, `put in place`
        action: &'static str,
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// No thread, or nothing to wait for events with.
    #[error("cannot start the xDS server: {0}")]
    Start(io::Error),
}

/// A server that serves until it goes out of scope. Its socket goes with it.
#[derive(Debug)]
pub struct XdsServer {
    socket: Socket,
    proxies: Arc<Proxies>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl XdsServer {
    /// Serves on a Unix socket. A socket of that name on which nobody listens is replaced.
    ///
    /// # Errors
    /// When another server listens there, or the socket cannot be made.
    pub fn bind(path: &Path, options: &XdsOptions) -> Result<Self, XdsError> {
        let (socket, listener) = Socket::bind(path, options)?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(XdsError::Start)?;
        let proxies = Arc::new(Proxies::default());
        let discovery = Discovery::new(Arc::clone(&proxies), options.patience);
        let (end, ended) = oneshot::channel::<()>();
        let server = Server::builder()
            .http2_keepalive_interval(Some(options.keepalive))
            .http2_keepalive_timeout(Some(options.keepalive / 2))
            .max_concurrent_streams(STREAMS);
        let allowed = socket.allowed();
        let serve = move || {
            runtime.block_on(async move {
                let incoming = match socket::incoming(listener, allowed) {
                    Ok(incoming) => incoming,
                    Err(error) => return tracing::error!(%error, "the xDS socket does not serve"),
                };
                tokio::select! {
                    served = server.serve_with_incoming(discovery, incoming) => {
                        if let Err(error) = served {
                            tracing::error!(%error, "the xDS server ended");
                        }
                    }
                    _ = ended => {}
                }
            });
        };
        let thread = std::thread::Builder::new()
            .name("xds".to_owned())
            .spawn(serve);
        Ok(Self {
            socket,
            proxies,
            end: Some(end),
            thread: Some(thread.map_err(XdsError::Start)?),
        })
    }

    /// Where it serves.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.socket.path()
    }

    /// Lets a proxy of that node id ask, and says what it shall have. One of the same id that is
    /// known already is forgotten.
    #[must_use]
    pub fn proxy(&self, id: &str, resources: &ResourceDelta) -> ProxyHandle {
        self.proxies.register(id, resources)
    }

    /// Lets a proxy ask no longer, and ends its stream.
    pub fn forget(&self, id: &str) {
        self.proxies.forget(id);
    }
}

impl Drop for XdsServer {
    fn drop(&mut self) {
        // What is dropped there closes all connections.
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it was told already.
            let _ = thread.join();
        }
    }
}
