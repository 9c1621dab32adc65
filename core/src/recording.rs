//! A recording: what a node had and did at one moment, as a folder of texts that can be replayed.
//!
//! ```text
//! recording.yaml      which node, when, and how packets are led there
//! manifests/          the objects, with the addresses and the status that they had
//! frontends.json      what the kernel leads, and where its rules are others than that needs
//! envoy/g7.json       config_dump of each Envoy
//! decisions.jsonl     what the kernel's programs decided, one packet a line
//! requests.jsonl      what Envoys answered: lines of their access logs
//! ```
//!
//! What else is in the folder (rules as they were, status, packets) is for people. Nothing in it is a
//! secret: see [`manifests`] for what is left out.

mod decision;
mod manifests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use nodeway_datapath::{Frontend, FrontendState};
use serde::{Deserialize, Serialize};

use crate::config_dump::ConfigDump;
use crate::envoy::bootstrap::AccessEntry;
use crate::frontend::{FrontendKey, SourceRanges, state_name};
use crate::in_force::{Dumped, Observed, Rules};
use crate::netfilter::kube_proxy;
use crate::redirect::Redirect;
use crate::source::{Fault, Place, SourceError, Text, read_one};

pub use decision::Decision;
pub use manifests::{left_out, manifests};

/// The file that makes a folder a recording.
pub const HEADER: &str = "recording.yaml";
/// What the kernel leads.
pub const FRONTENDS: &str = "frontends.json";
/// Decisions.
pub const DECISIONS: &str = "decisions.jsonl";
/// Requests.
pub const REQUESTS: &str = "requests.jsonl";
/// The folder of objects.
pub const MANIFESTS: &str = "manifests";
/// The folder of dumps.
pub const ENVOY: &str = "envoy";

/// The form that this Nodeway writes and reads.
pub const VERSION: u32 = 1;

/// Which node was recorded, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// The form of the recording: [`VERSION`].
    pub version: u32,
    /// The Nodeway that wrote it.
    pub nodeway: String,
    /// The node.
    pub node: String,
    /// When, in UTC (RFC 3339).
    pub at: String,
    /// How packets are led there.
    pub redirect: Redirect,
    /// How kube-proxy translates services there: `iptables`, `nftables` or `none`.
    #[serde(with = "mode_name")]
    pub kube_proxy: kube_proxy::Mode,
    /// The node's kernel (`Linux 6.12.1`).
    #[serde(default)]
    pub kernel: String,
    /// For how many seconds decisions were recorded.
    #[serde(default)]
    pub watched: u64,
    /// Decisions of that time that are not here, since there were too many.
    #[serde(default)]
    pub lost: u64,
}

/// What a kernel leads, and by which tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Led {
    /// Where it has them (`map 17 (frontends)`).
    pub table: String,
    /// The frontends.
    pub frontends: Vec<LedFrontend>,
    /// How its rules were read.
    pub rules: String,
    /// Where they are others than these frontends need, one line each.
    pub differences: Vec<String>,
}

/// One frontend of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedFrontend {
    /// Its address and port.
    pub address: SocketAddr,
    /// The listener's port.
    pub listener_port: u16,
    /// `arming`, `active`, `draining`
    #[serde(with = "state_name")]
    pub state: FrontendState,
    /// Who may come by it; everybody if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranges: Option<Vec<IpNet>>,
}

/// A recording that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// Its folder, as it was named.
    pub name: Arc<str>,
    /// Which node, and when.
    pub header: Header,
    /// The objects.
    pub manifests: Vec<Text>,
    /// What its kernel led.
    pub led: Led,
    /// Its Envoys' dumps by generation, the newest last.
    pub envoys: Vec<(String, Text)>,
    /// What its kernel decided, in order.
    pub decisions: Vec<Decision>,
    /// What its Envoys answered, in order.
    pub requests: Vec<AccessEntry>,
}

impl Recording {
    /// Reads a recording of the texts of its folder, which are named by their paths.
    ///
    /// # Errors
    /// Everything that is wrong with them; of a line of a log the first.
    pub fn read(name: &str, texts: &[Text]) -> Result<Self, Vec<SourceError>> {
        let folder = Folder { name, texts };
        let header: Header = folder.one(HEADER)?;
        if header.version != VERSION {
            let reason = format!("a recording of form {}", header.version);
            let fix = format!("this nodeway reads form {VERSION}; take the one that wrote it");
            return Err(vec![folder.wrong(HEADER, 1, "version", reason, fix)]);
        }
        let led: Led = folder.one(FRONTENDS)?;
        let (manifests, envoys) = (folder.below(MANIFESTS), folder.envoys());
        Ok(Self {
            name: name.into(),
            decisions: folder.lines(DECISIONS, |line| {
                serde_json::from_str(line).map_err(|it| it.to_string())
            })?,
            requests: folder.lines(REQUESTS, |line| {
                AccessEntry::parse(line).map_err(|it| it.to_string())
            })?,
            header,
            manifests,
            led,
            envoys,
        })
    }

