//! Many faults at once, by chance: every request ends, the same seed gives the same run, and once
//! all is mended everything works again.

use std::time::Duration;

use nodeway_core::object::{Change, Kind, ObjectRef};
use nodeway_sim::{
    Ask, Cluster, Failed, Fault, Fixture, Impairment, Redirect, Reply, Share, Sim, Time, Toward,
};
use proptest::prelude::*;

const SHOP: &str = "http://shop/?delay=20";

/// Long enough for every time-out, and for whatever arms or drains.
const CALM: Duration = Duration::from_secs(1_000);

fn shop(redirect: Redirect, seed: u64) -> Sim {
    let fixture = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../fixtures/faults/switched-off"
    );
    let fixture = Fixture {
        faults: Vec::new(),
        ..Fixture::load(fixture).unwrap()
    };
    let builder = Sim::from_fixture(&fixture).unwrap();
    builder.redirect(redirect).seed(seed).start().unwrap()
}

/// When it begins, how long it lasts, and what it is.
type Scheduled = (u64, u64, Fault);

fn fault() -> impl Strategy<Value = Fault> {
    let node = || prop_oneof![Just("node-1"), Just("node-2")].prop_map(str::to_owned);
    let who = prop_oneof![
        Just("default/client"),
        Just("default/shop-1"),
        Just("node/node-2"),
        Just("outside"),
    ];
    let toward = prop_oneof![Just(Toward::Both), Just(Toward::In), Just(Toward::Out)];
    let impairment = (0..=100_u32, 0..30_u32, 0..30_u32, 0..50_u64, 0..50_u64);
    let link = (who, toward, impairment).prop_map(|(of, toward, it)| Fault::Link {
        of: of.to_owned(),
        toward,
        impairment: Impairment {
            loss: Share::percent(it.0),
            duplicate: Share::percent(it.1),
            reorder: Share::percent(it.2),
            delay: Duration::from_millis(it.3),
            jitter: Duration::from_millis(it.4),
        },
    });
    let service = ObjectRef::new(Kind::Service, "default", "shop");
    let config = ObjectRef::new(Kind::CiliumEnvoyConfig, "default", "shop");
    prop_oneof![
        4 => link,
        1 => Just(Fault::Partition { between: ["node/node-1".to_owned(), "node/node-2".to_owned()] }),
        1 => node().prop_map(|node| Fault::Proxy { node }),
        1 => node().prop_map(|node| Fault::Agent { node }),
        1 => node().prop_map(|node| Fault::Node { node }),
        1 => Just(Fault::Endpoints { service, pods: vec!["shop-1".to_owned()] }),
        1 => Just(Fault::Objects { what: "the config goes".to_owned(), changes: vec![Change::Delete(config)] }),
    ]
}

fn storm() -> impl Strategy<Value = Vec<Scheduled>> {
    prop::collection::vec((0..3_000_u64, 1..20_000_u64, fault()), 1..8)
}

/// Who asks, and over which connection.
const ASKERS: [(&str, Option<&str>); 4] = [
    ("default/client", None),
    ("default/client", Some("kept")),
    ("default/shop-1", None),
    ("node/node-1", None),
];

/// Lets a storm go over a cluster that is asked all the while; tells how each request ended.
fn rage(cluster: &mut Sim, storm: &[Scheduled]) -> Vec<String> {
    for (at, lasts, fault) in storm {
        let at = Time::ZERO + Duration::from_millis(*at);
        let lasts = Duration::from_millis(*lasts);
        cluster.schedule(at, Some(lasts), fault.clone()).unwrap();
    }
    let mut under_way = Vec::new();
    for round in 0..8_u64 {
        cluster.run_until(Time::ZERO + Duration::from_millis(round * 500));
        for (from, connection) in ASKERS {
            let mut ask = Ask::get(SHOP);
            ask.connection = connection.map(str::to_owned);
            // A connection that still has a request under way takes no second one.
            if let Ok(request) = cluster.send(from, ask) {
                under_way.push(request);
            }
        }
    }
    let told = |outcome: Result<Reply, Box<Failed>>| match outcome {
        Ok(reply) => format!("{} after {:?}", reply.status, reply.took),
        Err(failed) => format!("{} after {:?}", failed.failure, failed.took),
    };
    let ends = under_way.into_iter().map(|it| told(cluster.finish(it)));
    ends.collect()
}

fn redirect() -> impl Strategy<Value = Redirect> {
    prop::sample::select(Redirect::ALL)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_breaks_every_request_ends_and_all_is_well_afterwards(
        storm in storm(),
        redirect in redirect(),
        seed in 0..1_000_u64,
    ) {
        let mut cluster = shop(redirect, seed);
        let once = rage(&mut cluster, &storm);
        let again = rage(&mut shop(redirect, seed), &storm);
        prop_assert_eq!(once, again, "one seed gives one run");
        cluster.run_for(CALM);
        for (from, _) in ASKERS {
            // A node's own client has no sidecar; it asks kube-proxy, as ever.
            let reply = cluster.get(from, SHOP);
            let reply = reply.unwrap_or_else(|failed| panic!("{failed}"));
            prop_assert_eq!(reply.status, 200, "{} after the storm:\n{:?}", from, storm);
            let has_proxy = redirect != Redirect::Sidecar || !from.starts_with("node/");
            prop_assert_eq!(reply.redirected(), has_proxy, "{} after the storm:\n{:?}", from, storm);
        }
    }
}
