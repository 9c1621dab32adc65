//! `nodeway inject`: manifests whose pods each get an Envoy of their own, to be applied in their place.

use clap::{Args, ValueEnum};
use nodeway_core::inject::{Options, inject};
use nodeway_core::source::values;
use nodeway_sim::{LoadError, LoadErrors};
use serde_json::json;

use crate::explain::texts;
use crate::failure::{Failure, Outcome, verdict};
use crate::screen::{put, say};

#[derive(Args)]
#[command(after_help = "\
Examples:
  nodeway inject manifests/ | kubectl apply -f -
  kubectl get deployment shop -o yaml | nodeway inject - | kubectl apply -f -
  nodeway inject shop.yaml --image my/nodeway:1.0 --exclude-port 8081

The pods ask the API server what their Envoys shall do; once before them:
  kubectl apply -f live/deploy/sidecar.yaml

Pods and all that makes some in Kubernetes itself (Deployment to CronJob) are rewritten; all else
means what it meant. A second time changes nothing. Kubernetes 1.29 or later.
Exit codes: 0 all pods have a sidecar, 1 some cannot have one, and are as they were, 2 bad input.")]
pub(crate) struct Arguments {
    /// Files, folders, or `-` for standard input.
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<String>,
    /// The image with `nodeway` and `envoy`.
    #[arg(long, value_name = "IMAGE", default_value = "nodeway:dev")]
    image: String,
    /// A port that goes past Envoy in both directions, such as a health check's; may be given more
    /// than once.
    #[arg(long = "exclude-port", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    excluded: Vec<u16>,
    /// Envoys write a line for each request to their container's log.
    #[arg(long)]
    access_log: bool,
    /// `yaml` or `json`.
    #[arg(short, long, default_value = "yaml")]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Output {
    Yaml,
    Json,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let source = texts(&arguments.sources)?;
    let documents = values(&source.texts).map_err(|errors| {
        Failure::load(LoadErrors {
            errors: errors
                .into_iter()
                .map(Box::new)
                .map(LoadError::Text)
                .collect(),
            texts: source.texts.clone(),
        })
    })?;
    let options = Options {
        image: arguments.image.clone(),
        excluded: arguments.excluded.clone(),
        access_log: arguments.access_log,
    };
    let injected = inject(documents, &options);
    match arguments.output {
        Output::Json => {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": injected.documents});
            say!("{}", serde_json::to_string_pretty(&list)?);
        }
        Output::Yaml => {
            let text = serde_saphyr::to_string_multiple(&injected.documents);
            let text = text.map_err(|error| miette::miette!("{error}"))?;
            put(format_args!("{text}"));
        }
    }
    for left in &injected.left {
        anstream::eprintln!("left as it is: {left}");
    }
    if injected.with.is_empty() && injected.left.is_empty() {
        anstream::eprintln!("note: nothing in {} makes pods", source.name);
    }
    Ok(verdict(injected.left.is_empty()))
}
