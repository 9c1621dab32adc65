//! On what, and when, something was measured: a figure without it says nothing.

use std::fmt;
use std::fs;

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

/// The machine, and how busy it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The day, in UTC.
    pub date: String,
    /// The kernel's release.
    pub kernel: String,
    /// The processor's name.
    pub processor: String,
    /// How many of them, as we see.
    pub cores: usize,
    /// How many wanted to run in the minute before, and in the last one.
    pub load_average: (String, String),
}

impl Machine {
    /// This one, now: the measurement begins.
    #[must_use]
    pub fn now() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let processors = text("/proc/cpuinfo");
        let mut names = processors.lines().filter_map(|line| {
            let (field, value) = line.split_once(':')?;
            (field.trim() == "model name").then(|| value.trim().to_owned())
        });
        Self {
            date: Timestamp::now().strftime("%F").to_string(),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: names.next().unwrap_or_default(),
            load_average: (load_average(), String::new()),
        }
    }

    /// The measurement has ended.
    pub fn end(&mut self) {
        self.load_average.1 = load_average();
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = &self.load_average;
        write!(
            f,
            "{}, Linux {}, {} x {}; load average {before} before, {after} after",
            self.date, self.kernel, self.cores, self.processor
        )
    }
}

/// How many wanted to run in the last minute, as `uptime` tells.
fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_when_where_and_how_busy() {
        let mut machine = Machine {
            date: "2026-11-27".to_owned(),
            kernel: "6.18".to_owned(),
            processor: "one".to_owned(),
            cores: 2,
            load_average: ("0.10".to_owned(), String::new()),
        };
        machine.end();
        let text = machine.to_string();
        let known = "2026-11-27, Linux 6.18, 2 x one; load average 0.10 before, ";
        assert!(text.starts_with(known), "{text}");
        assert!(!Machine::now().kernel.is_empty());
    }
}
