//! What the kernel's programs decide, told for a while to whoever asks: while nobody does, it costs
//! nothing.

use std::sync::mpsc::Sender;
use std::time::Duration;

use nodeway_core::recording::Decision;
use serde::{Deserialize, Serialize};

use super::Agent;

/// More than these are only counted.
const MOST: usize = 200_000;
/// The longest time that one asks for.
pub(super) const LONGEST: Duration = Duration::from_secs(300);

/// Decisions of a while.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// In the order of time.
    pub decisions: Vec<Decision>,
    /// How many more there were.
    pub lost: u64,
}

/// Somebody watches.
#[derive(Debug)]
pub(super) struct Watching {
    until: Duration,
    seen: Watched,
    /// How many the kernel had had no room for before.
    lost_before: u64,
    /// Who waits for it.
    tell: Vec<Sender<Watched>>,
}

impl Watching {
    pub(super) fn begin(until: Duration, lost_before: u64, tell: Sender<Watched>) -> Self {
        Self {
            until,
            seen: Watched::default(),
            lost_before,
            tell: vec![tell],
        }
    }

    /// One more watches, and gets what was seen before too.
    pub(super) fn join(&mut self, until: Duration, tell: Sender<Watched>) {
        self.until = self.until.max(until);
        self.tell.push(tell);
    }

    pub(super) fn take(&mut self, decisions: Vec<Decision>) {
        let room = MOST.saturating_sub(self.seen.decisions.len());
        let too_many = decisions.len().saturating_sub(room);
        self.seen.lost += u64::try_from(too_many).unwrap_or(u64::MAX);
        self.seen.decisions.extend(decisions.into_iter().take(room));
    }

    pub(super) fn is_over(&self, now: Duration) -> bool {
        now >= self.until
    }

    /// Tells everybody who waits. `lost` is how many the kernel has had no room for by now.
    pub(super) fn end(mut self, lost: u64) {
        self.seen.lost += lost.saturating_sub(self.lost_before);
        for tell in self.tell {
            // Nobody may wait for it any more.
            let _ = tell.send(self.seen.clone());
        }
    }
}

impl Agent {
    /// Who asks where nobody tells gets no answer.
    pub(super) fn begin_to_watch(&mut self, within: Duration, answer: Sender<Watched>) {
        let until = self.clock.now() + within.min(LONGEST);
        if let Some(watching) = &mut self.watching {
            watching.join(until, answer);
            return;
        }
        match self.redirect.trace(true) {
            Ok(true) => {
                let lost = self.redirect.lost_decisions();
                self.watching = Some(Watching::begin(until, lost, answer));
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "decisions cannot be told"),
        }
    }

    /// Takes what was decided meanwhile, and ends that when its time has come.
    pub(super) fn watch(&mut self) {
        let Some(watching) = &mut self.watching else {
            return;
        };
        watching.take(self.redirect.decisions());
        if watching.is_over(self.clock.now()) {
            self.end_to_watch();
        }
    }

    /// Tells everybody who waits, now.
    pub(super) fn end_to_watch(&mut self) {
        let Some(mut watching) = self.watching.take() else {
            return;
        };
        if let Err(error) = self.redirect.trace(false) {
            tracing::warn!(%error, "decisions are told on; the next agent ends that");
        }
        watching.take(self.redirect.decisions());
        watching.end(self.redirect.lost_decisions());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use nodeway_core::datapath::Reason;

    use super::*;

    fn decisions(count: usize) -> Vec<Decision> {
        let one = Decision {
            at: 1,
            hook: "tc".to_owned(),
            verdict: "pass".to_owned(),
            reason: Reason::NotAFrontend,
            from: None,
            to: None,
            flags: 0,
            mark: 0,
        };
        vec![one; count]
    }

    #[test]
    fn what_is_too_much_is_counted_and_everybody_is_told() {
        let ((first, told), (second, also_told)) = (channel(), channel());
        let mut watching = Watching::begin(Duration::from_secs(1), 2, first);
        watching.join(Duration::from_secs(2), second);
        assert!(!watching.is_over(Duration::from_secs(1)));
        watching.take(decisions(MOST - 1));
        watching.take(decisions(3));
        watching.end(7);
        for told in [told, also_told] {
            let told = told.recv().unwrap();
            assert_eq!((told.decisions.len(), told.lost), (MOST, 7));
        }
    }
}
