//! Who may have a thing that several configs claim: a frontend's packets, a cluster's name.
//!
//! The config that was created first has it, then the one whose namespace and name come first.
//! Cilium defines no winner; here it is the same on every node and in every order of events.

use std::collections::BTreeMap;

use crate::object::{EnvoyConfig, ObjectRef};

/// A config's right, the lowest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Whether the claim is one on every port: who names the port comes first, as in Cilium.
    general: bool,
    /// Seconds since the epoch; a config that no cluster has created yet comes after all.
    created: i64,
    namespace: String,
    name: String,
    pub(super) config: ObjectRef,
}

impl Rank {
    pub(super) fn of(config: &ObjectRef, source: &EnvoyConfig) -> Self {
        let created = source
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(i64::MAX, |time| time.0.as_second());
        let (namespace, name) = (config.namespace.clone(), config.name.clone());
        Self {
            general: false,
            created,
            namespace,
            name,
            config: config.clone(),
        }
    }
}

impl Rank {
    /// The right of a claim on every port.
    pub(super) fn general(&self) -> Self {
        Self {
            general: true,
            ..self.clone()
        }
    }

    /// Whether another claim stands below this one although its config may be older.
    pub(super) fn names_the_port_of(&self, other: &Self) -> bool {
        !self.general && other.general
    }
}

/// Claims by key: each claimant's value, best right first.
#[derive(Clone, Debug)]
pub(super) struct Claims<K, V> {
    by_key: BTreeMap<K, BTreeMap<Rank, V>>,
}

impl<K, V> Default for Claims<K, V> {
    fn default() -> Self {
        Self {
            by_key: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone, V> Claims<K, V> {
    /// Claims a key; a claimant's first claim stands.
    pub(super) fn claim(&mut self, key: K, rank: &Rank, value: V) {
        self.by_key
            .entry(key)
            .or_default()
            .entry(rank.clone())
            .or_insert(value);
    }

    pub(super) fn withdraw(&mut self, key: &K, rank: &Rank) {
        if let Some(claimants) = self.by_key.get_mut(key) {
            claimants.remove(rank);
            if claimants.is_empty() {
                self.by_key.remove(key);
            }
        }
    }

    pub(super) fn winner(&self, key: &K) -> Option<(&Rank, &V)> {
        self.by_key.get(key)?.first_key_value()
    }

    /// Those who do not have the key, in the order of their rights.
    pub(super) fn losers(&self, key: &K) -> impl Iterator<Item = (&Rank, &V)> {
        self.by_key.get(key).into_iter().flatten().skip(1)
    }
}
