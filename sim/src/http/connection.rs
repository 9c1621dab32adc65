//! A socket with what was read and not used yet, and what was written and not sent yet.

use super::tls::{Hello, Records, Shown};
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
    /// What both buffers go through, where TLS is spoken.
    tls: Option<Box<Records>>,
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
            tls: None,
            closing: false,
        }
    }

    /// Speaks TLS as a client: what is written waits until the server has answered.
    pub(crate) fn start_tls(&mut self, hello: &Hello) {
        self.tls = Some(Box::new(Records::client(hello)));
    }

    /// Speaks TLS as a server, which answers the hello that begins the input and is that long.
    pub(crate) fn answer_tls(&mut self, length: usize, flight: Vec<u8>) {
        let rest = self.input.split_off(length.min(self.input.len()));
        self.input.clear();
        let mut records = Records::server(flight);
        self.peer_closed |= !records.take(&rest, &mut self.input);
        self.tls = Some(Box::new(records));
    }

    /// What the server has shown, where this is a client's side of TLS.
    pub(crate) fn shown(&self) -> Option<&Shown> {
        self.tls.as_ref()?.shown()
    }

    /// Whether this is a client's side whose server has not answered its hello.
    pub(crate) fn in_handshake(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_waiting())
    }

    /// Reads what has arrived, unless enough is waiting already: the rest stays in the socket, and
    /// TCP tells the peer to wait.
    pub(crate) fn read(&mut self, os: &mut dyn Os) {
        if self.input.len() >= WINDOW {
            return;
        }
        let Some(tls) = &mut self.tls else {
            os.receive(self.socket, &mut self.input);
            return;
        };
        let mut bytes = Vec::new();
        os.receive(self.socket, &mut bytes);
        let waited = tls.is_waiting();
        self.peer_closed |= !tls.take(&bytes, &mut self.input);
        // What was written before the server answered has waited for that.
        if waited && !tls.is_waiting() {
            self.flush(os);
        }
    }

    /// Sends what there is room for, and the end when all is sent.
    pub(crate) fn flush(&mut self, os: &mut dyn Os) {
        let output = match &mut self.tls {
            None => &mut self.output,
            Some(tls) => {
                if tls.output.len() < WINDOW {
                    tls.seal(&mut self.output);
                }
                &mut tls.output
            }
        };
        if !output.is_empty() {
            let sent = os.send(self.socket, output).min(output.len());
            output.drain(..sent);
        }
        if self.closing && self.is_sent() {
            self.closing = false;
            os.shutdown(self.socket);
        }
    }

    /// Whether everything that was written is sent.
    pub(crate) fn is_sent(&self) -> bool {
        let sealed = self.tls.as_ref().map_or(0, |tls| tls.output.len());
        self.output.is_empty() && sealed == 0
    }

    /// How much may still be written before the writer should wait.
    pub(crate) fn room(&self) -> usize {
        let sealed = self.tls.as_ref().map_or(0, |tls| tls.output.len());
        WINDOW.saturating_sub(self.output.len() + sealed)
    }

    /// Ends the sending side once everything is sent.
    pub(crate) fn close(&mut self, os: &mut dyn Os) {
        if !self.closing
            && let Some(tls) = &mut self.tls
        {
            tls.seal(&mut self.output);
            tls.close();
        }
        self.closing = true;
        self.flush(os);
    }
}
