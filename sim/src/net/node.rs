//! A node: its hooks' table, its rules and tracked connections, and the way to its pods.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nodeway_core::datapath::{Family, Frontend, FrontendState, Reason};
use nodeway_core::netfilter::{Firewall, Routing, Ruleset, ebpf, kube_proxy, tproxy};
use nodeway_core::plan::{FrontendKey, PlanDelta, PlannedFrontend, Update};

use super::kernel::Installed;
use super::service::ServiceTable;
use super::stack::StackId;
use super::topology::Settings;
use crate::time::Time;
use nodeway_core::redirect::Redirect;

/// A node.
pub(crate) struct Node {
    pub(crate) name: Arc<str>,
    pub(crate) host: StackId,
    pub(crate) frontends: BTreeMap<FrontendKey, Installed>,
    pub(crate) services: Arc<ServiceTable>,
    pub(crate) firewall: Firewall,
    redirect: Redirect,
    kube_proxy: bool,
    /// The ports of listeners that rules lead to.
    ports: BTreeSet<u16>,
    pub(crate) pods: BTreeMap<IpAddr, StackId>,
    /// How often each hook gave each reason.
    pub(crate) reasons: BTreeMap<(&'static str, Reason), u64>,
    pub(crate) luck: u64,
    arming: Duration,
    draining: Duration,
}

impl Node {
    pub(crate) fn new(name: &str, host: StackId, settings: &Settings) -> Self {
        Self {
            name: Arc::from(name),
            host,
            frontends: BTreeMap::new(),
            services: Arc::default(),
            firewall: Firewall::default(),
            redirect: settings.redirect,
            kube_proxy: settings.kube_proxy,
            ports: BTreeSet::new(),
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
                Update::Remove if served(*key) => self.drain(*key, now),
                Update::Remove => {
                    self.frontends.remove(key);
                }
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

    /// A frontend is in force at once, unless somebody has connections to it from before.
    fn switch_on(&mut self, key: FrontendKey, planned: &PlannedFrontend, now: Time) {
        let before = self.frontends.get(&key);
        let before = before.map(|it| (it.frontend.state, it.until));
        let at = SocketAddr::new(key.address, key.port);
        let (state, until) = match before {
            Some((state @ (FrontendState::Arming | FrontendState::Active), until)) => {
                (state, until)
            }
            _ if self.firewall.conntrack().has_live_to(at) => {
                (FrontendState::Arming, Some(now + self.arming))
            }
            _ => (FrontendState::Active, None),
        };
        let frontend = Frontend {
            listener_port: planned.listener_port,
            state,
        };
        let planned = planned.clone();
        self.frontends.insert(
            key,
            Installed {
                frontend,
                planned,
                until,
            },
        );
    }

    /// Nothing new is taken; what is served goes on, up to a bound.
    fn drain(&mut self, key: FrontendKey, now: Time) {
        let until = Some(now + self.draining);
        if let Some(installed) = self.frontends.get_mut(&key) {
            installed.frontend.state = FrontendState::Draining;
            installed.until = until;
        }
    }

    /// Whether some frontend arms or drains.
    pub(crate) fn is_switching(&self) -> bool {
        self.frontends.values().any(|it| it.until.is_some())
    }

    /// Looks at the frontends that arm or drain: whoever has no older connection left is in force,
    /// whoever serves none is gone, and so is who has waited long enough. Says whether one is left.
    pub(crate) fn review(&mut self, now: Time, served: impl Fn(FrontendKey) -> bool) -> bool {
        let switching = self.frontends.iter().filter_map(|(key, it)| {
            let over = it.until? <= now;
            Some((*key, it.frontend.state, over))
        });
        for (key, state, over) in switching.collect::<Vec<_>>() {
            let at = SocketAddr::new(key.address, key.port);
            match state {
                FrontendState::Draining if over || !served(key) => {
                    self.frontends.remove(&key);
                }
                FrontendState::Arming if over || !self.firewall.conntrack().has_live_to(at) => {
                    if let Some(installed) = self.frontends.get_mut(&key) {
                        installed.frontend.state = FrontendState::Active;
                        installed.until = None;
                    }
                }
                _ => continue,
            }
            self.rule(key);
        }
        self.lead();
        self.is_switching()
    }

    /// Forgets all that a kernel forgets when its machine is turned off.
    pub(crate) fn forget(&mut self) {
        self.frontends.clear();
        self.ports.clear();
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
        let services = if self.kube_proxy {
            self.services.on(&self.name)
        } else {
            Vec::new()
        };
        let [v4, v6] = [Family::V4, Family::V6].map(|family| {
            let mut rules = Ruleset::new(family);
            match self.redirect {
                Redirect::Tc => ebpf::install_tc(&mut rules),
                Redirect::SkLookup => ebpf::install_sk_lookup(&mut rules),
                Redirect::Iptables => tproxy::install(&mut rules),
                Redirect::Sidecar => {}
            }
            if self.kube_proxy {
                kube_proxy::install(&mut rules);
                kube_proxy::add(&mut rules, &services);
            }
            rules
        });
        self.replace(v4, v6);
        self.ports.clear();
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
        match (self.redirect, self.frontends.get(&key)) {
            (Redirect::Iptables, Some(it)) => tproxy::put(rules, key, &it.frontend),
            (Redirect::Iptables, None) => tproxy::remove(rules, key),
            (_, Some(it)) => ebpf::put(rules, key, &it.frontend),
            (_, None) => ebpf::remove(rules, key),
        }
    }

    /// Leads marks to the listeners that frontends have now, where that has changed.
    fn lead(&mut self) {
        if self.redirect != Redirect::Iptables {
            return;
        }
        let frontends = self.frontends.values();
        let ports: BTreeSet<u16> = frontends.map(|it| it.frontend.listener_port).collect();
        if ports != self.ports {
            for family in [Family::V4, Family::V6] {
                tproxy::lead(self.firewall.rules_mut(family), &ports);
            }
            self.ports = ports;
        }
    }

    /// What delivers a frontend's packets to the node, whose own addresses are given.
    pub(crate) fn routing(&self, own: &[IpAddr]) -> Routing {
        let frontends = self.frontends.keys().copied();
        match self.redirect {
            Redirect::Tc => ebpf::routing_tc(frontends, own),
            Redirect::SkLookup => ebpf::routing_sk_lookup(frontends, own),
            Redirect::Iptables => tproxy::routing(),
            Redirect::Sidecar => Routing::default(),
        }
    }

    /// Whether some frontend has that address.
    pub(crate) fn has_frontend_address(&self, address: IpAddr) -> bool {
        self.frontends
            .range(FrontendKey { address, port: 0 }..)
            .next()
            .is_some_and(|(key, _)| key.address == address)
    }
}
