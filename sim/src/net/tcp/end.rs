//! How a connection ends: by its own steps, by time, by its process, with its machine.

use smoltcp::socket::tcp::State;

use super::{Sent, Tcp, Told, instant};
use crate::net::stack::{StackId, TimeWait};
use crate::process::{ListenSocketId, SocketError, SocketEvent, SocketId};
use crate::time::Time;
use crate::world::ProcessId;

impl Tcp {
    /// The connection is over: its tuple is free, and it stays until its process was told.
    pub(super) fn unlink(&mut self, id: SocketId, owned: bool) {
        let Some(connection) = self.connection(id) else {
            return;
        };
        let (stack, tuple, accepted) = (
            connection.stack,
            connection.tuple,
            connection.through.is_none(),
        );
        if let Some(stack) = self.stack_mut(stack)
            && stack.connections.get(&tuple) == Some(&id)
        {
            stack.connections.remove(&tuple);
        }
        if !owned || !accepted {
            self.remove(id);
        }
    }

    pub(crate) fn enter_time_wait(&mut self, now: Time, id: SocketId) {
        let until = now + self.time_wait;
        let Some(connection) = self.connection_mut(id) else {
            return;
        };
        let answer = std::mem::take(&mut connection.answer);
        let (stack, tuple) = (connection.stack, connection.tuple);
        let owned = connection.owner.is_some();
        if let Some(stack) = self.stack_mut(stack) {
            stack.time_wait.retain(|_, rest| rest.until > now);
            stack.time_wait.insert(tuple, TimeWait { until, answer });
        }
        self.unlink(id, owned);
    }

    /// Ends a connection without a word to its peer, and tells its process.
    pub(crate) fn fail(&mut self, id: SocketId, error: SocketError) {
        self.end(id, SocketEvent::Failed(error));
    }

    /// Ends a connection of which nobody but its process hears.
    fn end(&mut self, id: SocketId, event: SocketEvent) {
        let Some(connection) = self.connection_mut(id) else {
            return;
        };
        let owner = connection.owner;
        connection.end();
        if let Some(process) = owner {
            self.told.push_back(Told {
                process,
                socket: id,
                event,
            });
        }
        self.unlink(id, owner.is_some());
    }

    /// Ends a connection at once: RST, except where there is nobody to tell yet.
    pub(crate) fn abort(&mut self, now: Time, id: SocketId) {
        let Some(connection) = self.connection_mut(id) else {
            return;
        };
        let quiet = matches!(connection.state, State::SynSent | State::TimeWait);
        connection.end();
        connection.owner = None;
        if !quiet {
            connection.socket().abort();
            let (stack, sent) = (connection.stack, Sent::of(connection));
            let slot = self.connections.get_mut(Self::index(id));
            if let (Some(Some(connection)), Some(stack)) =
                (slot, self.stacks.get_mut(stack.index()))
            {
                stack
                    .interface
                    .poll(instant(now), &mut self.wire, &mut connection.set);
            }
            self.carry(stack, sent);
        }
        self.remove(id);
    }

    /// Sends no more.
    pub(crate) fn shutdown(&mut self, id: SocketId) {
        let Some(connection) = self.connection_mut(id) else {
            return;
        };
        if connection.state == State::SynSent {
            self.end(id, SocketEvent::Closed);
            return;
        }
        connection.socket().close();
        self.mark(id);
    }

    /// Forgets everything that a stack has, without a word to anybody: its machine is off.
    pub(crate) fn forget(&mut self, stack_id: StackId) {
        let Some(stack) = self.stack_mut(stack_id) else {
            return;
        };
        stack.listening.clear();
        stack.time_wait.clear();
        stack.connections.clear();
        self.listeners.retain(|_, it| it.stack != stack_id);
        let mut gone = Vec::new();
        for (index, slot) in self.connections.iter_mut().enumerate() {
            if slot.take_if(|it| it.stack == stack_id).is_some() {
                gone.push(SocketId(u64::try_from(index).unwrap_or(u64::MAX)));
            }
        }
        self.told.retain(|told| !gone.contains(&told.socket));
    }

    /// Does what Linux does when a process dies: nobody listens any more; a connection is closed,
    /// or reset if it has bytes that were never read.
    pub(crate) fn bury(&mut self, now: Time, stack_id: StackId, process: ProcessId) {
        let listening: Vec<ListenSocketId> = self
            .listeners
            .iter()
            .filter(|(_, listener)| listener.owner == process)
            .map(|(id, _)| *id)
            .collect();
        for id in listening {
            self.unlisten(process, id);
        }
        let mut theirs: Vec<SocketId> = self
            .stack(stack_id)
            .into_iter()
            .flat_map(|stack| stack.connections.values().copied())
            .filter(|id| {
                self.connection(*id)
                    .is_some_and(|it| it.owner == Some(process))
            })
            .collect();
        theirs.sort_unstable();
        for id in theirs {
            let Some(connection) = self.connection_mut(id) else {
                continue;
            };
            connection.owner = None;
            let unread = connection.socket().recv_queue() > 0;
            match connection.state {
                // The peer's next packet finds nobody.
                State::SynSent | State::SynReceived => self.remove(id),
                _ if unread => self.abort(now, id),
                _ => self.shutdown(id),
            }
        }
        self.told.retain(|told| told.process != process);
    }
}
