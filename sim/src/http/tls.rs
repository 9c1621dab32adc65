//! TLS as far as it is simulated: everything that is said in the clear is really said.
//!
//! The client sends the bytes of a real ClientHello ([`hello`]); who terminates TLS reads them with
//! rustls and answers with a real ServerHello and its certificate chain ([`flight`]). What would be
//! encrypted from there on travels in records of application data as it is ([`record`]): there are
//! no keys. So a capture can be dissected, a listener chooses by what a client really said, and who
//! passes TLS through passes bytes.

mod flight;
mod hello;
mod record;
#[cfg(test)]
mod tests;

pub use flight::{Shown, server_flight};
pub use hello::{Hello, Opening};
pub(crate) use record::Records;

/// What is wrong with bytes that should be TLS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// No record, or one of a version or length that no TLS has.
    #[error("malformed record: {0}")]
    Record(&'static str),
    /// The first message is no ClientHello that a server takes.
    #[error("no ClientHello: {0}")]
    Hello(String),
    /// What a server answers with is no ServerHello with a certificate chain.
    #[error("malformed answer to a ClientHello")]
    Flight,
    /// The other side ended it with an alert.
    #[error("alert {0}")]
    Alert(u8),
}
