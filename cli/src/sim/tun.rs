//! `nodeway sim --tun`: the cluster behind a network device, what can be reached there, and a line
//! for each request that comes.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::time::Duration;

use nodeway_core::plan::FrontendKind;
use nodeway_live::tun::{Ended, Event, Tun, TunError};
use nodeway_sim::{AnsweredBy, Fixture, Reachable, Redirect, ServedBy, Sim, Visit, VisitOutcome};
use serde_json::{Value, json};

use super::{Arguments, Output, plain};
use crate::failure::{Failure, Outcome, verdict};
use crate::paint::{BAD, FAINT, GOOD, HINT, STRONG, paint};
use crate::screen::say;

/// As many commands as one wants to try.
const COMMANDS: usize = 6;

pub(super) fn run(
    device: &str,
    fixture: &Fixture,
    redirect: Option<Redirect>,
    arguments: &Arguments,
) -> Outcome {
    let mut builder = Sim::from_fixture(fixture)
        .map_err(Failure::load)?
        .external();
    if let Some(redirect) = redirect {
        builder = builder.redirect(redirect);
    }
    if let Some(seed) = arguments.seed {
        builder = builder.seed(seed);
    }
    let mut sim = builder.start().map_err(Failure::topology)?;
    fixture.schedule(&mut sim).map_err(Failure::run)?;
    let mut tun = Tun::open(device, sim).map_err(failure)?;
    let duration = arguments.duration.map(Duration::from_secs);
    let table = arguments.output == Output::Table;
    if table {
        screen(&tun, fixture);
    } else {
        say!("{}", ready(&tun, fixture));
    }
    let mut visits = 0_u64;
    let ended = tun.run(duration, &mut |event| {
        visits += u64::from(matches!(event, Event::Visit(_)));
        match event {
            Event::Visit(visit) if table => say!("{}", line(visit)),
            Event::Visit(visit) => say!("{}", record(visit)),
            Event::Fault(what) if table => say!("{} {what}", paint(BAD, "fault:")),
            Event::Fault(what) => say!("{}", json!({"event": "fault", "what": what})),
        }
        ControlFlow::Continue(())
    });
    let ended = ended.map_err(failure)?;
    if table {
        farewell(&tun, ended, visits);
    } else {
        say!("{}", end(&tun, ended, visits));
    }
    Ok(verdict(true))
}

fn failure(error: TunError) -> Failure {
    Failure::from(miette::miette!("{error}"))
}

/// What can be reached, and commands to try.
fn screen(tun: &Tun, fixture: &Fixture) {
    let sim = tun.sim();
    let settings = sim.settings();
    say!(
        "{}  {}",
        paint(STRONG, &fixture.title),
        paint(
            FAINT,
            format!("redirect {}, seed {}", settings.redirect, settings.seed.0)
        )
    );
    if let Some(host) = sim.external_host() {
        let addresses = host.addresses.iter().filter(|it| shown(tun, **it));
        let addresses: Vec<&IpAddr> = addresses.collect();
        say!(
            "  behind {}: this machine is outside/{} ({})",
            tun.name(),
            host.name,
            list(&addresses)
        );
    }
    say!();
    let mut table = plain();
    table.set_header(["", "WHAT", "PORTS", "ANSWERED BY", "ADDRESSES"]);
    for one in reachable(tun).filter(|one| one.by != AnsweredBy::Nobody) {
        table.add_row([
            "",
            &what(&one),
            &list(&one.ports),
            &answered_by(one.by),
            &list(&one.addresses),
        ]);
    }
    say!("{table}");
    if !tun.has_ipv6() {
        say!(
            "IPv6 is switched off on this machine: of the cluster's addresses it reaches those of IPv4"
        );
    }
    say!("try:");
    for command in commands(tun, fixture) {
        say!("  {}", paint(HINT, command));
    }
    say!(
        "{}",
        paint(FAINT, "Ctrl-C ends it, and takes the device away")
    );
}

