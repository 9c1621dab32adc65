//! `nodeway sim --tun` as a process: how it begins, what it says, how it ends, and that nothing is
//! left. Needs root, /dev/net/tun and curl.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nodeway_live::netns::NetNs;
use rstest::rstest;
use serde_json::Value;

/// A network namespace for one test.
struct Machine {
    name: String,
    netns: NetNs,
}

impl Machine {
    fn new(what: &str) -> Self {
        let name = format!("nwtest-cli-{what}-{}", std::process::id());
        let netns = NetNs::create(&name).unwrap_or_else(|error| panic!("{error}"));
        Self { name, netns }
    }

    fn shell(&self, script: &str) -> String {
        let mut command = Command::new("bash");
        command.args(["-ec", script]);
        command.env("PATH", format!("{}:/usr/sbin:/sbin", env!("PATH")));
        let output = self.netns.run(|| command.output()).unwrap().unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What the kernel has of devices and routes.
    fn state(&self) -> String {
        self.shell(
            "ip -o link | cut -d' ' -f2; ip route show table all; ip -6 route show table all",
        )
    }

    fn nodeway(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodeway"));
        command
            .args(["sim", "fixtures/dual-stack", "--tun", "nw0"])
            .args(arguments)
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, mut command: Command) -> Output {
        self.netns.run(|| command.output()).unwrap().unwrap()
    }

    /// Starts it, and reads on until this word.
    fn start(&self, arguments: &[&str], until: &str) -> Running {
        let mut command = self.nodeway(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = self.netns.run(|| command.spawn()).unwrap().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut running = Running {
            child,
            lines,
            said: String::new(),
        };
        running.read_until(until);
        running
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = NetNs::delete(&self.name);
    }
}

struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
    said: String,
}

impl Running {
    fn read_until(&mut self, word: &str) -> String {
        let mut line = String::new();
        while !line.contains(word) {
            line.clear();
            let length = self.lines.read_line(&mut line).unwrap();
            self.said.push_str(&line);
            assert!(length > 0, "it ended without `{word}`:\n{}", self.said);
        }
        line
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).unwrap();
        kill(Pid::from_raw(id), signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn error(output: &Output) -> String {
    // Lines are broken where the terminal ends.
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    text.split_whitespace()
        .filter(|word| *word != "│")
        .collect::<Vec<_>>()
        .join(" ")
}

#[rstest]
#[case::interrupt(Signal::SIGINT)]
#[case::terminate(Signal::SIGTERM)]
#[case::hang_up(Signal::SIGHUP)]
fn a_signal_ends_it_well_and_takes_everything_away(#[case] signal: Signal) {
    let machine = Machine::new(&format!("{signal}").to_lowercase());
    let before = machine.state();
    let mut running = machine.start(&[], "Ctrl-C");
    assert!(machine.state().contains("nw0"));
    running.signal(signal);
    let farewell = running.read_until("taken away");
    assert!(farewell.contains(signal.as_str()), "{farewell}");
    assert!(running.child.wait().unwrap().success());
    assert_eq!(machine.state(), before);
}

#[test]
fn a_kill_takes_everything_away_too() {
    let machine = Machine::new("kill");
    let before = machine.state();
    let mut running = machine.start(&[], "Ctrl-C");
    assert!(machine.state().contains("nw0"));
    running.signal(Signal::SIGKILL);
    running.child.wait().unwrap();
    assert_eq!(machine.state(), before);
}

#[test]
fn it_ends_in_time() {
    let machine = Machine::new("time");
    let output = machine.run(machine.nodeway(&["--duration", "1"]));
    assert_eq!(output.status.code(), Some(0), "{}", error(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("its time is over: 0 requests"), "{said}");
}

#[test]
fn the_commands_that_it_prints_work_and_each_request_is_a_line() {
    let machine = Machine::new("commands");
    let mut running = machine.start(&[], "Ctrl-C");
    let said = running.said.clone();
    let commands: Vec<&str> = said
        .lines()
        .filter_map(|line| line.strip_prefix("  curl "))
        .collect();
    assert!(commands.len() > 2, "{said}");
    for command in commands {
        let answer = machine.shell(&format!("curl -fsS -m 5 {command}"));
        assert!(answer.contains("\"pod\":\"default/shop-1\""), "{answer}");
        let line = running.read_until("GET");
        assert!(line.starts_with("200 GET "), "{line}");
        assert!(line.contains("default/shop-1 on node-2"), "{line}");
    }
}

#[test]
fn as_json_each_event_is_a_line() {
    let machine = Machine::new("json");
    let mut running = machine.start(&["-o", "json"], "\"ready\"");
    let ready: Value = serde_json::from_str(&running.said).unwrap();
    assert_eq!(ready["device"], "nw0");
    assert_eq!(ready["host"], "outside/client");
    let reachable = ready["reachable"].as_array().unwrap();
    let balancer = reachable
        .iter()
        .find(|one| one["kind"] == "LoadBalancer" && one["answered_by"] == "Envoy")
        .unwrap();
    let address = balancer["addresses"][0].as_str().unwrap();
    machine.shell(&format!("curl -fsS -m 5 http://{address}/x"));
    let request: Value = serde_json::from_str(&running.read_until("\"request\"")).unwrap();
    assert_eq!(request["status"], 200);
    assert_eq!(request["target"], "/x");
    assert_eq!(request["proxy_node"], "node-1");
    assert_eq!(request["pod"], "default/shop-1");
    running.signal(Signal::SIGINT);
    let end: Value = serde_json::from_str(&running.read_until("\"end\"")).unwrap();
    assert_eq!(end["requests"], 1);
}

#[test]
fn an_address_that_is_taken_is_named_with_what_to_do() {
    let machine = Machine::new("taken");
    machine.shell("ip link set lo up; ip route add 10.96.0.0/12 dev lo");
    let output = machine.run(machine.nodeway(&["--duration", "1"]));
    assert_eq!(output.status.code(), Some(2));
    let said = error(&output);
    for words in ["10.96.", "a route to 10.96.0.0/12 over lo", "unshare --net"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn without_rights_it_says_what_they_are() {
    let machine = Machine::new("rights");
    let nodeway = machine.nodeway(&["--duration", "1"]);
    // A namespace of users without a map: no rights outside it, and the files are still ours.
    let mut command = Command::new("unshare");
    command.arg("--user").arg(nodeway.get_program());
    command.args(nodeway.get_args());
    command.current_dir(nodeway.get_current_dir().unwrap());
    let output = machine.run(command);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = error(&output);
    assert!(
        said.contains("run as root, or with CAP_NET_ADMIN"),
        "{said}"
    );
}

#[rstest]
#[case::several_redirects(&["--redirect", "all"], "one redirect")]
#[case::with_a_trace(&["--trace"], "--trace")]
fn what_makes_no_sense_with_a_device_is_refused(#[case] more: &[&str], #[case] words: &str) {
    let machine = Machine::new(more[0].trim_start_matches('-'));
    let output = machine.run(machine.nodeway(more));
    assert_eq!(output.status.code(), Some(2));
    assert!(error(&output).contains(words), "{}", error(&output));
}
