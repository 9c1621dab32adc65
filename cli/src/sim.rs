//! `nodeway sim`: a fixture's requests on a simulated cluster, on one screen.

#[cfg(feature = "live")]
mod tun;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use comfy_table::Table;
use nodeway_core::trace::{Name, NameStep, Step};
use nodeway_sim::{Fixture, Redirect, Report, Row, RunOptions, hook_name};

use crate::captures::Folder;
use crate::failure::{Failure, Outcome, verdict};
use crate::paint::{BAD, FAINT, GOOD, HINT, STRONG, paint};
use crate::screen::{plain, say};
use crate::side_by_side;

#[derive(Args)]
#[command(after_help = "\
Examples:
  nodeway sim fixtures/bookinfo
  nodeway sim fixtures/bookinfo --redirect all
  nodeway sim fixtures/bookinfo --seed 7 -o json
  nodeway sim fixtures/bookinfo --trace | less
  nodeway sim fixtures/bookinfo --pcap captures
  sudo nodeway sim fixtures/bookinfo --tun nw0

Exit codes: 0 all expectations hold, 1 one does not, 2 the fixture is wrong.")]
pub(crate) struct Arguments {
    /// A fixture: a folder with `fixture.yaml` and `manifests/`.
    fixture: PathBuf,
    /// Where luck comes from; the fixture's own if absent. The same seed gives the same bytes.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How packets come to the listener: `tc`, `sk-lookup`, `iptables`, `sidecar`, or `all` side by
    /// side.
    #[arg(long, value_name = "WAY")]
    redirect: Option<Ways>,
    /// Every hop of every packet, with its reason.
    #[arg(long)]
    trace: bool,
    /// A pcapng file for every interface into this folder: Wireshark shows each decision as comment.
    #[arg(long, value_name = "DIR")]
    pcap: Option<PathBuf>,
    /// Puts the cluster behind a network device of that name, in real time: curl, a browser or an Envoy
    /// on this machine then talk to its Services and pods, until Ctrl-C. Needs root on Linux, and a
    /// `nodeway` that was built with `--features live`.
    #[arg(long, value_name = "DEVICE", conflicts_with_all = ["trace", "pcap"])]
    tun: Option<String>,
    /// With `--tun`: ends after that many seconds.
    #[arg(long, value_name = "SECONDS", requires = "tun")]
    duration: Option<u64>,
    /// `table` or `json` (see the book, "JSON output").
    #[arg(short, long, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Ways {
    Tc,
    SkLookup,
    Iptables,
    Sidecar,
    All,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let fixture = Fixture::load(&arguments.fixture).map_err(Failure::load)?;
    if let Some(device) = &arguments.tun {
        return behind(device, &fixture, arguments);
    }
    let ways = Ways::chosen(arguments.redirect);
    let folder = arguments.pcap.as_deref().map(Folder::open).transpose()?;
    let several = ways.len() > 1;
    let mut reports = Vec::new();
    for redirect in ways {
        let options = RunOptions {
            redirect,
            seed: arguments.seed,
            trace: arguments.trace,
            capture: folder.is_some(),
        };
        let report = nodeway_sim::run(&fixture, options).map_err(Failure::run)?;
        if let Some(folder) = &folder {
            let below = several.then(|| report.redirect.to_string());
            folder.write(below.as_deref(), &report.captures)?;
        }
        reports.push(report);
    }
    let setting = |report: &Report| format!("redirect {}, seed {}", report.redirect, report.seed);
    let fixture = arguments.fixture.display().to_string();
    show(&reports, arguments.output, &setting, &|report| {
        next(report, &fixture)
    })
}

impl Ways {
    /// The redirects that are asked for; that of the fixture is none.
    pub(crate) fn chosen(ways: Option<Self>) -> Vec<Option<Redirect>> {
        match ways {
            None => vec![None],
            Some(Self::Tc) => vec![Some(Redirect::Tc)],
            Some(Self::SkLookup) => vec![Some(Redirect::SkLookup)],
            Some(Self::Iptables) => vec![Some(Redirect::Iptables)],
            Some(Self::Sidecar) => vec![Some(Redirect::Sidecar)],
            Some(Self::All) => Redirect::ALL.iter().copied().map(Some).collect(),
        }
    }
}