fn shown(tun: &Tun, address: IpAddr) -> bool {
    address.is_ipv4() || tun.has_ipv6()
}

/// What can be reached by the families that this machine has.
fn reachable(tun: &Tun) -> impl Iterator<Item = Reachable> + '_ {
    let all = tun.sim().reachable().into_iter();
    all.filter_map(|mut one| {
        one.addresses.retain(|address| shown(tun, *address));
        (!one.addresses.is_empty()).then_some(one)
    })
}

fn list(all: &[impl ToString]) -> String {
    let words: Vec<String> = all.iter().map(ToString::to_string).collect();
    words.join(", ")
}

fn answered_by(by: AnsweredBy) -> String {
    match by {
        AnsweredBy::Envoy => "Envoy".to_owned(),
        AnsweredBy::Pods(1) => "pod".to_owned(),
        AnsweredBy::Pods(pods) => format!("{pods} pods"),
        AnsweredBy::Nobody => "nobody".to_owned(),
    }
}

fn what(one: &Reachable) -> String {
    match one.kind {
        Some(kind) => format!("{}, {}", one.object, kind_name(kind)),
        None => one.object.clone(),
    }
}

fn kind_name(kind: FrontendKind) -> &'static str {
    match kind {
        FrontendKind::ClusterIp => "ClusterIP",
        FrontendKind::NodePort => "NodePort",
        FrontendKind::LoadBalancer => "LoadBalancer",
        FrontendKind::ExternalIp => "external IP",
    }
}

/// The fixture's own requests as curl would send them; without any, one for the first address.
fn commands(tun: &Tun, fixture: &Fixture) -> Vec<String> {
    let sim = tun.sim();
    let mut seen = BTreeSet::new();
    let requests = fixture.requests.iter().filter_map(|spec| {
        let ask = spec.ask();
        // TLS is simulated as far as it is in the clear: a real client cannot finish a handshake.
        let rest = ask.url.strip_prefix("http://")?;
        let to = sim.errand(&spec.from, &ask).ok()?.to()?;
        if !shown(tun, to.ip()) || !ask.body.is_empty() {
            return None;
        }
        let host = rest.split(['/', '?']).next().unwrap_or_default();
        let mut words = vec!["curl".to_owned()];
        if ask.method != "GET" {
            words.extend(["-X".to_owned(), ask.method.clone()]);
        }
        for (name, value) in &ask.headers {
            words.extend(["-H".to_owned(), format!("{name}: {value}")]);
        }
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        if host.parse::<SocketAddr>().is_err()
            && name.parse::<IpAddr>().is_err()
            && !name.starts_with('[')
        {
            let pinned = format!("{name}:{}:{}", to.port(), bracketed(to.ip()));
            words.extend(["--resolve".to_owned(), pinned]);
        }
        words.push(ask.url.clone());
        Some(shell_words::join(words))
    });
    let mut commands: Vec<String> = requests.filter(|it| seen.insert(it.clone())).collect();
    commands.truncate(COMMANDS);
    if commands.is_empty() {
        let first = reachable(tun).next();
        commands.extend(first.and_then(|one| {
            let to = SocketAddr::new(*one.addresses.first()?, *one.ports.first()?);
            Some(format!("curl http://{to}/"))
        }));
    }
    commands
}

fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// A request in a line: what came of it, what was asked, who asked, and who served it.
fn line(visit: &Visit) -> String {
    let (style, outcome) = match visit.outcome {
        VisitOutcome::Answered(status) if status < 400 => (GOOD, status.to_string()),
        VisitOutcome::Answered(status) => (BAD, status.to_string()),
        VisitOutcome::Refused => (BAD, "refused".to_owned()),
        VisitOutcome::Ended => (BAD, "no answer".to_owned()),
        VisitOutcome::NotHttp => (BAD, "no plain HTTP".to_owned()),
    };
    let asked = match &visit.asked {
        Some(asked) => {
            let host = asked.host.clone().unwrap_or_else(|| visit.to.to_string());
            format!("{} {host}{}", asked.method, asked.target)
        }
        None => format!("a connection to {}", visit.to),
    };
    format!(
        "{} {asked}  {} -> {}  {}",
        paint(style, outcome),
        visit.from,
        served(visit),
        paint(FAINT, format!("{:.3} ms", milliseconds(visit.took)))
    )
}

