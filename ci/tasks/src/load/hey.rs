//! The load generator: `hey`, which sends requests at a fixed rate and counts what came of them.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nodeway_live::netns::{NetNs, NetNsError};
use serde::Serialize;

pub use crate::bench::redirect::load::Connections;

/// A request that has no answer by then has failed.
const TIMEOUT: &str = "10";

/// How much load.
#[derive(Clone, Copy, Debug)]
pub struct Hey {
    /// Requests per second, in all.
    pub rate: u32,
    /// Connections at a time.
    pub workers: u32,
    /// For how long.
    pub duration: Duration,
    /// Whether connections are kept.
    pub connections: Connections,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Loaded {
    /// Answers with status 200.
    pub answered: u32,
    /// Requests per second.
    pub rate: f64,
    /// What else came, by its words, with how often.
    pub failed: BTreeMap<String, u32>,
}

/// Why no load could be made.
#[derive(Debug, thiserror::Error)]
pub enum HeyError {
    /// It does not start.
    #[error("cannot run `hey`: {0}; ci/setup installs it, or: apt-get install hey")]
    NoHey(io::Error),
    /// It gave up.
    #[error("`hey` gave up: {0}")]
    GaveUp(String),
    /// It prints something else.
    #[error("`hey` prints no {what}; this reads what hey 0.1 prints, and it printed:\n{printed}")]
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

/// A load that goes on. It ends with this.
#[derive(Debug)]
pub struct Loading(Option<Child>);

impl Hey {
    /// Loads an address from a namespace.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(self, from: &NetNs, to: SocketAddr) -> Result<Loading, HeyError> {
        let mut hey = Command::new("hey");
        hey.args(["-z", &format!("{}ms", self.duration.as_millis())])
            .args(["-c", &self.workers.to_string()])
            .args(["-q", &(self.rate / self.workers).max(1).to_string()])
            .args(["-t", TIMEOUT])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if self.connections == Connections::New {
            hey.arg("-disable-keepalive");
        }
        hey.arg(format!("http://{to}/"));
        let child = from.run(|| hey.spawn())?.map_err(HeyError::NoHey)?;
        Ok(Loading(Some(child)))
    }
}

impl Loading {
    /// Ends it before its time: it tells what came of the requests so far.
    ///
    /// # Errors
    /// When it gives up, or prints what cannot be read.
    pub fn end(self) -> Result<Loaded, HeyError> {
        if let Some(child) = &self.0 {
            let pid = i32::try_from(child.id()).map_err(io::Error::other);
            let pid = Pid::from_raw(pid.map_err(HeyError::NoHey)?);
            // One that has ended by itself has told already.
            let _ = kill(pid, Signal::SIGINT);
        }
        self.wait()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it gives up, or prints what cannot be read.
    pub fn wait(mut self) -> Result<Loaded, HeyError> {
        let Some(child) = self.0.take() else {
            return Ok(Loaded::default());
        };
        let output = child.wait_with_output().map_err(HeyError::NoHey)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(HeyError::GaveUp(words));
        }
        read(&text).map_err(|what| HeyError::Printed {
            what,
            printed: text,
        })
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // One that has ended by itself is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Reads what hey prints, or says what is missing.
fn read(text: &str) -> Result<Loaded, &'static str> {
    let lines = || text.lines().map(str::trim);
    let rate = lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok());
    let mut loaded = Loaded {
        rate: rate.ok_or("rate")?,
        ..Loaded::default()
    };
    let section = |title: &'static str| {
        let after = lines().skip_while(move |line| *line != title).skip(1);
        after.take_while(|line| !line.is_empty())
    };
    // `[200]	600 responses`
    for line in section("Status code distribution:") {
        let (status, count) = bracket(line).ok_or("number of answers by status")?;
        let count: Option<u32> = count.split(' ').next().and_then(|it| it.parse().ok());
        let count = count.ok_or("number of answers by status")?;
        if status == "200" {
            loaded.answered += count;
        } else {
            *loaded.failed.entry(format!("status {status}")).or_default() += count;
        }
    }
    // `[20]	Get "http://…": dial tcp …: connect: connection refused`
    for line in section("Error distribution:") {
        let (count, words) = bracket(line).ok_or("number of errors")?;
        let count: u32 = count.parse().map_err(|_| "number of errors")?;
        *loaded.failed.entry(kind(words)).or_default() += count;
    }
    Ok(loaded)
}

fn bracket(line: &str) -> Option<(&str, &str)> {
    let (inside, rest) = line.strip_prefix('[')?.split_once(']')?;
    Some((inside, rest.trim()))
}

/// An error without the addresses in it: each connection has others.
fn kind(words: &str) -> String {
    let last = words.rsplit_once(": ").map_or(words, |(_, last)| last);
    last.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "
Summary:
  Total:\t30.0010 secs
  Requests/sec:\t1999.93

Status code distribution:
  [200]\t59998 responses
  [503]\t1 responses

Error distribution:
  [2]\tGet \"http://10.96.0.1:80/\": dial tcp 10.96.0.1:80: connect: connection refused
  [1]\tGet \"http://10.96.0.1:80/\": read tcp 10.1.0.1:3->10.96.0.1:80: read: connection reset by peer
";

    #[test]
    fn what_hey_prints_is_read() {
        let failed = [
            ("status 503", 1),
            ("connection refused", 2),
            ("connection reset by peer", 1),
        ];
        let loaded = Loaded {
            answered: 59_998,
            rate: 1999.93,
            failed: failed
                .map(|(words, count)| (words.to_owned(), count))
                .into(),
        };
        assert_eq!(read(PRINTED), Ok(loaded));
    }

    #[test]
    fn without_an_answer_nothing_is_answered() {
        let printed = "Requests/sec:\t20.0\n\nStatus code distribution:\n\n";
        assert_eq!(read(printed).map(|it| it.answered), Ok(0));
    }

    #[test]
    fn what_is_not_there_is_named() {
        assert_eq!(read(""), Err("rate"));
    }
}
