//! A node: its hooks' table, its rules and tracked connections, and the way to its pods.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use nodeway_core::datapath::{Family, FrontendState, Reason};
use nodeway_core::frontend::{Life, SourceRanges};
use nodeway_core::netfilter::{Firewall, Routing, Ruleset, kube_proxy, way};
use nodeway_core::plan::{FrontendKey, PlanDelta, PlannedFrontend, Update};
use nodeway_core::redirect::Redirect;

use super::kernel::Installed;
use super::service::ServiceTable;
use super::stack::StackId;
use super::topology::Settings;
use crate::time::Time;

/// A node.
pub(crate) struct Node {
    pub(crate) name: Arc<str>,
    pub(crate) host: StackId,
    pub(crate) frontends: BTreeMap<FrontendKey, Installed>,
    pub(crate) services: Arc<ServiceTable>,
    pub(crate) firewall: Firewall,
    redirect: Redirect,
    kube_proxy: kube_proxy::Mode,
    /// Its own addresses, of which kube-proxy's node ports are.
    addresses: Vec<IpAddr>,
    /// The ports of listeners that rules lead to.
    ports: BTreeSet<u16>,
    /// The source ranges that rules ask.
    ranges: SourceRanges,
    pub(crate) pods: BTreeMap<IpAddr, StackId>,
    /// How often each hook gave each reason.
    pub(crate) reasons: BTreeMap<(&'static str, Reason), u64>,
    pub(crate) luck: u64,
    arming: Duration,
    draining: Duration,
}

impl Node {
    pub(crate) fn new(
        name: &str,
        host: StackId,
        addresses: &[IpAddr],
        settings: &Settings,
    ) -> Self {
        Self {
            name: Arc::from(name),
            host,
            frontends: BTreeMap::new(),
            services: Arc::default(),
            firewall: Firewall::default(),
            redirect: settings.redirect,
            kube_proxy: settings.kube_proxy,
            addresses: addresses.to_vec(),
            ports: BTreeSet::new(),
            ranges: SourceRanges::new(),
            pods: BTreeMap::new(),
            reasons: BTreeMap::new(),
            luck: settings
                .seed
                .stream(&format!("kube-proxy of {name}"))
                .draw(),
            arming: settings.arming,
            draining: settings.draining,
        }
    }

    /// Takes the frontends of a change; `served` says whether the node's proxy has a connection
    /// that came by a frontend. Says whether one is left that arms or drains. Where pods have
    /// their own proxies, those have the frontends, and a node knows of none.
    pub(crate) fn apply(
        &mut self,
        delta: &PlanDelta,
        now: Time,
        served: impl Fn(FrontendKey) -> bool,
    ) -> bool {
        if self.redirect == Redirect::Sidecar {
            return false;
        }
        let fresh = self.is_bare();
        for (key, update) in &delta.frontends {
            match update {
                Update::Put(planned) => self.switch_on(*key, planned, now),
                Update::Remove => self.switch_off(*key, now, served(*key)),
            }
        }
        if fresh {
            self.install();
        } else {
            for key in delta.frontends.keys() {
                self.rule(*key);
            }
            self.lead();
        }
        self.is_switching()
    }

    fn switch_on(&mut self, key: FrontendKey, planned: &PlannedFrontend, now: Time) {
        let before = self.frontends.get(&key).map(|it| it.life);
        let older = self.firewall.conntrack().has_live_to(key.into());
        let life = Life::put(before, older, now + self.arming);
        self.frontends
            .insert(key, Installed::new(planned.clone(), life));
    }

    fn switch_off(&mut self, key: FrontendKey, now: Time, served: bool) {
        let until = now + self.draining;
        self.live_on(key, |life| life.removed(served, until));
    }

    /// Leaves frontends where they are on the way on or off: nobody reviews them.
    pub(crate) fn halt(&mut self, at: &BTreeMap<FrontendKey, FrontendState>) {
        let until = Time::from_nanos(u64::MAX);
        for (key, state) in at {
            let life = match state {
                FrontendState::Arming => Life::Arming { until },
                FrontendState::Active => Life::Active,
                FrontendState::Draining => Life::Draining { until },
            };
            self.live_on(*key, |_| Some(life));
            self.rule(*key);
        }
    }

    /// Gives a frontend the life that it has next, or takes it out of the table.
    fn live_on(&mut self, key: FrontendKey, next: impl FnOnce(Life<Time>) -> Option<Life<Time>>) {
        let Some(installed) = self.frontends.get_mut(&key) else {
            return;
        };
        match next(installed.life) {
            Some(life) => installed.live_on(life),
            None => {
                self.frontends.remove(&key);
            }
        }
    }

