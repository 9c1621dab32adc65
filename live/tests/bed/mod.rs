//! A pod and its node, each a network namespace, for one test: all of it goes away with the test.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "the set-up of tests; each file of tests uses a part of it"
)]
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nodeway_core::netfilter::kube_proxy::ServicePort;
use nodeway_core::plan::NodePlan;
use nodeway_live::netns::NetNs;

/// The pod's addresses.
pub const POD: [&str; 2] = ["10.0.0.2", "fd00::2"];
/// The node's.
pub const NODE: [&str; 2] = ["10.0.0.1", "fd00::1"];

/// One namespace.
pub struct Machine {
    name: String,
    pub netns: NetNs,
}

impl Machine {
    /// A machine that is connected to nothing.
    pub fn new(what: &str) -> Self {
        Self::named(format!("nwtest-{what}-{}", std::process::id()))
    }

    /// Gives it the address of the fixtures' first node, and a way to all others, where nobody is.
    pub fn link_up(&self) {
        for command in [
            "ip link add uplink type veth peer name outside",
            "ip addr add 172.18.0.2/16 dev uplink",
            "ip link set outside up",
            "ip link set uplink up",
            "ip route add default dev uplink",
        ] {
            self.run(command);
        }
    }

    fn named(name: String) -> Self {
        let netns = NetNs::create(&name).unwrap_or_else(|error| panic!("{error}"));
        let machine = Self { name, netns };
        // No addresses that come by themselves, some time later.
        machine.set("net.ipv6.conf.default.addr_gen_mode", 1);
        machine.run("ip link set lo up");
        machine
    }

    fn output(&self, words: &str) -> Output {
        let mut words = words.split(' ');
        let program = words.next().unwrap();
        let run = || {
            let path = std::env::var("PATH").unwrap_or_default();
            let mut command = Command::new(program);
            command
                .args(words)
                .env("PATH", format!("{path}:/usr/sbin:/sbin"));
            command.output()
        };
        let output = self.netns.run(run).unwrap();
        output.unwrap_or_else(|error| panic!("{program}: {error}; run ci/setup"))
    }

