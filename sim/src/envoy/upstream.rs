//! Connections to endpoints, and those of them that wait for another request.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nodeway_core::plan::ResourceName;

use super::{Due, NodeProxy};
use crate::http::{Hello, Pipe};
use crate::process::{CallError, Os, SocketError, SocketEvent, SocketId, TimerId, WayId};

/// A connection to an endpoint.
pub(super) struct Upstream {
    pub(super) pipe: Pipe,
    pub(super) key: Key,
    pub(super) connected: bool,
    /// Whether it had a request before.
    pub(super) reused: bool,
    /// Why it is gone, when it is.
    pub(super) failed: Option<SocketError>,
    /// The downstream connection that uses it; none while it waits or ends.
    pub(super) user: Option<SocketId>,
    connect_timer: Option<TimerId>,
}

/// A cluster and an endpoint of it.
pub(super) type Key = (ResourceName, SocketAddr);

/// Connections that wait, the one used last at the end.
#[derive(Default)]
pub(super) struct Pool(BTreeMap<Key, Vec<SocketId>>);

impl Pool {
    fn take(&mut self, key: &Key) -> Option<SocketId> {
        self.0.get_mut(key)?.pop()
    }

    fn put(&mut self, key: &Key, socket: SocketId) {
        let waiting = self.0.entry((Arc::clone(&key.0), key.1)).or_default();
        waiting.push(socket);
    }

    fn forget(&mut self, key: &Key, socket: SocketId) {
        if let Some(waiting) = self.0.get_mut(key) {
            waiting.retain(|other| *other != socket);
        }
    }
}

impl NodeProxy {
    /// A connection to an endpoint: one that waits, if `kept` allows it and there is one.
    pub(super) fn connect(
        &mut self,
        key: Key,
        user: SocketId,
        way: Option<WayId>,
        kept: bool,
        os: &mut dyn Os,
    ) -> Result<SocketId, CallError> {
        let waiting = if kept { self.pool.take(&key) } else { None };
        if let Some(socket) = waiting
            && let Some(upstream) = self.upstreams.get_mut(&socket)
        {
            upstream.user = Some(user);
            upstream.reused = true;
            os.set_way(socket, way);
            self.counters.upstream_reuses += 1;
            return Ok(socket);
        }
        let socket = os.connect(key.1, way)?;
        let cluster = self.resources.clusters.get(&key.0);
        let mut pipe = Pipe::new(socket);
        if cluster.is_some_and(|cluster| cluster.model.tls) {
            pipe.start_tls(&Hello::default());
        }
        let timeout = cluster.map(|cluster| cluster.model.connect_timeout);
        self.hold(key, pipe, user, timeout, os);
        Ok(socket)
    }

    /// Takes a connection that was begun into the books.
    pub(super) fn hold(
        &mut self,
        key: Key,
        pipe: Pipe,
        user: SocketId,
        timeout: Option<Duration>,
        os: &mut dyn Os,
    ) {
        self.counters.upstream_connects += 1;
        let socket = pipe.socket;
        let connect_timer = timeout.map(|after| self.arm(after, Due::Connect(socket), os));
        let upstream = Upstream {
            pipe,
            key,
            connected: false,
            reused: false,
            failed: None,
            user: Some(user),
            connect_timer,
        };
        self.upstreams.insert(socket, upstream);
    }

    /// Keeps a connection for the next request.
    pub(super) fn keep(&mut self, mut upstream: Upstream, os: &mut dyn Os) {
        let socket = upstream.pipe.socket;
        upstream.user = None;
        os.set_way(socket, None);
        self.pool.put(&upstream.key, socket);
        self.upstreams.insert(socket, upstream);
    }

    /// Ends a connection at once. It must be out of the map already.
    pub(super) fn drop_upstream(&mut self, upstream: &Upstream, os: &mut dyn Os) {
        self.disarm(upstream.connect_timer, os);
        if upstream.failed.is_none() {
            os.abort(upstream.pipe.socket);
        }
    }

    /// Ends a connection that has done its work, politely.
    pub(super) fn finish_upstream(&mut self, mut upstream: Upstream, os: &mut dyn Os) {
        self.disarm(upstream.connect_timer.take(), os);
        if upstream.failed.is_some() {
            return;
        }
        upstream.user = None;
        upstream.pipe.close(os);
        self.upstreams.insert(upstream.pipe.socket, upstream);
    }

    pub(super) fn on_upstream(&mut self, socket: SocketId, event: SocketEvent, os: &mut dyn Os) {
        let Some(upstream) = self.upstreams.get_mut(&socket) else {
            return;
        };
        let user = upstream.user;
        let mut standing = None;
        match event {
            SocketEvent::Connected => {
                upstream.connected = true;
                standing = upstream.connect_timer.take();
            }
            SocketEvent::Writable => upstream.pipe.flush(os),
            SocketEvent::PeerClosed => upstream.pipe.peer_closed = true,
            SocketEvent::Closed => {
                // Whoever uses it sees an end; nobody can be told anything any more.
                upstream.failed = Some(SocketError::Reset);
                upstream.pipe.peer_closed = true;
            }
            SocketEvent::Failed(error) => upstream.failed = Some(error),
            SocketEvent::Readable | SocketEvent::Accepted(_) => {}
        }
        self.disarm(standing, os);
        match user {
            Some(user) => self.drive(user, os),
            None => self.on_waiting(socket, event, os),
        }
    }

    /// A connection that nobody uses: a backend that speaks or ends ends it.
    fn on_waiting(&mut self, socket: SocketId, event: SocketEvent, os: &mut dyn Os) {
        let Some(mut upstream) = self.upstreams.remove(&socket) else {
            return;
        };
        self.pool.forget(&upstream.key, socket);
        match event {
            SocketEvent::Closed | SocketEvent::Failed(_) => {}
            SocketEvent::Readable | SocketEvent::PeerClosed => {
                let mut unasked = Vec::new();
                if os.receive(socket, &mut unasked) > 0 && !upstream.pipe.peer_closed {
                    os.abort(socket);
                    return;
                }
                upstream.pipe.close(os);
                self.upstreams.insert(socket, upstream);
            }
            _ => {
                upstream.pipe.flush(os);
                self.upstreams.insert(socket, upstream);
            }
        }
    }

    pub(super) fn connect_timed_out(&mut self, socket: SocketId, os: &mut dyn Os) {
        let Some(upstream) = self.upstreams.get_mut(&socket) else {
            return;
        };
        upstream.failed = Some(SocketError::TimedOut);
        let user = upstream.user;
        os.abort(socket);
        match user {
            Some(user) => self.drive(user, os),
            None => drop(self.upstreams.remove(&socket)),
        }
    }

    /// Closes waiting connections to endpoints that are planned no more.
    pub(super) fn close_unplanned(&mut self, os: &mut dyn Os) {
        let is_planned = |(cluster, address): &Key| {
            let cluster = self.resources.clusters.get(cluster)?;
            let candidates = self.resources.candidates(cluster).ok()?;
            let mut endpoints = candidates.endpoints.iter();
            endpoints.find(|it| it.address == *address).map(|_| ())
        };
        let keys = self.pool.0.keys();
        let gone: Vec<Key> = keys
            .filter(|key| is_planned(key).is_none())
            .cloned()
            .collect();
        for key in gone {
            for socket in self.pool.0.remove(&key).unwrap_or_default() {
                if let Some(upstream) = self.upstreams.remove(&socket) {
                    self.finish_upstream(upstream, os);
                }
            }
        }
    }
}
