//! A pod and a node as network namespaces, with a veth between them and echo servers on the node's
//! loopback. Everything is named after the process and goes with the value.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};
use nodeway_live::bpf::Mode;
use nodeway_live::netns::NetNs;

pub(crate) const SERVICE4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10));
pub(crate) const SERVICE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x10));
const POD4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 1, 7));
const POD6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, 7));

static COUNT: AtomicU32 = AtomicU32::new(0);

/// What a connection's two sides saw.
#[derive(Debug)]
pub(crate) struct Talk {
    /// The peer, to the client.
    pub peer: SocketAddr,
    /// The server's own address, to the server.
    pub seen_local: SocketAddr,
    /// The client, to the server.
    pub seen_peer: SocketAddr,
}

pub(crate) struct Net {
    node: String,
    pod: String,
    device: String,
    servers: Vec<Server>,
}

impl Net {
    /// A net that is ready for a mode's packets, with echo servers on these ports of the node's
    /// `127.0.0.1` and `::1`.
    pub(crate) fn new(mode: Mode, ports: &[u16]) -> Self {
        let id = format!(
            "{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let (node, pod) = (format!("nwtest-node-{id}"), format!("nwtest-pod-{id}"));
        NetNs::create(&node).expect("network namespaces need root: sudo -E cargo nextest run");
        let mut net = Self {
            node: node.clone(),
            pod: pod.clone(),
            device: "pod1".to_owned(),
            servers: Vec::new(),
        };
        NetNs::create(&pod).unwrap();
        run(&format!(
            "ip -n {node} link add pod1 type veth peer name eth0 netns {pod}"
        ));
        for (ns, device, four, six) in [
            (&node, "pod1", "10.244.1.1/24", "fd00:244::1/64"),
            (&pod, "eth0", "10.244.1.7/24", "fd00:244::7/64"),
        ] {
            run(&format!("ip -n {ns} link set lo up"));
            run(&format!("ip -n {ns} link set {device} up"));
            run(&format!("ip -n {ns} addr add {four} dev {device}"));
            run(&format!("ip -n {ns} addr add {six} dev {device} nodad"));
        }
        run(&format!("ip -n {pod} route add default via 10.244.1.1"));
        run(&format!("ip -n {pod} -6 route add default via fd00:244::1"));
        for command in routing(mode) {
            run(&format!("ip -n {node} {command}"));
        }
        net.listen(ports);
        net
    }

    pub(crate) fn node(&self) -> NetNs {
        NetNs::open(&self.node).unwrap()
    }

    pub(crate) fn device(&self) -> &str {
        &self.device
    }

    pub(crate) fn pod_name(&self) -> &str {
        &self.pod
    }

    /// The Ethernet address of the pod's device in the node.
    pub(crate) fn device_address(&self) -> [u8; 6] {
        let text = self.in_node("cat /sys/class/net/DEVICE/address");
        let bytes: Vec<u8> = text
            .trim()
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect();
        bytes.try_into().unwrap()
    }

    pub(crate) const fn pod_address(&self, family_of: IpAddr) -> IpAddr {
        match family_of {
            IpAddr::V4(_) => POD4,
            IpAddr::V6(_) => POD6,
        }
    }

    /// Runs a command in the node; `DEVICE` is the pod's device there. Its output.
    pub(crate) fn in_node(&self, command: &str) -> String {
        let command = command.replace("DEVICE", &self.device);
        run(&format!("ip netns exec {} {command}", self.node))
    }

    /// Runs a command in the pod. Its output.
    pub(crate) fn in_pod(&self, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.pod))
    }

    pub(crate) fn listen(&mut self, ports: &[u16]) {
        for port in ports {
            for address in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
                let address = SocketAddr::new(address, *port);
                let listener = self.node().run(|| transparent(address)).unwrap();
                self.servers.push(Server::start(listener));
            }
        }
    }

    pub(crate) fn stop_listening(&mut self) {
        self.servers.clear();
    }

    /// A connection from the pod. It waits long enough for a lost SYN or neighbour solicitation, which
    /// are sent again after a second.
    pub(crate) fn open(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let pod = NetNs::open(&self.pod).unwrap();
        pod.run(|| TcpStream::connect_timeout(&to, Duration::from_millis(2_500)))
            .unwrap()
    }

    /// A connection from the pod, and what both sides see.
    pub(crate) fn connect(&self, to: SocketAddr) -> io::Result<Talk> {
        self.talk(self.open(to)?)
    }

    /// A connection from the node, and what both sides see. The call blocks: an interrupted one
    /// would be answered by getpeername in another way.
    pub(crate) fn connect_from_node(&self, to: SocketAddr) -> io::Result<Talk> {
        let stream = self.node().run(|| TcpStream::connect(to)).unwrap()?;
        self.talk(stream)
    }

    fn talk(&self, mut stream: TcpStream) -> io::Result<Talk> {
        let peer = stream.peer_addr()?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"hello")?;
        stream.read_exact(&mut [0; 5])?;
        let own = stream.local_addr()?.port();
        for server in &self.servers {
            for (seen_local, seen_peer) in server.seen.try_iter() {
                if seen_peer.port() == own {
                    return Ok(Talk {
                        peer,
                        seen_local,
                        seen_peer,
                    });
                }
            }
        }
        Err(io::Error::other("no server of this net saw the connection"))
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.servers.clear();
        let _ = NetNs::delete(&self.pod);
        let _ = NetNs::delete(&self.node);
    }
}