/// Prints what came of runs, simulated or real. `setting` says what one ran with, `next` which
/// commands to go on with.
pub(crate) fn show(
    reports: &[Report],
    output: Output,
    setting: &dyn Fn(&Report) -> String,
    next: &dyn Fn(&Report) -> Vec<String>,
) -> Outcome {
    match (output, reports) {
        (Output::Json, [report]) => say!("{}", serde_json::to_string_pretty(report)?),
        (Output::Json, reports) => say!("{}", serde_json::to_string_pretty(reports)?),
        (Output::Table, [report]) => {
            screen(report, &setting(report));
            let commands = next(report);
            if !commands.is_empty() {
                say!("next:");
            }
            for command in commands {
                say!("  {}", paint(HINT, command));
            }
        }
        (Output::Table, reports) => side_by_side::screen(reports),
    }
    Ok(verdict(
        reports
            .iter()
            .all(|report| report.held == report.expectations),
    ))
}

/// In real time, behind a device of this machine.
#[cfg(feature = "live")]
fn behind(device: &str, fixture: &Fixture, arguments: &Arguments) -> Outcome {
    let redirect = match arguments.redirect {
        None => None,
        Some(Ways::Tc) => Some(Redirect::Tc),
        Some(Ways::SkLookup) => Some(Redirect::SkLookup),
        Some(Ways::Iptables) => Some(Redirect::Iptables),
        Some(Ways::Sidecar) => Some(Redirect::Sidecar),
        Some(Ways::All) => {
            return Err(Failure::argument(
                "--tun needs one redirect, and `all` are several".to_owned(),
                "name one, or leave --redirect out for the fixture's own",
            ));
        }
    };
    tun::run(device, fixture, redirect, arguments)
}

/// Without `live` there is no device to be behind.
#[cfg(not(feature = "live"))]
fn behind(_: &str, _: &Fixture, _: &Arguments) -> Outcome {
    Err(Failure::argument(
        "--tun is not part of this `nodeway`: it was built without the feature `live`".to_owned(),
        "build it on Linux with: cargo install --path cli --features live",
    ))
}

/// The whole run on one screen.
fn screen(report: &Report, setting: &str) {
    for hop in &report.hops {
        say!("{hop}");
    }
    heading(report, setting);
    say!();
    say!("{}", rows(&report.requests));
    reasons(&report.requests);
    faults(report);
    say!();
    if let Some(row) = report.requests.first() {
        way(row);
    }
    troubles(report);
    expectations(std::slice::from_ref(report));
}

fn heading(report: &Report, setting: &str) {
    say!(
        "{}  {}",
        paint(STRONG, &report.title),
        paint(FAINT, setting)
    );
    for node in &report.nodes {
        let ports: Vec<String> = node.listeners.values().map(ToString::to_string).collect();
        let envoy = match ports.as_slice() {
            [] => "Envoy without a listener".to_owned(),
            [port, ..] if report.redirect == Redirect::Sidecar => {
                format!("an Envoy in each pod, on {port}")
            }
            ports => format!("Envoy on {}", ports.join(", ")),
        };
        say!(
            "  {:<9}{:<12} {envoy}   pods {}",
            node.name,
            node.addresses.first().map_or("", String::as_str),
            short_names(&node.pods)
        );
    }
    for host in &report.outside {
        let address = host.addresses.first().map_or("", String::as_str);
        say!("  {:<9}{address:<12} outside", host.name);
    }
    for ingress in &report.ingresses {
        say!(
            "  Ingress {} -> Service {}, {} inside, {} outside, Envoy's port {}",
            ingress.ingress,
            ingress.service,
            or_none(ingress.cluster_address.as_deref()),
            or_none(ingress.address.as_deref()),
            ingress
                .envoy_port
                .map_or_else(|| "none".to_owned(), |port| port.to_string()),
        );
    }
}

