//! Rules of other projects, read and followed; and which port of the proxy a frontend is led to.

#![expect(
    clippy::indexing_slicing,
    reason = "a row's JSON answers null for what it has not; arrays are of a known length"
)]

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use nodeway_core::datapath::{Family, Flow, Packet as Kind, protocol, tcp_flags};
use nodeway_core::netfilter::{
    self, Firewall, FoundSocket, Host, InterfaceName, Packet, Ruleset, text,
};
use nodeway_core::plan::{FrontendKey, Ledger, plan};
use nodeway_core::source::{Text, read};
use serde_json::{Value, json};

use super::{Outcome, Row};

/// An answer, or what the row needs that the project has not.
type Answered = Result<Outcome, String>;

/// Answers a row of `redirect`.
#[must_use]
pub fn redirect(file: &Path, row: &Row) -> Outcome {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let answered = match name.as_ref() {
        "cilium_proxy_redirects" => proxy_port(row),
        "kernel_tproxy_doc" => tproxy(row),
        "cilium_iptables_tproxy" => {
            Err("rules for UDP, and commands of Cilium's own upgrade".to_owned())
        }
        other => Err(format!("no row file `{other}` is known")),
    };
    answered.unwrap_or_else(Outcome::NotSimulated)
}

/// Answers a row of Istio's: every rule is read, can be followed, and reads back as it was.
#[must_use]
pub fn istio(_: &Path, row: &Row) -> Outcome {
    capture(row).unwrap_or_else(Outcome::NotSimulated)
}

/// Tables of IPv4 come first; from the second time that a table comes, they are those of IPv6.
fn capture(row: &Row) -> Answered {
    let blocks = row.expect["restore_input"].as_array();
    let mut texts = [String::new(), String::new()];
    let mut seen = Vec::new();
    for block in blocks.into_iter().flatten() {
        let table = block["table"].as_str().unwrap_or_default();
        let of_v6 = seen.contains(&table);
        seen.push(table);
        let text = &mut texts[usize::from(of_v6)];
        text.push_str(&format!("*{table}\n"));
        for rule in block["rules"].as_array().into_iter().flatten() {
            text.push_str(rule.as_str().unwrap_or_default());
            text.push('\n');
        }
    }
    for (text, family) in texts.iter().zip([Family::V4, Family::V6]) {
        let rules = readable(text, family)?;
        rules.validate().map_err(|error| error.to_string())?;
        let (back, errors) = text::parse(&text::ruleset(&rules), family);
        let same = errors.is_empty() && back.normal() == rules.clone().normal();
        let lines = text
            .lines()
            .filter(|it| it.starts_with("-A") || it.starts_with("-I"));
        let read: usize = rules
            .tables
            .values()
            .flat_map(|it| it.values())
            .map(|it| it.rules.len())
            .sum();
        if !same || lines.count() != read {
            return Ok(Outcome::Failed {
                got: json!(text::ruleset(&rules)),
                want: json!(text),
            });
        }
    }
    Ok(Outcome::Passed)
}

fn readable(text: &str, family: Family) -> Result<Ruleset, String> {
    let (rules, errors) = text::parse(text, family);
    let mut told: Vec<String> = errors.iter().map(|error| error.what.to_string()).collect();
    told.sort();
    told.dedup();
    if told.is_empty() {
        Ok(rules)
    } else {
        Err(told.join(", "))
    }
}

/// A namespace in which the document's rules are followed.
struct Document {
    socket: bool,
}

impl Host for Document {
    fn now(&self) -> Duration {
        Duration::ZERO
    }
    fn is_local(&self, address: IpAddr) -> bool {
        address.is_loopback()
    }
    fn socket(&self, _: &Flow) -> Option<FoundSocket> {
        self.socket.then_some(FoundSocket {
            transparent: true,
            wildcard: false,
        })
    }
    fn listens(&self, _: SocketAddr) -> bool {
        true
    }
    fn source(&self, _: Option<&InterfaceName>, _: IpAddr) -> Option<IpAddr> {
        None
    }
    fn draw(&self, _: &Flow, _: u32) -> u32 {
        0
    }
}

