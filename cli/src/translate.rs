//! `nodeway translate`: the `CiliumEnvoyConfig` that each Ingress becomes.

use clap::{Args, ValueEnum};
use nodeway_core::ingress::{self, Dialect};
use nodeway_core::object::EnvoyConfig;
use nodeway_core::problem::Severity;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::explain::load;
use crate::failure::{Failure, Outcome, verdict};
use crate::screen::say;

#[derive(Args)]
#[command(after_help = "\
Examples:
  nodeway translate fixtures/bookinfo/manifests/ingress.yaml
  nodeway translate fixtures/bookinfo --dialect 1.11
  kubectl get ingress,ingressclass -A -o yaml | nodeway translate - | kubectl diff -f -

Exit codes: 0 everything was translated, 1 part of an Ingress was left out, 2 bad input.")]
pub(crate) struct Arguments {
    /// Files, folders, a fixture, `kube` for a cluster, which is only listed, or `-` for standard
    /// input.
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<String>,
    /// Whose form: `today` (Cilium's main branch) or `1.11` (2022).
    #[arg(long, default_value = "today")]
    dialect: Dialect,
    /// `yaml` or `json`.
    #[arg(short, long, default_value = "yaml")]
    output: Output,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Output {
    Yaml,
    Json,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let source = load(&arguments.sources, &arguments.cluster)?;
    let objects = source.objects().map_err(Failure::load)?;
    let mut options = match &source.fixture {
        Some(fixture) => fixture.ingress.options(),
        None => ingress::Options::default(),
    };
    if let (None, Some(config)) = (&source.fixture, &objects.cilium_config) {
        for bad in config.apply_to(&mut options) {
            anstream::eprintln!("note: {config} {bad}");
        }
    }
    options.dialect = arguments.dialect;
    if objects.ingresses().next().is_none() {
        return Err(Failure::argument(
            format!("{} has no Ingress", source.name),
            "name a file, a folder or `-` that has one",
        ));
    }
    let made = ingress::translate(&objects, &options);
    let configs: Vec<Value> = made
        .configs
        .iter()
        .map(manifest)
        .collect::<Result<_, _>>()?;
    match arguments.output {
        Output::Json => {
            let list = json!({ "apiVersion": "v1", "kind": "List", "items": configs });
            say!("{}", serde_json::to_string_pretty(&list)?);
        }
        Output::Yaml => {
            for (index, config) in configs.iter().enumerate() {
                let separator = if index == 0 { "" } else { "---\n" };
                let text =
                    serde_saphyr::to_string(config).map_err(|error| miette::miette!("{error}"))?;
                crate::screen::put(format_args!("{separator}{text}"));
            }
        }
    }
    for problem in &made.problems {
        anstream::eprintln!("problem: {problem}");
    }
    Ok(verdict(
        made.problems
            .iter()
            .all(|problem| problem.severity != Severity::Error),
    ))
}

/// The config as a manifest that can be applied.
fn manifest(config: &EnvoyConfig) -> serde_json::Result<Value> {
    let mut value = serde_json::to_value(config)?;
    if let Some(fields) = value.as_object_mut() {
        fields.insert("apiVersion".to_owned(), "cilium.io/v2".into());
        fields.insert("kind".to_owned(), "CiliumEnvoyConfig".into());
    }
    Ok(value)
}
