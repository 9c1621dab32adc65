//! `nodeway record`: a node as it is becomes a recording, and what somebody has of a cluster a fixture.

mod folder;

use std::path::{Path, PathBuf};

use clap::Args;
use miette::miette;
use nodeway_sim::fixture_of;

use crate::cluster::Cluster;
use crate::explain::load;
use crate::failure::{Failure, Outcome, verdict};
use crate::paint::{FAINT, HINT, paint};
use crate::screen::say;
use folder::Files;

#[derive(Args)]
#[command(after_help = "\
Examples:
  sudo nodeway record -o incident/                      this node, watched for ten seconds
  sudo nodeway record -o incident/ --watch 60 --pcap
  kubectl exec -n nodeway-system POD -- nodeway record -o - | tar -x -C incident/
  nodeway replay incident/
  nodeway record kube -o fixtures/shop --ask 'default/client http://shop/'    a cluster becomes a fixture
  nodeway record incident/ -o fixtures/incident         a recording becomes a fixture
  nodeway sim fixtures/shop

A recording has the node's objects, what its kernel and its Envoys have, what was decided meanwhile and
which requests Envoys had (agent and supervisor with --access-log). Private keys, other values of Secrets
and what containers are told are left out; addresses, paths and queries are not.

Exit codes: 0 written, 2 something cannot be read or written.")]
pub(crate) struct Arguments {
    /// What is made a fixture, as of `explain`: files, folders, a sysdump, `kube`, recordings. Without
    /// one this node is recorded.
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
    /// The folder, which must not be there yet; `-` writes a tar archive to standard output.
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// Who asks for what in the fixture, `WHO URL`; what comes of it now is what it expects. May be
    /// repeated.
    #[arg(long, value_name = "WHO URL", requires = "sources")]
    ask: Vec<String>,
    #[command(flatten)]
    cluster: Cluster,
    #[cfg(feature = "live")]
    #[command(flatten)]
    node: node::Node,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    if arguments.sources.is_empty() {
        #[cfg(feature = "live")]
        return node::record(&arguments.node, &arguments.output);
        #[cfg(not(feature = "live"))]
        return Err(Failure::argument(
            "there is no SOURCE, and this `nodeway` was built without the feature `live`, which records a node".to_owned(),
            "name a source, or build it on Linux with: cargo install --path cli --features live",
        ));
    }
    let source = load(&arguments.sources, &arguments.cluster)?;
    let asks: Vec<(&str, &str)> = arguments
        .ask
        .iter()
        .map(|ask| ask.split_once(' ').ok_or(ask))
        .collect::<Result<_, _>>()
        .map_err(|ask| {
            let what = format!("--ask: `{ask}` is no `WHO URL`");
            Failure::argument(what, "write it as --ask 'default/client http://shop/'")
        })?;
    let made = fixture_of(&source, &asks).map_err(Failure::run)?;
    let files: Files = made
        .files
        .into_iter()
        .map(|(name, text)| (PathBuf::from(name), text.into_bytes()))
        .collect();
    write(&arguments.output, &files)?;
    if !is_stdout(&arguments.output) {
        let at = arguments.output.display();
        let (requests, objects) = (made.requests, made.objects);
        say!("{at}: a fixture with {objects} objects and {requests} requests");
        for note in &made.notes {
            say!("{}", paint(FAINT, format!("note: {note}")));
        }
        say!("next:\n  {}", paint(HINT, format!("nodeway sim {at}")));
    }
    Ok(verdict(true))
}

fn is_stdout(output: &Path) -> bool {
    output.as_os_str() == "-"
}

fn write(output: &Path, files: &Files) -> Result<(), Failure> {
    if is_stdout(output) {
        let written = folder::write_archive(std::io::stdout().lock(), files);
        return written
            .map_err(|error| miette!("standard output cannot be written: {error}").into());
    }
    let written = folder::write(output, files);
    written.map_err(|error| miette!("{error}").into())
}

/// This node.
#[cfg(feature = "live")]
mod node {
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use clap::Args;
    use miette::miette;
    use nodeway_live::agent::ask_status;
    use nodeway_live::netns::NetNs;
    use nodeway_live::record::{RecordError, Taken, Wanted, record as take};

    use super::{is_stdout, write};
    use crate::failure::{Failure, Outcome, verdict};
    use crate::paint::{BAD, FAINT, HINT, paint};
    use crate::screen::say;

    #[derive(Args)]
    pub(super) struct Node {
        /// For how long decisions are watched; 0 for not at all.
        #[arg(
            long,
            value_name = "SECONDS",
            default_value_t = 10,
            value_parser = clap::value_parser!(u64).range(..=300)
        )]
        watch: u64,
        /// How many of the newest requests of each Envoy are taken.
        #[arg(long, value_name = "N", default_value_t = 200)]
        requests: usize,
        /// Captures the packets of all devices meanwhile.
        #[arg(long)]
        pcap: bool,
        /// The run directory of the node's agent.
        #[arg(long, value_name = "FOLDER", default_value = "/run/nodeway")]
        run_dir: PathBuf,
    }

    pub(super) fn record(node: &Node, output: &Path) -> Outcome {
        // Told before it is waited for.
        if !is_stdout(output) && output.symlink_metadata().is_ok() {
            return Err(Failure::argument(
                format!("{} is there already", output.display()),
                "name another folder, or take this one away",
            ));
        }
        let netns = NetNs::current().map_err(|error| Failure::from(miette!("{error}")))?;
        // Who is not there is not waited for.
        ask_status(&node.run_dir)
            .map_err(|error| failed(&RecordError::Agent(error), &node.run_dir))?;
        if node.watch > 0 {
            anstream::eprintln!(
                "watching what is decided for {} s (--watch); Ctrl-C ends it, and nothing is written",
                node.watch
            );
        }
        let wanted = Wanted {
            watch: Duration::from_secs(node.watch),
            requests: node.requests,
            packets: node.pcap,
        };
        let taken = take(&node.run_dir, &netns, wanted).map_err(|it| failed(&it, &node.run_dir))?;
        write(output, &taken.files)?;
        if !is_stdout(output) {
            tell(&taken, output);
        }
        Ok(verdict(true))
    }

    fn tell(taken: &Taken, output: &Path) {
        let (header, at) = (&taken.header, output.display());
        let decisions = match taken.decisions {
            Some(count) => format!("{count} decisions"),
            None => format!(
                "no decisions, which {} has no program to tell of",
                header.redirect
            ),
        };
        let requests = match taken.requests {
            Some(count) => format!("{count} requests"),
            None => "no requests, since no Envoy wrote one down (--access-log)".to_owned(),
        };
        say!("{at}: {} with {decisions} and {requests}", header.node);
        if header.lost > 0 {
            let text = format!("{} more decisions were too many", header.lost);
            say!("{}", paint(FAINT, text));
        }
        for line in &taken.differences {
            say!("{} {line}", paint(BAD, "not as planned:"));
        }
        say!("next:\n  {}", paint(HINT, format!("nodeway replay {at}")));
    }

    fn failed(error: &RecordError, run: &Path) -> Failure {
        let fix = format!(
            "run it as root where the node's agent runs, and name its run directory if that is not {}: --run-dir",
            run.display()
        );
        Failure::from(miette!(help = fix, "{error}"))
    }
}
