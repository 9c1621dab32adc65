//! kube-proxy's rules as its nftables mode writes them: one table a family, as a script for `nft -f`.
//!
//! ```text
//! nat-prerouting, nat-output -> services  @service-ips ─► service-x, external-x ─► endpoint-y  dnat
//!                                         @nodeport-ips, @service-nodeports ─► external-x
//! filter-prerouting, filter-output -> firewall-check  @firewall-ips ─► firewall-x  drop
//! filter-input, -forward, -output  -> …-endpoints-check  @no-endpoint-… ─► reject, drop
//! filter-forward, after DNAT       -> cluster-ips-check  a ClusterIP's port that nobody has: reject
//! nat-postrouting -> masquerading
//! ```
//!
//! Names, priorities and order follow `pkg/proxy/nftables/proxier.go` of Kubernetes 1.36. TCP only, without
//! `--cluster-cidr`. Chains of services count what they meet, and so do the entries of those that have
//! no endpoints, which kube-proxy's do not: that is how a lab sees whether a packet came by.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use nodeway_datapath::Family;
use sha2::{Digest, Sha256};

use super::MASQUERADE;
use super::service_port::{ServicePort, letters, of_family};

/// The name of the table.
pub const TABLE: &str = "kube-proxy";

/// Which protocol a script is for, and what it calls things.
#[derive(Clone, Copy)]
struct Dialect {
    table: &'static str,
    address: &'static str,
}

/// Everything that a script is made of, in the order in which it is found.
#[derive(Default)]
struct Script {
    cluster_ips: BTreeSet<IpAddr>,
    service_ips: Vec<String>,
    node_ports: Vec<String>,
    no_endpoint_services: Vec<String>,
    no_endpoint_node_ports: Vec<String>,
    firewall_ips: Vec<String>,
    affinity: Vec<(String, u64)>,
    chains: Vec<(String, Vec<String>)>,
}

/// The script that puts the rules for those Services in the place of what there is: all of it or
/// nothing. `own` are the node's own addresses, of which the first of each family has node ports.
#[must_use]
pub fn script(family: Family, ports: &[ServicePort], own: &[IpAddr]) -> String {
    let dialect = Dialect::of(family);
    let mut script = Script::default();
    for port in ports {
        script.port(dialect, &of_family(port, family), own);
    }
    let node = node_port_address(family, own);
    script.write(dialect, node)
}

/// The address of a node that has node ports: the primary one of its family.
#[must_use]
pub fn node_port_address(family: Family, own: &[IpAddr]) -> Option<IpAddr> {
    let is_v4 = family == Family::V4;
    own.iter().copied().find(|it| it.is_ipv4() == is_v4)
}

impl Dialect {
    const fn of(family: Family) -> Self {
        match family {
            Family::V4 => Self {
                table: "ip",
                address: "ipv4_addr",
            },
            Family::V6 => Self {
                table: "ip6",
                address: "ipv6_addr",
            },
        }
    }
}

impl ServicePort {
    /// `HASH-namespace/name/tcp/port`
    fn base(&self) -> String {
        let (path, port) = self.name.rsplit_once(':').unwrap_or((&self.name, ""));
        hashed(format!("{path}/tcp/{port}"))
    }

    /// `HASH-namespace/name/tcp/port__address/port`
    fn endpoint_base(&self, endpoint: SocketAddr) -> String {
        let (path, port) = self.name.rsplit_once(':').unwrap_or((&self.name, ""));
        let address = endpoint.ip().to_string().replace(':', ".");
        hashed(format!("{path}/tcp/{port}__{address}/{}", endpoint.port()))
    }
}

fn hashed(name: String) -> String {
    let digest = Sha256::digest(name.as_bytes());
    format!("{}-{name}", letters(&digest, 8))
}

