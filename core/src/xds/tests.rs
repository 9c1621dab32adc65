//! The server's half against an Envoy that takes the good part of a response and refuses the rest,
//! with every order of events that a stream allows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::envoy::ResourceKind;
use crate::object::{Kind, ObjectRef};
use crate::plan::{ResourceName, Update};
use crate::problem::Code;

use ResourceKind::{Cluster, ClusterLoadAssignment, Listener, RouteConfiguration};

const KINDS: [ResourceKind; 4] = [Cluster, ClusterLoadAssignment, RouteConfiguration, Listener];

/// How Envoy likes a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taste {
    Good,
    /// Refused, and listed.
    Listed,
    /// Refused, with another's name in the reason and not its own.
    Misleading,
    /// Refused without a name.
    Silent,
}

/// A resource of the config of that number.
fn name(kind: ResourceKind, config: u8) -> ResourceName {
    let letter = match kind {
        Cluster => 'c',
        ClusterLoadAssignment => 'e',
        RouteConfiguration => 'r',
        _ => 'l',
    };
    format!("shop/{config}/{letter}").into()
}

fn object(config: u8) -> ObjectRef {
    ObjectRef::new(Kind::CiliumEnvoyConfig, "shop", config.to_string())
}

fn resource(kind: ResourceKind, config: u8, version: u16, taste: Taste) -> Arc<Served> {
    let needs = match kind {
        Cluster => vec![name(ClusterLoadAssignment, config)],
        Listener => vec![name(RouteConfiguration, config)],
        _ => Vec::new(),
    };
    let bytes = format!("{taste:?} {kind} {config} v{version}");
    let served = Served::new(Bytes::from(bytes), Some(object(config)));
    Arc::new(Served { needs, ..served })
}

/// Whose a resource of that name is.
fn config_of(name: &str) -> u8 {
    name.split('/').nth(1).unwrap().parse().unwrap()
}

fn is(bytes: &Bytes, taste: Taste) -> bool {
    bytes.starts_with(format!("{taste:?} ").as_bytes())
}

fn is_bad(bytes: &Bytes) -> bool {
    [Taste::Listed, Taste::Misleading, Taste::Silent]
        .into_iter()
        .any(|taste| is(bytes, taste))
}

fn puts(config: u8, kinds: &[ResourceKind], version: u16, taste: Taste) -> ResourceDelta {
    let put = |kind: &ResourceKind| {
        let served = resource(*kind, config, version, taste);
        ((*kind, name(*kind, config)), Update::Put(served))
    };
    ResourceDelta {
        changes: kinds.iter().map(put).collect(),
    }
}

fn removal(config: u8) -> ResourceDelta {
    let remove = |kind: ResourceKind| ((kind, name(kind, config)), Update::Remove);
    ResourceDelta {
        changes: KINDS.map(remove).into(),
    }
}

/// A response on its way, and what nothing in it has to wait for.
struct Sent {
    response: Response,
    excused: BTreeSet<ResourceName>,
}

/// An Envoy as its documentation and its code have it.
struct Envoy {
    protocol: Protocol,
    has: BTreeMap<(ResourceKind, ResourceName), Bytes>,
    /// What it accepted, by version, as the incremental protocol tells on a new stream.
    versions: BTreeMap<(ResourceKind, ResourceName), String>,
    asked: BTreeMap<ResourceKind, BTreeSet<ResourceName>>,
    nonces: BTreeMap<ResourceKind, String>,
    /// Clusters that wait for endpoints to be sent.
    warming: BTreeSet<ResourceName>,
    /// Whether the server has stopped to wait once.
    hurried: bool,
}

