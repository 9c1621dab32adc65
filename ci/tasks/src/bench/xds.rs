//! A node's first plan and its push to an Envoy over xDS, then one changed endpoint, which should
//! cost what hangs on it. The reference is the same work for everything, in the same run.
//!
//! The proxy is one of our own in the place of Envoy, on the real server's Unix socket: what is
//! measured is what the agent does, not what Envoy makes of it. CPU time is that of the whole
//! process, so the proxy's too.

mod client;

use std::error::Error;
use std::fs;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use nodeway_core::envoy::ResourceKind;
use nodeway_core::object::{Change, Object, Objects};
use nodeway_core::plan::{Ledger, NodePlan, Planner};
use nodeway_core::xds::ResourceDelta;
use nodeway_live::xds::{ProxyHandle, XdsOptions, XdsServer};
use tokio::runtime::Builder;
use tokio::time::timeout;

use super::plan::{NODE, cluster, slice};
use super::{Line, Spread, median, micros, timed};
use client::Client;

/// How long silence is listened to before the server is asked whether all is told.
const TICK: Duration = Duration::from_millis(1);
/// How long a silent server is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What something cost.
#[derive(Clone, Copy, Debug)]
struct Cost {
    time: Duration,
    cpu: Duration,
    bytes: usize,
}

/// Measures a first plan and push, and as many changes of one endpoint.
///
/// # Errors
/// When the objects cannot be made, or the server and its proxy do not talk.
pub fn run(services: u32, endpoints: u8, changes: u8) -> Result<Vec<Line>, Box<dyn Error>> {
    let objects = cluster(services, endpoints)?;
    let folder = tempfile::tempdir()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let server = XdsServer::bind(&folder.path().join("xds.sock"), &XdsOptions::default())?;
    // What was before is not what this takes; where the kernel refuses, it is in the peak.
    let _ = fs::write("/proc/self/clear_refs", "5");
    let before = memory("VmRSS")?;

    let cpu = cpu_time()?;
    let (planning, mut planner) = timed(|| plan(&objects));
    let (pushing, pushed) = timed(|| -> Result<_, Box<dyn Error>> {
        let handle = server.proxy(NODE, &ResourceDelta::all(planner.plan()));
        let mut client = runtime.block_on(Client::connect(server.path(), NODE))?;
        let bytes = runtime.block_on(take_all(&mut client, &handle, planner.plan()))?;
        Ok((handle, client, bytes))
    });
    let (handle, mut client, bytes) = pushed?;
    let whole = Cost {
        time: planning + pushing,
        cpu: cpu_time()?.saturating_sub(cpu),
        bytes,
    };
    let peak = memory("VmHWM")?.saturating_sub(before);

    let mut costs = Vec::new();
    for round in 1..=changes.max(1) {
        // One endpoint goes and another comes.
        let slice = slice(0, round, endpoints)?;
        let cpu = cpu_time()?;
        let (time, bytes) = timed(|| -> Result<usize, Box<dyn Error>> {
            let delta = planner.apply(Change::Put(Object::EndpointSlice(slice.into())));
            handle.apply(&ResourceDelta::of(&delta));
            runtime.block_on(take_one(&mut client))
        });
        let cpu = cpu_time()?.saturating_sub(cpu);
        costs.push(Cost {
            time,
            cpu,
            bytes: bytes?,
        });
    }
    Ok(lines(services, [planning, pushing], whole, peak, &costs))
}

fn plan(objects: &Objects) -> Planner {
    Planner::with_objects(objects, NODE, Ledger::default())
}