fn served(visit: &Visit) -> String {
    let ServedBy {
        proxy_node,
        route,
        pod,
        node,
        by_proxy,
        ..
    } = &visit.served;
    let mut way = vec![visit.to.to_string()];
    if let Some(proxy) = proxy_node {
        let route = route.as_ref().map(|route| format!(", route {route}"));
        way.push(format!("Envoy on {proxy}{}", route.unwrap_or_default()));
    }
    match (pod, node) {
        _ if *by_proxy => way.push("Envoy itself".to_owned()),
        (Some(pod), Some(node)) => way.push(format!("{pod} on {node}")),
        (Some(pod), None) => way.push(pod.clone()),
        (None, _) => {}
    }
    way.join(" -> ")
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn farewell(tun: &Tun, ended: Ended, visits: u64) {
    let traffic = tun.traffic();
    say!(
        "{ended}: {visits} {}, {} packets and {} bytes from this machine, {} and {} to it; {} is taken away",
        if visits == 1 { "request" } else { "requests" },
        traffic.packets_in,
        traffic.bytes_in,
        traffic.packets_out,
        traffic.bytes_out,
        tun.name()
    );
}

/// The first line of JSON: the device is there, and this can be reached.
fn ready(tun: &Tun, fixture: &Fixture) -> Value {
    let reachable: Vec<Value> = reachable(tun)
        .map(|one| {
            json!({
                "object": one.object,
                "kind": one.kind.map(kind_name),
                "addresses": one.addresses,
                "ports": one.ports,
                "answered_by": answered_by(one.by),
            })
        })
        .collect();
    let host = tun.sim().external_host();
    json!({
        "event": "ready",
        "device": tun.name(),
        "host": host.map(|host| format!("outside/{}", host.name)),
        "addresses": host.map(|host| host.addresses.clone()),
        "ipv6": tun.has_ipv6(),
        "reachable": reachable,
        "commands": commands(tun, fixture),
    })
}

/// A request as a line of JSON.
fn record(visit: &Visit) -> Value {
    let outcome = match visit.outcome {
        VisitOutcome::Answered(_) => "answered",
        VisitOutcome::Refused => "refused",
        VisitOutcome::Ended => "no answer",
        VisitOutcome::NotHttp => "no plain HTTP",
    };
    let status = match visit.outcome {
        VisitOutcome::Answered(status) => Some(status),
        _ => None,
    };
    let asked = visit.asked.as_ref();
    json!({
        "event": "request",
        "from": visit.from,
        "to": visit.to,
        "method": asked.map(|asked| asked.method.clone()),
        "host": asked.and_then(|asked| asked.host.clone()),
        "target": asked.map(|asked| asked.target.clone()),
        "outcome": outcome,
        "status": status,
        "proxy_node": visit.served.proxy_node,
        "route": visit.served.route,
        "service": visit.served.service,
        "pod": visit.served.pod,
        "node": visit.served.node,
        "time_ms": milliseconds(visit.took),
    })
}

/// The last line of JSON.
fn end(tun: &Tun, ended: Ended, visits: u64) -> Value {
    let traffic = tun.traffic();
    json!({
        "event": "end",
        "why": ended.to_string(),
        "requests": visits,
        "packets_in": traffic.packets_in,
        "bytes_in": traffic.bytes_in,
        "packets_out": traffic.packets_out,
        "bytes_out": traffic.bytes_out,
    })
}
