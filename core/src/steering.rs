//! Which generation of a node's Envoy each frontend leads to.
//!
//! An Envoy is a *generation* with listener ports of its own. A frontend goes to a generation when
//! that one's listener is there: acknowledged, and its sockets listen. One by one they go to the
//! newest; what is connected stays with the older one, which drains. So an upgrade, a crash and a
//! changed bootstrap are the same move, and so is a frontend that comes for the first time.
//!
//! A frontend that is switched on arms, and one that is switched off drains, whoever is connected:
//! connections begin all the while, and only when the hook has the switch nobody more goes the other
//! way. So who does is looked for after that ([`Steering::switching`]).
//!
//! | the newest that stays has the listener | another does | nobody does |
//! |---|---|---|
//! | it leads there | it leads on to where it did, or to the one that has it | where it led is where it leads: closed while nobody is there; one that never led does not begin to |

use std::collections::BTreeMap;
use std::sync::Arc;

use nodeway_datapath::Frontend;

use crate::frontend::{FrontendKey, Life, Ranges, SourceRanges};
use crate::plan::{PlannedFrontend, ResourceName};

/// The name of a generation, unique on its node.
pub type GenerationId = Arc<str>;

/// A generation that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Its name.
    pub id: GenerationId,
    /// Whether it is to end: nothing new goes to it if another can have it.
    pub retiring: bool,
    /// Its listeners that are there, with their ports (host byte order).
    pub listening: BTreeMap<ResourceName, u16>,
}

/// Where a frontend leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Led<T> {
    /// The generation.
    pub generation: GenerationId,
    /// The listener.
    pub listener: ResourceName,
    /// Its port there, host byte order.
    pub port: u16,
    /// Where the frontend stands.
    pub life: Life<T>,
    /// Who may come by it; none if everybody may.
    pub ranges: Option<Ranges>,
}

impl<T: Copy + Ord> Led<T> {
    /// As the hook's table has it.
    #[must_use]
    pub const fn frontend(&self) -> Frontend {
        Frontend {
            listener_port: self.port,
            state: self.life.state(),
            ranged: self.ranges.is_some(),
        }
    }
}

/// What is known of a frontend's connections, asked only when it matters.
pub trait Connections {
    /// Whether somebody has a connection to it past the listener.
    fn older(&self, key: FrontendKey) -> bool;
    /// Whether the node's Envoy has a connection that came by it.
    fn served(&self, key: FrontendKey) -> bool;
}

/// Until when at the latest a frontend arms, or drains, that begins to now.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<T> {
    /// Now.
    pub now: T,
    /// The end of arming.
    pub armed: T,
    /// The end of draining.
    pub drained: T,
}

/// Where all frontends of a node lead.
#[derive(Clone, Debug)]
pub struct Steering<T> {
    led: BTreeMap<FrontendKey, Led<T>>,
}

impl<T> Default for Steering<T> {
    fn default() -> Self {
        Self {
            led: BTreeMap::new(),
        }
    }
}

impl<T: Copy + Ord> Steering<T> {
    /// What an earlier agent left: it leads on until the plan says otherwise.
    #[must_use]
    pub const fn adopt(led: BTreeMap<FrontendKey, Led<T>>) -> Self {
        Self { led }
    }

    /// Decides on one frontend anew, as the plan has it (none: it has it no more); `generations`
    /// are those that run, the newest last. Says whether its entry in the hook's table is another
    /// than before: [`Steering::get`] has it.
    pub fn steer(
        &mut self,
        key: FrontendKey,
        planned: Option<&PlannedFrontend>,
        generations: &[Generation],
        connections: &impl Connections,
        bounds: Bounds<T>,
    ) -> bool {
        let before = self.led.get(&key);
        let older = || connections.older(key);
        let served = || connections.served(key);
        let after = match (planned, before) {
            (Some(planned), before) => target(planned, before, generations).map(|mut led| {
                led.ranges.clone_from(&planned.ranges);
                led.life = Life::put(before.map(|it| it.life), true, bounds.armed);
                led
            }),
            (None, Some(led)) => {
                let life = led.life.removed(true, bounds.drained);
                life.map(|life| Led {
                    life,
                    ..led.clone()
                })
            }
            (None, None) => None,
        };
        // Connections begin all the while. Who has some is asked when the hook has the switch: from
        // then on no more go the other way.
        let switches = |led: &Led<T>| before.map(|it| it.life.state()) != Some(led.life.state());
        let after = after.and_then(|led| {
            if switches(&led) {
                return Some(led);
            }
            let life = led.life.review(bounds.now, older, served)?;
            Some(Led { life, ..led })
        });
        let entry = |led: Option<&Led<T>>| led.map(|it| (it.frontend(), it.ranges.clone()));
        let changed = entry(before) != entry(after.as_ref());
        match after {
            Some(led) => self.led.insert(key, led),
            None => self.led.remove(&key),
        };
        changed
    }