/// A packet of the kernel's document through the rules that stand there.
fn tproxy(row: &Row) -> Answered {
    let mut text = "*mangle\n".to_owned();
    for line in row.input["iptables"].as_array().into_iter().flatten() {
        let line = line.as_str().unwrap_or_default();
        let line = line
            .strip_prefix("-t mangle ")
            .ok_or("a rule of another table")?;
        text.push_str(&format!("{line}\n"));
    }
    let rules = readable(&text, Family::V4)?;
    let mut firewall =
        Firewall::new(rules, Ruleset::new(Family::V6)).map_err(|it| it.to_string())?;
    let asked = row.request["packet"].as_str().unwrap_or_default();
    let words = asked.split_whitespace();
    let to = words
        .filter_map(|word| word.parse::<SocketAddr>().ok())
        .next();
    let to = to.unwrap_or_else(|| SocketAddr::from(([198, 51, 100, 7], 9)));
    let mut packet = Packet::new(flow(to));
    let mut around = Document {
        socket: asked.contains("local socket exists"),
    };
    let verdict = firewall.prerouting(&mut packet, &mut around);
    let port = match verdict {
        netfilter::Verdict::Assign(at) => Some(at.port()),
        _ => None,
    };
    let mut got = serde_json::Map::new();
    let mut want = serde_json::Map::new();
    for (key, wanted) in row.expect.as_object().into_iter().flatten() {
        let value = match key.as_str() {
            "mark" => json!(packet.mark),
            "redirected_to_port" => json!(port),
            "destination_address_modified" => json!(packet.destination() != to),
            // Prose; the first word is the verdict.
            "verdict" if verdict == netfilter::Verdict::Accept => wanted.clone(),
            "verdict" => json!(format!("{verdict:?}")),
            // What follows from mark and routes.
            _ => continue,
        };
        got.insert(key.clone(), value);
        want.insert(key.clone(), wanted.clone());
    }
    Ok(Outcome::of(Value::Object(got), Value::Object(want)))
}

fn flow(to: SocketAddr) -> Flow {
    let mut dst = [0; 16];
    if let IpAddr::V4(address) = to.ip() {
        dst[..4].copy_from_slice(&address.octets());
    }
    let mut src = [0; 16];
    src[..4].copy_from_slice(&[192, 0, 2, 1]);
    Flow {
        family: Family::V4,
        packet: Kind::Segment,
        protocol: protocol::TCP,
        tcp_flags: tcp_flags::SYN,
        sport: 40_000,
        dport: to.port(),
        src,
        dst,
    }
}

/// Configs that claim one Service, each with a listener on its own port: whose port has the frontend?
fn proxy_port(row: &Row) -> Answered {
    let port = row.request["frontend_port"]
        .as_u64()
        .ok_or("no frontend port")?;
    let mut objects = vec![json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": port}]},
    })];
    for (index, one) in row.input["redirects"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        objects.push(json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumEnvoyConfig",
            "metadata": {"name": format!("config-{index}"), "namespace": "default"},
            "spec": {
                "services": [{"name": "web", "namespace": "default", "ports": one["ports"]}],
                "resources": [{
                    "@type": "type.googleapis.com/envoy.config.listener.v3.Listener", "name": "l",
                    "address": {"socketAddress": {"address": "127.0.0.1", "portValue": one["proxy_port"]}},
                }],
            },
        }));
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let objects = read(&[Text::new("row", list.to_string())]).map_err(|errors| {
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        told.join("; ")
    })?;
    let planned = plan(&objects, "node-1", Ledger::default());
    let key = FrontendKey {
        address: IpAddr::from([10, 96, 0, 1]),
        port: u16::try_from(port).map_err(|it| it.to_string())?,
    };
    let found = planned.frontends.get(&key).map(|it| it.listener_port);
    let got = json!({"redirected": found.is_some(), "proxy_port": found});
    Ok(Outcome::of(got, row.expect.clone()))
}
