//! `nodeway lab`: a fixture for real, on network namespaces with the kernel and Envoy.
//!
//! What stands is kept by a process of its own (`keep`, which nobody calls by hand): in it the pods'
//! servers run. All other commands find the lab by its name, so that a lab lives on between them,
//! and one that crashed can be taken away.

use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;

use clap::{Args, Subcommand};
use miette::miette;
use nodeway_live::envoy;
use nodeway_live::lab::name::LabName;
use nodeway_live::lab::state::{Labs, StateError};
use nodeway_live::lab::{self, Lab, LabError, LabOptions, Workers};
use nodeway_sim::{Fixture, Redirect, Report};

use crate::failure::{Failure, Outcome, verdict};
use crate::screen::say;
use crate::sim::{Output, Ways, show};

#[derive(Args)]
#[command(after_help = "\
Examples:
  nodeway lab run fixtures/bookinfo                   up, every request, down
  nodeway lab run fixtures/bookinfo --redirect all    each way to the listener, side by side
  nodeway lab up fixtures/bookinfo --redirect iptables
  nodeway lab exec bookinfo default/client -- curl -i http://cilium-ingress-basic-ingress/details/0
  nodeway lab exec bookinfo node/node-1 -- iptables-save -t mangle
  nodeway lab down bookinfo

Needs root, iproute2, iptables, ipset and Envoy 1.40 (ci/setup gets them).
Exit codes: 0 all expectations hold, 1 one does not, 2 no lab could be made.")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Makes a lab, which stands until it is taken down.
    Up(Up),
    /// Sends a fixture's requests: in the lab of that name, or in one made for this.
    Run(Run),
    /// Runs a command at a place of a lab, where names mean what they mean to clients there.
    Exec(Exec),
    /// Takes a lab away, also what a crashed one left.
    Down(Down),
    /// Names the labs that there are.
    List,
    /// Keeps a lab, until it is killed.
    #[command(hide = true)]
    Keep(Keep),
}

#[derive(Args, Clone)]
struct Which {
    /// A fixture: a folder with `fixture.yaml` and `manifests/`.
    fixture: PathBuf,
    /// The lab's name; that of the fixture's folder if absent. Several labs stand side by side.
    #[arg(long)]
    name: Option<String>,
    /// The program of its Envoys; `$ENVOY`, the one on `PATH` or that of ci/setup if absent.
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
}

#[derive(Args)]
struct Up {
    #[command(flatten)]
    which: Which,
    /// How packets come to the listener: `tc`, `sk-lookup`, `iptables`.
    #[arg(long, value_name = "WAY")]
    redirect: Option<Redirect>,
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    which: Which,
    /// How packets come to the listener: `tc`, `sk-lookup`, `iptables`, or `all` side by side.
    #[arg(long, value_name = "WAY")]
    redirect: Option<Ways>,
    /// `table` or `json`, the same as of `nodeway sim` (see the book, "JSON output").
    #[arg(short, long, default_value = "table")]
    output: Output,
    /// Leaves the lab standing.
    #[arg(long)]
    keep: bool,
}

#[derive(Args)]
struct Exec {
    /// The lab: its name, or the folder of its fixture.
    lab: String,
    /// Where: a pod (`default/client`), a node (`node/node-1`), `outside`.
    place: String,
    /// What to run there.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

#[derive(Args)]
struct Down {
    /// The lab: its name, or the folder of its fixture.
    lab: String,
}

#[derive(Args)]
struct Keep {
    #[command(flatten)]
    which: Which,
    #[arg(long)]
    redirect: Option<Redirect>,
}

fn own_program() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe();
    own.map_err(|error| miette!("this program's own path is unknown: {error}").into())
}

/// What the keeper says when all stands.
const READY: &str = "ready";

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    match &arguments.command {
        Task::Up(it) => up(it),
        Task::Run(it) => send(it),
        Task::Exec(it) => exec(it),
        Task::Down(it) => down(it),
        Task::List => list(),
        Task::Keep(it) => keep(it),
    }
}

impl From<LabError> for Failure {
    fn from(error: LabError) -> Self {
        match error {
            LabError::Load(errors) => Self::load(errors),
            other => miette!("{other}").into(),
        }
    }
}

impl Which {
    fn options(&self) -> Result<LabOptions, Failure> {
        Ok(LabOptions {
            name: self.name()?,
            envoy: envoy::find(self.envoy.as_deref()).map_err(|error| miette!("{error}"))?,
            labs: Labs::here(),
            // On a lab's nodes runs what runs on real ones.
            workers: Workers::Processes(own_program()?),
        })
    }

    fn name(&self) -> Result<LabName, Failure> {
        let asked = self.name.as_deref().map(LabName::new);
        let asked = asked.transpose().map_err(|error| miette!("{error}"))?;
        let name = asked.or_else(|| LabName::of_folder(&self.fixture));
        name.ok_or_else(|| {
            let folder = self.fixture.display();
            Failure::argument(
                format!("`{folder}` gives a lab no name"),
                "name the folder of a fixture, or give --name",
            )
        })
    }

