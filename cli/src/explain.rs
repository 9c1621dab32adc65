//! `nodeway explain`: the way of one request, stage by stage.
//!
//! It is a run of the simulator with one request, printed from its trace: there is no second
//! evaluation that could disagree.

#[cfg(feature = "live")]
mod live;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use nodeway_core::ingress::duration;
use nodeway_core::problem::{Problem, Severity};
use nodeway_core::source::{Known, Text, read_one};
use nodeway_core::trace::{Stage, stages_in_force};
use nodeway_sim::{
    ChosenBy, Expect, Family, Fates, Fixture, Missing, Redirect, RequestSpec, Row, Sim, SimBuilder,
    Source,
};
use serde::Serialize;

use crate::captures::Folder;
use crate::cluster::Cluster;
use crate::failure::{Failure, Outcome, verdict};
use crate::paint::{BAD, FAINT, GOOD, HINT, STRONG, paint};
use crate::screen::say;
use crate::sim::Output;

#[derive(Args)]
#[command(after_help = "\
Examples:
  nodeway explain fixtures/bookinfo --from default/client --to http://cilium-ingress-basic-ingress/details/0
  nodeway explain manifests/ --from outside --to http://cilium-ingress-basic-ingress/ -H 'host: shop.example'
  nodeway explain a.yaml b.yaml --from node/node-1 --to http://productpage:9080/ --expect status=200,service=productpage
  nodeway explain cilium-sysdump-20260301-101500.zip --from outside --to http://192.0.2.10/
  nodeway explain config_dump.json --from outside --to http://10.0.0.5:8080/path -H 'host: shop.example'
  nodeway explain kube --read-only --from outside --to http://192.0.2.10/       the cluster of KUBECONFIG, only listed
  sudo nodeway explain --live --from default/client --to http://productpage:9080/
  kubectl get ing,svc,endpointslices,pods,nodes,cec,ccec -A -o yaml | nodeway explain - --from outside --to http://192.0.2.10/

Exit codes: 0 an answer came, every --expect holds, and a node that was looked at is as planned; 1 not, 2 bad input.")]
pub(crate) struct Arguments {
    /// Files, folders, a fixture, a sysdump (folder or .zip), Envoy's config_dump, `kube` for a
    /// cluster, which is only listed, or `-` for standard input.
    #[cfg_attr(not(feature = "live"), arg(required = true))]
    #[cfg_attr(feature = "live", arg(required_unless_present = "live"))]
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
    /// Who asks: a pod or its Deployment (`default/client`), `outside`, `node/NAME`, an address.
    #[arg(long, value_name = "WHO")]
    from: String,
    /// The URL. Its host is a Service, a node or an address.
    #[arg(long, value_name = "URL")]
    to: String,
    /// A header field, `name: value`; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    headers: Vec<String>,
    /// The method.
    #[arg(short = 'X', long, default_value = "GET")]
    method: String,
    /// The body.
    #[arg(short, long, default_value = "")]
    data: String,
    /// Takes the name's IPv6 address.
    #[arg(short = '6', long)]
    ipv6: bool,
    /// When it is asked, in virtual time (`20ms`), while the fixture's faults happen.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<Duration>,
    /// What must come of it: `status=200,service=details`. Any field of a fixture's `expect`.
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    expect: Vec<String>,
    /// How packets come to the listener: `tc`, `sk-lookup`, `iptables` or `sidecar`; what a dumped
    /// cluster uses if absent.
    #[arg(long, value_name = "WAY")]
    redirect: Option<Redirect>,
    /// Where luck comes from.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Every hop of every packet, with its reason.
    #[arg(long)]
    trace: bool,
    /// A pcapng file for every interface into this folder: Wireshark shows each decision as comment.
    #[arg(long, value_name = "DIR")]
    pcap: Option<PathBuf>,
    /// `table` or `json` (see the book, "JSON output").
    #[arg(short, long, default_value = "table")]
    output: Output,
    #[command(flatten)]
    cluster: Cluster,
    #[cfg(feature = "live")]
    #[command(flatten)]
    live: live::Where,
}

