//! How `https` is simulated: cryptography is not, the choice that hangs on it is.
//!
//! A TLS client says the server's name and the protocols it speaks before anything is encrypted;
//! a listener chooses its filter chain by that. Here the client sends one line that says the same
//! and begins with the byte of a TLS handshake record; plain HTTP follows. Who terminates TLS
//! takes the line off, who passes it through sends it on.

use super::HttpError;

/// A TLS record of the handshake begins with it; no HTTP request does.
const HANDSHAKE: u8 = 0x16;

/// The longest line; a real ClientHello is of that order too.
const MAX_HELLO: usize = 2048;

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
    /// With TLS; the line's length comes with it.
    Tls(Hello, usize),
}

impl Hello {
    /// Appends the line.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(HANDSHAKE);
        let protocols = self.protocols.join(",");
        out.extend_from_slice(format!("{} {protocols}\n", self.server_name).as_bytes());
    }
}

impl Opening {
    /// Looks at the first bytes of a connection; nothing when more is needed.
    ///
    /// # Errors
    ///
    /// When it begins as TLS and does not go on so.
    pub fn detect(bytes: &[u8]) -> Result<Option<Self>, HttpError> {
        match bytes.split_first() {
            None => return Ok(None),
            Some((first, _)) if *first != HANDSHAKE => return Ok(Some(Self::Plain)),
            Some(_) => {}
        }
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            return if bytes.len() < MAX_HELLO {
                Ok(None)
            } else {
                Err(HttpError::Head("a ClientHello without end".to_owned()))
            };
        };
        let line = bytes.get(1..end).unwrap_or_default();
        let line = std::str::from_utf8(line)
            .map_err(|_| HttpError::Head("a real ClientHello; TLS is not simulated".to_owned()))?;
        let (name, protocols) = line.split_once(' ').unwrap_or((line, ""));
        let protocols = protocols.split(',').filter(|protocol| !protocol.is_empty());
        let hello = Hello {
            server_name: name.to_ascii_lowercase(),
            protocols: protocols.map(str::to_owned).collect(),
        };
        Ok(Some(Self::Tls(hello, end + 1)))
    }
}
