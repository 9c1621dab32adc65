//! A node's recording: looked at as `explain --live` looks, watched for a while, and written down as
//! texts ([`nodeway_core::recording`]). Nothing of the node is changed; while it is watched, its programs
//! tell each decision.

mod packets;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use nodeway_core::netfilter::kube_proxy::Mode;
use nodeway_core::recording::{
    DECISIONS, ENVOY, FRONTENDS, HEADER, Header, Led, MANIFESTS, REQUESTS, VERSION, manifests,
};

use crate::agent::{AskStatusError, Watched, ask_decisions, ask_status};
use crate::clock::Deadline;
use crate::envoy;
use crate::generation::{self, GenerationError};
use crate::in_force::{LookError, Looked, look};
use crate::netfilter::{NetfilterError, SavedText, saved_texts};
use crate::netns::NetNs;

pub use packets::PacketsError;

/// Of an access log no more than this is read, from its end.
const LOG_BYTES: u64 = 16 << 20;
/// Between two looks at the clock.
const PAUSE: Duration = Duration::from_millis(50);

/// Why a node cannot be recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It cannot be looked at.
    #[error(transparent)]
    Look(#[from] Box<LookError>),
    /// Its agent does not tell.
    #[error(transparent)]
    Agent(#[from] AskStatusError),
    /// Its rules cannot be read.
    #[error(transparent)]
    Rules(#[from] Box<NetfilterError>),
    /// Its Envoys are not known.
    #[error(transparent)]
    Envoys(#[from] GenerationError),
    /// An access log cannot be read.
    #[error("cannot read {path}: {said}", path = path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        said: String,
    },
    /// Packets cannot be captured.
    #[error(transparent)]
    Packets(#[from] PacketsError),
    /// Something that this Nodeway holds cannot be written down.
    #[error("cannot write {file} of the recording: {said}")]
    Form {
        /// The file.
        file: &'static str,
        /// What is wrong.
        said: String,
    },
}

/// What of a node is recorded.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// For how long decisions are watched; not at all if it is zero.
    pub watch: Duration,
    /// How many of the newest requests of each Envoy are taken.
    pub requests: usize,
    /// Whether packets are captured meanwhile.
    pub packets: bool,
}

/// A node's recording, still to be written.
#[derive(Debug)]
pub struct Taken {
    /// Which node, and when.
    pub header: Header,
    /// Its files by their places in the folder.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// Decisions in it; none where nobody tells, by a way of rules.
    pub decisions: Option<usize>,
    /// Requests in it; none where no Envoy writes an access log.
    pub requests: Option<usize>,
    /// Where what is in force is not what was planned.
    pub differences: Vec<String>,
}

/// Records the node whose agent has that run directory and whose namespace that is.
///
/// # Errors
/// When something of it cannot be read.
pub fn record(run: &Path, netns: &NetNs, wanted: Wanted) -> Result<Taken, RecordError> {
    let seconds = wanted.watch.as_secs();
    // Who does not answer is told at once.
    let status = ask_status(run)?;
    let capture = wanted
        .packets
        .then(|| packets::begin(netns, wanted.watch))
        .transpose()?;
    let deadline = Deadline::within(wanted.watch);
    let watched = match seconds {
        0 => Some(Watched::default()),
        seconds => ask_decisions(run, seconds)?,
    };
    // Where nobody tells, requests are recorded all the same.
    while deadline.pause(PAUSE) {}
    let looked = look(run, netns).map_err(Box::new)?;
    let saved = saved_texts(netns).map_err(Box::new)?;
    let requests = requests(run, wanted.requests)?;
    let lost = watched.as_ref().map_or(0, |it| it.lost);
    let header = Header {
        version: VERSION,
        nodeway: env!("CARGO_PKG_VERSION").to_owned(),
        node: status.node,
        at: now(),
        redirect: looked.redirect,
        kube_proxy: kube_proxy(&saved),
        kernel: kernel(),
        watched: if watched.is_some() { seconds } else { 0 },
        lost,
    };
    let mut taken = Taken {
        header,
        files: BTreeMap::new(),
        decisions: watched.as_ref().map(|it| it.decisions.len()),
        requests: requests.as_ref().map(Vec::len),
        differences: looked
            .in_force
            .differences
            .iter()
            .map(|it| it.what.clone())
            .collect(),
    };
    taken.lay_out(&looked, &saved)?;
    taken.lines(DECISIONS, watched.unwrap_or_default().decisions.iter())?;
    if let Some(requests) = requests {
        let mut text = requests.join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        taken.file(REQUESTS, text);
    }
    if let Some(capture) = capture {
        taken.file("packets.pcapng", capture.end()?);
    }
    Ok(taken)
}

impl Taken {
    fn file(&mut self, name: impl AsRef<Path>, content: impl Into<Vec<u8>>) {
        self.files.insert(name.as_ref().to_owned(), content.into());
    }

    fn lay_out(&mut self, looked: &Looked, saved: &[SavedText]) -> Result<(), RecordError> {
        let header = serde_saphyr::to_string(&self.header);
        self.file(HEADER, header.map_err(form(HEADER))?);
        let led = serde_json::to_vec_pretty(&Led::of(&looked.observed));
        self.file(FRONTENDS, led.map_err(form(FRONTENDS))?);
        let status = serde_json::to_vec_pretty(&looked.status);
        self.file("status.json", status.map_err(form("status.json"))?);
        for (name, text) in manifests(&looked.objects) {
            self.file(Path::new(MANIFESTS).join(name), text);
        }
        for (generation, dump) in &looked.dumps {
            let name = format!("{generation}.json");
            self.file(Path::new(ENVOY).join(name), dump.as_str());
        }
        for SavedText { name, text } in saved {
            self.file(Path::new("rules").join(name), text.as_str());
        }
        Ok(())
    }

    fn lines<T: serde::Serialize>(
        &mut self,
        name: &'static str,
        all: impl Iterator<Item = T>,
    ) -> Result<(), RecordError> {
        let mut text = Vec::new();
        for one in all {
            serde_json::to_writer(&mut text, &one).map_err(form(name))?;
            text.push(b'\n');
        }
        self.file(name, text);
        Ok(())
    }
}

fn form<E: std::fmt::Display>(file: &'static str) -> impl FnOnce(E) -> RecordError {
    move |error| RecordError::Form {
        file,
        said: error.to_string(),
    }
}

/// In UTC, to the second: recordings are ordered by it.
fn now() -> String {
    let now = Timestamp::from_second(Timestamp::now().as_second());
    now.unwrap_or_default().to_string()
}

fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", release.trim())
}

/// How kube-proxy stands there.
fn kube_proxy(saved: &[SavedText]) -> Mode {
    let of = |name: &str| {
        let of = saved.iter().filter(|it| it.name.contains(name));
        of.map(|it| &*it.text).collect::<Vec<&str>>()
    };
    Mode::found(&of("tables-save"), of("nft").first().copied())
}

/// The newest lines of the access logs, oldest Envoy first; none where there are no logs.
fn requests(run: &Path, most: usize) -> Result<Option<Vec<String>>, RecordError> {
    let mut all: Option<Vec<String>> = None;
    for record in generation::list(run)? {
        let path = record.folder().join(envoy::ACCESS_LOG);
        let failed = |error: io::Error| RecordError::Log {
            path: path.clone(),
            said: error.to_string(),
        };
        let text = match tail(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines: Vec<&str> = whole.lines().filter(|it| !it.trim().is_empty()).collect();
        let newest = lines.len().saturating_sub(most);
        let newest = lines.into_iter().skip(newest).map(str::to_owned);
        if !whole.is_empty() {
            all.get_or_insert_default().extend(newest);
        }
    }
    Ok(all)
}

/// The end of a file, from the beginning of a line on.
fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let from = length.saturating_sub(LOG_BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(match text.split_once('\n') {
        Some((_, rest)) if from > 0 => rest.to_owned(),
        _ => text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_so_that_texts_are_ordered_as_moments_are() {
        let now = now();
        assert!(now.len() == 20 && now.ends_with('Z'), "{now}");
    }
}