    /// Runs a command that must succeed; its output.
    pub fn run(&self, words: &str) -> String {
        let output = self.output(words);
        assert!(output.status.success(), "{words}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until the kernel has noticed that the link is up.
    fn wait_for(&self, route: &str) {
        for _ in 0..500 {
            let routes = self.run("ip route show table all");
            if routes.contains(route) && !routes.contains("linkdown") {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no `{route}` in {}", self.run("ip route show table all"));
    }

    /// Sets what `sysctl` would, by the same name.
    pub fn set(&self, name: &str, value: u8) {
        let path = name.replace('.', "/");
        self.shell(&format!("echo {value} > /proc/sys/{path}"));
    }

    /// Runs a shell command that must succeed.
    pub fn shell(&self, script: &str) -> String {
        let run = || Command::new("bash").args(["-ec", script]).output();
        let output = self.netns.run(run).unwrap().unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Everything that rules and routes could leave behind, as the tools for them tell it.
    pub fn state(&self) -> String {
        let mut state = String::new();
        for words in [
            "iptables-save",
            "ip6tables-save",
            "ipset list",
            "ip rule",
            "ip -6 rule",
            "ip route show table all",
            "ip -6 route show table all",
        ] {
            state.push_str(&format!("== {words}\n"));
            // Comments have the time of day; the kernel's own route comes when the link is up.
            let lines = self.run(words);
            let passing = ["#", "multicast ff00::/8 "];
            let passes = |line: &&str| passing.iter().any(|it| line.starts_with(it));
            let lines = lines.lines().filter(|line| !passes(line));
            lines.for_each(|line| state.push_str(&format!("{line}\n")));
        }
        state
    }

    /// What nftables has, which sees more than the tools of iptables do.
    pub fn nftables(&self) -> String {
        self.run("nft -s list ruleset")
    }

    /// Fails with the lines that differ if the state is not what it was.
    #[track_caller]
    pub fn is_as(&self, before: &str) {
        let now = self.state();
        if now == before {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = [("before", before), ("now", &now)].map(|(name, text)| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        });
        let diff = Command::new("diff")
            .arg("-u")
            .args([one, other])
            .output()
            .unwrap();
        panic!(
            "the state is another:\n{}",
            String::from_utf8_lossy(&diff.stdout)
        );
    }

    /// Connects, and reads all that comes.
    pub fn ask(&self, to: &str, port: u16) -> std::io::Result<String> {
        self.say(to, port, "")
    }

    /// Opens a connection to a [`Listener`] that stays, and echoes.
    pub fn stay(&self, to: &str, port: u16) -> std::io::Result<TcpStream> {
        let to = SocketAddr::new(to.parse::<IpAddr>().unwrap(), port);
        let connect = || TcpStream::connect_timeout(&to, Duration::from_millis(1500));
        let mut stream = self.netns.run(connect).unwrap()?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        echo(&mut stream)?;
        Ok(stream)
    }

    /// Connects, says something, and reads all that comes.
    pub fn say(&self, to: &str, port: u16, what: &str) -> std::io::Result<String> {
        let to = SocketAddr::new(to.parse::<IpAddr>().unwrap(), port);
        let talk = || {
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_millis(1500))?;
            stream.set_read_timeout(Some(Duration::from_millis(4000)))?;
            stream.write_all(what.as_bytes())?;
            if what.is_empty() {
                stream.shutdown(std::net::Shutdown::Write)?;
            }
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        self.netns.run(talk).unwrap()
    }
}

/// A pod's server: it has an address on a machine, and answers each request with that.
pub fn serve(machine: &Machine, address: SocketAddr) {
    let own = address.ip();
    // A second port of one pod finds the address there.
    machine.run(&match own {
        IpAddr::V4(_) => format!("ip addr replace {own}/32 dev lo"),
        IpAddr::V6(_) => format!("ip addr replace {own}/128 dev lo nodad"),
    });
    let bind = || TcpListener::bind(address);
    let listener = machine.netns.run(bind).unwrap().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || answer(stream.unwrap(), address));
        }
    });
}

/// The same for every endpoint of a plan.
pub fn serve_endpoints(machine: &Machine, plan: &NodePlan) {
    let endpoints = plan.endpoints.values().flat_map(|it| &it.endpoints);
    let addresses: BTreeSet<SocketAddr> = endpoints.map(|it| it.address).collect();
    for address in addresses {
        serve(machine, address);
    }
}

/// Answers the requests of a connection, until one wants it closed.
fn answer(mut stream: TcpStream, own: SocketAddr) {
    const END: &[u8] = b"\r\n\r\n";
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        while let Some(end) = seen.windows(END.len()).position(|it| it == END) {
            let request: Vec<u8> = seen.drain(..end + END.len()).collect();
            let request = String::from_utf8_lossy(&request).to_lowercase();
            let close = request.contains("connection: close");
            let connection = if close { "close" } else { "keep-alive" };
            let body = own.to_string();
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: {connection}\r\n\r\n{body}"
            );
            if stream.write_all(answer.as_bytes()).is_err() || close {
                return;
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(length) => seen.extend_from_slice(buffer.get(..length).unwrap_or_default()),
        }
    }
}

/// A Service of both families that kube-proxy leads to [`BACKEND`] on the node's `lo`.
pub fn service(addresses: [&str; 2]) -> ServicePort {
    ServicePort {
        name: "default/shop:http".to_owned(),
        cluster: addresses.iter().map(|it| it.parse().unwrap()).collect(),
        external: Vec::new(),
        port: 80,
        node_port: None,
        endpoints: vec![
            (format!("10.244.9.9:{BACKEND}").parse().unwrap(), true),
            (format!("[fd00:244::9]:{BACKEND}").parse().unwrap(), true),
        ],
        external_local: false,
        internal_local: false,
        affinity: None,
        source_ranges: Vec::new(),
    }
}

/// The port of a [`service`]'s backend.
pub const BACKEND: u16 = 8080;

/// Says much on a connection that stays, and hears all of it again.
pub fn echo_much(mut stream: TcpStream) -> std::io::Result<()> {
    const MUCH: usize = 300_000;
    let mut mouth = stream.try_clone()?;
    std::thread::spawn(move || mouth.write_all(&[7; MUCH]));
    let mut heard = vec![0; MUCH];
    stream.read_exact(&mut heard)
}

/// Says something on a connection that stays, and hears it again.
pub fn echo(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"stay\n")?;
    let mut heard = [0; 5];
    stream.read_exact(&mut heard)?;
    assert_eq!(&heard, b"stay\n");
    Ok(())
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = NetNs::delete(&self.name);
    }
}

/// A node with one pod.
pub struct Bed {
    pub pod: Machine,
    pub node: Machine,
}

