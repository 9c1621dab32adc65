//! `nodeway rules`: what a node's packet filter has, as the tools print it and take it.

use clap::{Args, ValueEnum};
use nodeway_core::datapath;
use nodeway_core::netfilter::{Routing, text};
use nodeway_sim::{Redirect, Sim};

use crate::explain::load;
use crate::failure::{Failure, Outcome, verdict};
use crate::screen::{put, say};

#[derive(Args)]
#[command(after_help = "\
Examples:
  nodeway rules fixtures/bookinfo
  nodeway rules fixtures/bookinfo --node node-2 --family ipv6
  nodeway rules fixtures/bookinfo --redirect sk-lookup --kube-proxy
  nodeway rules manifests/ --only sets | ipset restore

Exit codes: 0 printed, 2 bad input.")]
pub(crate) struct Arguments {
    /// Files, folders, a fixture, a dump, or `-` for standard input.
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<String>,
    /// The node; the first by name if absent.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Whose rules: `iptables` decides by them; `tc` and `sk-lookup` need some beside their programs.
    #[arg(long, value_name = "WAY", default_value = "iptables")]
    redirect: Redirect,
    /// `ipv4` or `ipv6`.
    #[arg(long, default_value = "ipv4")]
    family: Family,
    /// Those of kube-proxy too.
    #[arg(long)]
    kube_proxy: bool,
    /// One part alone, without headings: for the tool that takes it.
    #[arg(long, value_name = "PART")]
    only: Option<Part>,
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
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let source = load(&arguments.sources)?;
    let sim = Sim::from_source(&source)
        .map_err(Failure::load)?
        .redirect(arguments.redirect)
        .kube_proxy(arguments.kube_proxy)
        .start()
        .map_err(|error| miette::miette!("{}: {error}", source.name))?;
    let nodes: Vec<&str> = sim.plans().map(|(node, _)| node).collect();
    let node = arguments.node.as_deref().or(nodes.first().copied());
    let node = node.unwrap_or_default();
    let (family, program, ip) = match arguments.family {
        Family::Ipv4 => (datapath::Family::V4, "iptables", "ip"),
        Family::Ipv6 => (datapath::Family::V6, "ip6tables", "ip -6"),
    };
    let (Some(rules), Some(routing)) = (sim.world().rules(node, family), sim.world().routing(node))
    else {
        return Err(Failure::argument(
            format!("there is no node `{node}`"),
            &format!("name one of: {}", nodes.join(", ")),
        ));
    };
    let parts = [
        (Part::Sets, "ipset restore".to_owned(), text::sets(rules)),
        (
            Part::Rules,
            format!("{program}-restore"),
            text::ruleset(rules),
        ),
        (Part::Routes, "sh".to_owned(), routes(&routing, ip, family)),
    ];
    for (part, taker, text) in parts {
        match arguments.only {
            Some(only) if only == part => put(format_args!("{text}")),
            Some(_) => {}
            None if text.is_empty() => {}
            None => {
                say!("# {node}, for {taker}");
                put(format_args!("{text}"));
            }
        }
    }
    Ok(verdict(true))
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
