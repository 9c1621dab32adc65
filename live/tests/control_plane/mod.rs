//! A real API server and its etcd as processes of a test, on loopback: no kubelet, no scheduler, no
//! controller. Whatever the test asks, it answers as every Kubernetes does.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kube::Client;
use tokio::runtime::Runtime;

/// How long it may take until it answers.
const WITHIN: Duration = Duration::from_secs(60);

/// An API server.
pub(crate) struct ControlPlane {
    folder: tempfile::TempDir,
    port: u16,
    etcd: Child,
    server: Option<Child>,
}

impl ControlPlane {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (client, peer, port) = (free_port(), free_port(), free_port());
        let at = |port: u16| format!("http://127.0.0.1:{port}");
        let etcd = program("etcd")
            .arg("--data-dir")
            .arg(folder.path().join("etcd"))
            .args([
                "--listen-client-urls",
                &at(client),
                "--advertise-client-urls",
                &at(client),
            ])
            .args([
                "--listen-peer-urls",
                &at(peer),
                "--initial-advertise-peer-urls",
                &at(peer),
            ])
            .args([
                "--initial-cluster",
                &format!("default={}", at(peer)),
                "--unsafe-no-fsync",
            ])
            .stdout(log(folder.path(), "etcd.log"))
            .stderr(log(folder.path(), "etcd.err"))
            .spawn();
        fs::write(
            folder.path().join("tokens"),
            "t,admin,admin,system:masters\n",
        )
        .unwrap();
        let key = folder.path().join("sa.key");
        let made = Command::new("openssl")
            .args([
                "ecparam",
                "-name",
                "prime256v1",
                "-genkey",
                "-noout",
                "-out",
            ])
            .arg(&key)
            .status();
        assert!(made.unwrap().success(), "openssl makes no key");
        fs::write(folder.path().join("etcd.url"), at(client)).unwrap();
        let mut own = Self {
            folder,
            port,
            etcd: etcd.unwrap(),
            server: None,
        };
        fs::write(own.kubeconfig(), own.config().to_string()).unwrap();
        own.start_server();
        own
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.port), "insecure-skip-tls-verify": true,
            }}],
            "users": [{"name": "admin", "user": {"token": "t"}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        })
    }

    /// Kills the API server; etcd keeps what it knew.
    pub(crate) fn kill_server(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    pub(crate) fn start_server(&mut self) {
        let folder = self.folder.path();
        let key = folder.join("sa.key").display().to_string();
        let server = program("kube-apiserver")
            .args([
                "--etcd-servers",
                &fs::read_to_string(folder.join("etcd.url")).unwrap(),
            ])
            .args([
                "--bind-address",
                "127.0.0.1",
                "--secure-port",
                &self.port.to_string(),
            ])
            .args([
                "--advertise-address",
                "127.0.0.1",
                "--cert-dir",
                &folder.display().to_string(),
            ])
            .args(["--service-account-issuer", "https://kubernetes.default.svc"])
            .args([
                "--service-account-key-file",
                &key,
                "--service-account-signing-key-file",
                &key,
            ])
            .args(["--service-cluster-ip-range", "10.96.0.0/16"])
            .args([
                "--authorization-mode",
                "AlwaysAllow",
                "--token-auth-file",
                &folder.join("tokens").display().to_string(),
            ])
            // As every installer of Kubernetes sets it.
            .arg("--allow-privileged=true")
            .args([
                "--disable-admission-plugins",
                "ServiceAccount",
                "--endpoint-reconciler-type",
                "none",
            ])
            .stdout(log(folder, "server.log"))
            .stderr(log(folder, "server.err"))
            .spawn();
        self.server = Some(server.unwrap());
        let begun = Instant::now();
        while !self.answers() {
            assert!(begun.elapsed() < WITHIN, "{}", self.last_words());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn answers(&self) -> bool {
        let ready = self.kubectl(&["get", "--raw", "/readyz"]);
        ready.is_ok_and(|it| it == "ok")
    }

    fn last_words(&self) -> String {
        let words = fs::read_to_string(self.folder.path().join("server.err")).unwrap_or_default();
        let last: Vec<&str> = words.lines().rev().take(20).collect();
        last.join("\n")
    }

    /// Takes a Service out of etcd behind the API server's back, which is away, with all that etcd
    /// knows of earlier: no watch can go on where it was.
    pub(crate) fn forget_service(&self, name: &str) {
        let key = base64(&format!("/registry/services/specs/default/{name}"));
        let deleted = self.etcd("/v3/kv/deleterange", &serde_json::json!({"key": key}));
        assert_eq!(deleted["deleted"], "1", "{deleted}");
        let revision = &deleted["header"]["revision"];
        self.etcd(
            "/v3/kv/compaction",
            &serde_json::json!({"revision": revision}),
        );
    }

    /// Asks etcd, by its JSON gateway.
    fn etcd(&self, path: &str, body: &serde_json::Value) -> serde_json::Value {
        let url = fs::read_to_string(self.folder.path().join("etcd.url")).unwrap();
        let address = url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).unwrap();
        let body = body.to_string();
        let length = body.len();
        let request = format!("POST {path} HTTP/1.0\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200 "), "{answer}");
        serde_json::from_str(body).unwrap()
    }

    /// What `kubectl` says; its words where it fails.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let done = program("kubectl")
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if done.status.success() {
            Ok(text(done.stdout))
        } else {
            Err(text(done.stderr))
        }
    }

    /// Applies a text, as a user does.
    pub(crate) fn apply(&self, text: &str) {
        let file = self.folder.path().join("applied.yaml");
        fs::write(&file, text).unwrap();
        let done = self.kubectl(&["apply", "-f", &file.display().to_string()]);
        done.unwrap_or_else(|error| panic!("{error}"));
    }

    /// A client, and what it runs on.
    pub(crate) fn client(&self) -> (Runtime, Client) {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let kubeconfig = self.kubeconfig();
        let client = runtime.block_on(nodeway_live::kube::client(Some(&kubeconfig)));
        (runtime, client.unwrap())
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        for child in self.server.iter_mut().chain([&mut self.etcd]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A program of a control plane: of `$NODEWAY_KUBE_BIN`.
fn program(name: &str) -> Command {
    let folder = std::env::var_os("NODEWAY_KUBE_BIN");
    let folder = folder.unwrap_or_else(|| {
        panic!("run it by `ci/kube`, which finds the programs of a control plane")
    });
    Command::new(Path::new(&folder).join(name))
}

fn base64(text: &str) -> String {
    let mut encoder = Command::new("openssl")
        .args(["base64", "-A"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = encoder.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    String::from_utf8(encoder.wait_with_output().unwrap().stdout).unwrap()
}

fn log(folder: &Path, name: &str) -> Stdio {
    fs::File::create(folder.join(name)).unwrap().into()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
