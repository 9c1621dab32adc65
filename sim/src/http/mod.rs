//! HTTP/1.1 over byte buffers: heads, bodies and the rules that say how long a body is.
//!
//! Nothing here knows of sockets or time: bytes go in, heads and pieces of bodies come out, and
//! what is malformed is an error with a name. Clients, backends and the node proxy share it.

mod body;
mod connection;
mod head;
mod headers;
mod tls;

#[cfg(test)]
mod tests;

pub use body::{BodyLength, Decoder, Encoder};
pub(crate) use connection::Pipe;
pub use head::{RequestHead, ResponseHead, reason_phrase};
pub use headers::Headers;
pub use tls::{Hello, Opening, Shown, TlsError, server_flight};

/// The longest head that is taken, as Envoy's default (60 KiB) rounded up to a power of two.
pub const MAX_HEAD: usize = 64 * 1024;

/// What is wrong with bytes that should be HTTP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The head is no HTTP/1 head.
    #[error("malformed head: {0}")]
    Head(String),
    /// The head is longer than [`MAX_HEAD`].
    #[error("a head of more than {MAX_HEAD} bytes")]
    HeadTooLong,
    /// `content-length` is no number, or there are several different ones.
    #[error("`content-length: {0}` is no length")]
    ContentLength(String),
    /// A transfer coding other than `chunked`, or both lengths at once.
    #[error("`transfer-encoding: {0}` is not supported")]
    TransferEncoding(String),
    /// A chunk's size is no number, or a chunk does not end where it says.
    #[error("malformed chunk")]
    Chunk,
    /// The connection ended within a message.
    #[error("the connection ended within a message")]
    Truncated,
}