/// Names without their namespace where all are of one.
fn short_names(paths: &[String]) -> String {
    let namespaces: Vec<&str> = paths
        .iter()
        .filter_map(|path| path.split_once('/'))
        .map(|(namespace, _)| namespace)
        .collect();
    let one = namespaces
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if a == b));
    let name = |path: &String| match path.split_once('/') {
        Some((_, name)) if one => name.to_owned(),
        _ => path.clone(),
    };
    paths.iter().map(name).collect::<Vec<_>>().join(", ")
}

pub(crate) fn or_none(text: Option<&str>) -> &str {
    text.unwrap_or("none")
}

/// A line a request: when it was asked, where requests have times, from, URL, node of the Envoy, route, who answered and
/// where, status, how long it took.
fn rows(requests: &[Row]) -> Table {
    let mut table = plain();
    let timed = requests.iter().any(|row| row.at_ms.is_some());
    let at = |row: &Row| timed.then(|| at(row).unwrap_or_default());
    let names = [
        "FROM",
        "URL",
        "ENVOY",
        "ROUTE",
        "ANSWERED BY",
        "STATUS",
        "TIME",
    ];
    table.set_header([""].into_iter().chain(timed.then_some("AT")).chain(names));
    for row in requests {
        let first = |sign: &str| [sign.to_owned()].into_iter().chain(at(row));
        if !row.applicable {
            let cells = [&row.client, &asked(row), "-", "not applicable"];
            table.add_row(first("-").chain(cells.map(str::to_owned)));
            continue;
        }
        let envoy = row.proxy_pod.as_deref().map(short);
        let envoy = envoy.or(row.proxy_node.as_deref());
        let (envoy, route) = match (row.redirected, row.proxies) {
            (true, _) => (or_none(envoy), or_none(row.route.as_deref())),
            (false, 0) => ("-", "not redirected"),
            (false, _) => (or_none(envoy), "passed through"),
        };
        let cells = [
            row.client.clone(),
            asked(row),
            envoy.to_owned(),
            route.to_owned(),
            answered_by(row),
            status(row),
            format!("{:.3} ms", row.time_ms),
        ];
        table.add_row(first(if row.holds() { "✓" } else { "✗" }).chain(cells));
    }
    table
}

/// When a request was asked, where its fixture says a time.
pub(crate) fn at(row: &Row) -> Option<String> {
    row.at_ms.map(|at| format!("{at:.3} ms"))
}

/// What was broken on purpose, and mended.
fn faults(report: &Report) {
    for fault in &report.faults {
        say!("{:>12.3} ms  {}", fault.time_ms, fault.what);
    }
}

/// Why a request was not redirected, once a reason.
fn reasons(requests: &[Row]) {
    let mut told: Vec<&str> = Vec::new();
    for row in requests.iter().filter(|row| !row.redirected) {
        let reason = or_none(row.reason.as_deref());
        if !told.contains(&reason) {
            let what = match (row.applicable, row.proxies) {
                (false, _) => "not applicable",
                (true, 0) => "not redirected",
                (true, _) => "passed through",
            };
            say!("{what}: {}, because {reason}", row.url);
            told.push(reason);
        }
    }
}

/// The URL, with the method and the host header where they are not the usual ones.
pub(crate) fn asked(row: &Row) -> String {
    let method = if row.method == "GET" {
        String::new()
    } else {
        format!("{} ", row.method)
    };
    let host = row
        .host
        .as_ref()
        .map(|host| format!(" (host {host})"))
        .unwrap_or_default();
    format!("{method}{}{host}", row.url)
}

pub(crate) fn status(row: &Row) -> String {
    match (row.status, row.failure) {
        (Some(status), _) => status.to_string(),
        (None, failure) => or_none(failure).to_owned(),
    }
}

pub(crate) fn answered_by(row: &Row) -> String {
    match (&row.pod, &row.proxy_node, row.status) {
        (Some(pod), ..) => format!("{} on {}", short(pod), or_none(row.node.as_deref())),
        (None, Some(_), Some(_)) => "Envoy itself".to_owned(),
        _ => "nobody".to_owned(),
    }
}

