//! A ClientHello: written by a client, read by whoever chooses by it.

use rustls::server::Acceptor;

use super::{TlsError, record};
use crate::seed::Seed;

const CLIENT_HELLO: u8 = 1;

/// What a ClientHello says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// The server's name, lower case; empty for an address.
    pub server_name: String,
    /// ALPN.
    pub protocols: Vec<String>,
}

/// How a connection begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// With anything but TLS.
    Plain,
    /// With a ClientHello; the length of its records comes with it.
    Tls(Hello, usize),
}

/// `ECDHE_ECDSA_WITH_AES_128_GCM_SHA256`, and TLS 1.3's `AES_128_GCM_SHA256`.
const CIPHER_SUITES: [u16; 2] = [0x1301, 0xc02b];

/// `ecdsa_secp256r1_sha256`, `ed25519`, `rsa_pss_rsae_sha256`.
const SIGNATURES: [u16; 3] = [0x0403, 0x0807, 0x0804];

/// `x25519`, `secp256r1`.
const GROUPS: [u16; 2] = [0x001d, 0x0017];

/// TLS 1.3 and 1.2.
const VERSIONS: [u16; 2] = [0x0304, 0x0303];

impl Hello {
    /// Appends the records of a ClientHello that says so (RFC 8446, section 4.1.2). Its random
    /// bytes are those of what it says.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut body = vec![3, 3];
        let mut luck = Seed(0).stream(&format!("hello {} {:?}", self.server_name, self.protocols));
        for _ in 0..4 {
            body.extend_from_slice(&luck.draw().to_be_bytes());
        }
        body.push(0); // no session to go on with
        vector16(&mut body, |out| shorts(out, &CIPHER_SUITES));
        body.extend_from_slice(&[1, 0]); // no compression
        vector16(&mut body, |out| self.extensions(out));
        record::write(record::HANDSHAKE, &message(CLIENT_HELLO, &body), out);
    }

    fn extensions(&self, out: &mut Vec<u8>) {
        if !self.server_name.is_empty() {
            extension(out, 0, |out| {
                vector16(out, |out| {
                    out.push(0); // host_name
                    vector16(out, |out| {
                        out.extend_from_slice(self.server_name.as_bytes())
                    });
                });
            });
        }
        extension(out, 10, |out| vector16(out, |out| shorts(out, &GROUPS)));
        extension(out, 13, |out| vector16(out, |out| shorts(out, &SIGNATURES)));
        if !self.protocols.is_empty() {
            extension(out, 16, |out| {
                vector16(out, |out| {
                    for protocol in &self.protocols {
                        out.push(u8::try_from(protocol.len()).unwrap_or(u8::MAX));
                        out.extend_from_slice(protocol.as_bytes());
                    }
                });
            });
        }
        extension(out, 43, |out| {
            out.push(4);
            shorts(out, &VERSIONS);
        });
    }
}

impl Opening {
    /// Looks at the first bytes of a connection; nothing when more is needed.
    ///
    /// # Errors
    ///
    /// When it begins as TLS and does not go on so.
    pub fn detect(bytes: &[u8]) -> Result<Option<Self>, TlsError> {
        match bytes.first() {
            None => return Ok(None),
            Some(first) if *first != record::HANDSHAKE => return Ok(Some(Self::Plain)),
            Some(_) => {}
        }
        let Some((_, _, used)) = record::handshake(bytes)? else {
            return Ok(None);
        };
        let hello = read(bytes.get(..used).unwrap_or_default())?;
        Ok(Some(Self::Tls(hello, used)))
    }
}

/// Reads the records of a whole ClientHello, as a server does that takes TLS 1.2 and 1.3.
fn read(mut records: &[u8]) -> Result<Hello, TlsError> {
    let mut acceptor = Acceptor::default();
    while !records.is_empty() {
        let taken = acceptor.read_tls(&mut records);
        if !taken.is_ok_and(|length| length > 0) {
            break;
        }
    }
    let accepted = match acceptor.accept() {
        Ok(Some(accepted)) => accepted,
        Ok(None) => return Err(TlsError::Hello("it is not whole".to_owned())),
        Err((error, _)) => return Err(TlsError::Hello(error.to_string())),
    };
    let said = accepted.client_hello();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Hello {
        server_name: said.server_name().unwrap_or_default().to_ascii_lowercase(),
        protocols: said.alpn().into_iter().flatten().map(text).collect(),
    })
}

/// A handshake message: type and a length of three bytes before its body.
pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend_from_slice(&length24(body.len()));
    message.extend_from_slice(body);
    message
}

/// A length in three bytes.
pub(super) fn length24(length: usize) -> [u8; 3] {
    let [_, a, b, c] = u32::try_from(length).unwrap_or(0xff_ffff).to_be_bytes();
    [a, b, c]
}

fn shorts(out: &mut Vec<u8>, values: &[u16]) {
    for value in values {
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub(super) fn extension(out: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    shorts(out, &[kind]);
    vector16(out, body);
}

/// What is written, with its length in two bytes before it.
pub(super) fn vector16(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let mut body = Vec::new();
    write(&mut body);
    shorts(out, &[u16::try_from(body.len()).unwrap_or(u16::MAX)]);
    out.extend_from_slice(&body);
}