impl Envoy {
    fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            has: BTreeMap::new(),
            versions: BTreeMap::new(),
            asked: BTreeMap::new(),
            nonces: BTreeMap::new(),
            warming: BTreeSet::new(),
            hurried: false,
        }
    }

    /// What it fetches by name, because of what it has.
    fn wants(&self, kind: ResourceKind) -> BTreeSet<ResourceName> {
        let by = match kind {
            ClusterLoadAssignment => Cluster,
            RouteConfiguration => Listener,
            _ => return BTreeSet::new(),
        };
        let having = self.has.keys().filter(|(it, _)| *it == by);
        having.map(|(_, it)| name(kind, config_of(it))).collect()
    }

    fn connect(&mut self) -> VecDeque<Request> {
        self.nonces.clear();
        self.asked.clear();
        let first = |kind| {
            let names: BTreeSet<_> = self.wants(kind);
            (matches!(kind, Cluster | Listener) || !names.is_empty())
                .then(|| self.question(kind, &names, true))
        };
        let requests = KINDS.into_iter().filter_map(first).collect();
        for kind in KINDS {
            self.asked.insert(kind, self.wants(kind));
        }
        requests
    }

    fn question(&self, kind: ResourceKind, names: &BTreeSet<ResourceName>, first: bool) -> Request {
        let texts =
            |names: Vec<&ResourceName>| names.into_iter().map(ToString::to_string).collect();
        let before = self.asked.get(&kind).cloned().unwrap_or_default();
        let versions = self
            .versions
            .iter()
            .filter(|((it, _), _)| first && *it == kind);
        let initial: BTreeMap<String, String> = versions
            .map(|((_, name), version)| (name.to_string(), version.clone()))
            .collect();
        let asked = match self.protocol {
            Protocol::StateOfTheWorld => Asked::Names {
                names: texts(names.iter().collect()),
                fresh: initial.is_empty(),
            },
            Protocol::Incremental => Asked::Change {
                subscribe: texts(names.difference(&before).collect()),
                unsubscribe: texts(before.difference(names).collect()),
                initial,
            },
        };
        let incremental = self.protocol == Protocol::Incremental;
        let nonce = self.nonces.get(&kind).filter(|_| !incremental).cloned();
        Request {
            kind,
            nonce,
            error: None,
            asked,
        }
    }

    /// Takes the good part of a response in; what it says then.
    fn take(&mut self, sent: &Sent) -> Vec<Request> {
        let Sent { response, excused } = sent;
        let kind = response.kind;
        let whole = matches!(kind, Cluster | Listener);
        let words = self.put(response, excused);
        if whole && self.protocol == Protocol::StateOfTheWorld {
            let named = |name: &ResourceName| response.put.iter().any(|(it, _)| it == name);
            self.has.retain(|(it, name), _| *it != kind || named(name));
        }
        for name in &response.removed {
            self.has.remove(&(kind, name.clone()));
            self.versions.remove(&(kind, name.clone()));
        }
        if words.is_none() {
            for (name, served) in &response.put {
                let version = served.version.to_string();
                self.versions.insert((kind, name.clone()), version);
            }
        }
        let mut requests = self.ask_anew();
        self.nonces.insert(kind, response.nonce.clone());
        let names = self.asked.get(&kind).cloned().unwrap_or_default();
        let mut answer = self.question(kind, &names, false);
        answer.nonce = Some(response.nonce.clone());
        answer.error = words;
        requests.push(answer);
        requests
    }

    fn put(&mut self, response: &Response, excused: &BTreeSet<ResourceName>) -> Option<String> {
        let kind = response.kind;
        let mut words = Vec::new();
        for (name, served) in &response.put {
            let key = (kind, name.clone());
            if self.has.get(&key) == Some(&served.bytes) {
                self.warmed(kind, name);
                continue;
            }
            if is_bad(&served.bytes) {
                words.push(if is(&served.bytes, Taste::Listed) {
                    format!("{name}: bad")
                } else if is(&served.bytes, Taste::Misleading) {
                    "unlike shop/0/c, shop/1/e or shop/2/l".to_owned()
                } else {
                    "malformed".to_owned()
                });
                // Of endpoints and routes it stops at the first that is bad.
                if matches!(kind, ClusterLoadAssignment | RouteConfiguration) {
                    break;
                }
                continue;
            }
            // An answer that says "none" needs nothing.
            if Served::blank(kind, name).is_none_or(|blank| blank.bytes != served.bytes) {
                self.is_made_before(kind, name, excused);
            }
            self.has.insert(key, served.bytes.clone());
            if kind == Cluster {
                self.warming.insert(name.clone());
            }
            self.warmed(kind, name);
        }
        let listed = words.iter().any(|it| it.starts_with("shop/"));
        let start = if listed {
            "Error adding/updating thing(s) "
        } else {
            ""
        };
        (!words.is_empty()).then(|| format!("{start}{}", words.join(", ")))
    }

    fn warmed(&mut self, kind: ResourceKind, name: &ResourceName) {
        if kind == ClusterLoadAssignment {
            self.warming
                .remove(&super::tests::name(Cluster, config_of(name)));
        }
    }

    /// Routes and listeners come when their cluster is there, and warm, or known to be refused.
    #[track_caller]
    fn is_made_before(&self, kind: ResourceKind, put: &str, excused: &BTreeSet<ResourceName>) {
        if self.hurried || !matches!(kind, RouteConfiguration | Listener) {
            return;
        }
        for needed in [Cluster, ClusterLoadAssignment] {
            let needed = (needed, name(needed, config_of(put)));
            let cluster = name(Cluster, config_of(put));
            assert!(
                self.has.contains_key(&needed)
                    || excused.contains(&needed.1)
                    || excused.contains(&cluster),
                "{put} came before {}",
                needed.1
            );
        }
    }

    /// Asks for names that its resources need now, and drops what it holds under others.
    fn ask_anew(&mut self) -> Vec<Request> {
        let mut requests = Vec::new();
        for kind in [ClusterLoadAssignment, RouteConfiguration] {
            let names = self.wants(kind);
            if self.asked.get(&kind) != Some(&names) {
                let first = !self.asked.contains_key(&kind);
                requests.push(self.question(kind, &names, first));
                self.asked.insert(kind, names.clone());
            }
            let stays =
                |key: &(ResourceKind, ResourceName)| key.0 != kind || names.contains(&key.1);
            self.has.retain(|key, _| stays(key));
            self.versions.retain(|key, _| stays(key));
        }
        let has = &self.has;
        self.warming
            .retain(|it| has.contains_key(&(Cluster, it.clone())));
        requests
    }
}