/// The JSON form: the row of `sim -o json`, and the stages.
#[derive(Serialize)]
struct Explained<'a> {
    request: &'a Row,
    /// Who chose `request.redirect`.
    redirect_chosen_by: String,
    stages: &'a [Stage],
    problems: &'a [Problem],
    not_simulated: &'a [String],
    /// What the source says of itself: fields passed over, what Envoy refused.
    notes: &'a [String],
    /// With `--live`: where the node is not as planned.
    #[cfg(feature = "live")]
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<&'a live::Seen>,
}

/// What is asked: a source, or a node that was looked at.
#[derive(Default)]
struct Asked {
    fixture: Option<Fixture>,
    #[cfg(feature = "live")]
    seen: Option<live::Seen>,
}

impl Asked {
    fn of(arguments: &Arguments) -> Result<(SimBuilder, Self), Failure> {
        #[cfg(feature = "live")]
        if arguments.live.is_asked() {
            let (builder, seen) = arguments.live.simulation()?;
            let asked = Self {
                seen: Some(seen),
                ..Self::default()
            };
            return Ok((builder, asked));
        }
        let source = load(&arguments.sources, &arguments.cluster)?;
        let builder = Sim::from_source(&source).map_err(Failure::load)?;
        let asked = Self {
            fixture: source.fixture,
            #[cfg(feature = "live")]
            seen: None,
        };
        Ok((builder, asked))
    }

    /// Whether a node that was looked at does what is planned.
    fn is_as_planned(&self) -> bool {
        #[cfg(feature = "live")]
        return self.seen.as_ref().is_none_or(live::Seen::is_as_planned);
        #[cfg(not(feature = "live"))]
        true
    }
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let spec = request(arguments)?;
    let (builder, asked) = Asked::of(arguments)?;
    let mut builder = simulation(arguments, builder);
    let folder = arguments.pcap.as_deref().map(Folder::open).transpose()?;
    if folder.is_some() {
        builder = builder.capture_packets();
    }
    let mut sim = builder.start().map_err(Failure::topology)?;
    if let Some(fixture) = &asked.fixture {
        fixture.schedule(&mut sim).map_err(Failure::run)?;
    }
    sim.run_for(arguments.at.unwrap_or_default());
    let redirect = sim.settings().redirect;
    let row = Row::of(&spec, redirect, &mut sim).map_err(|error| Failure::ask(&error))?;
    if let Some(folder) = &folder {
        folder.write(None, &sim.take_captures())?;
    }
    let stages = stages_in_force(&row.way, &sim.known(), sim.in_force());
    match arguments.output {
        Output::Json => {
            let explained = Explained {
                request: &row,
                redirect_chosen_by: sim.redirect_chosen_by().to_string(),
                stages: &stages,
                problems: &sim.problems(),
                not_simulated: &sim.objects().not_simulated,
                notes: &sim.objects().notes,
                #[cfg(feature = "live")]
                live: asked.seen.as_ref(),
            };
            say!("{}", serde_json::to_string_pretty(&explained)?);
        }
        Output::Table => {
            print(&row, &stages, &sim);
            #[cfg(feature = "live")]
            if let Some(seen) = &asked.seen {
                seen.print();
            }
        }
    }
    Ok(verdict(
        row.applicable && row.failure.is_none() && row.holds() && asked.is_as_planned(),
    ))
}

fn request(arguments: &Arguments) -> Result<RequestSpec, Failure> {
    let mut headers = BTreeMap::new();
    for field in &arguments.headers {
        let Some((name, value)) = field.split_once(':') else {
            return Err(Failure::argument(
                format!("-H: `{field}` is no header field"),
                "write it as -H 'name: value'",
            ));
        };
        headers.insert(name.trim().to_owned(), value.trim().to_owned());
    }
    Ok(RequestSpec {
        name: String::new(),
        from: arguments.from.clone(),
        to: arguments.to.clone(),
        method: arguments.method.clone(),
        headers,
        body: arguments.data.clone(),
        family: if arguments.ipv6 {
            Family::Ipv6
        } else {
            Family::Any
        },
        at: None,
        connection: None,
        expect: expectations(&arguments.expect)?,
        differs: BTreeMap::new(),
    })
}

