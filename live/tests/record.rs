//! A node of a lab, recorded while it is asked, and replayed in the simulator. Needs root and what
//! `ci/setup` installs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nodeway_core::recording::Recording;
use nodeway_core::source::Text;
use nodeway_live::envoy;
use nodeway_live::lab::name::LabName;
use nodeway_live::lab::state::Labs;
use nodeway_live::lab::{Lab, LabOptions, Workers};
use nodeway_live::record::{Taken, Wanted, record};
use nodeway_sim::replay::{Replay, replay};
use nodeway_sim::{Ask, Cluster, Fixture, Place, Redirect};
use rstest::rstest;

const NODE: &str = "node-1";
const SHOP: &str = "http://cilium-ingress-basic-ingress";

fn up(fixture: &str, redirect: Redirect) -> Lab {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = format!("{}/../fixtures/{fixture}", env!("CARGO_MANIFEST_DIR"));
    let options = LabOptions {
        name: LabName::new(&format!("rec-{}-{number}", std::process::id())).unwrap(),
        envoy: envoy::find(None).unwrap_or_else(|error| panic!("{error}")),
        labs: Labs::here(),
        workers: Workers::Threads,
    };
    let fixture = Fixture::load(folder).unwrap();
    let lab = Lab::up(&fixture, Some(redirect), options, &mut |_| {});
    let mut lab = lab.unwrap_or_else(|error| panic!("{error}"));
    lab.settle(NODE).unwrap();
    lab
}

/// Records the node for a second, in which somebody asks.
fn recorded(lab: &mut Lab, packets: bool, asks: impl FnOnce(&mut Lab)) -> Taken {
    let run = lab.run_dir(NODE).unwrap().to_owned();
    let place = Place::Node(NODE.to_owned());
    let netns = lab.machines().get(&place).unwrap().try_clone().unwrap();
    let wanted = Wanted {
        watch: Duration::from_secs(2),
        requests: 100,
        packets,
    };
    let recording = thread::spawn(move || record(&run, &netns, wanted));
    // The agent's programs tell each decision by then.
    thread::sleep(Duration::from_millis(800));
    asks(lab);
    let taken = recording.join().unwrap();
    taken.unwrap_or_else(|error| panic!("{error}"))
}

fn read(taken: &Taken) -> Recording {
    let texts: Vec<Text> = taken
        .files
        .iter()
        .filter(|(name, _)| !name.ends_with("packets.pcapng"))
        .map(|(name, content)| {
            let name = format!("incident/{}", name.display());
            Text::new(name, String::from_utf8(content.clone()).unwrap())
        })
        .collect();
    Recording::read("incident", &texts).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

fn replayed(taken: &Taken) -> Replay {
    replay(&[read(taken)]).unwrap_or_else(|error| panic!("{error}"))
}

fn ask_from_everywhere(lab: &mut Lab) {
    for from in ["default/client", "outside/client", "node/node-1"] {
        for path in ["/details/0", "/", "/nowhere"] {
            let reply = lab.request(from, Ask::get(format!("{SHOP}{path}")));
            drop(reply.unwrap_or_else(|failed| panic!("{failed}")));
        }
    }
}

#[rstest]
fn what_was_recorded_is_simulated_with_the_same_verdicts_and_answers(
    #[values(Redirect::Tc, Redirect::SkLookup, Redirect::Iptables)] redirect: Redirect,
) {
    let mut lab = up("bookinfo", redirect);
    let taken = recorded(&mut lab, false, ask_from_everywhere);
    let replay = replayed(&taken);
    assert!(replay.holds(), "{replay:#?}");
    assert_eq!(replay.nodes[0].not_as_planned, Vec::<String>::new());
    let questions = replay.requests.len();
    assert!(questions >= 9, "three paths from three places: {replay:#?}");
    let led = |it: &&nodeway_sim::replay::Decided| it.recorded.contains("new-connection");
    match redirect {
        // No program tells anything there.
        Redirect::Iptables => assert_eq!((taken.decisions, replay.verdicts.len()), (None, 0)),
        _ => assert!(replay.verdicts.iter().any(|it| led(&it)), "{replay:#?}"),
    }
}

#[test]
fn an_answer_of_envoys_own_is_compared_with_its_status() {
    let mut lab = up("no-endpoints", Redirect::Tc);
    let fixture = Fixture::load(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../fixtures/no-endpoints"
    ))
    .unwrap();
    let taken = recorded(&mut lab, false, |lab| {
        for request in &fixture.requests {
            // Some have no answer.
            let _ = lab.request(&request.from, request.ask());
        }
    });
    let replay = replayed(&taken);
    assert!(replay.holds(), "{replay:#?}");
    let own = replay.requests.iter().filter(|it| !it.recorded.by_backend);
    assert!(own.count() > 0, "{replay:#?}");
}

#[test]
fn what_the_simulation_does_not_do_is_told() {
    let mut lab = up("bookinfo", Redirect::Tc);
    let taken = recorded(&mut lab, false, ask_from_everywhere);
    let mut recording = read(&taken);
    // As if the kernel had led to another port, and Envoy had taken another route.
    for frontend in &mut recording.led.frontends {
        frontend.listener_port = 9;
    }
    recording.requests[0].route = Some((0, 7));
    let replay = replay(&[recording]).unwrap();
    assert!(!replay.holds());
    let told = &replay.nodes[0].not_as_planned;
    assert!(
        told.iter()
            .any(|it| it.contains("led to port 9, where no Envoy listens")),
        "{told:#?}"
    );
    let parted = replay.verdicts.iter().find(|it| !it.held).unwrap();
    assert!(
        parted.simulated.iter().any(|it| it.contains("no-listener")),
        "{parted:#?}"
    );
}

#[test]
fn packets_are_captured_when_somebody_asks_for_them() {
    let mut lab = up("bookinfo", Redirect::Tc);
    let taken = recorded(&mut lab, true, ask_from_everywhere);
    let capture = &taken.files[std::path::Path::new("packets.pcapng")];
    let has = |words: &[u8]| capture.windows(words.len()).any(|it| it == words);
    assert!(has(b"GET /details/0 HTTP/1.1"), "{} bytes", capture.len());
}

#[test]
fn an_agent_tells_no_decision_when_nobody_watches() {
    let mut lab = up("bookinfo", Redirect::Tc);
    let first = recorded(&mut lab, false, ask_from_everywhere);
    ask_from_everywhere(&mut lab);
    let second = recorded(&mut lab, false, |_| {});
    let of_client = |taken: &Taken| {
        let decisions = read(taken).decisions.into_iter();
        let led = decisions.filter(|it| it.reason.name() == "new-connection");
        led.count()
    };
    assert!(of_client(&first) > 0);
    assert_eq!(of_client(&second), 0);
}