/// A server, an Envoy, and what is on the way between them.
struct Pair {
    proxy: Proxy,
    envoy: Envoy,
    down: VecDeque<Sent>,
    up: VecDeque<Request>,
    plan: BTreeMap<(ResourceKind, ResourceName), Arc<Served>>,
    /// When the plan last changed what.
    changed: BTreeMap<ResourceName, usize>,
    changes: usize,
    sent: Vec<Response>,
}

impl Pair {
    fn new(protocol: Protocol) -> Self {
        let mut pair = Self {
            proxy: Proxy::new(&ResourceDelta::default()),
            envoy: Envoy::new(protocol),
            down: VecDeque::new(),
            up: VecDeque::new(),
            plan: BTreeMap::new(),
            changed: BTreeMap::new(),
            changes: 0,
            sent: Vec::new(),
        };
        pair.connect();
        pair
    }

    fn connect(&mut self) {
        self.down.clear();
        self.proxy.connect(self.envoy.protocol);
        self.up = self.envoy.connect();
    }

    fn apply(&mut self, delta: &ResourceDelta) {
        self.changes += 1;
        for (key, update) in &delta.changes {
            let before = match update {
                Update::Put(served) => self.plan.insert(key.clone(), Arc::clone(served)),
                Update::Remove => self.plan.remove(key),
            };
            if before.as_ref() != self.plan.get(key) {
                self.changed.insert(key.1.clone(), self.changes);
            }
        }
        self.proxy.apply(delta);
    }

    fn send(&mut self) -> bool {
        let refused = self.proxy.rejections().into_iter().map(|it| it.name);
        let mut excused: BTreeSet<ResourceName> = refused.collect();
        let Some(response) = self.proxy.response() else {
            return false;
        };
        // What the plan had before it had the cluster does not wait for it.
        for (put, _) in &response.put {
            let needed = [Cluster, ClusterLoadAssignment].map(|kind| name(kind, config_of(put)));
            let later = |it: &ResourceName| self.changed.get(it) > self.changed.get(put);
            excused.extend(needed.into_iter().filter(later));
        }
        self.sent.push(response.clone());
        self.down.push_back(Sent { response, excused });
        true
    }

    fn take(&mut self) -> bool {
        let Some(sent) = self.down.pop_front() else {
            return false;
        };
        let requests = self.envoy.take(&sent);
        self.up.extend(requests);
        true
    }

    fn hear(&mut self) -> bool {
        let request = self.up.pop_front();
        request
            .iter()
            .for_each(|request| self.proxy.request(request));
        request.is_some()
    }