/// A proxy asks for everything, in the order in which Envoy does; until all is acknowledged. The
/// bytes that it was told.
async fn take_all(
    client: &mut Client,
    handle: &ProxyHandle,
    plan: &NodePlan,
) -> Result<usize, Box<dyn Error>> {
    let clusters = plan.clusters.values();
    let mut endpoints: Vec<_> = clusters.map(|it| it.model.endpoints.clone()).collect();
    let mut routes: Vec<_> = plan.routes.keys().map(ToString::to_string).collect();
    let (mut bytes, mut silent) = (0, Duration::ZERO);
    while !handle.is_settled() {
        let Ok(heard) = timeout(TICK, client.hear()).await else {
            silent += TICK;
            if silent > PATIENCE {
                return Err("the server tells nothing more, and not all is told".into());
            }
            continue;
        };
        let heard = heard?;
        silent = Duration::ZERO;
        bytes += heard.bytes;
        client.acknowledge(&heard)?;
        let (kind, names) = match heard.kind() {
            Some(ResourceKind::Cluster) => (ResourceKind::ClusterLoadAssignment, &mut endpoints),
            Some(ResourceKind::ClusterLoadAssignment) => {
                (ResourceKind::RouteConfiguration, &mut routes)
            }
            _ => continue,
        };
        if !names.is_empty() {
            client.ask(kind, std::mem::take(names))?;
        }
    }
    Ok(bytes)
}

/// One response, which has nothing but that one change.
async fn take_one(client: &mut Client) -> Result<usize, Box<dyn Error>> {
    let heard = timeout(PATIENCE, client.hear()).await??;
    client.acknowledge(&heard)?;
    match heard.kind() {
        Some(ResourceKind::ClusterLoadAssignment) => Ok(heard.bytes),
        _ => Err("a changed endpoint was told as something else".into()),
    }
}

fn lines(
    services: u32,
    [planning, pushing]: [Duration; 2],
    whole: Cost,
    peak: u64,
    changes: &[Cost],
) -> Vec<Line> {
    let all = |what: &dyn Fn(&Cost) -> f64| changes.iter().map(what).collect::<Vec<_>>();
    // Six places: what is compared with is all of it.
    let change = |what: &str, unit: &str, of: &dyn Fn(&Cost) -> f64| {
        let spread = Spread::of(all(of).into_iter().map(|it| it / of(&whole)));
        let figure = format!("{:.0}{unit}", median(&mut all(of)));
        let what = format!("one changed endpoint, {services} services: {what}");
        Line {
            ratio: format!("{spread:.6}"),
            ..Line::beside(what, figure, "all planned and pushed again", spread)
        }
    };
    let first = |what: &str, figure: String| {
        Line::plain(format!("xDS, {services} services: {what}"), figure)
    };
    let seconds = |it: Duration| format!("{:.2} s", it.as_secs_f64());
    vec![
        first("first plan", seconds(planning)),
        first("first push, until acknowledged", seconds(pushing)),
        first("CPU of both", seconds(whole.cpu)),
        first("bytes told", format!("{:.1} MB", size(whole.bytes) / 1e6)),
        first("memory of both at its peak", format!("{} MB", peak / 1024)),
        change("time to the proxy", " µs", &|it| micros(it.time)),
        change("CPU", " µs", &|it| micros(it.cpu)),
        change("bytes told", "", &|it| size(it.bytes)),
    ]
}

#[expect(
    clippy::cast_precision_loss,
    reason = "sizes of a benchmark are far below 2^52"
)]
fn size(bytes: usize) -> f64 {
    bytes as f64
}

/// CPU time of this process, in user and kernel.
fn cpu_time() -> Result<Duration, nix::errno::Errno> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let spent = usage.user_time() + usage.system_time();
    Ok(Duration::from_micros(
        u64::try_from(spent.num_microseconds()).unwrap_or(0),
    ))
}

/// A line of this process's `status`, in KiB.
fn memory(what: &str) -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let kib = line.and_then(|it| it.trim_start_matches(':').split_whitespace().next());
    Ok(kib
        .ok_or("the kernel does not tell a process's memory")?
        .parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_endpoint_is_told_alone_and_costs_less_than_everything() {
        let lines = run(40, 10, 3).unwrap();
        assert_eq!(lines.len(), 8);
        let bytes = lines.last().unwrap();
        let (median, _) = bytes.ratio.split_once(' ').unwrap();
        assert!(median.parse::<f64>().unwrap() < 0.05, "{bytes:?}");
    }
}
