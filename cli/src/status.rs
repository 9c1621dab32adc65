//! `nodeway status`: what a node's agent says is planned, told, acknowledged and served; `status kube`:
//! what a cluster's configs say of all nodes.

mod configs;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use nodeway_live::agent::status::{ResourceStatus, Status};
use nodeway_live::agent::{self, AskStatusError};

use crate::cluster::{Cluster, KUBE};
use crate::failure::{Failure, Outcome, verdict};
use crate::paint::{BAD, GOOD, STRONG, paint};
use crate::screen::{say, table};

#[derive(Args)]
#[command(after_help = "\
Examples:
  nodeway status
  nodeway status -o json | jq '.resources[] | select(.rejected)'
  nodeway status kube --read-only               a cluster's configs, by what each node says of them

Exit codes: 0 all is in sync, 1 something is not, 2 no agent or API server answers.")]
pub(crate) struct Arguments {
    /// `kube` for what the configs of a cluster say of its nodes; this node's agent if absent.
    #[arg(value_name = "kube", value_parser = [KUBE], conflicts_with = "run_dir")]
    source: Option<String>,
    #[command(flatten)]
    cluster: Cluster,
    /// The agent's run directory.
    #[arg(long, value_name = "FOLDER", default_value = "/run/nodeway")]
    run_dir: PathBuf,
    /// How it is printed.
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    output: Form,
}

#[derive(Clone, Copy, ValueEnum)]
enum Form {
    Table,
    Json,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    if arguments.source.is_some() {
        return configs::run(arguments);
    }
    let status = agent::ask_status(&arguments.run_dir).map_err(failed)?;
    let out_of_sync = status.out_of_sync();
    match arguments.output {
        Form::Json => say!("{}", serde_json::to_string_pretty(&status)?),
        Form::Table => show(&status, &out_of_sync),
    }
    Ok(verdict(out_of_sync.is_empty()))
}

fn failed(error: AskStatusError) -> Failure {
    Failure::argument(
        error.to_string(),
        "start one with `nodeway agent`, or name its run directory with --run-dir",
    )
}

fn show(status: &Status, out_of_sync: &[String]) {
    say!(
        "{} {} · {} objects of {}",
        paint(STRONG, &status.node),
        status.redirect,
        status.source.objects,
        status.source.name
    );
    say!();
    table(
        &[
            "ENVOY",
            "PHASE",
            "PID",
            "CONNECTED",
            "FRONTENDS",
            "CONNECTIONS",
        ],
        status.generations.iter().map(|it| {
            let number = |it: Option<u64>| it.map_or("?".to_owned(), |it| it.to_string());
            vec![
                it.id.clone(),
                it.phase.clone(),
                number(it.pid.map(u64::from)),
                yes(it.connected),
                it.frontends.to_string(),
                number(it.connections),
            ]
        }),
    );
    table(
        &[
            "RESOURCE", "NAME", "ENVOY", "STATE", "LISTENS", "SERVED", "AGE", "OBJECT",
        ],
        status.resources.iter().map(resource),
    );
    table(
        &["FRONTEND", "SERVICE", "LISTENER", "ENVOY", "PORT", "STATE"],
        status.frontends.iter().map(|it| {
            vec![
                it.address.to_string(),
                it.service.clone().unwrap_or_else(|| "gone".to_owned()),
                it.listener.clone(),
                it.generation.clone(),
                it.port.to_string(),
                it.state.name().to_owned(),
            ]
        }),
    );
    table(
        &["HOOK", "REASON", "DECISIONS"],
        status.counters.iter().flat_map(|(hook, reasons)| {
            let counted = reasons.iter().filter(|(_, count)| **count > 0);
            counted.map(|(reason, count)| vec![hook.clone(), reason.clone(), count.to_string()])
        }),
    );
    for problem in &status.problems {
        say!("{} {problem}", paint(BAD, "problem:"));
    }
    for line in out_of_sync {
        say!("{} {line}", paint(BAD, "not in sync:"));
    }
    if out_of_sync.is_empty() {
        say!("{}", paint(GOOD, "in sync"));
    }
}

fn resource(it: &ResourceStatus) -> Vec<String> {
    let state = match &it.rejected {
        Some(_) => "rejected",
        None if it.planned.is_none() => "going",
        None if !it.is_asked_for() => "not asked for",
        None if it.planned == it.acknowledged => "acknowledged",
        None if it.planned == it.sent => "sent",
        None => "planned",
    };
    let served = it.serving.is_some() && it.serving == it.planned;
    vec![
        it.kind.clone(),
        it.name.clone(),
        it.generation.clone(),
        state.to_owned(),
        it.listening.map(yes).unwrap_or_default(),
        yes(served),
        age(it.age_ms),
        it.object.clone().unwrap_or_default(),
    ]
}

fn yes(it: bool) -> String {
    if it { "yes" } else { "no" }.to_owned()
}

/// One unit is enough: `350ms`, `12s`, `7m`, `30h`.
fn age(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..120_000 => format!("{}s", ms / 1_000),
        120_000..7_200_000 => format!("{}m", ms / 60_000),
        _ => format!("{}h", ms / 3_600_000),
    }
}
