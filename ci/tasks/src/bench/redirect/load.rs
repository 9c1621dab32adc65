//! The load generator: `wrk`, which keeps a number of connections busy for some seconds.
//!
//! A closed loop: a connection sends its next request when it has its answer. So latency and rate
//! are two sides of one thing, and a way that is slower at one is slower at the other.

use std::io;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use nodeway_live::netns::{NetNs, NetNsError};
use serde::Serialize;

/// Whether a connection serves one request or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Connections {
    /// Each connection is kept and used again.
    KeepAlive,
    /// Each request has a connection of its own.
    New,
}

impl Connections {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::KeepAlive, Self::New];

    /// What it is called in the table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::KeepAlive => "keep-alive",
            Self::New => "new connections",
        }
    }
}

/// How much load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Connections at a time.
    pub connections: u16,
    /// For how many seconds.
    pub seconds: u16,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Loaded {
    /// Answers in all.
    pub requests: u32,
    /// Answers per second.
    pub rate: f64,
    /// Half of all answers took at most that long, in microseconds.
    pub p50: f64,
    /// And 99 of 100.
    pub p99: f64,
    /// Connections that failed and answers that were no success.
    pub failed: u32,
}

/// Why no load could be made.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It does not start.
    #[error("cannot run `wrk`: {0}; ci/setup installs it, or: apt-get install wrk")]
    NoWrk(io::Error),
    /// It gave up.
    #[error("`wrk` gave up: {0}")]
    GaveUp(String),
    /// It prints something else.
    #[error(
        "`wrk` prints no {what}; this reads what wrk 4.1 and 4.2 print, and it printed:\n{printed}"
    )]
    Printed {
        /// What was looked for.
        what: &'static str,
        /// All of it.
        printed: String,
    },
    /// The namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
}

/// Which wrk it is.
///
/// # Errors
/// When there is none.
pub fn version() -> Result<String, LoadError> {
    let output = Command::new("wrk").arg("-v").output();
    let output = output.map_err(LoadError::NoWrk)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.split_ascii_whitespace().take(2);
    Ok(words.collect::<Vec<_>>().join(" "))
}

impl Load {
    /// Loads an address from a namespace.
    ///
    /// # Errors
    /// When it cannot be run or understood.
    pub fn run(
        self,
        from: &NetNs,
        to: SocketAddr,
        connections: Connections,
    ) -> Result<Loaded, LoadError> {
        let mut wrk = Command::new("wrk");
        wrk.args(["--threads", "1", "--latency", "--timeout", "2s"])
            .args(["--connections", &self.connections.to_string()])
            .args(["--duration", &format!("{}s", self.seconds)])
            .stdin(Stdio::null());
        if connections == Connections::New {
            wrk.args(["--header", "connection: close"]);
        }
        wrk.arg(format!("http://{to}/"));
        let output = from.run(|| wrk.output())?.map_err(LoadError::NoWrk)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            return Err(LoadError::GaveUp(format!(
                "{} {}",
                text.trim(),
                words.trim()
            )));
        }
        read(&text).map_err(|what| LoadError::Printed {
            what,
            printed: text,
        })
    }
}

/// Reads what wrk prints, or says what is missing.
fn read(text: &str) -> Result<Loaded, &'static str> {
    let after = |name: &str| {
        let mut lines = text.lines().map(str::trim);
        lines.find_map(|line| line.strip_prefix(name).map(str::trim))
    };
    let mut lines = text.lines().map(str::trim);
    let requests = lines.find_map(|line| line.split_once(" requests in ")?.0.parse().ok());
    let rate = after("Requests/sec:").and_then(|it| it.parse().ok());
    let percentile = |name| after(name).and_then(micros);
    // Only printed when there are any: `connect 0, read 3, write 0, timeout 0`.
    let errors = after("Socket errors:").unwrap_or_default();
    let errors = errors.split(|it: char| !it.is_ascii_digit());
    let refused = after("Non-2xx or 3xx responses:").and_then(|it| it.parse().ok());
    Ok(Loaded {
        requests: requests.ok_or("number of requests")?,
        rate: rate.ok_or("rate")?,
        p50: percentile("50%").ok_or("50th percentile")?,
        p99: percentile("99%").ok_or("99th percentile")?,
        failed: errors.filter_map(|it| it.parse::<u32>().ok()).sum::<u32>() + refused.unwrap_or(0),
    })
}

/// `12.34us`, `1.02ms`, `1.50s` in microseconds.
fn micros(text: &str) -> Option<f64> {
    let unit = text.find(|it: char| it.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit);
    let factor = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 6e7,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const PRINTED: &str = "\
Running 2s test @ http://10.96.0.1/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   736.92us  252.76us   7.33ms   91.58%
    Req/Sec    43.41k     3.22k   48.11k    80.95%
  Latency Distribution
     50%  702.00us
     75%  781.00us
     90%    0.90ms
     99%    1.52ms
  90694 requests in 2.10s, 13.06MB read
Requests/sec:  43193.71
Transfer/sec:      6.22MB
";

    #[test]
    fn what_wrk_prints_is_read() {
        let loaded = Loaded {
            requests: 90_694,
            rate: 43_193.71,
            p50: 702.0,
            p99: 1_520.0,
            failed: 0,
        };
        assert_eq!(read(PRINTED), Ok(loaded));
    }

    #[test]
    fn what_failed_is_counted() {
        let errors = "  Socket errors: connect 1, read 20, write 0, timeout 300\n";
        let refused = "  Non-2xx or 3xx responses: 4000\n";
        let loaded = read(&format!("{PRINTED}{errors}{refused}")).unwrap();
        assert_eq!(loaded.failed, 4_321);
    }

    #[test]
    fn what_is_not_there_is_named() {
        assert_eq!(read(""), Err("number of requests"));
        assert_eq!(read(&PRINTED.replace("99%", "98%")), Err("99th percentile"));
    }

    #[rstest]
    #[case("12.34us", Some(12.34))]
    #[case("1.50ms", Some(1_500.0))]
    #[case("2.00s", Some(2e6))]
    #[case("1.00m", Some(6e7))]
    #[case("3", None)]
    #[case("3h", None)]
    fn a_time_has_a_unit(#[case] text: &str, #[case] want: Option<f64>) {
        assert_eq!(micros(text), want);
    }
}
