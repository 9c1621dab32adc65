//! What an Envoy writes to its log, as events of our own with its level.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// A log that grows beyond this is begun anew; Envoy only appends, and goes on.
const AT_MOST: u64 = 16 << 20;

/// A log, up to where it was read.
#[derive(Debug)]
pub(super) struct Words {
    path: PathBuf,
    at: u64,
    /// The last line, without its numbers: one that is said again and again is passed on once.
    last: String,
}

/// A line of Envoy's own form: `[date][thread][level][component] [place] text`.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    level: &'a str,
    component: &'a str,
    text: &'a str,
}

impl Words {
    pub(super) fn of(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            at: 0,
            last: String::new(),
        }
    }

    /// Only what is written from now on.
    pub(super) fn from_now(path: &Path) -> Self {
        let at = fs::metadata(path).map_or(0, |it| it.len());
        Self {
            at,
            ..Self::of(path)
        }
    }

    /// Passes on what was written since the last call. A line that is being written waits.
    pub(super) fn pass_on(&mut self, generation: &str) {
        let Ok(mut file) = File::open(&self.path) else {
            return;
        };
        let mut bytes = Vec::new();
        let read = file
            .seek(SeekFrom::Start(self.at))
            .and_then(|_| file.take(AT_MOST).read_to_end(&mut bytes));
        if read.is_err() {
            return;
        }
        let whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        bytes.truncate(whole);
        self.at += whole as u64;
        for line in String::from_utf8_lossy(&bytes).lines() {
            let line = parse(line);
            let without_numbers = line.text.replace(|it: char| it.is_ascii_digit(), "");
            if without_numbers != self.last {
                tell(generation, &line);
                self.last = without_numbers;
            }
        }
        if self.at > AT_MOST
            && OpenOptions::new()
                .write(true)
                .open(&self.path)
                .and_then(|it| it.set_len(0))
                .is_ok()
        {
            self.at = 0;
        }
    }
}

fn tell(generation: &str, line: &Line<'_>) {
    let Line {
        level,
        component,
        text,
    } = line;
    match *level {
        "trace" => tracing::trace!(target: "envoy", generation, component, "{text}"),
        "debug" => tracing::debug!(target: "envoy", generation, component, "{text}"),
        "info" => tracing::info!(target: "envoy", generation, component, "{text}"),
        "warning" => tracing::warn!(target: "envoy", generation, component, "{text}"),
        _ => tracing::error!(target: "envoy", generation, component, "{text}"),
    }
}

/// What is of another form is told as it is: a crash writes its own.
fn parse(line: &str) -> Line<'_> {
    let parsed = || {
        let rest = line.strip_prefix('[')?;
        let mut parts = rest.splitn(4, "][");
        let (_, _, level) = (parts.next()?, parts.next()?, parts.next()?);
        let (component, rest) = parts.next()?.split_once("] ")?;
        let text = match rest.strip_prefix('[') {
            Some(place) => place.split_once("] ").map_or(rest, |(_, text)| text),
            None => rest,
        };
        Some(Line {
            level,
            component,
            text,
        })
    };
    parsed().unwrap_or(Line {
        level: "error",
        component: "",
        text: line,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::with_a_place(
        "[2026-11-26 15:34:10.438][4881][warning][main] [source/server/server.cc:1059] There is no limit",
        "warning",
        "main",
        "There is no limit"
    )]
    #[case::with_brackets_in_it(
        "[2026-11-26 15:34:10.438][4881][info][upstream] [a.cc:1] cm: [x] y",
        "info",
        "upstream",
        "cm: [x] y"
    )]
    #[case::of_another_form("std::terminate called!", "error", "", "std::terminate called!")]
    #[case::cut_off("[2026-11-26 15:34", "error", "", "[2026-11-26 15:34")]
    fn a_line_has_its_level(
        #[case] line: &str,
        #[case] level: &str,
        #[case] component: &str,
        #[case] text: &str,
    ) {
        let wanted = Line {
            level,
            component,
            text,
        };
        assert_eq!(parse(line), wanted);
    }

    #[test]
    fn a_line_is_passed_on_once_and_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("envoy.log");
        let mut file = File::create(&path).unwrap();
        let mut words = Words::of(&path);
        file.write_all(b"one\ntw").unwrap();
        words.pass_on("g1");
        assert_eq!(words.at, 4);
        file.write_all(b"o\n").unwrap();
        words.pass_on("g1");
        assert_eq!(words.at, 8);
    }
}
