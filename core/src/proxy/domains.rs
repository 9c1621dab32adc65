//! The domains of a table's virtual hosts: which of them a host matches, and which is taken first.
//!
//! The host itself, the longest suffix, the longest prefix, then the domain for all hosts.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Lost, ReadError, VirtualHost, Why};

/// The domains of all virtual hosts, by how they are looked up.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Domains {
    exact: BTreeMap<String, Domain>,
    /// `*.example.com` without the star, longest first.
    suffixes: BTreeMap<Reverse<usize>, BTreeMap<String, Domain>>,
    /// `example.*` without the star, longest first.
    prefixes: BTreeMap<Reverse<usize>, BTreeMap<String, Domain>>,
    any: Option<Domain>,
}

/// A domain and the virtual host it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Domain {
    pub(super) host: usize,
    pub(super) written: Arc<str>,
}

/// How many domains are named when none has the host.
const NAMED: usize = 16;

impl Domains {
    pub(super) fn read(hosts: &[VirtualHost], path: &str) -> Result<Self, ReadError> {
        let mut domains = Self::default();
        for (index, host) in hosts.iter().enumerate() {
            for (i, written) in host.domains.iter().enumerate() {
                let domain = Domain {
                    host: index,
                    written: Arc::clone(written),
                };
                if !domains.insert(written.to_ascii_lowercase(), domain) {
                    let reason = format!(
                        "the domain `{written}` is there twice in the table; a domain belongs to one virtual host"
                    );
                    return Err(ReadError::new(
                        format!("{path}[{index}].domains[{i}]"),
                        reason,
                    ));
                }
            }
        }
        Ok(domains)
    }

    /// Says whether the domain is new.
    fn insert(&mut self, name: String, domain: Domain) -> bool {
        if name == "*" {
            let new = self.any.is_none();
            self.any.get_or_insert(domain);
            return new;
        }
        let (map, key) = if let Some(suffix) = name.strip_prefix('*') {
            (
                self.suffixes.entry(Reverse(suffix.len())).or_default(),
                suffix.to_owned(),
            )
        } else if let Some(prefix) = name.strip_suffix('*') {
            (
                self.prefixes.entry(Reverse(prefix.len())).or_default(),
                prefix.to_owned(),
            )
        } else {
            (&mut self.exact, name)
        };
        map.insert(key, domain).is_none()
    }

    /// Whether the only domain is `*`.
    pub(super) fn only_any(&self) -> bool {
        self.any.is_some()
            && self.exact.is_empty()
            && self.suffixes.is_empty()
            && self.prefixes.is_empty()
    }

    /// The domains that a host matches, the one that is taken first.
    pub(super) fn matching<'a>(
        &'a self,
        host: &'a str,
    ) -> impl Iterator<Item = (&'a Domain, &'static str)> {
        // A wildcard stands for at least one character.
        let suffixes = self.suffixes.iter().filter_map(|(Reverse(length), map)| {
            let start = host.len().checked_sub(*length).filter(|start| *start > 0)?;
            Some((
                map.get(host.get(start..)?)?,
                "the longest domain that the host ends with",
            ))
        });
        let prefixes = self.prefixes.iter().filter_map(|(Reverse(length), map)| {
            let head = host.get(..*length).filter(|head| head.len() < host.len())?;
            Some((
                map.get(head)?,
                "the longest domain that the host begins with",
            ))
        });
        let exact = self
            .exact
            .get(host)
            .map(|domain| (domain, "the host itself"));
        let any = self
            .any
            .as_ref()
            .map(|domain| (domain, "the domain for all hosts"));
        exact.into_iter().chain(suffixes).chain(prefixes).chain(any)
    }

    /// Some domains, when none matches.
    pub(super) fn all_lost(&self, host: &str) -> Vec<Lost> {
        let wild = self
            .suffixes
            .values()
            .chain(self.prefixes.values())
            .flat_map(BTreeMap::values);
        let host: Arc<str> = host.into();
        let lost = self
            .exact
            .values()
            .chain(wild)
            .take(NAMED)
            .map(|domain| Lost {
                candidate: Arc::clone(&domain.written),
                why: Why::Part {
                    wants: format!("domain {} for host {host}", domain.written).into(),
                },
            });
        lost.collect()
    }
}
