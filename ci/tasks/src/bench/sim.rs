//! Simulated time over the machine's: Bookinfo's requests, again and again, on one cluster.

use std::path::Path;

use nodeway_sim::{AskError, Cause, Cluster, Fixture, LoadErrors, Sim, TopologyError};

use super::{Line, Spread, median, short, timed};

/// Why there was nothing to measure.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// The fixture is wrong.
    #[error(transparent)]
    Load(#[from] LoadErrors),
    /// The fixture gives no network.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// One of its requests cannot be sent.
    #[error("a request of the fixture cannot be sent: {0}")]
    Ask(#[from] AskError),
}

/// Sends all requests of a fixture `times` times a round.
///
/// # Errors
/// When the fixture cannot be run.
pub fn run(fixture: &Path, rounds: usize, times: u32) -> Result<Vec<Line>, SimError> {
    let fixture = Fixture::load(fixture)?;
    let (mut ratios, mut rates) = (Vec::new(), Vec::new());
    for _ in 0..rounds.max(1) {
        let mut sim = Sim::from_fixture(&fixture)?.start()?;
        let began = sim.world().now();
        let (took, sent) = timed(|| send(&fixture, &mut sim, times));
        let seconds = took.as_secs_f64().max(1e-9);
        ratios.push((sim.world().now() - began).as_secs_f64() / seconds);
        rates.push(f64::from(sent?) / seconds);
    }
    let ratio = Spread::of(ratios);
    let requests = median(&mut rates);
    Ok(vec![Line::beside(
        "Bookinfo, requests one after another",
        format!("{} requests/s", short(requests)),
        "simulated ÷ wall time",
        ratio,
    )])
}

fn send(fixture: &Fixture, sim: &mut Sim, times: u32) -> Result<u32, AskError> {
    let mut sent = 0;
    for _ in 0..times {
        for spec in &fixture.requests {
            // A failure of the network is an answer too; a request that is none, is not.
            match sim.request(&spec.from, spec.ask()).map_err(|it| it.failure) {
                Err(Cause::Ask(error)) => return Err(error),
                Ok(_) | Err(Cause::Network(_)) => sent += 1,
            }
        }
    }
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_of_bookinfo_is_sent_each_time() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/bookinfo");
        let fixture = Fixture::load(&folder).unwrap();
        let mut sim = Sim::from_fixture(&fixture).unwrap().start().unwrap();
        let all = u32::try_from(fixture.requests.len()).unwrap();
        assert_eq!(send(&fixture, &mut sim, 2).unwrap(), 2 * all);
        assert_eq!(run(&folder, 1, 1).unwrap().len(), 1);
    }
}
