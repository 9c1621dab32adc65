//! A pod's program for real: an HTTP server in the pod's namespace that answers as the simulator's
//! does, from one function in core ([`Identity::answer`]).
//!
//! Threads, not processes: they enter the namespace, make their sockets, and end with whoever
//! started them. A connection that begins with a TLS hello is answered by TLS where the pod has a
//! certificate.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use nodeway_core::backend::{Identity, Page, Seen};
use nodeway_sim::http::{Decoder, HttpError, RequestHead};
use nodeway_sim::write_page;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::netns::{NetNs, NetNsError};

/// How long a visitor may say nothing.
const PATIENCE: Duration = Duration::from_secs(120);

/// The first byte of a TLS record that holds a handshake.
const HANDSHAKE: u8 = 22;

/// What a pod's program is.
#[derive(Clone, Debug)]
pub struct Program {
    /// Who it says it is.
    pub identity: Identity,
    /// The ports on which it listens, host byte order.
    pub ports: Vec<u16>,
    /// Its certificate and key; none for plain text alone.
    pub tls: Option<Arc<ServerConfig>>,
}

/// Why a program cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// A port could not be listened on.
    #[error("{pod} cannot listen on port {port}: {cause}")]
    Listen {
        /// The pod.
        pod: String,
        /// The port.
        port: u16,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
}

/// The running programs of a namespace. They end when this goes out of scope.
#[derive(Debug, Default)]
pub struct Backends {
    listening: Vec<Arc<TcpListener>>,
    threads: Vec<JoinHandle<()>>,
    visitors: Arc<Visitors>,
    /// Ports that another program of the namespace had first.
    taken: Vec<(String, u16)>,
}

/// The connections that stand, so that they can be ended.
#[derive(Debug, Default)]
struct Visitors(Mutex<(u64, BTreeMap<u64, TcpStream>)>);

impl Visitors {
    fn enter(&self, stream: &TcpStream) -> io::Result<u64> {
        let stream = stream.try_clone()?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.0 += 1;
        let id = all.0;
        all.1.insert(id, stream);
        Ok(id)
    }

    fn leave(&self, id: u64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.1.remove(&id);
    }

    fn end(&self) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in std::mem::take(&mut all.1).into_values() {
            // One that is gone already is what we want.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Backends {
    /// Starts programs in a namespace; all of them listen when this returns.
    ///
    /// # Errors
    /// When a port cannot be listened on for another reason than that it is taken: of two containers
    /// that want one port the first has it, as in a real pod.
    pub fn start(netns: &NetNs, programs: &[Program]) -> Result<Self, BackendError> {
        let mut backends = Self::default();
        for program in programs {
            let program = Arc::new(program.clone());
            for port in program.ports.iter().copied() {
                match netns.run(|| listen(port))? {
                    Ok(listener) => backends.serve(Arc::new(listener), Arc::clone(&program)),
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                        let pod = program.identity.pod.clone();
                        backends.taken.push((pod, port));
                    }
                    Err(cause) => {
                        return Err(BackendError::Listen {
                            pod: program.identity.pod.clone(),
                            port,
                            cause,
                        });
                    }
                }
            }
        }
        Ok(backends)
    }

    /// Pods and ports that another program of the namespace had first.
    #[must_use]
    pub fn taken(&self) -> &[(String, u16)] {
        &self.taken
    }

    fn serve(&mut self, listener: Arc<TcpListener>, program: Arc<Program>) {
        let visitors = Arc::clone(&self.visitors);
        self.listening.push(Arc::clone(&listener));
        self.threads.push(thread::spawn(move || {
            // The socket is shut down when the program shall end.
            while let Ok((stream, peer)) = listener.accept() {
                let (program, visitors) = (Arc::clone(&program), Arc::clone(&visitors));
                thread::spawn(move || {
                    let Ok(id) = visitors.enter(&stream) else {
                        return;
                    };
                    // A visitor who leaves in the middle ends nothing but his own visit.
                    let _ = visit(stream, canonical(peer), &program);
                    visitors.leave(id);
                });
            }
        }));
    }
}

