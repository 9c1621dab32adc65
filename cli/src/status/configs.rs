//! `nodeway status kube`: what has become of a cluster's configs, by what its nodes say of them.

use miette::Report;
use nodeway_live::kube::{ToldCondition, ToldConfig, told};

use super::{Arguments, Form, table};
use crate::failure::{Outcome, verdict};
use crate::paint::{BAD, GOOD, paint};
use crate::screen::say;

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let all = told(arguments.cluster.kubeconfig()).map_err(Report::from_err)?;
    match arguments.output {
        Form::Json => say!("{}", serde_json::to_string_pretty(&all)?),
        Form::Table => show(&all),
    }
    Ok(verdict(all.iter().all(ToldConfig::is_good)))
}

fn show(all: &[ToldConfig]) {
    table(
        &[
            "CONFIG",
            "NODES",
            "ACCEPTED",
            "RESOLVED",
            "CONFLICTED",
            "PROGRAMMED",
        ],
        all.iter().map(|it| {
            let mut row = vec![it.config.to_string(), it.nodes.len().to_string()];
            row.extend(it.conditions.iter().map(holds));
            row
        }),
    );
    for config in all {
        for it in config.conditions.iter().filter(|it| it.bad) {
            let what = paint(BAD, format!("{} {}:", it.about, it.reason));
            for line in it.message.lines() {
                say!("{what} {}: {line}", config.config);
            }
        }
    }
    if all.is_empty() {
        say!("the cluster has no config");
    } else if all.iter().all(ToldConfig::is_good) {
        say!("{}", paint(GOOD, "in sync"));
    }
}

fn holds(it: &ToldCondition) -> String {
    match it.holds {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    }
    .to_owned()
}