/// What delivers a mode's packets locally.
fn routing(mode: Mode) -> Vec<String> {
    let mut commands = Vec::new();
    for (family, all, service) in [("-4", "0.0.0.0/0", SERVICE4), ("-6", "::/0", SERVICE6)] {
        if mode == Mode::SkLookup {
            commands.push(format!("{family} route add local {service} dev lo"));
        } else {
            commands.push(format!(
                "{family} rule add fwmark 0x200/0xf00 lookup 2004 pref 9"
            ));
            commands.push(format!("{family} route add local {all} dev lo table 2004"));
        }
    }
    commands
}

/// Runs a command that has to succeed; its output.
pub(crate) fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap_or_else(|error| panic!("`{command}`: {error}; ci/setup installs it"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{command}`: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// A listening socket that takes connections to any address, as Envoy's `transparent` ones do.
pub(crate) fn transparent(address: SocketAddr) -> TcpListener {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    setsockopt(&fd, sockopt::ReuseAddr, &true).unwrap();
    setsockopt(&fd, sockopt::IpTransparent, &true).unwrap();
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address)).unwrap();
    listen(&fd, Backlog::new(64).unwrap()).unwrap();
    TcpListener::from(fd)
}

/// An echo server on threads of its own.
struct Server {
    seen: mpsc::Receiver<(SocketAddr, SocketAddr)>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(listener: TcpListener) -> Self {
        let (tell, seen) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        listener.set_nonblocking(true).unwrap();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    std::thread::park_timeout(Duration::from_millis(2));
                    continue;
                };
                stream.set_nonblocking(false).unwrap();
                if let (Ok(local), Ok(peer)) = (stream.local_addr(), stream.peer_addr()) {
                    let _ = tell.send((local, peer));
                }
                std::thread::spawn(move || serve(stream));
            }
        });
        Self {
            seen,
            stop,
            thread: Some(thread),
        }
    }
}

fn serve(mut stream: TcpStream) {
    let mut bytes = [0; 1024];
    while let Ok(n) = stream.read(&mut bytes) {
        if n == 0 || stream.write_all(&bytes[..n]).is_err() {
            return;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The machine's cgroups of version 2.
pub(crate) fn cgroup() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let mount = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .find(|(_, kind)| *kind == "cgroup2");
    let (path, _) = mount.expect("no cgroup2 is mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup");
    PathBuf::from(path)
}

/// A BPF file system of this test's own.
pub(crate) struct BpfFs(tempfile::TempDir);

impl BpfFs {
    pub(crate) fn mount() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (kind, flags) = (Some("bpf"), MsFlags::empty());
        mount(kind, folder.path(), kind, flags, None::<&str>).expect("mounting needs root");
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}
