//! The record layer (RFC 8446, section 5.1), without encryption, and a connection's state on it.

use super::{Hello, Shown, TlsError, flight};

/// Content types.
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// Type, version, length.
pub(super) const HEADER: usize = 5;

/// The longest fragment of a record; an encrypted one may be 256 bytes longer.
const MAX_FRAGMENT: usize = 1 << 14;
const MAX_RECORD: usize = MAX_FRAGMENT + 256;

/// `close_notify` (RFC 8446, section 6.1).
const CLOSE_NOTIFY: u8 = 0;

/// A record as it stands in bytes.
pub(super) struct Record<'a> {
    kind: u8,
    fragment: &'a [u8],
    /// With its header.
    length: usize,
}

/// The first record of `bytes`; nothing when more is needed.
pub(super) fn record(bytes: &[u8]) -> Result<Option<Record<'_>>, TlsError> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let [kind, major, _, high, low] = *head;
    if !(20..=24).contains(&kind) {
        return Err(TlsError::Record("its type is none of TLS"));
    }
    if major != 3 {
        return Err(TlsError::Record("its version is none of TLS"));
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_RECORD {
        return Err(TlsError::Record("it is longer than a record may be"));
    }
    Ok(rest.get(..length).map(|fragment| Record {
        kind,
        fragment,
        length: HEADER + length,
    }))
}

/// Appends records of one type that hold `bytes`.
pub(super) fn write(kind: u8, bytes: &[u8], out: &mut Vec<u8>) {
    for fragment in bytes.chunks(MAX_FRAGMENT) {
        let length = u16::try_from(fragment.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&[kind, 3, 3]);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(fragment);
    }
}

/// The handshake message at the beginning of `bytes`, over as many records as it takes: its type,
/// its body, and the length of the records. Nothing when more is needed.
pub(super) fn handshake(bytes: &[u8]) -> Result<Option<(u8, Vec<u8>, usize)>, TlsError> {
    let mut message = Vec::new();
    let mut used = 0;
    loop {
        let rest = bytes.get(used..).unwrap_or_default();
        let Some(Record {
            kind,
            fragment,
            length,
        }) = record(rest)?
        else {
            return Ok(None);
        };
        match kind {
            HANDSHAKE if !fragment.is_empty() => message.extend_from_slice(fragment),
            ALERT => return Err(TlsError::Alert(fragment.get(1).copied().unwrap_or(0))),
            _ => return Err(TlsError::Record("a handshake has no such record")),
        }
        used += length;
        let Some((head, body)) = message.split_first_chunk::<4>() else {
            continue;
        };
        let [kind, a, b, c] = *head;
        let wanted = u32::from_be_bytes([0, a, b, c]) as usize;
        if wanted > MAX_FRAGMENT * 4 {
            return Err(TlsError::Record("a message longer than any that is taken"));
        }
        if body.len() >= wanted {
            // A peer here never begins a second message in a record of the first.
            return Ok(Some((
                kind,
                body.get(..wanted).unwrap_or_default().to_vec(),
                used,
            )));
        }
    }
}

/// One side of a connection that speaks TLS.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// Received, no whole record yet.
    input: Vec<u8>,
    /// To be sent.
    pub(crate) output: Vec<u8>,
    /// What the server has shown; none on its own side, and before it has.
    shown: Option<Shown>,
    /// Whether the client's side still waits for the server's answer.
    waiting: bool,
    over: bool,
}

impl Records {
    /// A client's side: it says hello and waits.
    pub(crate) fn client(hello: &Hello) -> Self {
        let mut records = Self {
            waiting: true,
            ..Self::default()
        };
        hello.write(&mut records.output);
        records
    }

    /// A server's side, with what it answers.
    pub(crate) fn server(flight: Vec<u8>) -> Self {
        Self {
            output: flight,
            ..Self::default()
        }
    }

    /// What the server has shown.
    pub(crate) fn shown(&self) -> Option<&Shown> {
        self.shown.as_ref()
    }

    /// Whether the handshake is still under way.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// Takes bytes in as they came, and appends what they hold to `data`. False when the other side
    /// has ended, or what it says is no TLS.
    pub(crate) fn take(&mut self, bytes: &[u8], data: &mut Vec<u8>) -> bool {
        self.input.extend_from_slice(bytes);
        while !self.over {
            match self.step(data) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => self.over = true,
            }
        }
        !self.over
    }

    fn step(&mut self, data: &mut Vec<u8>) -> Result<bool, TlsError> {
        if self.waiting {
            let Some((shown, used)) = flight::read(&self.input)? else {
                return Ok(false);
            };
            self.shown = Some(shown);
            self.waiting = false;
            self.input.drain(..used);
            return Ok(true);
        }
        let Some(Record {
            kind,
            fragment,
            length: used,
        }) = record(&self.input)?
        else {
            return Ok(false);
        };
        match kind {
            APPLICATION_DATA => data.extend_from_slice(fragment),
            ALERT => return Err(TlsError::Alert(fragment.get(1).copied().unwrap_or(0))),
            _ => return Err(TlsError::Record("nobody asked for such a record")),
        }
        self.input.drain(..used);
        Ok(true)
    }

    /// Puts data into records, unless the handshake comes first.
    pub(crate) fn seal(&mut self, data: &mut Vec<u8>) {
        if !self.waiting && !data.is_empty() {
            write(APPLICATION_DATA, data, &mut self.output);
            data.clear();
        }
    }

    /// Says that no more data will come.
    pub(crate) fn close(&mut self) {
        const WARNING: u8 = 1;
        write(ALERT, &[WARNING, CLOSE_NOTIFY], &mut self.output);
    }
}