    /// Until nobody has anything to say. How many responses that took.
    fn settle(&mut self) -> usize {
        let before = self.sent.len();
        while self.hear() || self.send() || self.take() {
            assert!(self.sent.len() - before < 1000, "it never ends");
        }
        assert_eq!(self.proxy.waits(), None, "something waits for nothing");
        self.sent.len() - before
    }

    /// All that is good is there in its newest version, and what is bad is told.
    fn is_settled(&self) {
        assert_eq!(self.envoy.warming, BTreeSet::new());
        let mut refused = BTreeSet::new();
        for ((kind, name), served) in &self.plan {
            let wanted = match kind {
                Cluster | Listener => true,
                _ => self.envoy.wants(*kind).contains(name),
            };
            let has = self.envoy.has.get(&(*kind, name.clone()));
            if is_bad(&served.bytes) && wanted {
                refused.insert(name.clone());
                let state = self.proxy.resource(*kind, name).unwrap();
                let held = has.map(|bytes| Served::new(bytes.clone(), None).version);
                let blank = Served::blank(*kind, name).map(|it| it.version);
                assert_eq!(held, state.acknowledged.or(blank), "{name}");
            } else if wanted {
                assert_eq!(has, Some(&served.bytes), "{name}");
                assert!(self.proxy.resource(*kind, name).unwrap().is_acknowledged());
            }
        }
        let told = self.proxy.rejections().into_iter();
        let told: BTreeSet<ResourceName> = told.map(|it| it.name).collect();
        assert!(
            told.is_superset(&refused),
            "{told:?} lacks some of {refused:?}"
        );
        // What it does not want any more it may have refused before.
        let innocent = |(key, served): &(&(_, ResourceName), &Arc<Served>)| {
            !is_bad(&served.bytes) && told.contains(&key.1)
        };
        assert_eq!(self.plan.iter().find(innocent), None);
        for (kind, name) in self.envoy.has.keys() {
            assert!(
                !matches!(kind, Cluster | Listener)
                    || self.plan.contains_key(&(*kind, name.clone())),
                "{name} is to be gone"
            );
        }
    }

    /// What responses since a moment held: `Cluster +shop/1/c -shop/2/c`.
    fn told_since(&self, moment: usize) -> Vec<String> {
        let shown = |it: &Response| {
            let put = it.put.iter().map(|(name, _)| format!(" +{name}"));
            let removed = it.removed.iter().map(|name| format!(" -{name}"));
            put.chain(removed)
                .fold(it.kind.to_string(), |text, name| text + &name)
        };
        self.sent.iter().skip(moment).map(shown).collect()
    }
}

/// A pair with that many good configs.
fn settled(protocol: Protocol, configs: u8) -> Pair {
    let mut pair = Pair::new(protocol);
    for config in 0..configs {
        pair.apply(&puts(config, &KINDS, 0, Taste::Good));
    }
    pair.settle();
    pair.is_settled();
    pair
}

#[derive(Clone, Debug)]
enum Step {
    Send,
    Take,
    Hear,
    Put(u8, Vec<ResourceKind>, u16, Taste),
    Remove(u8),
    Reconnect { restarted: bool },
    TimeIsUp,
}

fn steps(hurry: u32) -> impl Strategy<Value = Vec<Step>> {
    let taste = prop_oneof![
        4 => Just(Taste::Good),
        1 => Just(Taste::Listed),
        1 => Just(Taste::Misleading),
        1 => Just(Taste::Silent),
    ];
    let kinds = prop_oneof![
        Just(KINDS.to_vec()),
        proptest::sample::subsequence(KINDS.to_vec(), 1..3),
    ];
    let step = prop_oneof![
        6 => Just(Step::Send),
        6 => Just(Step::Take),
        8 => Just(Step::Hear),
        4 => (0..5_u8, kinds, 0..4_u16, taste).prop_map(|(c, k, v, t)| Step::Put(c, k, v, t)),
        2 => (0..5_u8).prop_map(Step::Remove),
        1 => any::<bool>().prop_map(|restarted| Step::Reconnect { restarted }),
        hurry => Just(Step::TimeIsUp),
    ];
    proptest::collection::vec(step, 0..120)
}

/// Half of them without a server that stops to wait, which may then break what it makes.
fn histories() -> impl Strategy<Value = Vec<Step>> {
    prop_oneof![steps(0), steps(1)]
}

