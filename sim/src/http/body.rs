//! Bodies: how long one is, taken off a stream and put on one, piece by piece.

use super::HttpError;

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is none.
    None,
    /// That many bytes.
    Length(u64),
    /// In chunks, the last of which is empty.
    Chunked,
    /// Up to the end of the connection.
    UntilClose,
}

/// A chunk's size line longer than this is an attack, or no HTTP.
const MAX_LINE: usize = 256;

/// Takes a body off a stream.
#[derive(Clone, Debug)]
pub struct Decoder(State);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    Size,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    UntilClose,
    Done,
}

impl Decoder {
    /// Of a body of that length.
    #[must_use]
    pub fn new(length: BodyLength) -> Self {
        Self(match length {
            BodyLength::None | BodyLength::Length(0) => State::Done,
            BodyLength::Length(length) => State::Length(length),
            BodyLength::Chunked => State::Size,
            BodyLength::UntilClose => State::UntilClose,
        })
    }

    /// Whether the body is whole.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.0 == State::Done
    }

    /// Takes what there is off the front of `input`, at most `room` bytes of body.
    ///
    /// # Errors
    ///
    /// When chunks are malformed.
    pub fn decode(
        &mut self,
        input: &mut Vec<u8>,
        out: &mut Vec<u8>,
        room: usize,
    ) -> Result<(), HttpError> {
        let mut rest = input.as_slice();
        let mut room = room;
        let result = self.advance(&mut rest, &mut room, &mut |piece| {
            out.extend_from_slice(piece);
        });
        let taken = input.len() - rest.len();
        input.drain(..taken);
        result
    }

    /// Passes over what there is of the body at the front of `input`, and says how much that was.
    ///
    /// # Errors
    ///
    /// When chunks are malformed.
    pub(crate) fn skip(&mut self, input: &[u8]) -> Result<usize, HttpError> {
        let (mut rest, mut room) = (input, usize::MAX);
        self.advance(&mut rest, &mut room, &mut |_| {})?;
        Ok(input.len() - rest.len())
    }

    /// The peer sends no more.
    ///
    /// # Errors
    ///
    /// When the body is not whole.
    pub fn end(&mut self) -> Result<(), HttpError> {
        match self.0 {
            State::Done | State::UntilClose => {
                self.0 = State::Done;
                Ok(())
            }
            _ => Err(HttpError::Truncated),
        }
    }

    fn advance(
        &mut self,
        rest: &mut &[u8],
        room: &mut usize,
        put: &mut impl FnMut(&[u8]),
    ) -> Result<(), HttpError> {
        loop {
            match self.0 {
                State::Done => return Ok(()),
                State::UntilClose => {
                    take(rest, u64::MAX, room, put);
                    return Ok(());
                }
                State::Length(left) => match left - take(rest, left, room, put) {
                    0 => self.0 = State::Done,
                    left => {
                        self.0 = State::Length(left);
                        return Ok(());
                    }
                },
                State::Chunk(left) => match left - take(rest, left, room, put) {
                    0 => self.0 = State::ChunkEnd,
                    left => {
                        self.0 = State::Chunk(left);
                        return Ok(());
                    }
                },
                State::Size => match line(rest)? {
                    None => return Ok(()),
                    Some(line) => {
                        self.0 = match chunk_size(line)? {
                            0 => State::Trailers,
                            size => State::Chunk(size),
                        }
                    }
                },
                State::ChunkEnd => match line(rest)? {
                    None => return Ok(()),
                    Some([]) => self.0 = State::Size,
                    Some(_) => return Err(HttpError::Chunk),
                },
                State::Trailers => match line(rest)? {
                    None => return Ok(()),
                    Some([]) => self.0 = State::Done,
                    // Trailers are allowed and nobody here asks for them.
                    Some(_) => {}
                },
            }
        }
    }
}

/// Takes up to that many bytes, as far as there is room for them, and says how many.
fn take(rest: &mut &[u8], most: u64, room: &mut usize, put: &mut impl FnMut(&[u8])) -> u64 {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let most = most.min(*room).min(rest.len());
    let (piece, after) = rest.split_at(most);
    put(piece);
    *room -= most;
    *rest = after;
    most as u64
}

/// A line without its CRLF; nothing when it is not whole yet.
fn line<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, HttpError> {
    let Some(end) = rest.iter().take(MAX_LINE).position(|byte| *byte == b'\n') else {
        return if rest.len() < MAX_LINE {
            Ok(None)
        } else {
            Err(HttpError::Chunk)
        };
    };
    let (line, after) = rest.split_at(end);
    *rest = after.get(1..).unwrap_or_default();
    line.strip_suffix(b"\r").map(Some).ok_or(HttpError::Chunk)
}

fn chunk_size(line: &[u8]) -> Result<u64, HttpError> {
    let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let size = std::str::from_utf8(size).map_err(|_| HttpError::Chunk)?;
    let size = size.trim_end();
    // `from_str_radix` would take a sign.
    if !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(HttpError::Chunk);
    }
    u64::from_str_radix(size, 16).map_err(|_| HttpError::Chunk)
}

/// Puts a body on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoder {
    /// As it is.
    Plain,
    /// In chunks.
    Chunked,
}

impl Encoder {
    /// For a body of that length.
    #[must_use]
    pub fn new(length: BodyLength) -> Self {
        match length {
            BodyLength::Chunked => Self::Chunked,
            _ => Self::Plain,
        }
    }

    /// Appends a piece of the body.
    pub fn write(self, piece: &[u8], out: &mut Vec<u8>) {
        if piece.is_empty() {
            return;
        }
        match self {
            Self::Plain => out.extend_from_slice(piece),
            Self::Chunked => {
                out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                out.extend_from_slice(piece);
                out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Appends the body's end.
    pub fn finish(self, out: &mut Vec<u8>) {
        if self == Self::Chunked {
            out.extend_from_slice(b"0\r\n\r\n");
        }
    }
}
