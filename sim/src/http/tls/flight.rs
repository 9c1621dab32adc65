//! A server's answer to a ClientHello: ServerHello, its certificate chain, done (RFC 5246,
//! section 7.4). That of TLS 1.2, where the chain is in the clear.

use super::hello::{Hello, extension, length24, message, vector16};
use super::{TlsError, record};
use crate::seed::Seed;

const SERVER_HELLO: u8 = 2;
const CERTIFICATE: u8 = 11;
const SERVER_HELLO_DONE: u8 = 14;

/// `ECDHE_ECDSA_WITH_AES_128_GCM_SHA256`
const CIPHER_SUITE: [u8; 2] = [0xc0, 0x2b];
const ALPN: u16 = 16;

/// What a server has shown in the clear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The protocol that it chose by ALPN; empty for none.
    pub protocol: String,
    /// Its certificates in DER form, its own first; empty where it has none to show.
    pub chain: Vec<Vec<u8>>,
}

/// The records by which a server answers a hello. It takes the first protocol of its own that the
/// client speaks.
#[must_use]
pub fn server_flight<'a>(
    hello: &Hello,
    protocols: &[String],
    chain: impl Iterator<Item = &'a [u8]>,
) -> Vec<u8> {
    let mut body = vec![3, 3];
    let mut luck = Seed(1).stream(&format!("hello {}", hello.server_name));
    for _ in 0..4 {
        body.extend_from_slice(&luck.draw().to_be_bytes());
    }
    body.push(0);
    body.extend_from_slice(&CIPHER_SUITE);
    body.push(0);
    let protocol = protocols
        .iter()
        .find(|wanted| hello.protocols.contains(wanted));
    if let Some(protocol) = protocol {
        vector16(&mut body, |out| {
            extension(out, ALPN, |out| {
                vector16(out, |out| {
                    out.push(u8::try_from(protocol.len()).unwrap_or(u8::MAX));
                    out.extend_from_slice(protocol.as_bytes());
                });
            });
        });
    }
    let mut certificates = Vec::new();
    for certificate in chain {
        certificates.extend_from_slice(&length24(certificate.len()));
        certificates.extend_from_slice(certificate);
    }
    let mut list = length24(certificates.len()).to_vec();
    list.extend_from_slice(&certificates);

    let mut out = Vec::new();
    for (kind, body) in [
        (SERVER_HELLO, body.as_slice()),
        (CERTIFICATE, &list),
        (SERVER_HELLO_DONE, &[]),
    ] {
        record::write(record::HANDSHAKE, &message(kind, body), &mut out);
    }
    out
}

/// Reads a server's answer, and the length of its records; nothing when more is needed.
pub(super) fn read(bytes: &[u8]) -> Result<Option<(Shown, usize)>, TlsError> {
    let mut shown = Shown::default();
    let mut used = 0;
    let mut wanted = [SERVER_HELLO, CERTIFICATE, SERVER_HELLO_DONE].into_iter();
    for want in &mut wanted {
        let rest = bytes.get(used..).unwrap_or_default();
        let Some((kind, body, length)) = record::handshake(rest)? else {
            return Ok(None);
        };
        if kind != want {
            return Err(TlsError::Flight);
        }
        match kind {
            SERVER_HELLO => shown.protocol = protocol(&body).ok_or(TlsError::Flight)?,
            CERTIFICATE => shown.chain = chain(&body).ok_or(TlsError::Flight)?,
            _ => {}
        }
        used += length;
    }
    Ok(Some((shown, used)))
}

/// The protocol of a ServerHello, empty without one; none when the message is malformed.
fn protocol(body: &[u8]) -> Option<String> {
    // Version and random bytes, then a session of a length that stands before it.
    let (session, rest) = body.get(34..)?.split_first()?;
    let extensions = rest.get(usize::from(*session) + 3..)?;
    if extensions.is_empty() {
        return Some(String::new());
    }
    let mut rest = take16(extensions)?.0;
    while !rest.is_empty() {
        let (kind, after) = rest.split_first_chunk::<2>()?;
        let (value, after) = take16(after)?;
        if u16::from_be_bytes(*kind) == ALPN {
            let (_, name) = take16(value)?.0.split_first()?;
            return Some(String::from_utf8_lossy(name).into_owned());
        }
        rest = after;
    }
    Some(String::new())
}

/// The certificates of a Certificate message.
fn chain(body: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut list, _) = take24(body)?;
    let mut chain = Vec::new();
    while !list.is_empty() {
        let (certificate, rest) = take24(list)?;
        chain.push(certificate.to_vec());
        list = rest;
    }
    Some(chain)
}

fn take16(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

fn take24(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let ([a, b, c], rest) = bytes.split_first_chunk::<3>()?;
    let length = u32::from_be_bytes([0, *a, *b, *c]);
    rest.split_at_checked(usize::try_from(length).ok()?)
}