/// `default/` is where everybody looks first.
pub(crate) fn short(path: &str) -> &str {
    path.strip_prefix("default/").unwrap_or(path)
}

/// The first request's way in two lines: to the listener, and from there to the pod.
fn way(row: &Row) {
    say!("{} {}", paint(STRONG, "the way of the first:"), row.url);
    let mut to_listener = vec![row.client.clone()];
    for (_, step) in &row.way.steps {
        match step {
            Step::Name(NameStep {
                found: Name::Service { service, address },
                ..
            }) => {
                to_listener.push(format!("{service} at {address}"));
            }
            Step::Verdict(step) => to_listener.push(format!(
                "{} on {}: {} ({})",
                hook_name(step.hook),
                step.node,
                step.verdict,
                step.reason
            )),
            Step::Translation(step) => {
                to_listener.push(format!("kube-proxy's rules on {}", step.node))
            }
            Step::Rule(step) if step.pod.is_some() => {
                to_listener.push("the pod's rules".to_owned());
            }
            Step::Listener(step) => {
                let whose = if step.pod.is_some() { "the pod's" } else { "" };
                to_listener.push(format!(
                    "{}, port {} of {whose}{}Envoy",
                    last(&step.listener),
                    step.port,
                    if whose.is_empty() { "" } else { " " },
                ));
                break;
            }
            _ => {}
        }
    }
    let to_pod = [
        row.listener.as_deref().map(|name| last(name).to_owned()),
        row.route.as_ref().map(|route| format!("route {route}")),
        row.cluster
            .as_deref()
            .map(|name| format!("cluster {}", last(name))),
        row.pod
            .as_ref()
            .map(|pod| format!("Pod {pod} on {}", or_none(row.node.as_deref()))),
        Some(status(row)),
    ];
    say!("  {}", to_listener.join(" -> "));
    say!(
        "  {}",
        to_pod
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" -> ")
    );
}

/// The name that its config gives a resource, without the config's own.
fn last(qualified: &str) -> &str {
    qualified
        .rsplit_once('/')
        .map_or(qualified, |(_, name)| name)
}

/// Expectations that did not hold are told by each run's rows; problems and blind spots here.
fn troubles(report: &Report) {
    for problem in &report.problems {
        say!("{} {problem}", paint(BAD, "problem:"));
    }
    if !report.not_simulated.is_empty() {
        say!(
            "{} {}",
            paint(BAD, "not simulated:"),
            report.not_simulated.join(", ")
        );
    }
}

pub(crate) fn expectations(reports: &[Report]) {
    for report in reports {
        for row in report.requests.iter().filter(|row| !row.holds()) {
            for missed in row.expectations.iter().filter(|checked| !checked.held) {
                say!(
                    "{} {} {} ({}): {} is {}, expected {}",
                    paint(BAD, "✗"),
                    row.client,
                    row.url,
                    report.redirect,
                    missed.what,
                    missed.got,
                    missed.want
                );
            }
        }
    }
    let held: usize = reports.iter().map(|report| report.held).sum();
    let all: usize = reports.iter().map(|report| report.expectations).sum();
    let style = if held == all { GOOD } else { BAD };
    say!(
        "{}",
        paint(style, format!("{held} of {all} expectations hold"))
    );
}

/// The two commands to go on with.
fn next(report: &Report, fixture: &str) -> Vec<String> {
    let Some(row) = report.requests.first() else {
        return Vec::new();
    };
    let address = report
        .ingresses
        .first()
        .and_then(|ingress| ingress.address.clone());
    let url = address.map_or_else(
        || "http://ADDRESS/".to_owned(),
        |address| format!("http://{address}/"),
    );
    vec![
        format!(
            "nodeway explain {fixture} --from {} --to {}",
            row.client, row.url
        ),
        format!(
            "kubectl get ing,svc,endpointslices,pods,nodes,cec,ccec -A -o yaml | nodeway explain - --from outside --to {url}"
        ),
    ]
}
