//! A socket with what was read and not used yet, and what was written and not sent yet.

use crate::process::{Os, SocketId};

/// A socket and its two buffers.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// The socket.
    pub(crate) socket: SocketId,
    /// Read, not used yet.
    pub(crate) input: Vec<u8>,
    /// Written, not sent yet.
    pub(crate) output: Vec<u8>,
    /// Whether the peer sends no more.
    pub(crate) peer_closed: bool,
    closing: bool,
}

/// What a pipe holds before it stops reading, and what it holds before its writer should wait.
pub(crate) const WINDOW: usize = 64 * 1024;

impl Pipe {
    /// A pipe on a socket.
    pub(crate) fn new(socket: SocketId) -> Self {
        Self {
            socket,
            input: Vec::new(),
            output: Vec::new(),
            peer_closed: false,
            closing: false,
        }
    }

    /// Reads what has arrived, unless enough is waiting already: the rest stays in the socket, and
    /// TCP tells the peer to wait.
    pub(crate) fn read(&mut self, os: &mut dyn Os) {
        if self.input.len() < WINDOW {
            os.receive(self.socket, &mut self.input);
        }
    }

    /// Sends what there is room for, and the end when all is sent.
    pub(crate) fn flush(&mut self, os: &mut dyn Os) {
        if !self.output.is_empty() {
            let sent = os.send(self.socket, &self.output).min(self.output.len());
            self.output.drain(..sent);
        }
        if self.closing && self.output.is_empty() {
            self.closing = false;
            os.shutdown(self.socket);
        }
    }

    /// How much may still be written before the writer should wait.
    pub(crate) fn room(&self) -> usize {
        WINDOW.saturating_sub(self.output.len())
    }

    /// Ends the sending side once everything is sent.
    pub(crate) fn close(&mut self, os: &mut dyn Os) {
        self.closing = true;
        self.flush(os);
    }
}
