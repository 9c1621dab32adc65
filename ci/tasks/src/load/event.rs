//! What happens to a node while it is loaded, and what is promised of it.

use std::time::{Duration, Instant};

use nodeway_live::agent::status::Status;
use serde::Serialize;

use super::hey::Loaded;
use super::probe::Seen;
use super::{Bed, LoadError, NODE, file};

/// How long something may take until it is seen.
const SEEN_WITHIN: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// By then a refused config is the user's to see.
const TOLD_WITHIN: Duration = Duration::from_secs(2);
/// How much longer than Envoy's restart a client may wait: its SYN is sent again after a second.
const AFTER_RESTART: Duration = Duration::from_secs(1);

/// What Envoy alone refuses: the names of ciphers are in none of its rules.
const REFUSED: &str = include_str!("refused.yaml");
/// The Service `productpage`, led to a listener.
const PRODUCTPAGE: &str = include_str!("productpage.yaml");

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// Nothing: what the load itself costs.
    Nothing,
    /// The agent is killed, and started again a second later.
    AgentKilled,
    /// The agent is ended, and another started at once.
    AgentReplaced,
    /// Another Envoy takes the place of the one that runs.
    EnvoyReplaced,
    /// A config comes that Envoy refuses, and goes.
    ConfigRefused,
    /// Envoy is killed.
    EnvoyKilled,
    /// The loaded Service itself gets a redirect, and loses it.
    RedirectSwitched,
}

/// What was seen of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Happened {
    /// From the event to when its effect was seen, in milliseconds.
    pub effect_ms: u64,
    /// Connections that were cut at the end of a drain.
    pub cut: Option<u64>,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Nothing,
        Self::AgentKilled,
        Self::AgentReplaced,
        Self::EnvoyReplaced,
        Self::ConfigRefused,
        Self::EnvoyKilled,
        Self::RedirectSwitched,
    ];

    /// What it is called in the table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing happens",
            Self::AgentKilled => "agent killed, started again",
            Self::AgentReplaced => "agent replaced",
            Self::EnvoyReplaced => "Envoy replaced",
            Self::ConfigRefused => "config refused",
            Self::EnvoyKilled => "Envoy killed",
            Self::RedirectSwitched => "redirect on and off",
        }
    }

    /// The Service that is loaded, and its port.
    #[must_use]
    pub const fn service(self) -> (&'static str, u16) {
        match self {
            Self::RedirectSwitched => ("productpage", 9080),
            _ => ("cilium-ingress-basic-ingress", 80),
        }
    }

    /// Makes it happen; `hold` is for how long something stays that comes and goes.
    ///
    /// # Errors
    /// When it cannot be made to happen, or its effect is not seen.
    pub fn happen(self, bed: &mut Bed, hold: Duration) -> Result<Happened, LoadError> {
        match self {
            Self::Nothing => Ok(Happened::default()),
            Self::AgentKilled => {
                bed.lab.kill_agent(NODE)?;
                pause(Duration::from_secs(1));
                bed.lab.start_agent(NODE)?;
                bed.lab.settle(NODE)?;
                Ok(Happened::default())
            }
            Self::AgentReplaced => {
                bed.lab.end_agent(NODE)?;
                bed.lab.start_agent(NODE)?;
                bed.lab.settle(NODE)?;
                Ok(Happened::default())
            }
            Self::EnvoyReplaced => {
                let before = newest(&bed.lab.status(NODE)?);
                bed.lab.upgrade_envoy(NODE)?;
                bed.until("another Envoy alone", |it| {
                    it.generations.len() == 1 && newest(it) != before
                })
            }
            Self::ConfigRefused => {
                let path = bed.manifest("refused.yaml");
                std::fs::write(&path, REFUSED).map_err(file("write", &path))?;
                let told = |it: &Status| it.problems.iter().any(|it| it.contains("NO-SUCH-CIPHER"));
                let happened = bed.until("a problem in Envoy's words", told)?;
                pause(hold);
                std::fs::remove_file(&path).map_err(file("take away", &path))?;
                bed.until("no problem", |it| !told(it))?;
                Ok(happened)
            }
            Self::EnvoyKilled => {
                let before = newest(&bed.lab.status(NODE)?);
                bed.lab.kill_envoy(NODE)?;
                bed.until("all frontends at another Envoy", |it| {
                    newest(it) != before
                        && it
                            .frontends
                            .iter()
                            .all(|led| Some(&led.generation) == newest(it).as_ref())
                })
            }
            Self::RedirectSwitched => {
                let path = bed.manifest("productpage.yaml");
                std::fs::write(&path, PRODUCTPAGE).map_err(file("write", &path))?;
                let port = self.service().1;
                let led = |it: &Status| it.frontends.iter().any(|it| it.address.port() == port);
                let happened = bed.until("the frontend led", led)?;
                pause(hold);
                std::fs::remove_file(&path).map_err(file("take away", &path))?;
                Ok(happened)
            }
        }
    }

    /// What is promised of it and was not kept.
    #[must_use]
    pub fn broken(self, loaded: &Loaded, happened: &Happened, probe: &Seen) -> Vec<String> {
        let (mut all, outage) = (Vec::new(), probe.outage);
        if loaded.answered == 0 {
            all.push("nothing was answered".to_owned());
        }
        if self == Self::EnvoyKilled {
            let allowed = Duration::from_millis(happened.effect_ms) + AFTER_RESTART;
            if outage > allowed {
                all.push(format!("not served for {outage:?}, allowed {allowed:?}"));
            }
            return all;
        }
        let failed: u32 = loaded.failed.values().sum();
        if failed > 0 {
            all.push(format!("{failed} requests failed"));
        }
        if outage > Duration::ZERO {
            all.push(format!("a new connection was not served for {outage:?}"));
        }
        if self == Self::ConfigRefused && happened.effect_ms > as_ms(TOLD_WITHIN) {
            all.push(format!(
                "the problem was told after {} ms",
                happened.effect_ms
            ));
        }
        all
    }
}

fn newest(status: &Status) -> Option<String> {
    status.generations.last().map(|it| it.id.clone())
}

fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Bed {
    /// Waits until the node's agent says something, and how long that took.
    #[expect(clippy::disallowed_methods, reason = "what is measured is time")]
    fn until(&self, what: &str, is: impl Fn(&Status) -> bool) -> Result<Happened, LoadError> {
        let begun = Instant::now();
        loop {
            let status = self.lab.status(NODE)?;
            if is(&status) {
                return Ok(Happened {
                    effect_ms: as_ms(begun.elapsed()),
                    cut: None,
                });
            }
            if begun.elapsed() > SEEN_WITHIN {
                let awaited = status.out_of_sync().join("; ");
                let words = format!("{what} was not seen within {SEEN_WITHIN:?}: {awaited}");
                return Err(LoadError::Missing(words));
            }
            pause(LOOK);
        }
    }
}

/// Waits.
#[expect(clippy::disallowed_methods, reason = "a load takes its time")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
