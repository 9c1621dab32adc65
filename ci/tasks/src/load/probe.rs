//! A client that opens a connection each few milliseconds, and knows for how long none was served.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nodeway_live::netns::{NetNs, NetNsError};
use serde::{Serialize, Serializer};

use super::event::pause;

/// Between two connections.
const EACH: Duration = Duration::from_millis(10);
/// A connection that is not open by then is not served: a lost SYN is sent again after a second.
const WITHIN: Duration = Duration::from_millis(500);
/// A connection that took longer to open than that lost its first SYN.
const RESENT: Duration = Duration::from_millis(900);

/// What a probe saw.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// The longest time from a connection that was not served to the next that was.
    #[serde(rename = "outageMs", serialize_with = "in_ms")]
    pub outage: Duration,
    /// Why some were not, with how often.
    pub failed: BTreeMap<String, u32>,
    /// The longest time from a connection's begin to its answer, of those that were served.
    #[serde(rename = "slowestMs", serialize_with = "in_ms")]
    pub slowest: Duration,
    /// How many were served after their SYN was sent again: the first was lost.
    pub resent: u32,
}

fn in_ms<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u128(time.as_millis())
}

/// A probe at work.
#[derive(Debug)]
pub struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Probe {
    /// Begins to ask, from a namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn start(from: &Arc<NetNs>, to: SocketAddr) -> Result<Self, NetNsError> {
        Self::patient(from, to, WITHIN)
    }

    /// The same, with more patience: where the machine is busy, a late answer is no missing one.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn patient(
        from: &Arc<NetNs>,
        to: SocketAddr,
        within: Duration,
    ) -> Result<Self, NetNsError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (from, stopped) = (from.try_clone()?, Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let seen = from.run(|| watch(to, within, &stopped));
            seen.unwrap_or_default()
        });
        Ok(Self { stop, thread })
    }

    /// Ends it.
    #[must_use]
    pub fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let panicked = |_| Seen {
            outage: Duration::MAX,
            ..Seen::default()
        };
        self.thread.join().unwrap_or_else(panicked)
    }
}

#[expect(clippy::disallowed_methods, reason = "what is measured is time")]
fn watch(to: SocketAddr, within: Duration, stop: &AtomicBool) -> Seen {
    let (mut seen, mut since) = (Seen::default(), None);
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        match ask(to, within) {
            Err(error) => {
                since = since.or(Some(begun));
                *seen.failed.entry(error.to_string()).or_default() += 1;
            }
            Ok(open) => {
                seen.slowest = seen.slowest.max(begun.elapsed());
                seen.resent += u32::from(open.duration_since(begun) > RESENT);
                let failed = since.take();
                let outage = failed.map(|failed| begun.duration_since(failed));
                seen.outage = seen.outage.max(outage.unwrap_or_default());
            }
        }
        pause(EACH);
    }
    // One that was never served again.
    let left = since.map(|failed| Instant::now().duration_since(failed));
    seen.outage = seen.outage.max(left.unwrap_or_default());
    seen
}

/// When the connection was open, once there is an answer.
#[expect(clippy::disallowed_methods, reason = "what is measured is time")]
fn ask(to: SocketAddr, within: Duration) -> io::Result<Instant> {
    let mut stream = TcpStream::connect_timeout(&to, within)?;
    let open = Instant::now();
    stream.set_read_timeout(Some(within))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: probe\r\nconnection: close\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    if &status == b"HTTP/1.1 200" {
        Ok(open)
    } else {
        Err(io::Error::other("another status"))
    }
}
