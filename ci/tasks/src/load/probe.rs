//! A client that opens a connection each few milliseconds, and knows for how long none was served.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nodeway_live::netns::{NetNs, NetNsError};

use super::event::pause;

/// Between two connections.
const EACH: Duration = Duration::from_millis(10);
/// A connection that is not open by then is not served: a lost SYN is sent again after a second.
const WITHIN: Duration = Duration::from_millis(500);

/// A probe at work.
#[derive(Debug)]
pub struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Probe {
    /// Begins to ask, from a namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn start(from: &Arc<NetNs>, to: SocketAddr) -> Result<Self, NetNsError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (from, stopped) = (from.try_clone()?, Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let outage = from.run(|| watch(to, &stopped));
            outage.unwrap_or_default()
        });
        Ok(Self { stop, thread })
    }

    /// Ends it: the longest time from a connection that was not served to the next that was.
    #[must_use]
    pub fn end(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or(Duration::MAX)
    }
}

#[expect(clippy::disallowed_methods, reason = "what is measured is time")]
fn watch(to: SocketAddr, stop: &AtomicBool) -> Duration {
    let (mut longest, mut since) = (Duration::ZERO, None);
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        if ask(to).is_err() {
            since = since.or(Some(begun));
        } else if let Some(failed) = since.take() {
            longest = longest.max(begun.duration_since(failed));
        }
        pause(EACH);
    }
    // One that was never served again.
    let now = Instant::now();
    since.map_or(longest, |failed| longest.max(now.duration_since(failed)))
}

fn ask(to: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, WITHIN)?;
    stream.set_read_timeout(Some(WITHIN))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: probe\r\nconnection: close\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    if &status == b"HTTP/1.1 200" {
        Ok(())
    } else {
        Err(io::Error::other("another status"))
    }
}