fn protocols() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::StateOfTheWorld), Just(Protocol::Incremental)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn whatever_happens_the_good_goes_on_and_the_bad_is_told(protocol in protocols(), steps in histories()) {
        let mut pair = Pair::new(protocol);
        for step in steps {
            match step {
                Step::Send => drop(pair.send()),
                Step::Take => drop(pair.take()),
                Step::Hear => drop(pair.hear()),
                // A part of a config changes only where the config is.
                Step::Put(config, kinds, version, taste) => {
                    let there = pair.plan.contains_key(&(Listener, name(Listener, config)));
                    let kinds = if there { kinds } else { KINDS.to_vec() };
                    pair.apply(&puts(config, &kinds, version, taste));
                }
                Step::Remove(config) => pair.apply(&removal(config)),
                Step::TimeIsUp => {
                    if let Some(revision) = pair.proxy.waits() {
                        pair.proxy.time_is_up(revision);
                        pair.envoy.hurried = true;
                    }
                }
                Step::Reconnect { restarted } => {
                    if restarted {
                        let hurried = pair.envoy.hurried;
                        pair.envoy = Envoy { hurried, ..Envoy::new(protocol) };
                    }
                    pair.connect();
                }
            }
        }
        // At most 20 resources: each refusal finds one or halves a group.
        let responses = pair.settle();
        prop_assert!(responses < 150, "{responses}");
        pair.is_settled();
    }
}

use Protocol::{Incremental, StateOfTheWorld};

#[rstest]
#[case::endpoints(Incremental, &[ClusterLoadAssignment], &["ClusterLoadAssignment +shop/1/e"])]
#[case::endpoints_of_the_world(StateOfTheWorld, &[ClusterLoadAssignment], &["ClusterLoadAssignment +shop/1/e"])]
#[case::routes(StateOfTheWorld, &[RouteConfiguration], &["RouteConfiguration +shop/1/r"])]
#[case::a_listener(Incremental, &[Listener], &["Listener +shop/1/l"])]
#[case::all_listeners(StateOfTheWorld, &[Listener], &["Listener +shop/0/l +shop/1/l +shop/2/l"])]
#[case::a_cluster_with_its_endpoints(Incremental, &[Cluster], &["Cluster +shop/1/c", "ClusterLoadAssignment +shop/1/e"])]
#[case::all_of_a_config(Incremental, &KINDS, &[
    "Cluster +shop/1/c", "ClusterLoadAssignment +shop/1/e", "RouteConfiguration +shop/1/r", "Listener +shop/1/l",
])]
fn a_change_sends_what_changed(
    #[case] protocol: Protocol,
    #[case] kinds: &[ResourceKind],
    #[case] told: &[&str],
) {
    let mut pair = settled(protocol, 3);
    let moment = pair.sent.len();
    pair.apply(&puts(1, kinds, 1, Taste::Good));
    pair.settle();
    assert_eq!(pair.told_since(moment), told);
}

#[test]
fn a_listener_goes_before_its_cluster() {
    let mut pair = settled(Incremental, 2);
    let moment = pair.sent.len();
    pair.apply(&removal(1));
    pair.settle();
    assert_eq!(
        pair.told_since(moment),
        ["Listener -shop/1/l", "Cluster -shop/1/c"]
    );
    pair.is_settled();
}

#[test]
fn one_config_takes_the_place_of_another_without_a_gap() {
    let mut pair = settled(StateOfTheWorld, 1);
    let moment = pair.sent.len();
    let mut change = removal(0);
    change
        .changes
        .extend(puts(1, &KINDS, 0, Taste::Good).changes);
    pair.apply(&change);
    pair.settle();
    assert_eq!(
        pair.told_since(moment),
        [
            "Cluster +shop/0/c +shop/1/c",
            "ClusterLoadAssignment +shop/1/e",
            "Listener +shop/0/l +shop/1/l",
            "RouteConfiguration +shop/1/r",
            "Listener +shop/1/l -shop/0/l",
            "Cluster +shop/1/c -shop/0/c",
        ]
    );
}