impl Script {
    fn port(&mut self, dialect: Dialect, port: &ServicePort, own: &[IpAddr]) {
        if port.cluster.is_empty() && port.external.is_empty() {
            return;
        }
        let base = port.base();
        let all: Vec<SocketAddr> = port.endpoints.iter().map(|(it, _)| *it).collect();
        let here = port.endpoints.iter().filter(|(_, here)| *here);
        let here: Vec<SocketAddr> = here.map(|(it, _)| *it).collect();
        let service = format!("service-{base}");
        let local = format!("local-{base}");
        self.cluster_ips.extend(&port.cluster);
        let (inside, to) = match port.internal_local {
            true => (&here, &local),
            false => (&all, &service),
        };
        for address in &port.cluster {
            if !inside.is_empty() {
                let entry = format!("{address} . tcp . {} : goto {to}", port.port);
                self.service_ips.push(entry);
            }
            self.refuse(port, *address, (inside, &all));
        }
        let external = format!("external-{base}");
        let outside = if port.external_local { &here } else { &all };
        for (address, _) in &port.external {
            let usable = (outside.as_slice(), all.as_slice());
            if !all.is_empty() {
                let entry = format!("{address} . tcp . {} : goto {external}", port.port);
                self.service_ips.push(entry);
            }
            self.refuse(port, *address, usable);
        }
        if let Some(node_port) = port.node_port {
            if !all.is_empty() {
                self.node_ports
                    .push(format!("tcp . {node_port} : goto {external}"));
            }
            if outside.is_empty() {
                let (name, verdict) = (&port.name, no_endpoint(&all));
                let entry = format!("tcp . {node_port} comment \"{name}\" : {verdict}");
                self.no_endpoint_node_ports.push(entry);
            }
        }
        if all.is_empty() {
            return;
        }
        self.firewall(dialect, port, own);
        self.endpoints(dialect, port, &all);
        self.balance(dialect, port, service.clone(), &all);
        if (port.external_local || port.internal_local) && !here.is_empty() {
            self.balance(dialect, port, local.clone(), &here);
        }
        if !port.external.is_empty() || port.node_port.is_some() {
            let local = (!here.is_empty()).then_some(local);
            self.external(port, external, service, local);
        }
    }

    /// Refuses an address where no endpoint may be used.
    fn refuse(
        &mut self,
        port: &ServicePort,
        to: IpAddr,
        (usable, all): (&[SocketAddr], &[SocketAddr]),
    ) {
        if usable.is_empty() {
            let ServicePort { name, port, .. } = port;
            let verdict = no_endpoint(all);
            let entry = format!("{to} . tcp . {port} comment \"{name}\" : {verdict}");
            self.no_endpoint_services.push(entry);
        }
    }

    /// Drops what no source range lets through; a node whose own address is let through may come
    /// by the load balancer's.
    fn firewall(&mut self, dialect: Dialect, port: &ServicePort, own: &[IpAddr]) {
        let balancers: Vec<IpAddr> = port.balancers().collect();
        if port.source_ranges.is_empty() || balancers.is_empty() {
            return;
        }
        let chain = format!("firewall-{}", port.base());
        let mut sources = port.source_ranges.clone();
        if own
            .iter()
            .any(|own| sources.iter().any(|it| it.contains(own)))
        {
            sources.extend(balancers.iter().copied().map(IpNet::from));
        }
        // Ranges in each other are refused by `nft`.
        let sources = IpNet::aggregate(&sources);
        let sources: Vec<String> = sources.iter().map(ToString::to_string).collect();
        for address in balancers {
            let entry = format!("{address} . tcp . {} : goto {chain}", port.port);
            self.firewall_ips.push(entry);
        }
        let rule = format!(
            "{} saddr != {{ {} }} counter drop",
            dialect.table,
            sources.join(", ")
        );
        self.chains.push((chain, vec![rule]));
    }

    fn endpoints(&mut self, dialect: Dialect, port: &ServicePort, all: &[SocketAddr]) {
        for endpoint in all {
            let base = port.endpoint_base(*endpoint);
            let table = dialect.table;
            let mut rules = vec![format!(
                "{table} saddr {} jump mark-for-masquerade",
                endpoint.ip()
            )];
            if let Some(within) = port.affinity {
                let set = format!("affinity-{base}");
                rules.push(format!("update @{set} {{ {table} saddr }}"));
                self.affinity.push((set, within.as_secs()));
            }
            rules.push(format!("meta l4proto tcp dnat to {endpoint}"));
            self.chains.push((format!("endpoint-{base}"), rules));
        }
    }

