//! Temporary.
use super::machines::Machines;
use nodeway_sim::{Place, Sim};
use nodeway_core::datapath::Family;
use nodeway_core::netfilter::text;
use std::process::{Command, Stdio};
use std::io::Write;

/// Why
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// x
    #[error("{0}")]
    Words(String),
}
/// x
#[derive(Debug)]
pub struct Redirected;

impl Redirected {
    pub fn install(model: &Sim, machines: &Machines) -> Result<Self, RedirectError> {
        for (node, _) in model.plans() {
            let netns = machines.get(&Place::Node(node.to_owned())).unwrap();
            let r4 = model.world().rules(node, Family::V4).unwrap().clone();
            let r6 = model.world().rules(node, Family::V6).unwrap().clone();
            let routing = model.world().routing(node).unwrap();
            netns.run(|| {
                for (family, p, ip) in [(Family::V4, "iptables-restore", "-4"), (Family::V6, "ip6tables-restore", "-6")] {
                    let rules = if family == Family::V4 { &r4 } else { &r6 };
                    pipe("ipset", &["restore"], &text::sets(rules));
                    pipe(p, &[], &text::ruleset(rules));
                    for rule in &routing.rules {
                        let (mark, mask, table) = (rule.mark, rule.mask, rule.table);
                        let preference = rule.preference;
                        pipe("ip", &[ip, "-batch", "-"], &format!(
                            "rule add fwmark {mark:#x}/{mask:#x} lookup {table} pref {preference}\n\
                             route add local default dev lo table {table}\n"));
                    }
                    for route in routing.local.iter().filter(|it| it.address.is_ipv4() == (ip == "-4")) {
                        pipe("ip", &[ip, "-batch", "-"], &format!("route add local {} dev lo src {}\n", route.address, route.source));
                    }
                }
            }).unwrap();
        }
        Ok(Self)
    }
}

fn pipe(p: &str, a: &[&str], text: &str) {
    let mut c = Command::new(p).args(a).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    c.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let o = c.wait_with_output().unwrap();
    if !o.status.success() { eprintln!("{p}: {}", String::from_utf8_lossy(&o.stderr)); }
}