    /// Whether some frontend arms or drains.
    pub(crate) fn is_switching(&self) -> bool {
        self.frontends.values().any(|it| it.life.is_switching())
    }

    /// Looks at the frontends that arm or drain: whoever has no older connection left is in force,
    /// whoever serves none is gone, and so is who has waited long enough. Says whether one is left.
    pub(crate) fn review(&mut self, now: Time, served: impl Fn(FrontendKey) -> bool) -> bool {
        let switching = self.frontends.iter();
        let switching = switching.filter(|(_, it)| it.life.is_switching());
        for (key, life) in switching
            .map(|(key, it)| (*key, it.life))
            .collect::<Vec<_>>()
        {
            let conntrack = self.firewall.conntrack();
            let next = life.review(now, || conntrack.has_live_to(key.into()), || served(key));
            if next != Some(life) {
                self.live_on(key, |_| next);
                self.rule(key);
            }
        }
        self.lead();
        self.is_switching()
    }

    /// Forgets all that a kernel forgets when its machine is turned off.
    pub(crate) fn forget(&mut self) {
        self.frontends.clear();
        self.ports.clear();
        self.ranges.clear();
        self.services = Arc::default();
        self.firewall = Firewall::default();
    }

    /// Takes kube-proxy's table in the place of the one it had.
    pub(crate) fn translate(&mut self, services: Arc<ServiceTable>) {
        self.services = services;
        self.install();
    }

    /// Without a frontend and without a service there is not one rule.
    fn is_bare(&self) -> bool {
        let family = [Family::V4, Family::V6];
        family
            .iter()
            .all(|it| self.firewall.rules(*it).tables.is_empty())
    }

    /// Writes all rules anew: those of the way, then kube-proxy's.
    fn install(&mut self) {
        if self.frontends.is_empty() && self.services.ports.is_empty() {
            self.replace(Ruleset::new(Family::V4), Ruleset::new(Family::V6));
            return;
        }
        let services = if self.kube_proxy.translates() {
            self.services.on(&self.name)
        } else {
            Vec::new()
        };
        let [v4, v6] = [Family::V4, Family::V6].map(|family| {
            let mut rules = Ruleset::new(family);
            way::install(self.redirect, &mut rules);
            if self.kube_proxy.translates() {
                let own = &self.addresses;
                kube_proxy::install(&mut rules, self.kube_proxy, own, &services);
            }
            rules
        });
        self.replace(v4, v6);
        self.ports.clear();
        self.ranges.clear();
        for key in self.frontends.keys().copied().collect::<Vec<_>>() {
            self.rule(key);
        }
        self.lead();
    }

    fn replace(&mut self, v4: Ruleset, v6: Ruleset) {
        // Rules that our own generators write are valid: a test holds that of each.
        let replaced = self.firewall.replace(v4, v6);
        debug_assert_eq!(replaced, Ok(()));
    }

    /// Writes what one frontend needs, or takes it away.
    fn rule(&mut self, key: FrontendKey) {
        let family = match key.address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        };
        let rules = self.firewall.rules_mut(family);
        match self.frontends.get(&key) {
            Some(it) => way::put(self.redirect, rules, key, it.frontend()),
            None => way::remove(rules, key),
        }
    }

    /// Leads to the listeners that frontends have now, from the ranges that they have, where those
    /// are others than before.
    fn lead(&mut self) {
        let frontends = self.frontends.values();
        let ports: BTreeSet<u16> = frontends.map(|it| it.frontend().listener_port).collect();
        if ports != self.ports {
            for family in [Family::V4, Family::V6] {
                way::lead(self.redirect, self.firewall.rules_mut(family), &ports);
            }
            self.ports = ports;
        }
        let frontends = self.frontends.iter();
        let ranges: SourceRanges = frontends
            .filter_map(|(key, it)| Some((*key, Arc::clone(it.planned.ranges.as_ref()?))))
            .collect();
        if ranges != self.ranges {
            for family in [Family::V4, Family::V6] {
                way::guard(self.redirect, self.firewall.rules_mut(family), &ranges);
            }
            self.ranges = ranges;
        }
    }

    /// What delivers a frontend's packets to the node, whose own addresses are given.
    pub(crate) fn routing(&self, own: &[IpAddr]) -> Routing {
        way::routing(self.redirect, self.frontends.keys().copied(), own)
    }

    /// Whether some frontend has that address.
    pub(crate) fn has_frontend_address(&self, address: IpAddr) -> bool {
        self.frontends
            .range(FrontendKey { address, port: 0 }..)
            .next()
            .is_some_and(|(key, _)| key.address == address)
    }
}
