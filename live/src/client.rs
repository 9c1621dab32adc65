//! A client for real: sends one request from a network namespace, on a connection of its own, and
//! tells what came of it in the simulator's words.
//!
//! Certificates are looked at and not checked: whom a client was shown is an answer here, and not a
//! reason to end.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nodeway_core::trace::Failure;
use nodeway_sim::http::{BodyLength, Decoder, RequestHead, ResponseHead, Shown};
use nodeway_sim::{Answer, Ask, Target};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use crate::netns::{NetNs, NetNsError};

/// How long a server may say nothing.
const PATIENCE: Duration = Duration::from_secs(20);

/// The longest body that is kept, as in the simulator.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// What came of a request, and from where it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// The answer, or why there is none.
    pub result: Result<Answer, Failure>,
    /// The peer on the client's socket, once it was connected.
    pub client_saw: Option<SocketAddr>,
    /// The client's own address, once it was connected.
    pub local: Option<SocketAddr>,
    /// From before the connect to the last byte.
    pub took: Duration,
}

/// Sends a request from a namespace to an address, and waits for its end.
///
/// # Errors
/// When the namespace cannot be entered. What the network does is an [`Outcome`].
pub fn send(
    netns: &NetNs,
    ask: &Ask,
    target: &Target,
    to: SocketAddr,
) -> Result<Spoken, NetNsError> {
    netns.run(|| {
        let started = now();
        let mut spoken = Spoken {
            result: Err(Failure::TimedOut),
            client_saw: None,
            local: None,
            took: Duration::ZERO,
        };
        match TcpStream::connect(to) {
            Ok(stream) => {
                spoken.client_saw = stream.peer_addr().ok();
                spoken.local = stream.local_addr().ok();
                spoken.result = exchange(stream, ask, target, to.ip());
            }
            Err(error) => spoken.result = Err(not_connected(&error)),
        }
        spoken.took = started.elapsed();
        spoken
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "a real client takes real time, which the report tells"
)]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

fn exchange(stream: TcpStream, ask: &Ask, target: &Target, to: IpAddr) -> Result<Answer, Failure> {
    let prepared = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.set_nodelay(true));
    prepared.map_err(|_| Failure::ConnectionReset)?;
    let head = ask.head(target);
    if !target.tls {
        return converse(&mut &stream, &head, ask, None);
    }
    let (mut stream, seen) = handshake(stream, &head, target, to)?;
    let protocol = stream.conn.alpn_protocol().unwrap_or_default();
    let shown = Shown {
        chain: seen,
        protocol: String::from_utf8_lossy(protocol).into_owned(),
    };
    converse(&mut stream, &head, ask, Some(shown))
}

/// A TLS connection of a client.
type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// Speaks TLS up to where data can flow, and gives the certificates that were shown.
fn handshake(
    stream: TcpStream,
    head: &RequestHead,
    target: &Target,
    to: IpAddr,
) -> Result<(TlsStream, Vec<Vec<u8>>), Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let witness = Arc::new(Witness {
        provider: Arc::clone(&provider),
        shown: Mutex::default(),
    });
    let hello = target.hello(&head.headers);
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| Failure::HandshakeFailed)?;
    let verifier: Arc<dyn ServerCertVerifier> = Arc::<Witness>::clone(&witness);
    let mut config = config
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = hello.protocols.iter().map(|it| it.clone().into()).collect();
    // For an address no name is sent.
    let name = ServerName::try_from(hello.server_name).unwrap_or(ServerName::IpAddress(to.into()));
    let connection =
        ClientConnection::new(Arc::new(config), name).map_err(|_| Failure::HandshakeFailed)?;
    let mut stream = StreamOwned::new(connection, stream);
    while stream.conn.is_handshaking() {
        let done = stream.conn.complete_io(&mut stream.sock);
        done.map_err(|error| match broken(&error) {
            Failure::TimedOut => Failure::TimedOut,
            _ => Failure::HandshakeFailed,
        })?;
    }
    let shown = std::mem::take(&mut *witness.shown.lock().unwrap_or_else(PoisonError::into_inner));
    Ok((stream, shown))
}

/// Sends the request and takes the answer.
fn converse(
    stream: &mut (impl Read + Write),
    head: &RequestHead,
    ask: &Ask,
    shown: Option<Shown>,
) -> Result<Answer, Failure> {
    let mut out = Vec::new();
    head.write(&mut out);
    out.extend_from_slice(&ask.body);
    // A server may answer and close before it has read everything: its answer counts.
    let sent = stream.write_all(&out).and_then(|()| stream.flush());
    match (answer(stream, &head.method, shown), sent) {
        (Err(Failure::ConnectionClosed), Err(error)) => Err(broken(&error)),
        (answer, _) => answer,
    }
}

fn answer(stream: &mut impl Read, method: &str, shown: Option<Shown>) -> Result<Answer, Failure> {
    let mut input = Vec::new();
    let head = loop {
        match ResponseHead::parse(&input).map_err(|_| Failure::NotHttp)? {
            // An interim answer; the real one follows.
            Some((head, length)) if (100..200).contains(&head.status) => {
                input.drain(..length);
            }
            Some((head, length)) => {
                input.drain(..length);
                break head;
            }
            None if fill(stream, &mut input)? == 0 => return Err(Failure::ConnectionClosed),
            None => {}
        }
    };
    let length: BodyLength = head.body(method).map_err(|_| Failure::NotHttp)?;
    let mut decoder = Decoder::new(length);
    let mut body = Vec::new();
    loop {
        let room = MAX_BODY.saturating_sub(body.len());
        let decoded = decoder.decode(&mut input, &mut body, room);
        decoded.map_err(|_| Failure::NotHttp)?;
        if decoder.is_done() {
            break;
        }
        if room == 0 {
            return Err(Failure::NotHttp);
        }
        if fill(stream, &mut input)? == 0 {
            // An answer without a length is whole now.
            decoder.end().map_err(|_| Failure::ConnectionClosed)?;
        }
    }
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body,
        shown,
    })
}

fn fill(stream: &mut impl Read, input: &mut Vec<u8>) -> Result<usize, Failure> {
    let mut piece = [0; 16 * 1024];
    let read = match stream.read(&mut piece) {
        // Without a `close_notify` the length of the answer still tells whether it is whole.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => 0,
        read => read.map_err(|error| broken(&error))?,
    };
    input.extend_from_slice(piece.get(..read).unwrap_or_default());
    Ok(read)
}

fn not_connected(error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::ConnectionRefused => Failure::ConnectionRefused,
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => Failure::ConnectionReset,
        ErrorKind::TimedOut => Failure::TimedOut,
        _ => Failure::Unreachable,
    }
}

fn broken(error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Failure::TimedOut,
        ErrorKind::UnexpectedEof => Failure::ConnectionClosed,
        _ => Failure::ConnectionReset,
    }
}

/// Takes every certificate, and remembers it. Signatures are checked: whoever shows a certificate
/// must have its key.
#[derive(Debug)]
struct Witness {
    provider: Arc<CryptoProvider>,
    shown: Mutex<Vec<Vec<u8>>>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = std::iter::once(end_entity).chain(intermediates);
        let chain = chain.map(|certificate| certificate.to_vec()).collect();
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = chain;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