#[rstest]
fn a_proxy_that_comes_back_as_it_was_is_told_nothing_in_the_incremental_protocol() {
    let mut pair = settled(Incremental, 3);
    // Another server with the same plan: the same versions.
    let plan = pair
        .plan
        .iter()
        .map(|(key, served)| (key.clone(), Update::Put(Arc::clone(served))));
    pair.proxy = Proxy::new(&ResourceDelta {
        changes: plan.collect(),
    });
    let moment = pair.sent.len();
    pair.connect();
    pair.settle();
    assert_eq!(pair.told_since(moment), [""; 0]);
    pair.is_settled();
}

#[test]
fn a_listener_whose_clusters_are_never_acknowledged_comes_when_time_is_up() {
    let mut pair = settled(Incremental, 1);
    pair.apply(&puts(1, &KINDS, 0, Taste::Good));
    while pair.send() {}
    let last = |pair: &Pair| pair.sent.last().map(|it| it.kind);
    assert_eq!(last(&pair), Some(Cluster));
    let held = pair.proxy.waits().unwrap();
    pair.proxy.time_is_up(held);
    while pair.send() {}
    assert_eq!(last(&pair), Some(Listener));
    assert_eq!(pair.proxy.waits(), None);
}

#[rstest]
fn nobody_is_asked_in_vain_for_endpoints_and_routes(
    #[values(Incremental, StateOfTheWorld)] protocol: Protocol,
) {
    let mut pair = Pair::new(protocol);
    pair.apply(&puts(0, &[Cluster, Listener], 0, Taste::Good));
    pair.settle();
    for kind in [ClusterLoadAssignment, RouteConfiguration] {
        let name = name(kind, 0);
        let blank = Served::blank(kind, &name).unwrap();
        assert_eq!(pair.envoy.has.get(&(kind, name)), Some(&blank.bytes));
    }
}

#[rstest]
fn few_responses_find_the_bad_among_many_that_nobody_names(
    #[values(Incremental, StateOfTheWorld)] protocol: Protocol,
    #[values(Cluster, RouteConfiguration)] kind: ResourceKind,
) {
    let mut pair = settled(protocol, 64);
    let bad = [3, 4, 60];
    let mut change = ResourceDelta::default();
    for config in 0..64 {
        let taste = if bad.contains(&config) {
            Taste::Silent
        } else {
            Taste::Good
        };
        change
            .changes
            .extend(puts(config, &[kind], 1, taste).changes);
    }
    pair.apply(&change);
    // Each of three is halved out of 64, and endpoints follow their clusters.
    let responses = pair.settle();
    assert!(responses <= 80, "{responses}");
    pair.is_settled();
    let told: Vec<u8> = pair
        .proxy
        .rejections()
        .iter()
        .map(|it| config_of(&it.name))
        .collect();
    assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), bad.into());
}

#[test]
fn what_is_refused_is_a_problem_of_its_object_until_it_is_mended() {
    let mut pair = settled(Incremental, 2);
    pair.apply(&puts(1, &[Listener], 1, Taste::Listed));
    pair.settle();
    let told = pair.proxy.rejections();
    let problem = told[0].problem().unwrap();
    assert_eq!(
        (problem.code, &problem.object),
        (Code::RefusedByEnvoy, &object(1))
    );
    assert_eq!(
        problem.reason,
        "Envoy refuses the Listener `shop/1/l` in these words: \
         Error adding/updating thing(s) shop/1/l: bad; it goes on with the last version that it took"
    );
    pair.apply(&puts(1, &[Listener], 2, Taste::Good));
    pair.settle();
    assert_eq!(pair.proxy.rejections(), []);
    pair.is_settled();
}

#[test]
fn a_proxys_state_is_written_for_people() {
    let mut pair = settled(Incremental, 1);
    pair.apply(&puts(0, &[Listener], 1, Taste::Silent));
    pair.settle();
    insta::assert_json_snapshot!(pair.proxy.state());
}

#[rstest]
fn what_a_proxy_acknowledged_counts_over_streams_until_it_starts_anew(
    #[values(Incremental, StateOfTheWorld)] protocol: Protocol,
) {
    let mut pair = settled(protocol, 1);
    let state = |pair: &Pair| pair.proxy.resource(Listener, "shop/0/l").unwrap();
    pair.connect();
    while pair.hear() {}
    assert!(state(&pair).is_acknowledged());

    pair.envoy = Envoy::new(protocol);
    pair.connect();
    while pair.hear() {}
    assert_eq!(state(&pair).acknowledged, None);
    pair.settle();
    assert!(state(&pair).is_acknowledged());
}
