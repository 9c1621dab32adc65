//! Ends from elsewhere what runs until it is told to end: an agent, an operator, who keeps a pod's Envoy.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use crate::signal::{self, Signal};

/// How long a signal waits for the end of a start. One that waits for an API server takes minutes.
const STARTED_WITHIN: Duration = Duration::from_millis(500);

/// Ends one of them. One that has ended by itself is what is wanted.
#[derive(Clone)]
pub struct Stop(Arc<dyn Fn() + Send + Sync>);

impl Stop {
    /// By an event among those that it waits for.
    pub(crate) fn by<E: Send + 'static>(events: &Sender<E>, event: fn() -> E) -> Self {
        let events = events.clone();
        Self(Arc::new(move || {
            // It has ended by itself.
            let _ = events.send(event());
        }))
    }

    /// Ends it.
    pub fn now(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stop")
    }
}

/// SIGINT, SIGTERM or SIGHUP, waited for before there is something to end.
#[derive(Debug)]
pub struct AtSignal(Sender<Stop>);

impl AtSignal {
    /// Waits from now on. Call it before other threads begin: they inherit who waits for signals.
    /// `unstarted` ends the process when the signal comes while what it ends is still starting: that
    /// may be killed at any time.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn wait(unstarted: fn(Signal)) -> io::Result<Self> {
        let (stops, stop) = mpsc::channel::<Stop>();
        signal::on_each(move |signal| {
            match stop.recv_timeout(STARTED_WITHIN) {
                Ok(stop) => stop.now(),
                Err(RecvTimeoutError::Timeout) => unstarted(signal),
                // What has not started is ended by its own error.
                Err(RecvTimeoutError::Disconnected) => {}
            }
            false
        })?;
        Ok(Self(stops))
    }

    /// Ends that at the signal, or now if it has come already.
    pub fn ends(self, stop: Stop) {
        // The thread lives as long as the process.
        let _ = self.0.send(stop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_stopped_hears_of_it_once_for_each_time() {
        let (sender, events) = mpsc::channel();
        let stop = Stop::by(&sender, || "stop");
        stop.clone().now();
        drop((sender, stop));
        assert_eq!(events.iter().collect::<Vec<_>>(), ["stop"]);
    }

    #[test]
    fn what_has_ended_by_itself_may_be_stopped() {
        let (sender, events) = mpsc::channel();
        drop(events);
        Stop::by(&sender, || ()).now();
    }
}