/// A time as a fixture writes it.
fn moment(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time; write it as 5ms, 1.5s or 2m");
    duration::from_go(text).ok_or_else(wrong)
}

/// What stands after `--expect`, read as strictly as a fixture's `expect`.
fn expectations(pairs: &[String]) -> Result<Expect, Failure> {
    let mut fields = serde_json::Map::new();
    for pair in pairs {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(Failure::argument(
                format!("--expect: `{pair}` is no `name=value`"),
                "write it as --expect status=200,service=details",
            ));
        };
        // Numbers and booleans are what they are in YAML; everything else is a name.
        let value = match serde_json::from_str(value) {
            Ok(value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_))) => value,
            _ => value.into(),
        };
        fields.insert(name.trim().to_owned(), value);
    }
    let text = Text::new("--expect", serde_json::Value::Object(fields).to_string());
    read_one(&text).map_err(|errors| {
        let first = errors.first();
        let field = first.map_or("", |error| error.field.as_str());
        let reason = first.map_or("", |error| error.reason.as_str());
        let fix = first.map_or("", |error| error.fix.as_str());
        Failure::argument(format!("--expect: {field}: {reason}"), fix)
    })
}

fn simulation(arguments: &Arguments, mut builder: SimBuilder) -> SimBuilder {
    if let Some(redirect) = arguments.redirect {
        builder = builder.redirect(redirect);
    }
    if let Some(address) = asked_address(&arguments.to) {
        builder = builder.reaching(address);
    }
    if let Some(seed) = arguments.seed {
        builder = builder.seed(seed);
    }
    if arguments.trace {
        builder.trace_packets()
    } else {
        builder
    }
}

/// The address in a URL, where its host is one.
fn asked_address(url: &str) -> Option<IpAddr> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split_once(']')?.0,
        None => authority.split(':').next()?,
    };
    host.parse().ok()
}

/// Reads the sources that a user named; standard input once, if `-` is among them.
pub(crate) fn load(sources: &[String], cluster: &Cluster) -> Result<Source, Failure> {
    if let Some(source) = cluster.source(sources)? {
        return Ok(source);
    }
    texts(sources)
}

/// The same, where a cluster is no source.
pub(crate) fn texts(sources: &[String]) -> Result<Source, Failure> {
    let paths: Vec<_> = sources.iter().map(Into::into).collect();
    let stdin = if sources.iter().any(|source| source == "-") {
        let content = std::io::read_to_string(std::io::stdin()).map_err(|error| {
            Failure::argument(
                format!("standard input cannot be read: {error}"),
                "give it UTF-8 text, for instance from kubectl get -o yaml",
            )
        })?;
        if content.trim().is_empty() {
            return Err(Failure::argument(
                "standard input is empty".to_owned(),
                "see what the command before the pipe said: it wrote nothing",
            ));
        }
        Some(content)
    } else {
        None
    };
    Source::load(&paths, stdin).map_err(Failure::load)
}

fn print(row: &Row, stages: &[Stage], sim: &Sim) {
    for hop in sim.hops() {
        say!("{hop}");
    }
    say!(
        "{}  {}",
        paint(
            STRONG,
            format!("{} {} from {}", row.method, row.url, row.client)
        ),
        paint(FAINT, run_of(row, sim))
    );
    say!();
    if !row.applicable {
        let why = row.reason.as_deref().unwrap_or_default();
        say!("not applicable: {why}");
        return;
    }
    for stage in stages {
        print_stage(stage);
    }
    say!();
    saw(row);
    if row.redirected {
        without_its_envoy(row.redirect);
    }
    for checked in &row.expectations {
        let (mark, style) = if checked.held {
            ("✓", GOOD)
        } else {
            ("✗", BAD)
        };
        let expected = if checked.held {
            String::new()
        } else {
            format!(", expected {}", checked.want)
        };
        say!(
            "{} {} is {}{expected}",
            paint(style, mark),
            checked.what,
            checked.got
        );
    }
    for problem in sim.problems() {
        let style = if problem.severity == Severity::Error {
            BAD
        } else {
            HINT
        };
        say!("{} {problem}", paint(style, "problem:"));
    }
    notes(&sim.objects().notes);
    if !sim.objects().not_simulated.is_empty() {
        let names = sim.objects().not_simulated.join(", ");
        say!(
            "{} {names}",
            paint(HINT, "not simulated, may change the answer:")
        );
    }
}