    /// One of the endpoints by equal chance; a client that stays with its endpoint is asked for
    /// first.
    fn balance(
        &mut self,
        dialect: Dialect,
        port: &ServicePort,
        chain: String,
        endpoints: &[SocketAddr],
    ) {
        let bases = endpoints.iter().map(|it| port.endpoint_base(*it));
        let bases: Vec<String> = bases.collect();
        let mut rules = vec!["counter".to_owned()];
        if port.affinity.is_some() {
            rules.extend(bases.iter().map(|base| {
                let table = dialect.table;
                format!("{table} saddr @affinity-{base} goto endpoint-{base}")
            }));
        }
        let choices = bases.iter().enumerate();
        let choices: Vec<String> = choices
            .map(|(index, base)| format!("{index} : goto endpoint-{base}"))
            .collect();
        rules.push(format!(
            "numgen random mod {} vmap {{ {} }}",
            choices.len(),
            choices.join(", ")
        ));
        self.chains.push((chain, rules));
    }

    fn external(
        &mut self,
        port: &ServicePort,
        chain: String,
        service: String,
        local: Option<String>,
    ) {
        let mut rules = vec!["counter".to_owned()];
        if port.external_local {
            rules.push("fib saddr type local jump mark-for-masquerade".to_owned());
            rules.push(format!("fib saddr type local goto {service}"));
            rules.extend(local.map(|local| format!("goto {local}")));
        } else {
            rules.push("jump mark-for-masquerade".to_owned());
            rules.push(format!("goto {service}"));
        }
        self.chains.push((chain, rules));
    }

    fn write(self, dialect: Dialect, node: Option<IpAddr>) -> String {
        let Dialect { table, address } = dialect;
        let key = format!("{address} . inet_proto . inet_service : verdict");
        let port_key = "inet_proto . inet_service : verdict";
        let texts = |all: BTreeSet<IpAddr>| all.iter().map(ToString::to_string).collect();
        let mut text = Text(format!(
            "add table {table} {TABLE}\ndelete table {table} {TABLE}\ntable {table} {TABLE} {{\n"
        ));
        text.elements("set", "cluster-ips", address, texts(self.cluster_ips));
        text.elements(
            "set",
            "nodeport-ips",
            address,
            texts(node.into_iter().collect()),
        );
        let counted = |key: &str| format!("{key}\n\t\tcounter");
        let (services, ports) = (self.no_endpoint_services, self.no_endpoint_node_ports);
        text.elements("map", "no-endpoint-services", &counted(&key), services);
        text.elements("map", "no-endpoint-nodeports", &counted(port_key), ports);
        text.elements("map", "firewall-ips", &key, self.firewall_ips);
        text.elements("map", "service-ips", &key, self.service_ips);
        text.elements("map", "service-nodeports", port_key, self.node_ports);
        for (name, seconds) in self.affinity {
            text.block(
                "set",
                &name,
                &[
                    format!("type {address}"),
                    "flags dynamic,timeout".to_owned(),
                    format!("timeout {seconds}s"),
                ],
            );
        }
        for (name, what, rules) in BASE {
            let rules = rules.iter().map(|it| (*it).to_owned());
            let all = std::iter::once(format!("type {what}; policy accept;")).chain(rules);
            text.block("chain", name, &all.collect::<Vec<_>>());
        }
        for (name, rules) in checks(table) {
            text.block("chain", name, &rules);
        }
        for (name, rules) in self.chains {
            text.block("chain", &name, &rules);
        }
        text.0.push_str("}\n");
        text.0
    }
}

/// No endpoint at all is told at once; who may not use those that others may hears nothing.
const fn no_endpoint(all: &[SocketAddr]) -> &'static str {
    match all {
        [] => "goto reject-chain",
        _ => "drop",
    }
}