    /// The node as it was seen.
    ///
    /// # Errors
    /// When a dump cannot be read.
    pub fn observed(&self) -> Result<Observed, Box<SourceError>> {
        let mut observed = Observed {
            node: self.header.node.as_str().into(),
            table: self.led.table.clone(),
            rules: Rules {
                read_by: self.led.rules.clone(),
                differences: self.led.differences.clone(),
            },
            ..Observed::default()
        };
        for one in &self.led.frontends {
            let (key, frontend) = one.frontend();
            observed.frontends.insert(key, frontend);
            if let Some(ranges) = &one.ranges {
                observed.ranges.insert(key, ranges.clone().into());
            }
        }
        for (generation, text) in &self.envoys {
            observed.envoys.push(Dumped {
                generation: generation.clone(),
                dump: ConfigDump::of_running(text)?,
            });
        }
        Ok(observed)
    }
}

impl Led {
    /// What a node that was looked at leads.
    #[must_use]
    pub fn of(observed: &Observed) -> Self {
        let frontends = observed.frontends.iter();
        Self {
            table: observed.table.clone(),
            frontends: frontends
                .map(|(key, frontend)| LedFrontend::of(*key, *frontend, &observed.ranges))
                .collect(),
            rules: observed.rules.read_by.clone(),
            differences: observed.rules.differences.clone(),
        }
    }
}

impl LedFrontend {
    fn of(key: FrontendKey, frontend: Frontend, ranges: &SourceRanges) -> Self {
        let own = ranges.get(&key).map(|it| it.to_vec());
        Self {
            address: key.into(),
            listener_port: frontend.listener_port,
            state: frontend.state,
            ranges: frontend.ranged.then(|| own.unwrap_or_default()),
        }
    }

    /// As the kernel had it.
    fn frontend(&self) -> (FrontendKey, Frontend) {
        let key = FrontendKey {
            address: self.address.ip(),
            port: self.address.port(),
        };
        let frontend = Frontend {
            listener_port: self.listener_port,
            state: self.state,
            ranged: self.ranges.is_some(),
        };
        (key, frontend)
    }
}

/// A mode of kube-proxy by its name.
mod mode_name {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::netfilter::kube_proxy::Mode;

    pub(super) fn serialize<S: Serializer>(it: &Mode, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(it)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Mode, D::Error> {
        let name = String::deserialize(from)?;
        name.parse().map_err(D::Error::custom)
    }
}

/// The texts of a recording's folder.
struct Folder<'a> {
    name: &'a str,
    texts: &'a [Text],
}

impl Folder<'_> {
    /// A text by its place in the folder.
    fn get(&self, file: &str) -> Option<&Text> {
        self.texts.iter().find(|it| self.place(it) == Some(file))
    }

    fn place<'t>(&self, text: &'t Text) -> Option<&'t str> {
        let below = text.name.strip_prefix(self.name)?;
        Some(below.trim_start_matches('/'))
    }

    /// A file of one document, which must be there.
    fn one<T: for<'de> Deserialize<'de>>(&self, file: &str) -> Result<T, Vec<SourceError>> {
        let text = self.get(file).ok_or_else(|| {
            let fix = "record again; a recording is kept as a whole".to_owned();
            vec![self.wrong(file, 0, "", "there is no such file".to_owned(), fix)]
        })?;
        read_one(text)
    }

    /// A log, which may be missing; a line that is cut off at the end of the file is passed over.
    fn lines<T>(
        &self,
        file: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, Vec<SourceError>> {
        let content = self.get(file).map_or("", |it| it.content.as_str());
        let whole = content.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let mut all = Vec::new();
        for (line, text) in (1..).zip(whole.lines()) {
            if text.trim().is_empty() {
                continue;
            }
            match read(text) {
                Ok(one) => all.push(one),
                Err(reason) => {
                    let fix = "take the line out, or record again".to_owned();
                    return Err(vec![self.wrong(file, line, "", reason, fix)]);
                }
            }
        }
        Ok(all)
    }

    fn below(&self, folder: &str) -> Vec<Text> {
        let texts = self.texts.iter();
        let inside = |it: &&Text| {
            let below = self.place(it).and_then(|it| it.strip_prefix(folder));
            below.is_some_and(|rest| rest.starts_with('/'))
        };
        texts.filter(inside).cloned().collect()
    }

    /// Dumps by generation, in the order of their numbers: `g10` comes after `g9`.
    fn envoys(&self) -> Vec<(String, Text)> {
        let mut all = BTreeMap::new();
        for text in self.below(ENVOY) {
            let file = text.name.rsplit('/').next().unwrap_or_default();
            if let Some(generation) = file.strip_suffix(".json") {
                let generation = generation.to_owned();
                all.insert((generation.len(), generation), text);
            }
        }
        let all = all.into_iter();
        all.map(|((_, generation), text)| (generation, text))
            .collect()
    }

    fn wrong(
        &self,
        file: &str,
        line: u32,
        field: &str,
        reason: String,
        fix: String,
    ) -> SourceError {
        SourceError {
            file: format!("{}/{file}", self.name).into(),
            place: Place::line(line),
            fault: Fault::WrongType,
            object: None,
            field: field.to_owned(),
            reason,
            fix,
            other: None,
        }
    }
}