    /// Where a frontend leads; none if it does not.
    #[must_use]
    pub fn get(&self, key: FrontendKey) -> Option<&Led<T>> {
        self.led.get(&key)
    }

    /// Every frontend that leads somewhere.
    pub fn iter(&self) -> impl Iterator<Item = (FrontendKey, &Led<T>)> {
        self.led.iter().map(|(key, led)| (*key, led))
    }

    /// The ranges of those that have some.
    #[must_use]
    pub fn ranges(&self) -> SourceRanges {
        let all = self.led.iter();
        all.filter_map(|(key, led)| Some((*key, Arc::clone(led.ranges.as_ref()?))))
            .collect()
    }

    /// Those that arm or drain: they are to be steered again from time to time.
    pub fn switching(&self) -> impl Iterator<Item = FrontendKey> {
        let all = self.led.iter();
        all.filter_map(|(key, led)| led.life.is_switching().then_some(*key))
    }

    /// Whether some frontend leads to a generation. One that may end is not led to.
    #[must_use]
    pub fn leads_to(&self, generation: &str) -> bool {
        self.led.values().any(|led| *led.generation == *generation)
    }

    /// Whether some frontend leads to a listener of that name. One that is to go is not led to.
    #[must_use]
    pub fn leads_to_listener(&self, listener: &str) -> bool {
        self.led.values().any(|led| *led.listener == *listener)
    }
}

/// Where a frontend of the plan shall lead.
fn target<T: Copy + Ord>(
    planned: &PlannedFrontend,
    before: Option<&Led<T>>,
    generations: &[Generation],
) -> Option<Led<T>> {
    let at = |generation: &Generation| {
        let port = *generation.listening.get(&planned.listener)?;
        Some(Led {
            generation: Arc::clone(&generation.id),
            listener: Arc::clone(&planned.listener),
            port,
            life: Life::Active,
            ranges: None,
        })
    };
    let newest = generations.iter().rev();
    let staying = newest.clone().filter(|it| !it.retiring);
    // One that cannot take it yet must not take it from the one that has it.
    let newest_staying = staying.clone().next().and_then(at);
    let before_runs = || {
        let before = before?;
        let runs = generations.iter().find(|it| it.id == before.generation)?;
        at(runs)
    };
    newest_staying
        .or_else(before_runs)
        .or_else(|| staying.chain(newest.filter(|it| it.retiring)).find_map(at))
        .or_else(|| before.cloned())
}

#[cfg(test)]
mod tests {
    use nodeway_datapath::FrontendState;
    use rstest::rstest;

    use super::*;
    use crate::frontend::FrontendKind;
    use crate::object::{Kind, ObjectRef};

    struct Nobody;

    impl Connections for Nobody {
        fn older(&self, _: FrontendKey) -> bool {
            false
        }
        fn served(&self, _: FrontendKey) -> bool {
            false
        }
    }