/// What the run was made with, and which config of a dumped cluster chose it.
fn run_of(row: &Row, sim: &Sim) -> String {
    let seed = sim.settings().seed.0;
    if matches!(sim.known(), Known::Dump(_)) {
        return format!("from the listener on, seed {seed}");
    }
    match sim.redirect_chosen_by() {
        ChosenBy::Node(node) => format!("redirect {} of {node}, seed {seed}", row.redirect),
        ChosenBy::Cluster(words) => format!("redirect {} ({words}), seed {seed}", row.redirect),
        _ => format!("redirect {}, seed {seed}", row.redirect),
    }
}

/// How many notes of a source are told; a dump of a newer cluster may have thousands.
const NOTES: usize = 10;

fn notes(notes: &[String]) {
    for note in notes.iter().take(NOTES) {
        say!("{} {note}", paint(HINT, "note:"));
    }
    if let Some(more) = notes.len().checked_sub(NOTES).filter(|more| *more > 0) {
        say!(
            "{} {more} more: see `notes` of -o json",
            paint(HINT, "note:")
        );
    }
}

/// How wide the names of stages are.
const NAME: usize = 13;

fn print_stage(stage: &Stage) {
    say!(
        " {} {}",
        paint(STRONG, format!("{:<NAME$}", stage.stage)),
        stage.decided
    );
    let under = |text: String| say!(" {:<NAME$}   {text}", "");
    if !stage.because.is_empty() {
        under(format!("because {}", stage.because));
    }
    for evidence in &stage.evidence {
        under(paint(FAINT, format!("[{evidence}]")).to_string());
    }
    for lost in &stage.lost {
        under(paint(FAINT, format!("not {}: {}", lost.candidate, lost.why)).to_string());
    }
    for note in &stage.notes {
        under(paint(HINT, note).to_string());
    }
    if let Some(stop) = &stage.stop {
        under(format!(
            "{} {} {}",
            paint(BAD, "cause:"),
            stop.object,
            stop.field
        ));
        under(paint(HINT, format!("fix: {}", stop.fix)).to_string());
    }
}

/// What the redirect declares for the case that nobody serves.
fn without_its_envoy(redirect: Redirect) {
    let Fates { established, new } = redirect.fates(Missing::Proxy);
    let open = established.is_open() || new.is_open();
    let stance = if open { "fail-open" } else { "fail-closed" };
    let text = format!(
        "{stance}: without its Envoy a connection that stood would end with {established}, a new one with {new}"
    );
    say!("{}", paint(FAINT, text));
}

/// What the three parties saw, and how long it took.
fn saw(row: &Row) {
    let parties = [
        ("client", &row.client_saw),
        ("proxy", &row.proxy_saw),
        ("backend", &row.backend_saw),
    ];
    let saw: Vec<String> = parties
        .into_iter()
        .filter_map(|(party, seen)| Some(format!("the {party} saw {}", seen.as_ref()?)))
        .collect();
    let result = match (row.status, row.failure) {
        (Some(status), _) => status.to_string(),
        (None, failure) => format!("no answer ({})", failure.unwrap_or_default()),
    };
    let saw = if saw.is_empty() {
        String::new()
    } else {
        format!("; {}", saw.join(", "))
    };
    say!("{result} after {:.3} ms{saw}", row.time_ms);
}