    fn load(&self) -> Result<Fixture, Failure> {
        Fixture::load(&self.fixture).map_err(Failure::load)
    }
}

/// A lab by its name or by its fixture's folder.
fn named(lab: &str) -> Result<LabName, Failure> {
    let of_folder = || LabName::of_folder(Path::new(lab));
    match LabName::new(lab) {
        Ok(name) => Ok(name),
        Err(error) => of_folder().ok_or_else(|| miette!("{error}").into()),
    }
}

fn up(arguments: &Up) -> Outcome {
    let options = arguments.which.options()?;
    let fixture = arguments.which.load()?;
    let keeper = Keeper::default();
    end_with_signal(&options, &keeper)?;
    keeper.start(&arguments.which, &options, arguments.redirect)?;
    let lab = Lab::open(&fixture, None, options.clone())?;
    let name = &options.name;
    say!(
        "the lab `{name}` stands, redirect {}",
        lab.model().settings().redirect
    );
    for node in &lab.model().topology().nodes {
        let pods: Vec<&str> = node.pods.iter().map(|pod| pod.name.as_str()).collect();
        say!("  node/{:<9} pods {}", node.name, pods.join(", "));
    }
    for host in &lab.model().topology().outside {
        say!("  outside/{}", host.name);
    }
    say!("next:");
    for command in hints(&fixture, name, arguments.which.fixture.as_path()) {
        say!("  {command}");
    }
    Ok(verdict(true))
}

/// Commands to go on with.
fn hints(fixture: &Fixture, name: &LabName, folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(spec) = fixture.requests.first() {
        all.push(format!(
            "nodeway lab exec {name} {} -- curl -i {}",
            spec.from, spec.to
        ));
    }
    let own = LabName::of_folder(folder).as_ref() == Some(name);
    let also = if own {
        String::new()
    } else {
        format!(" --name {name}")
    };
    all.push(format!("nodeway lab run {}{also}", folder.display()));
    all.push(format!("nodeway lab down {name}"));
    all
}

fn send(arguments: &Run) -> Outcome {
    let options = arguments.which.options()?;
    let fixture = arguments.which.load()?;
    let mut reports = Vec::new();
    for redirect in Ways::chosen(arguments.redirect) {
        reports.push(one_run(arguments, &fixture, &options, redirect)?);
    }
    let setting = |report: &Report| format!("redirect {}, in the lab", report.redirect);
    let name = options.name;
    show(&reports, arguments.output, &setting, &|report| {
        let folder = arguments.which.fixture.as_path();
        if arguments.keep {
            return hints(&fixture, &name, folder);
        }
        let fixture = folder.display();
        vec![
            format!(
                "nodeway lab run {fixture} --redirect {} --keep",
                report.redirect
            ),
            format!("nodeway sim {fixture} --redirect {}", report.redirect),
        ]
    })
}

/// The requests of a fixture with one redirect.
fn one_run(
    arguments: &Run,
    fixture: &Fixture,
    options: &LabOptions,
    redirect: Option<Redirect>,
) -> Result<Report, Failure> {
    let stands = match Lab::open(fixture, redirect, options.clone()) {
        Ok(lab) => Some(lab),
        Err(LabError::State(StateError::Missing { .. })) => None,
        Err(error) => return Err(error.into()),
    };
    let made = stands.is_none();
    let mut lab = match stands {
        Some(lab) => lab,
        None => {
            let keeper = Keeper::default();
            end_with_signal(options, &keeper)?;
            keeper.start(&arguments.which, options, redirect)?;
            Lab::open(fixture, redirect, options.clone())?
        }
    };
    let report = lab.run(fixture);
    if made && !arguments.keep {
        lab::down(&options.labs, &options.name)?;
    }
    report.map_err(Failure::run)
}

fn exec(arguments: &Exec) -> Outcome {
    let name = named(&arguments.lab)?;
    let labs = Labs::here();
    let state = labs.read(&name).map_err(|error| miette!("{error}"))?;
    let fixture = Fixture::load(&state.fixture).map_err(Failure::load)?;
    let place = lab::Site::find(&fixture, &state, &name, &arguments.place)?;
    let [program, rest @ ..] = arguments.command.as_slice() else {
        return Ok(verdict(true));
    };
    // This process becomes the command: signals and the exit code are its own.
    let error = place.enter(&labs.folder(&name), || {
        Command::new(program).args(rest).exec()
    })?;
    Err(Failure::argument(
        format!("cannot run `{program}`: {error}"),
        "name a program that is installed on this machine",
    ))
}

