//! One TCP connection: smoltcp's state machine in a set of its own, and what its process was told.

use std::net::SocketAddr;
use std::time::Duration;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};

use super::stack::{StackId, Tuple};
use crate::process::{ListenSocketId, SocketError, SocketEvent, WayId};
use crate::time::Time;
use crate::world::ProcessId;

/// A connection.
pub(crate) struct Connection {
    pub(crate) stack: StackId,
    pub(crate) tuple: Tuple,
    pub(crate) set: SocketSet<'static>,
    handle: SocketHandle,
    /// Nobody after the process has died: what is left is closed in the background.
    pub(crate) owner: Option<ProcessId>,
    /// The user of its socket.
    pub(crate) uid: u32,
    /// Whether it was begun from here.
    pub(crate) began: bool,
    /// The ListenSocket it came through, until it is accepted.
    pub(crate) through: Option<ListenSocketId>,
    /// What getpeername says when a connect hook led the call elsewhere.
    pub(crate) asked: Option<SocketAddr>,
    pub(crate) way: Option<WayId>,
    /// The state at the last look.
    pub(crate) state: State,
    announced: bool,
    peer_closed: bool,
    over: bool,
    /// Bytes that the process was told of and has not taken.
    unread: usize,
    pub(crate) wants_room: bool,
    /// Waits for an acknowledgement: until when, and how much was outstanding.
    patience: Option<(Time, usize)>,
    /// When it wants to be polled next.
    pub(crate) next: Option<Time>,
    /// When its earliest timer in the event heap runs out.
    pub(crate) armed: Option<Time>,
    /// The last packet sent since its peer closed: what TIME_WAIT answers with.
    pub(crate) answer: Vec<u8>,
    /// Whether it stands in the queue of connections to be polled.
    pub(crate) queued: bool,
}

/// What a look at a connection found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It goes on.
    Alive,
    /// Our side closed first and both are done.
    TimeWait,
    /// It is gone.
    Gone,
    /// Nobody wants it: it must be reset.
    Unwanted,
}

/// How long a connection waits for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) connect: Duration,
    pub(crate) acknowledgement: Duration,
    pub(crate) orphan: Duration,
}

impl Connection {
    pub(crate) fn new(stack: StackId, tuple: Tuple, buffer: usize) -> Self {
        let mut socket = Socket::new(
            SocketBuffer::new(vec![0; buffer]),
            SocketBuffer::new(vec![0; buffer]),
        );
        socket.set_nagle_enabled(false);
        let mut set = SocketSet::new(Vec::with_capacity(1));
        let handle = set.add(socket);
        Self {
            stack,
            tuple,
            set,
            handle,
            owner: None,
            uid: 0,
            began: false,
            through: None,
            asked: None,
            way: None,
            state: State::Closed,
            announced: false,
            peer_closed: false,
            over: false,
            unread: 0,
            wants_room: false,
            patience: None,
            next: None,
            armed: None,
            answer: Vec::new(),
            queued: false,
        }
    }

    pub(crate) fn socket(&mut self) -> &mut Socket<'static> {
        self.set.get_mut(self.handle)
    }

    /// Whether its process can still use it.
    pub(crate) fn usable(&self) -> bool {
        !self.over
    }

    /// Whether the handshake is not done yet.
    pub(crate) fn half_open(&self) -> bool {
        self.state == State::SynReceived
    }

    /// Takes what has arrived.
    pub(crate) fn receive(&mut self, into: &mut Vec<u8>) -> usize {
        let before = into.len();
        let socket = self.socket();
        while socket.can_recv() {
            // The buffer is a ring: one call shows no more than up to its end.
            let taken = socket.recv(|bytes| {
                into.extend_from_slice(bytes);
                (bytes.len(), bytes.len())
            });
            if !matches!(taken, Ok(length) if length > 0) {
                break;
            }
        }
        self.unread = 0;
        into.len() - before
    }

    /// Gives bytes to send.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> usize {
        let taken = self.socket().send_slice(bytes).unwrap_or(0);
        self.wants_room = taken < bytes.len();
        taken
    }

    /// Looks at what a poll has done, and says what its process must be told.
    pub(crate) fn look(
        &mut self,
        reset: bool,
        accepting: bool,
        tell: &mut impl FnMut(SocketEvent),
    ) -> Outcome {
        let socket: &Socket<'_> = self.set.get(self.handle);
        let (state, queue, room) = (socket.state(), socket.recv_queue(), socket.can_send());
        let before = std::mem::replace(&mut self.state, state);
        match state {
            // RST in SYN-RECEIVED: smoltcp goes back to LISTEN.
            State::Listen => return Outcome::Gone,
            State::SynSent | State::SynReceived => return Outcome::Alive,
            State::Closed => {
                if !self.over {
                    self.over = true;
                    tell(match before {
                        State::SynSent => SocketEvent::Failed(SocketError::Refused),
                        _ if reset => SocketEvent::Failed(SocketError::Reset),
                        _ => SocketEvent::Closed,
                    });
                }
                return Outcome::Gone;
            }
            _ => {}
        }
        if !self.announced {
            self.announced = true;
            match self.through {
                None => tell(SocketEvent::Connected),
                Some(through) if accepting => tell(SocketEvent::Accepted(through)),
                Some(_) => return Outcome::Unwanted,
            }
        }
        if queue > self.unread {
            self.unread = queue;
            if self.owner.is_none() && !accepting {
                // Nobody will ever read this.
                return Outcome::Unwanted;
            }
            tell(SocketEvent::Readable);
        }
        if self.wants_room && room {
            self.wants_room = false;
            tell(SocketEvent::Writable);
        }
        let peer_closed = matches!(
            state,
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait
        );
        if peer_closed && !self.peer_closed {
            self.peer_closed = true;
            tell(SocketEvent::PeerClosed);
        }
        if state == State::TimeWait {
            if !self.over {
                self.over = true;
                tell(SocketEvent::Closed);
            }
            return Outcome::TimeWait;
        }
        Outcome::Alive
    }

    /// Until when it waits for its peer; `None` when it owes and is owed nothing.
    pub(crate) fn wait(&mut self, now: Time, patience: Patience) -> Option<Time> {
        let socket: &Socket<'_> = self.set.get(self.handle);
        let (outstanding, whole) = match self.state {
            State::SynSent | State::SynReceived => (1, patience.connect),
            State::FinWait1 | State::Closing | State::LastAck => {
                (socket.send_queue() + 1, patience.acknowledgement)
            }
            State::FinWait2 if self.owner.is_none() => (1, patience.orphan),
            _ => (socket.send_queue(), patience.acknowledgement),
        };
        if outstanding == 0 {
            self.patience = None;
            return None;
        }
        match self.patience {
            Some((until, before)) if before == outstanding => Some(until),
            _ => {
                let until = now + whole;
                self.patience = Some((until, outstanding));
                Some(until)
            }
        }
    }

    /// Whether it has waited long enough.
    pub(crate) fn gives_up(&self, now: Time) -> bool {
        !self.over && self.patience.is_some_and(|(until, _)| until <= now)
    }

    /// Nothing more is told of it.
    pub(crate) fn end(&mut self) {
        self.over = true;
    }
}
