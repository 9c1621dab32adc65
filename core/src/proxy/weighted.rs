//! `WeightedCluster`: a draw among clusters.

use super::request::{Context, Request};
use super::{HeaderEdits, ReadError};
use crate::envoy::Fields;

/// Clusters with their weights.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedClusters {
    entries: Vec<Weighted>,
    total: u64,
    /// The header that gives the number instead of chance.
    header: Option<String>,
}

/// One cluster of a draw.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Weighted {
    pub(super) name: String,
    pub(super) cluster_header: String,
    weight: u32,
    pub(super) host: String,
    pub(super) request: HeaderEdits,
    pub(super) response: HeaderEdits,
}

/// What was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// The place of the cluster among the weighted ones.
    pub index: usize,
    /// Its weight.
    pub weight: u32,
    /// The sum of all weights.
    pub total: u64,
    /// The number, below the sum.
    pub number: u64,
}

impl WeightedClusters {
    /// Reads an `envoy.config.route.v3.WeightedCluster`.
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, ReadError> {
        // Deprecated: the sum of the weights counts.
        fields.skip("total_weight");
        // Only a runtime layer could override weights, and a node's Envoy has none.
        fields.skip("runtime_key_prefix");
        let mut entries = Vec::new();
        for cluster in fields.messages("clusters") {
            // It narrows the endpoints of the cluster, not the draw.
            cluster.skip("metadata_match");
            let entry = Weighted {
                name: cluster.text("name"),
                cluster_header: cluster.text("cluster_header").to_ascii_lowercase(),
                weight: cluster.number("weight"),
                host: cluster.text("host_rewrite_literal"),
                request: HeaderEdits::read(&cluster, "request")?,
                response: HeaderEdits::read(&cluster, "response")?,
            };
            if entry.name.is_empty() == entry.cluster_header.is_empty() {
                let reason = "needs exactly one of name and cluster_header";
                return Err(ReadError::new(cluster.path(), reason));
            }
            entries.push(entry);
        }
        let total: u64 = entries.iter().map(|entry| u64::from(entry.weight)).sum();
        if total == 0 || u32::try_from(total).is_err() {
            let reason = format!("the weights sum to {total}; they must sum to 1 up to 4294967295");
            return Err(ReadError::new(fields.path_of("clusters"), reason));
        }
        let header =
            Some(fields.text("header_name").to_ascii_lowercase()).filter(|name| !name.is_empty());
        Ok(Self {
            entries,
            total,
            header,
        })
    }

    /// Draws a cluster for a request.
    pub(super) fn draw(&self, request: &Request) -> Option<(&Weighted, Drawn)> {
        let given = self.header.as_ref().map(|name| request.header(name));
        let given = given.and_then(|values| match values.as_slice() {
            [one] => one.parse::<u64>().ok(),
            _ => None,
        });
        let number = given.unwrap_or(request.random) % self.total.max(1);
        let mut end = 0;
        for (index, entry) in self.entries.iter().enumerate() {
            end += u64::from(entry.weight);
            if number < end {
                return Some((
                    entry,
                    Drawn {
                        index,
                        weight: entry.weight,
                        total: self.total,
                        number,
                    },
                ));
            }
        }
        None
    }

    /// The clusters' names, without those that a header names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries
            .iter()
            .map(|entry| entry.name.as_str())
            .filter(|name| !name.is_empty())
    }
}

impl Weighted {
    /// Applies the cluster's own edits, which come before the route's.
    pub(super) fn edit(&self, request: &mut Request, context: &Context, unknown: &mut Vec<String>) {
        self.request.apply(request, context, unknown);
        if !self.host.is_empty() {
            self.host.clone_into(&mut request.authority);
        }
    }
}
