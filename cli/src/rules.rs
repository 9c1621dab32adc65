//! `nodeway rules`: what the packet filter of a node has, or that of a pod with a sidecar, as the tools print it and take it.

use clap::{Args, ValueEnum};
use nodeway_core::datapath;
use nodeway_core::netfilter::kube_proxy::{Mode, nftables};
use nodeway_core::netfilter::{Routing, Ruleset, text};
use nodeway_sim::{Place, Redirect, Sim};

use crate::cluster::Cluster;
use crate::explain::load;
use crate::failure::{Failure, Outcome, verdict};
use crate::screen::{put, say};

#[derive(Args)]
#[command(after_help = "\
Examples:
  nodeway rules fixtures/bookinfo
  nodeway rules fixtures/bookinfo --node node-2 --family ipv6
  nodeway rules fixtures/bookinfo --redirect sk-lookup --kube-proxy
  nodeway rules fixtures/bookinfo --redirect sidecar --pod default/client
  nodeway rules manifests/ --only sets | ipset restore

Exit codes: 0 printed, 2 bad input.")]
pub(crate) struct Arguments {
    /// Files, folders, a fixture, a dump, `kube` for a cluster, which is only listed, or `-` for
    /// standard input.
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<String>,
    /// The node; the first by name if absent.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// The pod, by `sidecar`; the first by name if absent.
    #[arg(long, value_name = "NAMESPACE/NAME", conflicts_with = "node")]
    pod: Option<String>,
    /// Whose rules: `iptables` decides by them; `tc` and `sk-lookup` need some beside their programs;
    /// `sidecar` has the same in every pod.
    #[arg(long, value_name = "WAY", default_value = "iptables")]
    redirect: Redirect,
    /// `ipv4` or `ipv6`.
    #[arg(long, default_value = "ipv4")]
    family: Family,
    /// Those of kube-proxy too, by the mode that the fixture has or `iptables`, `nftables`.
    #[arg(long, value_name = "MODE", num_args = 0..=1, require_equals = true)]
    kube_proxy: Option<Option<Mode>>,
    /// One part alone, without headings: for the tool that takes it.
    #[arg(long, value_name = "PART")]
    only: Option<Part>,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Clone, Copy, ValueEnum)]
enum Family {
    Ipv4,
    Ipv6,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    Sets,
    Rules,
    Routes,
    Nft,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let source = load(&arguments.sources, &arguments.cluster)?;
    let of_fixture = source.fixture.as_ref().map(|it| it.kube_proxy);
    let of_fixture = || of_fixture.unwrap_or_default();
    let asked = arguments.kube_proxy.map(|it| it.unwrap_or_else(of_fixture));
    let kube_proxy = asked.unwrap_or(Mode::None);
    // What nftables has stands in a table of its own.
    let beside = (kube_proxy == Mode::Iptables).then_some(kube_proxy);
    let sim = Sim::from_source(&source)
        .map_err(Failure::load)?
        .redirect(arguments.redirect)
        .kube_proxy(beside.unwrap_or(Mode::None))
        .start()
        .map_err(|error| miette::miette!("{}: {error}", source.name))?;
    let (family, program, ip) = match arguments.family {
        Family::Ipv4 => (datapath::Family::V4, "iptables", "ip"),
        Family::Ipv6 => (datapath::Family::V6, "ip6tables", "ip -6"),
    };
    let mut parts = Vec::new();
    if arguments.redirect == Redirect::Sidecar && arguments.node.is_none() {
        let (pod, rules) = of_pod(arguments, &sim, family)?;
        parts.push((
            Part::Rules,
            format!("{pod}, for {program}-restore"),
            text::ruleset(rules),
        ));
    } else if let Some(pod) = &arguments.pod {
        return Err(Failure::argument(
            format!("by {} the pod {pod} has no rules", arguments.redirect),
            "ask for a node, or add --redirect sidecar",
        ));
    }
    if arguments.redirect != Redirect::Sidecar
        || arguments.node.is_some()
        || kube_proxy.translates()
    {
        let (node, rules, routing) = of_node(arguments, &sim, family)?;
        let of = |taker: &str| format!("{node}, for {taker}");
        parts.extend([
            (Part::Sets, of("ipset restore"), text::sets(rules)),
            (
                Part::Rules,
                of(&format!("{program}-restore")),
                text::ruleset(rules),
            ),
            (Part::Routes, of("sh"), routes(&routing, ip, family)),
        ]);
        if kube_proxy == Mode::Nftables {
            let services = sim.services().on(&node);
            let own = sim.topology().addresses(&Place::Node(node.clone()));
            let table = nftables::script(family, &services, own);
            parts.push((Part::Nft, of("nft -f -"), table));
        }
    }
    for (part, taker, text) in parts {
        match arguments.only {
            Some(only) if only == part => put(format_args!("{text}")),
            Some(_) => {}
            None if text.is_empty() => {}
            None => {
                say!("# {taker}");
                put(format_args!("{text}"));
            }
        }
    }
    Ok(verdict(true))
}

/// The rules of the pod that is asked for.
fn of_pod<'a>(
    arguments: &Arguments,
    sim: &'a Sim,
    family: datapath::Family,
) -> Result<(String, &'a Ruleset), Failure> {
    let mut pods: Vec<&str> = sim
        .topology()
        .nodes
        .iter()
        .flat_map(|node| &node.pods)
        .filter(|pod| !pod.host_network)
        .map(|pod| pod.name.as_str())
        .collect();
    pods.sort_unstable();
    let pod = arguments.pod.as_deref().or(pods.first().copied());
    let pod = pod.unwrap_or_default();
    let rules = sim.world().rules_of_pod(pod, family);
    let rules = rules.ok_or_else(|| {
        Failure::argument(
            format!("there is no pod `{pod}` with a network of its own"),
            &format!("name one of: {}", pods.join(", ")),
        )
    })?;
    Ok((pod.to_owned(), rules))
}

/// The rules and routes of the node that is asked for.
fn of_node<'a>(
    arguments: &Arguments,
    sim: &'a Sim,
    family: datapath::Family,
) -> Result<(String, &'a Ruleset, Routing), Failure> {
    let nodes: Vec<&str> = sim.plans().map(|(node, _)| node).collect();
    let node = arguments.node.as_deref().or(nodes.first().copied());
    let node = node.unwrap_or_default();
    match (sim.world().rules(node, family), sim.world().routing(node)) {
        (Some(rules), Some(routing)) => Ok((node.to_owned(), rules, routing)),
        _ => Err(Failure::argument(
            format!("there is no node `{node}`"),
            &format!("name one of: {}", nodes.join(", ")),
        )),
    }
}

/// As commands, since `ip` has no better form.
fn routes(routing: &Routing, ip: &str, family: datapath::Family) -> String {
    let mut out = String::new();
    for rule in &routing.rules {
        let (mark, mask, table) = (rule.mark, rule.mask, rule.table);
        let preference = rule.preference;
        out.push_str(&format!(
            "{ip} rule add fwmark {mark:#x}/{mask:#x} lookup {table} pref {preference}\n\
             {ip} route add local default dev lo table {table}\n"
        ));
    }
    let is_of_family =
        |address: std::net::IpAddr| address.is_ipv4() == (family == datapath::Family::V4);
    for route in routing.local.iter().filter(|it| is_of_family(it.address)) {
        let (address, source) = (route.address, route.source);
        out.push_str(&format!(
            "{ip} route add local {address} dev lo src {source}\n"
        ));
    }
    out
}
