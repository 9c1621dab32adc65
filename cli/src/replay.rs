//! `nodeway replay`: what was recorded, simulated; and where the two part.

use clap::Args;
use nodeway_sim::replay::{Answered, Asked, Decided, Replay, ReplayError, replay};

use crate::cluster::Cluster;
use crate::explain::load;
use crate::failure::{Failure, Outcome, verdict};
use crate::paint::{BAD, FAINT, GOOD, HINT, STRONG, paint};
use crate::screen::{say, table};
use crate::sim::Output;

#[derive(Args)]
#[command(after_help = "\
Examples:
  nodeway replay incident/
  nodeway replay node-1/ node-2/                 recordings of several nodes of one cluster
  nodeway replay incident/ -o json | jq '.requests[] | select(.parts != [])'
  nodeway explain incident/ --from default/client --to http://shop/      one request more, of one's own

Each connection and each request that was recorded is made again in the simulation of what the node had.
Exit codes: 0 the simulation did the same, 1 it parted somewhere, 2 bad input.")]
pub(crate) struct Arguments {
    /// What `nodeway record` wrote: a folder of each node.
    #[arg(value_name = "RECORDING", required = true)]
    recordings: Vec<String>,
    /// `table` or `json` (see the book, "JSON output").
    #[arg(short, long, default_value = "table")]
    output: Output,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let source = load(&arguments.recordings, &Cluster::default())?;
    if source.recordings.is_empty() {
        return Err(Failure::argument(
            format!("{} is no recording", source.name),
            "name a folder that `nodeway record` wrote; a fixture is run by `nodeway sim`",
        ));
    }
    let replayed = replay(&source.recordings).map_err(|error| match error {
        ReplayError::Load(errors) => Failure::load(errors),
        ReplayError::Topology(error) => Failure::topology(error),
    })?;
    match arguments.output {
        Output::Json => say!("{}", serde_json::to_string_pretty(&replayed)?),
        Output::Table => screen(&replayed, &source.name),
    }
    Ok(verdict(replayed.holds()))
}

fn screen(replayed: &Replay, name: &str) {
    let redirect = format!("redirect {}", replayed.redirect);
    say!("{}  {}", paint(STRONG, name), paint(FAINT, redirect));
    for node in &replayed.nodes {
        say!("  {} at {}", node.node, node.at);
        for line in &node.not_as_planned {
            say!("  {} {line}", paint(BAD, "not as planned:"));
        }
    }
    say!();
    table(
        &["", "VERDICT", "HOOK", "FROM", "TO", "TIMES"],
        replayed.verdicts.iter().map(decided),
    );
    table(
        &["", "REQUEST", "FROM", "STATUS", "ROUTE", "CLUSTER", "TIMES"],
        replayed.requests.iter().map(asked),
    );
    for it in replayed.verdicts.iter().filter(|it| !it.held) {
        let simulated = match it.simulated.as_slice() {
            [] => "does not see it".to_owned(),
            all => format!("says {}", all.join(", ")),
        };
        let text = format!(
            "{} at {} on {} to {}: the simulation {simulated}",
            it.recorded, it.hook, it.node, it.to
        );
        say!("{} {text}", paint(BAD, "parted:"));
    }
    for it in replayed.requests.iter().filter(|it| !it.holds()) {
        say!("{} {}", paint(BAD, "parted:"), parted(it));
    }
    for line in &replayed.not_replayed {
        say!("{}", paint(FAINT, format!("not replayed: {line}")));
    }
    for line in &replayed.not_simulated {
        say!("{} {line}", paint(FAINT, "not simulated:"));
    }
    end(replayed);
}

fn end(replayed: &Replay) {
    let (verdicts, requests) = (replayed.verdicts.len(), replayed.requests.len());
    let compared = format!("{verdicts} verdicts and {requests} answers");
    if replayed.compared() == 0 {
        let what = "nothing was compared: the recording has neither decisions nor requests";
        say!("{}", paint(HINT, what));
    } else if replayed.holds() {
        let text = format!("{compared}: the simulation did the same");
        say!("{}", paint(GOOD, text));
    } else {
        let held = replayed.verdicts.iter().filter(|it| it.held).count();
        let same = replayed.requests.iter().filter(|it| it.holds()).count();
        let parted = replayed.compared() - held - same;
        let text = format!("{compared}: the simulation parted from {parted}");
        say!("{}", paint(BAD, text));
    }
    if replayed.later_decisions > 0 {
        let text = format!(
            "{} more decisions are on packets of connections that stood, or on what is no TCP",
            replayed.later_decisions
        );
        say!("{}", paint(FAINT, text));
    }
}

fn mark(held: bool) -> String {
    match held {
        true => paint(GOOD, "✓").to_string(),
        false => paint(BAD, "✗").to_string(),
    }
}

fn decided(it: &Decided) -> Vec<String> {
    vec![
        mark(it.held),
        it.recorded.clone(),
        it.hook.clone(),
        it.from.clone(),
        it.to.to_string(),
        it.times.to_string(),
    ]
}

fn asked(it: &Asked) -> Vec<String> {
    let recorded = &it.recorded;
    vec![
        mark(it.holds()),
        format!("{} {}{}", it.method, it.host, it.path),
        it.from.clone(),
        status(recorded),
        recorded.matches.clone().unwrap_or_default(),
        recorded.cluster.clone().unwrap_or_default(),
        it.times.to_string(),
    ]
}

fn status(it: &Answered) -> String {
    let status = it.status.map_or("none".to_owned(), |it| it.to_string());
    match (&it.details, it.by_backend) {
        (Some(details), false) => format!("{status} {details}"),
        _ => status,
    }
}

/// Each field that is not the same, as it was and as it is simulated.
fn parted(it: &Asked) -> String {
    let question = format!("{} {}{} from {}", it.method, it.host, it.path, it.from);
    let Some(simulated) = &it.simulated else {
        let why = it.failure.as_deref().unwrap_or("it goes past it");
        let node = &it.node;
        return format!(
            "{question}: the simulated Envoy of {node} does not get it ({why}), the recorded one answered {}",
            status(&it.recorded)
        );
    };
    let fields = it.parts.iter().map(|field| {
        let of = |answered: &Answered| value(answered, field);
        format!("{field} was {}, is {}", of(&it.recorded), of(simulated))
    });
    let fields: Vec<String> = fields.collect();
    format!("{question}: {}", fields.join("; "))
}

fn value(of: &Answered, field: &str) -> String {
    let none = || "none".to_owned();
    match field {
        "listener" => of.listener.clone(),
        "filter_chain" => of.filter_chain.map_or_else(none, |it| it.to_string()),
        "route" => match (&of.matches, of.route) {
            (Some(matches), _) => matches.clone(),
            (None, Some((host, route))) => format!("route {route} of virtual host {host}"),
            (None, None) => none(),
        },
        "cluster" => of.cluster.clone().unwrap_or_else(none),
        "endpoints" => {
            let all: Vec<String> = of.endpoints.iter().map(ToString::to_string).collect();
            if all.is_empty() {
                none()
            } else {
                all.join(" ")
            }
        }
        "by_backend" => match of.by_backend {
            true => "a backend's answer".to_owned(),
            false => format!("Envoy's own answer ({})", status(of)),
        },
        _ => status(of),
    }
}
