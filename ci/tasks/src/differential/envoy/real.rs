//! The real Envoy of the suite: one process, whose listeners are exchanged by renaming a file.
//!
//! Listeners stand on addresses of 127.0.0.0/8, one each, so that nothing needs root and no port
//! is contended for. What Envoy has against a listener is read from its admin.

#![expect(
    clippy::disallowed_methods,
    reason = "a real Envoy takes its real time"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::origin;
use crate::differential::decision::Trouble;

/// The clusters that there are.
pub(super) const CLUSTERS: [&str; 4] = ["red", "green", "blue", "gold"];
/// How long Envoy may take to start, and to take or refuse listeners.
const WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(10);

/// A running Envoy. It ends with this.
pub(super) struct Real {
    process: Child,
    folder: TempDir,
    port: u16,
    pushes: u32,
}

impl Real {
    /// Starts it, with an origin behind each cluster.
    pub(super) fn start(program: &Path) -> Result<Self, Trouble> {
        let folder = tempfile::Builder::new()
            .prefix("nodeway-envoy-")
            .tempdir()?;
        let at = folder.path();
        // Free everywhere, or at least where others look for free ones.
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        fs::write(at.join("listeners.json"), r#"{"resources":[]}"#)?;
        fs::write(at.join("bootstrap.json"), bootstrap(at)?.to_string())?;
        let log = fs::File::create(at.join("log"))?;
        let process = Command::new(program)
            .args(["--config-path", "bootstrap.json", "--disable-hot-restart"])
            .args(["--concurrency", "1", "--log-level", "error"])
            .args(["--drain-time-s", "1", "--drain-strategy", "immediate"])
            .current_dir(at)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut real = Self {
            process,
            folder,
            port,
            pushes: 0,
        };
        let deadline = Instant::now() + WITHIN;
        while real.updates().is_err() {
            real.pause(deadline, "does not start")?;
        }
        Ok(real)
    }

    /// Where the listener of that place in the next push will listen.
    pub(super) fn address(&self, place: usize) -> SocketAddr {
        let octet = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
        // Sockets of the push before may still be open.
        let net = octet(64 + usize::try_from(self.pushes % 64).unwrap_or(0));
        (
            Ipv4Addr::new(127, net, octet(place / 200), octet(1 + place % 200)),
            self.port,
        )
            .into()
    }

    /// Exchanges all listeners; what Envoy has against some of them, by their names.
    pub(super) fn push(
        &mut self,
        listeners: &[Value],
    ) -> Result<BTreeMap<String, String>, Trouble> {
        let before = self.updates()?;
        let text = json!({ "version_info": self.pushes.to_string(), "resources": listeners });
        let at = self.folder.path();
        fs::write(at.join("next.json"), text.to_string())?;
        fs::rename(at.join("next.json"), at.join("listeners.json"))?;
        self.pushes += 1;
        let deadline = Instant::now() + WITHIN;
        while self.updates()? == before {
            self.pause(deadline, "does not look at its listeners")?;
        }
        let dump =
            self.admin("/config_dump?resource=dynamic_listeners&mask=name,error_state.details")?;
        let dump: Value = serde_json::from_str(&dump)?;
        let text = |it: &Value, key: &str| {
            it.get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let configs = dump.get("configs").and_then(Value::as_array);
        let refused = configs.into_iter().flatten().filter_map(|it| {
            let state = it.get("error_state")?;
            Some((text(it, "name"), text(state, "details")))
        });
        let refused = refused.collect::<BTreeMap<_, _>>();
        if configs.is_none_or(|all| all.len() < listeners.len()) {
            return Err(format!("Envoy refused all listeners at once:\n{}", self.log()).into());
        }
        Ok(refused)
    }

    /// How often it has taken or refused listeners.
    fn updates(&self) -> Result<u64, Trouble> {
        let stats = self.admin("/stats?filter=listener_manager.lds.update_(success|rejected)")?;
        let numbers = stats
            .lines()
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        Ok(numbers.sum())
    }

    fn pause(&mut self, deadline: Instant, what: &str) -> Result<(), Trouble> {
        if self.process.try_wait()?.is_some() {
            return Err(format!("Envoy ended by itself:\n{}", self.log()).into());
        }
        if Instant::now() > deadline {
            return Err(format!("Envoy {what} within {WITHIN:?}:\n{}", self.log()).into());
        }
        std::thread::sleep(PAUSE);
        Ok(())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn admin(&self, what: &str) -> Result<String, Trouble> {
        let mut stream = UnixStream::connect(self.folder.path().join("admin.sock"))?;
        stream.set_read_timeout(Some(WITHIN))?;
        write!(
            stream,
            "GET {what} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.contains(" 200 ") && head.contains("chunked") => {
                Ok(joined(body))
            }
            _ => Err(format!("Envoy's admin answers `{what}` with: {answer}").into()),
        }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A body without the marks of its chunks.
fn joined(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap_or(0);
        let Some((chunk, rest)) = rest.split_at_checked(length).filter(|_| length > 0) else {
            break;
        };
        whole.push_str(chunk);
        body = rest.trim_start_matches("\r\n");
    }
    whole
}

fn bootstrap(folder: &Path) -> Result<Value, Trouble> {
    let mut clusters = Vec::new();
    for name in CLUSTERS {
        let address = origin::serve(name)?;
        let socket = json!({ "address": address.ip(), "port_value": address.port() });
        let endpoint = json!({ "endpoint": { "address": { "socket_address": socket } } });
        clusters.push(json!({
            "name": name, "type": "STATIC",
            "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [endpoint] }] },
        }));
    }
    // It watches the folder for renames, and takes no path without one.
    let listeners = folder.join("listeners.json");
    Ok(json!({
        "node": { "id": "suite", "cluster": "suite" },
        "admin": { "address": { "pipe": { "path": "admin.sock" } } },
        "static_resources": { "clusters": clusters },
        "dynamic_resources": { "lds_config": { "path_config_source": { "path": listeners } } },
    }))
}