impl Drop for Backends {
    fn drop(&mut self) {
        for listener in &self.listening {
            // Wakes the thread that accepts; a socket that is shut down already has no such thread.
            let _ = shutdown(listener.as_raw_fd(), Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            // A panic there was printed there.
            let _ = thread.join();
        }
        self.visitors.end();
    }
}

/// On all addresses of both families; IPv4 alone where there is no IPv6.
fn listen(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind(("::", port)) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        Err(_) => TcpListener::bind(("0.0.0.0", port)),
        bound => bound,
    }
}

/// `::ffff:10.0.0.1` is 10.0.0.1.
fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

fn visit(stream: TcpStream, peer: SocketAddr, program: &Program) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut first = [0];
    let begins_tls = stream.peek(&mut first)? == 1 && first == [HANDSHAKE];
    match (&program.tls, begins_tls) {
        (Some(config), true) => {
            let connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
            let mut stream = StreamOwned::new(connection, stream);
            serve(&mut stream, peer, &program.identity)?;
            stream.conn.send_close_notify();
            stream.flush()
        }
        (None, true) => {
            let why = HttpError::Head("a TLS hello, and this speaks plain text".to_owned());
            respond(&mut &stream, &Page::refusal(&why), "GET", false)
        }
        (_, false) => serve(&mut &stream, peer, &program.identity),
    }
}

/// Answers one request after the other.
fn serve(
    stream: &mut (impl Read + Write),
    peer: SocketAddr,
    identity: &Identity,
) -> io::Result<()> {
    let mut input = Vec::new();
    loop {
        let (head, received) = match request(stream, &mut input)? {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(error) => return respond(stream, &Page::refusal(&error), "GET", false),
        };
        let page = identity.answer(&Seen {
            peer: Some(peer),
            method: &head.method,
            target: &head.target,
            headers: &head.headers.0,
            body_bytes: received,
        });
        let keep = head.keeps_alive();
        respond(stream, &page, &head.method, keep)?;
        if !keep {
            return Ok(());
        }
    }
}

/// A whole request and the length of its body; nothing when the visitor has left. Outside are the
/// errors of the connection, inside those of HTTP.
fn request(
    stream: &mut impl Read,
    input: &mut Vec<u8>,
) -> io::Result<Result<Option<(RequestHead, usize)>, HttpError>> {
    let head = loop {
        match RequestHead::parse(input) {
            Ok(Some((head, length))) => {
                input.drain(..length);
                break head;
            }
            Ok(None) if fill(stream, input)? == 0 => return Ok(Ok(None)),
            Ok(None) => {}
            Err(error) => return Ok(Err(error)),
        }
    };
    let mut decoder = match head.body() {
        Ok(length) => Decoder::new(length),
        Err(error) => return Ok(Err(error)),
    };
    let mut received = 0;
    loop {
        // A body is counted and forgotten.
        let mut body = Vec::new();
        if let Err(error) = decoder.decode(input, &mut body, usize::MAX) {
            return Ok(Err(error));
        }
        received += body.len();
        if decoder.is_done() {
            return Ok(Ok(Some((head, received))));
        }
        if fill(stream, input)? == 0 {
            return Ok(Ok(None));
        }
    }
}

fn fill(stream: &mut impl Read, input: &mut Vec<u8>) -> io::Result<usize> {
    let mut piece = [0; 16 * 1024];
    let read = stream.read(&mut piece)?;
    input.extend_from_slice(piece.get(..read).unwrap_or_default());
    Ok(read)
}

fn respond(stream: &mut impl Write, page: &Page, method: &str, keep: bool) -> io::Result<()> {
    let mut out = Vec::new();
    write_page(page, method, keep, &mut out);
    stream.write_all(&out)?;
    stream.flush()
}