fn down(arguments: &Down) -> Outcome {
    let name = named(&arguments.lab)?;
    lab::down(&Labs::here(), &name)?;
    say!("the lab `{name}` is gone");
    Ok(verdict(true))
}

fn list() -> Outcome {
    let labs = Labs::here();
    for name in labs.list() {
        let name = LabName::new(&name).map_err(|error| miette!("{error}"))?;
        match labs.read(&name) {
            Ok(state) => {
                let stands = if state.ready && state.keeper.lives() {
                    "stands"
                } else {
                    "does not stand whole"
                };
                let fixture = state.fixture.display();
                say!("{name}  redirect {}, {stands}, {fixture}", state.redirect);
            }
            Err(error) => say!("{name}  {error}"),
        }
    }
    Ok(verdict(true))
}

/// The keeper itself: makes the lab, says so, and sleeps until it is killed. What it leaves then is
/// taken away by whoever kills it.
fn keep(arguments: &Keep) -> Outcome {
    nodeway_live::signal::accept().map_err(|error| miette!("signals stay held back: {error}"))?;
    let options = arguments.which.options()?;
    let fixture = arguments.which.load()?;
    let mut tell = |what: &str| say!("{what}");
    let lab = match Lab::up(&fixture, arguments.redirect, options, &mut tell) {
        Ok(lab) => lab,
        Err(error) => {
            // Whoever waits for this tells it to the user.
            anstream::eprintln!("{error}");
            return Ok(ExitCode::from(2));
        }
    };
    for (pod, port) in lab.taken_ports() {
        say!("{pod} has no port {port}: another program of its node has it");
    }
    say!("{READY}");
    loop {
        thread::park();
    }
}

/// The process that keeps a lab, while it is being made.
#[derive(Clone, Default)]
struct Keeper(std::sync::Arc<std::sync::Mutex<Option<Child>>>);

impl Keeper {
    fn child(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Starts it, and waits until the lab stands.
    fn start(
        &self,
        which: &Which,
        options: &LabOptions,
        redirect: Option<Redirect>,
    ) -> Result<(), Failure> {
        let failed = |error: io::Error| miette!("the lab's keeper cannot be started: {error}");
        let mut command = Command::new(own_program()?);
        command
            .args(["lab", "keep", "--name", options.name.as_str(), "--envoy"])
            .arg(&options.envoy)
            .arg(&which.fixture)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for whoever waits for it.
            .process_group(0);
        if let Some(redirect) = redirect {
            command.args(["--redirect", redirect.name()]);
        }
        let mut child = command.spawn().map_err(failed)?;
        let (output, words) = (child.stdout.take(), child.stderr.take());
        *self.child() = Some(child);
        let output = output.map(BufReader::new);
        let lines = output.into_iter().flat_map(BufReader::lines);
        let mut progress = Progress::begin();
        for line in lines.map_while(Result::ok) {
            if line == READY {
                progress.end();
                return Ok(());
            }
            progress.tell(&line);
        }
        progress.end();
        let mut why = String::new();
        if let Some(mut words) = words {
            // What it could say is better than nothing.
            let _ = words.read_to_string(&mut why);
        }
        self.sweep(options);
        let why = why.trim();
        Err(if why.is_empty() {
            miette!("the lab's keeper ended without a word").into()
        } else {
            miette!("{why}").into()
        })
    }
}

impl Keeper {
    /// Takes away what a keeper left that ended in the middle; another's lab of that name stays.
    fn sweep(&self, options: &LabOptions) {
        let Some(mut child) = self.child().take() else {
            return;
        };
        let _ = child.wait();
        let state = options.labs.read(&options.name);
        if state.is_ok_and(|it| it.keeper.pid == child.id()) {
            // What refuses to go now is there for `nodeway lab down`.
            let _ = lab::down(&options.labs, &options.name);
        }
    }
}

/// What is being made, on one line of a terminal.
struct Progress {
    shown: bool,
}

impl Progress {
    fn begin() -> Self {
        Self {
            shown: io::stderr().is_terminal(),
        }
    }

    fn tell(&mut self, what: &str) {
        if self.shown {
            // A terminal that is gone has nobody to tell.
            let _ = write!(io::stderr(), "\r\x1b[K{what} …");
            let _ = io::stderr().flush();
        }
    }

    fn end(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// From now on Ctrl-C takes the lab away that is being made, and ends this process.
fn end_with_signal(options: &LabOptions, keeper: &Keeper) -> Result<(), Failure> {
    let (options, keeper) = (options.clone(), keeper.clone());
    nodeway_live::signal::on_interrupt(move || {
        // Held to the end: whoever waits for the keeper must not end this process meanwhile.
        let mut child = keeper.child();
        if let Some(child) = child.as_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        // Nothing of it may have been made yet.
        let _ = lab::down(&options.labs, &options.name);
        std::process::exit(130);
    })
    .map_err(|error| miette!("signals cannot be waited for: {error}"))?;
    Ok(())
}