/// The chains at the kernel's hooks. DNAT is at -100 where packets come in and where they are made.
const BASE: [(&str, &str, &[&str]); 8] = [
    (
        "filter-prerouting",
        "filter hook prerouting priority -110",
        &["ct state new jump firewall-check"],
    ),
    (
        "filter-input",
        "filter hook input priority -110",
        &[
            "ct state new jump nodeport-endpoints-check",
            "ct state new jump service-endpoints-check",
        ],
    ),
    (
        "filter-forward",
        "filter hook forward priority -110",
        &[
            "ct state new jump service-endpoints-check",
            "ct state new jump cluster-ips-check",
        ],
    ),
    (
        "filter-output",
        "filter hook output priority -110",
        &[
            "ct state new jump service-endpoints-check",
            "ct state new jump firewall-check",
        ],
    ),
    (
        "filter-output-post-dnat",
        "filter hook output priority -90",
        &["ct state new jump cluster-ips-check"],
    ),
    (
        "nat-prerouting",
        "nat hook prerouting priority -100",
        &["jump services"],
    ),
    (
        "nat-output",
        "nat hook output priority -100",
        &["jump services"],
    ),
    (
        "nat-postrouting",
        "nat hook postrouting priority 100",
        &["jump masquerading"],
    ),
];

/// What all services share.
fn checks(table: &str) -> [(&'static str, Vec<String>); 8] {
    let to = format!("{table} daddr . meta l4proto . th dport vmap");
    let to_node = format!("{table} daddr @nodeport-ips meta l4proto . th dport vmap");
    [
        (
            "services",
            vec![
                format!("{to} @service-ips"),
                format!("{to_node} @service-nodeports"),
            ],
        ),
        (
            "service-endpoints-check",
            vec![format!("{to} @no-endpoint-services")],
        ),
        (
            "nodeport-endpoints-check",
            vec![format!("{to_node} @no-endpoint-nodeports")],
        ),
        ("firewall-check", vec![format!("{to} @firewall-ips")]),
        (
            "cluster-ips-check",
            vec![format!("{table} daddr @cluster-ips reject")],
        ),
        ("reject-chain", vec!["reject".to_owned()]),
        (
            "mark-for-masquerade",
            vec![format!("meta mark set meta mark or {MASQUERADE:#x}")],
        ),
        (
            "masquerading",
            vec![
                format!("meta mark and {MASQUERADE:#x} == 0 return"),
                format!("meta mark set meta mark xor {MASQUERADE:#x}"),
                "masquerade fully-random".to_owned(),
            ],
        ),
    ]
}

/// A table's text, block by block.
struct Text(String);

impl Text {
    fn block(&mut self, kind: &str, name: &str, lines: &[String]) {
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "\t{kind} {name} {{");
        for line in lines {
            let _ = writeln!(self.0, "\t\t{line}");
        }
        self.0.push_str("\t}\n");
    }

    fn elements(&mut self, kind: &str, name: &str, key: &str, elements: Vec<String>) {
        let mut lines = vec![format!("type {key}")];
        if !elements.is_empty() {
            lines.push(format!("elements = {{ {} }}", elements.join(",\n\t\t\t")));
        }
        self.block(kind, name, &lines);
    }
}

#[cfg(test)]
mod tests {
    use super::super::service_port::ExternalKind;
    use super::*;

    #[test]
    fn a_service_is_led_to_its_endpoints_by_maps() {
        let port = ServicePort {
            name: "default/web:http".to_owned(),
            cluster: vec!["10.96.0.1".parse().unwrap(), "fd00:96::1".parse().unwrap()],
            external: vec![("192.0.2.1".parse().unwrap(), ExternalKind::LoadBalancer)],
            port: 80,
            node_port: Some(30_080),
            endpoints: vec![
                ("10.244.0.5:8080".parse().unwrap(), true),
                ("10.244.1.5:8080".parse().unwrap(), false),
            ],
            external_local: true,
            internal_local: false,
            affinity: Some(std::time::Duration::from_secs(60)),
            source_ranges: vec!["203.0.113.0/24".parse().unwrap()],
        };
        let empty = ServicePort {
            name: "default/empty".to_owned(),
            cluster: vec!["10.96.0.2".parse().unwrap()],
            external: Vec::new(),
            node_port: None,
            endpoints: Vec::new(),
            external_local: false,
            affinity: None,
            source_ranges: Vec::new(),
            ..port.clone()
        };
        let own = ["172.18.0.2".parse().unwrap(), "fd00:18::2".parse().unwrap()];
        insta::assert_snapshot!(script(Family::V4, &[port, empty], &own));
    }
}
