//! Connections of a TCP proxy: bytes to an endpoint and back, as they are.

use nodeway_core::plan::ResourceName;

use super::NodeProxy;
use super::downstream::Stage;
use super::sidecar::Captured;
use crate::http::Pipe;
use crate::process::{Os, SocketId, WayId};

/// A connection whose bytes go to an endpoint.
pub(super) struct Relay {
    pub(super) upstream: SocketId,
    /// Whether the endpoint was told that the client sends no more, and the other way round.
    told: (bool, bool),
    /// How rules led the connection here, and the way on which that was noted last.
    captured: Option<Box<(Captured, Option<WayId>)>>,
}

impl Relay {
    pub(super) fn new(upstream: SocketId) -> Self {
        Self {
            upstream,
            told: (false, false),
            captured: None,
        }
    }

    /// One of a pod's own proxy. Who keeps the connection for several requests has it on the way
    /// of each.
    pub(super) fn captured(upstream: SocketId, by: Captured) -> Self {
        Self {
            captured: Some(Box::new((by, None))),
            ..Self::new(upstream)
        }
    }

    fn note(&mut self, way: Option<WayId>, os: &mut dyn Os) {
        if let Some((captured, noted)) = self.captured.as_deref_mut()
            && *noted != way
        {
            *noted = way;
            captured.note(way, os);
        }
    }
}

impl NodeProxy {
    pub(super) fn begin_relay(
        &mut self,
        downstream: SocketId,
        cluster: ResourceName,
        way: Option<WayId>,
        os: &mut dyn Os,
    ) -> Stage {
        let Ok((address, cluster)) = self.endpoint_of(&cluster, way, os) else {
            return Stage::Gone;
        };
        match self.connect((cluster, address), downstream, way, false, os) {
            Ok(upstream) => Stage::Tcp(Relay::new(upstream)),
            Err(_) => Stage::Gone,
        }
    }

    /// Moves what there is and what there is room for.
    pub(super) fn relay(&mut self, pipe: &mut Pipe, mut relay: Relay, os: &mut dyn Os) -> Stage {
        let way = os.way(pipe.socket);
        relay.note(way, os);
        let Some(mut upstream) = self.upstreams.remove(&relay.upstream) else {
            return Stage::Gone;
        };
        if upstream.failed.is_some() && !upstream.pipe.peer_closed {
            self.drop_upstream(&upstream, os);
            return Stage::Gone;
        }
        if upstream.connected {
            let (to_endpoint, to_client) = &mut relay.told;
            pass(pipe, &mut upstream.pipe, to_endpoint, os);
            pass(&mut upstream.pipe, pipe, to_client, os);
        }
        os.set_way(relay.upstream, way);
        if upstream.failed.is_none() {
            self.upstreams.insert(relay.upstream, upstream);
        } else if relay.told.1 {
            return self.end(pipe, os);
        }
        Stage::Tcp(relay)
    }
}

fn pass(from: &mut Pipe, to: &mut Pipe, told: &mut bool, os: &mut dyn Os) {
    loop {
        to.flush(os);
        from.read(os);
        let length = from.input.len().min(to.room());
        if length == 0 {
            break;
        }
        to.output.extend(from.input.drain(..length));
    }
    if from.peer_closed && from.input.is_empty() && !*told {
        *told = true;
        to.close(os);
    }
}
