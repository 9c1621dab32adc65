//! A supervisor with a real Envoy, in a namespace of its own. Needs root, and Envoy in `$ENVOY` or
//! on `PATH`: `ci/setup` gets it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::bed::Machine;
use nix::sys::signal::{Signal, kill};
use nodeway_live::envoy::find;
use nodeway_live::generation::{
    Bounds, Order, Phase, Record, Supervisor, SupervisorOptions, list, mark_unled,
};

/// A supervisor that runs.
struct Running {
    run: tempfile::TempDir,
    machine: Machine,
    orders: Sender<Order>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(what: &str, bounds: Bounds) -> Self {
        let run = tempfile::tempdir().unwrap();
        // Envoy is another user, and must get to its folder.
        fs::set_permissions(run.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let machine = Machine::new(what);
        let options = SupervisorOptions {
            run: run.path().to_owned(),
            node: "node-1".to_owned(),
            program: find(None).unwrap_or_else(|error| panic!("{error}")),
            concurrency: 1,
            access_log: false,
            bounds,
        };
        let (orders, received) = channel();
        let start = || Supervisor::start(options);
        let supervisor = machine.netns.run(start).unwrap();
        let supervisor = supervisor.unwrap_or_else(|error| panic!("{error}"));
        let thread = std::thread::spawn(move || supervisor.run(&received));
        Self {
            run,
            machine,
            orders,
            thread: Some(thread),
        }
    }

    fn all(&self) -> Vec<Record> {
        list(self.run.path()).unwrap()
    }

    /// Waits until the generations are as they should be.
    fn wait(&self, what: &str, is: impl Fn(&[Record]) -> bool) -> Vec<Record> {
        let begun = Instant::now();
        loop {
            let all = self.all();
            if is(&all) {
                return all;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{what}: {all:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn answers(&self, record: &Record) -> bool {
        record.admin().get("/server_info").is_ok()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::EndNow);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

const SOON: Bounds = Bounds {
    handover: Duration::from_secs(1),
    drain: Duration::from_secs(1),
};
const LATE: Bounds = Bounds {
    handover: Duration::from_secs(600),
    drain: Duration::from_secs(600),
};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn nobody_but_envoys_own_user_gets_to_what_it_has() {
    let running = Running::start("modes", LATE);
    let all = running.wait("it answers", |all| all.iter().all(|it| running.answers(it)));
    let record = all.first().unwrap();
    assert_eq!(mode(&record.folder()), 0o700);
    assert_eq!(mode(&record.folder().join("admin.sock")), 0o600);
    assert_eq!(mode(&record.folder().with_extension("json")), 0o600);
    assert!(
        !running.machine.run("ss -Hltn").contains("LISTEN"),
        "no port is open"
    );
}

#[test]
fn one_that_crashes_is_followed_by_another() {
    let running = Running::start("crash", LATE);
    let before = running.all().pop().unwrap();
    let pid = i32::try_from(before.process.pid).unwrap();
    kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let after = running.wait("another", |all| {
        all.iter()
            .any(|it| it.id != before.id && running.answers(it))
    });
    assert_eq!(after.len(), 1);
    assert!(!before.folder().exists(), "nothing is left of it");
}

#[test]
fn an_upgrade_waits_until_nothing_leads_to_the_old_one() {
    let running = Running::start("upgrade", LATE);
    let old = running.all().pop().unwrap();
    running.orders.send(Order::Upgrade).unwrap();
    running.wait("both", |all| {
        let phases: Vec<Phase> = all.iter().map(|it| it.phase).collect();
        phases == [Phase::Retiring, Phase::Running]
    });
    mark_unled(running.run.path(), &old.id).unwrap();
    let all = running.wait("the old one ends", |all| all.len() == 1);
    assert!(
        all.iter()
            .all(|it| it.id != old.id && it.phase == Phase::Running)
    );
}

#[test]
fn without_an_agent_the_end_comes_after_the_bounds() {
    let mut running = Running::start("end", SOON);
    running.orders.send(Order::End).unwrap();
    running.thread.take().unwrap().join().unwrap();
    assert_eq!(running.all(), []);
}

#[test]
fn what_a_killed_supervisor_left_is_adopted() {
    let mut running = Running::start("adopt", LATE);
    let record = running.all().pop().unwrap();
    // As if its supervisor were gone, which cannot be killed here: it is this process.
    let path = record.folder().with_extension("json");
    let text = fs::read_to_string(&path).unwrap();
    let own = std::process::id().to_string();
    let orphan = text.replace(
        &format!("\"supervisor\":{{\"pid\":{own}"),
        "\"supervisor\":{\"pid\":1",
    );
    assert_ne!(text, orphan);
    fs::write(&path, orphan).unwrap();
    let options = SupervisorOptions {
        run: running.run.path().to_owned(),
        node: "node-1".to_owned(),
        program: "/no/such/envoy".into(),
        concurrency: 1,
        access_log: false,
        bounds: SOON,
    };
    let start = || Supervisor::start(options);
    let second = running.machine.netns.run(start).unwrap();
    let second = second.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        running.all().first().map(|it| it.id.clone()),
        Some(record.id.clone())
    );
    let (orders, received) = channel();
    orders.send(Order::EndNow).unwrap();
    second.run(&received);
    assert_eq!(running.all(), []);
    // The first one finds it gone, and would begin another.
    let _ = running.orders.send(Order::EndNow);
    running.thread.take().unwrap().join().unwrap();
}

#[test]
fn a_program_that_does_not_start_is_an_error_that_names_it() {
    let run = tempfile::tempdir().unwrap();
    let options = SupervisorOptions {
        run: run.path().to_owned(),
        node: "node-1".to_owned(),
        program: "/no/such/envoy".into(),
        concurrency: 1,
        access_log: false,
        bounds: SOON,
    };
    let error = Supervisor::start(options).unwrap_err().to_string();
    assert!(error.contains("/no/such/envoy"), "{error}");
    assert_eq!(list(run.path()).unwrap(), []);
}