    const KEY: FrontendKey = FrontendKey {
        address: std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 1)),
        port: 80,
    };

    fn planned(listener: &str) -> PlannedFrontend {
        PlannedFrontend {
            kind: FrontendKind::ClusterIp,
            listener: listener.into(),
            listener_port: 1,
            service: ObjectRef::new(Kind::Service, "default", "web"),
            service_port: 80,
            config: ObjectRef::new(Kind::CiliumEnvoyConfig, "default", "web"),
            ranges: None,
        }
    }

    /// `b:web=11000,api=11001`, and `-b` for one that is to end.
    fn generation(text: &str) -> Generation {
        let (id, listeners) = text.split_once(':').unwrap();
        let listeners = listeners.split(',').filter_map(|one| one.split_once('='));
        Generation {
            id: id.trim_start_matches('-').into(),
            retiring: id.starts_with('-'),
            listening: listeners
                .map(|(name, port)| (name.into(), port.parse().unwrap()))
                .collect(),
        }
    }

    fn bounds(now: u8) -> Bounds<u8> {
        Bounds {
            now,
            armed: now + 10,
            drained: now + 20,
        }
    }

    fn steered(steering: &mut Steering<u8>, generations: &[&str]) -> Option<u16> {
        let generations: Vec<_> = generations.iter().map(|it| generation(it)).collect();
        let web = planned("web");
        // It arms at the first look, and is in force at the second.
        for _ in 0..2 {
            steering.steer(KEY, Some(&web), &generations, &Nobody, bounds(0));
        }
        steering.get(KEY).map(|led| led.port)
    }

    #[rstest]
    #[case::nobody_has_the_listener_yet(&["a:"], &["a:"], None)]
    #[case::the_listener_is_there(&["a:"], &["a:web=1"], Some(1))]
    #[case::a_newer_one_has_it_too(&["a:web=1"], &["a:web=1", "b:web=2"], Some(2))]
    #[case::a_newer_one_has_it_not_yet(&["a:web=1"], &["a:web=1", "b:"], Some(1))]
    #[case::the_old_one_is_to_end_and_the_new_one_not_ready(&["a:web=1"], &["-a:web=1", "b:"], Some(1))]
    #[case::the_new_one_is_to_end_again(&["a:web=1", "b:web=2"], &["a:web=1", "-b:web=2"], Some(1))]
    #[case::the_only_one_is_to_end(&["a:web=1"], &["-a:web=1"], Some(1))]
    #[case::the_one_it_led_to_is_gone(&["a:web=1"], &[], Some(1))]
    #[case::the_one_it_led_to_is_gone_and_another_has_it(&["b:web=2"], &["a:web=1", "c:"], Some(1))]
    #[case::it_never_led_and_only_one_that_ends_has_it(&[], &["-a:web=1", "b:"], Some(1))]
    fn a_frontend_leads_to_the_newest_that_has_its_listener(
        #[case] before: &[&str],
        #[case] after: &[&str],
        #[case] port: Option<u16>,
    ) {
        let mut steering = Steering::default();
        steered(&mut steering, before);
        assert_eq!(steered(&mut steering, after), port);
    }

    #[test]
    fn another_listener_of_the_same_generation_is_waited_for() {
        let mut steering = Steering::default();
        assert_eq!(steered(&mut steering, &["a:web=1"]), Some(1));
        let api = planned("api");
        let all = [generation("a:web=1")];
        assert!(!steering.steer(KEY, Some(&api), &all, &Nobody, bounds(0)));
        assert_eq!(&*steering.get(KEY).unwrap().listener, "web");
        let all = [generation("a:web=1,api=2")];
        assert!(steering.steer(KEY, Some(&api), &all, &Nobody, bounds(0)));
        assert_eq!(steering.get(KEY).unwrap().port, 2);
        assert!(!steering.leads_to_listener("web"));
    }

    #[test]
    fn other_ranges_are_another_entry() {
        let mut steering = Steering::default();
        let all = [generation("a:web=1")];
        let ranges: Ranges = ["192.0.2.0/24".parse().unwrap()].into();
        let ranged = PlannedFrontend {
            ranges: Some(Arc::clone(&ranges)),
            ..planned("web")
        };
        let mut steer = |planned: &PlannedFrontend| {
            steering.steer(KEY, Some(planned), &all, &Nobody, bounds(0))
        };
        assert!(steer(&planned("web")));
        assert!(steer(&ranged));
        assert!(!steer(&ranged));
        assert_eq!(steering.ranges(), SourceRanges::from([(KEY, ranges)]));
        assert!(steering.get(KEY).unwrap().frontend().ranged);
    }

    struct Busy;

    impl Connections for Busy {
        fn older(&self, _: FrontendKey) -> bool {
            true
        }
        fn served(&self, _: FrontendKey) -> bool {
            true
        }
    }

    #[test]
    fn also_with_nobody_there_the_hook_has_a_switch_before_connections_are_looked_for() {
        let (mut steering, web) = (Steering::default(), planned("web"));
        let all = [generation("a:web=1")];
        let mut state = |planned| {
            steering.steer(KEY, planned, &all, &Nobody, bounds(0));
            steering.get(KEY).map(|led| led.life.state())
        };
        assert_eq!(state(Some(&web)), Some(FrontendState::Arming));
        assert_eq!(state(Some(&web)), Some(FrontendState::Active));
        assert_eq!(state(None), Some(FrontendState::Draining));
        assert_eq!(state(None), None);
    }

    #[test]
    fn with_connections_it_arms_first_and_drains_last() {
        let (mut steering, web) = (Steering::default(), planned("web"));
        let all = [generation("a:web=1")];
        let state = |steering: &Steering<u8>| steering.get(KEY).map(|led| led.life.is_switching());
        assert!(steering.steer(KEY, Some(&web), &all, &Busy, bounds(0)));
        assert_eq!(steering.switching().collect::<Vec<_>>(), [KEY]);
        assert!(!steering.steer(KEY, Some(&web), &all, &Busy, bounds(9)));
        assert!(steering.steer(KEY, Some(&web), &all, &Busy, bounds(10)));
        assert_eq!(state(&steering), Some(false));
        assert!(steering.steer(KEY, None, &all, &Busy, bounds(11)));
        assert!(steering.leads_to("a"), "it is served until it has drained");
        assert!(steering.steer(KEY, None, &all, &Busy, bounds(31)));
        assert_eq!(state(&steering), None);
    }
}