impl Bed {
    pub fn new(what: &str) -> Self {
        let own = std::process::id();
        let bed = Self {
            pod: Machine::named(format!("nwtest-{what}-pod-{own}")),
            node: Machine::named(format!("nwtest-{what}-node-{own}")),
        };
        let pod = &bed.pod.name;
        bed.node.run(&format!(
            "ip link add to-pod type veth peer name eth0 netns {pod}"
        ));
        for (machine, device, own) in [(&bed.node, "to-pod", NODE), (&bed.pod, "eth0", POD)] {
            machine.run(&format!("ip addr add {}/24 dev {device}", own[0]));
            machine.run(&format!("ip addr add {}/64 dev {device} nodad", own[1]));
            // Neighbours are asked for, and answer, from addresses of the link.
            let last = own[1].rsplit(':').next().unwrap();
            machine.run(&format!("ip addr add fe80::{last}/64 dev {device} nodad"));
            machine.run(&format!("ip link set {device} up"));
        }
        for (machine, own) in [(&bed.node, NODE), (&bed.pod, POD)] {
            machine.wait_for(&format!("local {} dev", own[1]));
        }
        bed.pod
            .run(&format!("ip route add default via {}", NODE[0]));
        bed.pod
            .run(&format!("ip -6 route add default via {}", NODE[1]));
        bed
    }
}

/// A host behind the pod, which routes for it over a link with a smaller MTU than its own.
pub fn behind(bed: &Bed, what: &str) -> Machine {
    let far = Machine::new(&format!("{what}-far"));
    let name = &far.name;
    bed.pod.set("net.ipv4.ip_forward", 1);
    bed.pod.set("net.ipv6.conf.all.forwarding", 1);
    bed.pod.run(&format!(
        "ip link add to-far type veth peer name eth0 netns {name}"
    ));
    for (machine, device, last) in [(&bed.pod, "to-far", 1), (&far, "eth0", 2)] {
        machine.run(&format!("ip addr add 10.0.9.{last}/24 dev {device}"));
        machine.run(&format!("ip addr add fd00:9::{last}/64 dev {device} nodad"));
        machine.run(&format!("ip addr add fe80::{last}/64 dev {device} nodad"));
        machine.run(&format!("ip link set {device} up"));
    }
    bed.pod.run("ip link set to-far mtu 1280");
    far.wait_for("local fd00:9::2 dev");
    far.run("ip route add default via 10.0.9.1");
    far.run("ip -6 route add default via fd00:9::1");
    bed.node
        .run(&format!("ip route add 10.0.9.0/24 via {}", POD[0]));
    bed.node
        .run(&format!("ip -6 route add fd00:9::/64 via {}", POD[1]));
    far
}

/// A program that listens and says to each connection that says nothing `OWN-ADDRESS OWN-PORT PEER`;
/// to others it says what they do.
pub struct Listener(Child);

const PROGRAM: &str = r#"
import socket, sys, threading
port, transparent = int(sys.argv[1]), sys.argv[2] == "transparent"
def answer(c, peer):
    said = c.recv(65536)
    if not said:
        own = c.getsockname()
        c.sendall(f"{own[0]} {own[1]} {peer[0]}".encode())
    while said:
        c.sendall(said)
        said = c.recv(65536)
    c.close()
def serve(s):
    while True:
        threading.Thread(target=answer, args=s.accept(), daemon=True).start()
loopback = {"127.0.0.1": (socket.AF_INET, socket.SOL_IP, 19), "::1": (socket.AF_INET6, 41, 75)}
anywhere = {"0.0.0.0": (socket.AF_INET, 0, 0), "::": (socket.AF_INET6, 41, 26)}
for address, (family, level, option) in (loopback if transparent else anywhere).items():
    s = socket.socket(family)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if option:
        s.setsockopt(level, option, 1)
    s.bind((address, port))
    s.listen(64)
    threading.Thread(target=serve, args=(s,), daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"#;

impl Listener {
    /// Transparent, on 127.0.0.1 and ::1, as a node's Envoy is.
    pub fn transparent(machine: &Machine, port: u16) -> Self {
        Self::start(machine, port, "transparent")
    }

    /// On every address.
    pub fn anywhere(machine: &Machine, port: u16) -> Self {
        Self::start(machine, port, "anywhere")
    }

    fn start(machine: &Machine, port: u16, how: &str) -> Self {
        let start = || {
            Command::new("python3")
                .args(["-c", PROGRAM, &port.to_string(), how])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
        };
        let mut child = machine
            .netns
            .run(start)
            .unwrap()
            .expect("python3: run ci/setup");
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
