//! Something is missing under a running cluster: what becomes of connections is what is declared.

use nodeway_core::object::{Change, Kind, Object, ObjectRef};
use nodeway_sim::{
    Ask, Cause, Cluster, Failed, Fate, Fates, Fault, Fixture, Missing, Redirect, Reply, Sim,
};
use rstest::rstest;

const SHOP: &str = "http://shop/";

fn shop(redirect: Redirect) -> Sim {
    let fixture = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../fixtures/faults/proxy-crash"
    );
    let fixture = Fixture {
        faults: Vec::new(),
        ..Fixture::load(fixture).unwrap()
    };
    let builder = Sim::from_fixture(&fixture).unwrap();
    builder.redirect(redirect).start().unwrap()
}

fn ask(cluster: &mut Sim, connection: &str) -> Result<Reply, Box<Failed>> {
    cluster.request("default/client", Ask::get(SHOP).over(connection))
}

fn fate(outcome: Result<Reply, Box<Failed>>) -> Fate {
    match outcome {
        Ok(reply) if reply.took.as_secs() >= 5 && [503, 504].contains(&reply.status) => {
            Fate::GivenUp
        }
        Ok(reply) if reply.status != 200 => Fate::Answered(reply.status),
        Ok(reply) if reply.redirected() => Fate::Served,
        Ok(_) => Fate::PassedBy,
        Err(failed) => match failed.failure {
            Cause::Network(failure) => Fate::Ends(failure),
            Cause::Ask(error) => panic!("{error}"),
        },
    }
}

/// The config behind the redirect.
fn config(cluster: &Sim) -> (ObjectRef, Object) {
    let reference = ObjectRef::new(Kind::CiliumEnvoyConfig, "default", "shop");
    let entry = cluster.objects().get(&reference).unwrap();
    (reference, entry.object.clone())
}

fn objects(what: &str, change: Change) -> Fault {
    Fault::Objects {
        what: what.to_owned(),
        changes: vec![change],
    }
}

/// Takes it away from under a connection that stands.
fn take_away(cluster: &mut Sim, missing: Missing) {
    let node = || "node-1".to_owned();
    let (reference, config) = config_or_kept(cluster);
    let faults = match missing {
        Missing::Proxy => vec![Fault::Proxy { node: node() }],
        Missing::Agent => vec![
            Fault::Agent { node: node() },
            // It misses that the redirect is to go.
            objects("the config goes", Change::Delete(reference)),
        ],
        Missing::Resources => {
            let _ = cluster.inject(&Fault::Agent { node: node() }).unwrap();
            let crashed = cluster.inject(&Fault::Proxy { node: node() }).unwrap();
            cluster.mend(crashed);
            Vec::new()
        }
        Missing::Endpoints => vec![Fault::Endpoints {
            service: ObjectRef::new(Kind::Service, "default", "shop"),
            pods: Vec::new(),
        }],
        Missing::Path => vec![Fault::Partition {
            between: ["node/node-1".to_owned(), "node/node-2".to_owned()],
        }],
        Missing::Config => vec![objects("the config goes", Change::Delete(reference))],
        Missing::Past => vec![objects("the config comes", Change::Put(config))],
    };
    for fault in faults {
        let _ = cluster.inject(&fault).unwrap();
    }
}

fn config_or_kept(cluster: &Sim) -> (ObjectRef, Object) {
    let reference = ObjectRef::new(Kind::CiliumEnvoyConfig, "default", "shop");
    match cluster.objects().get(&reference) {
        Some(_) => config(cluster),
        None => config(&shop(cluster.settings().redirect)),
    }
}

/// What becomes of a connection that stood, and of a new one.
fn break_it(redirect: Redirect, missing: Missing) -> Fates {
    let mut cluster = shop(redirect);
    if missing == Missing::Past {
        let (reference, _) = config(&cluster);
        cluster.change(&Change::Delete(reference));
    }
    let before = fate(ask(&mut cluster, "established"));
    let usual = match missing {
        Missing::Past => Fate::PassedBy,
        _ => Fate::Served,
    };
    assert_eq!(before, usual, "before anything is missing");
    take_away(&mut cluster, missing);
    // Both are asked at once: what one of them learns must not help the other.
    let ask = |connection: &str| Ask::get(SHOP).over(connection);
    let established = cluster.send("default/client", ask("established"));
    let new = cluster.send("default/client", ask("new"));
    Fates {
        established: fate(established.and_then(|it| cluster.finish(it))),
        new: fate(new.and_then(|it| cluster.finish(it))),
    }
}

#[rstest]
fn connections_end_as_declared(
    #[values(
        Redirect::Tc,
        Redirect::SkLookup,
        Redirect::Iptables,
        Redirect::Sidecar
    )]
    redirect: Redirect,
) {
    let differences: Vec<String> = Missing::ALL
        .iter()
        .map(|missing| (*missing, break_it(redirect, *missing)))
        .filter(|(missing, fates)| redirect.fates(*missing) != *fates)
        .map(|(missing, fates)| {
            let declared = redirect.fates(missing);
            format!("{missing:?}: {fates:?}, declared {declared:?}")
        })
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// The declaration as the book prints it.
fn table() -> String {
    use std::fmt::Write as _;
    let mut text = String::from("| what is missing | connection |");
    for redirect in Redirect::ALL {
        write!(text, " `{redirect}` |").unwrap();
    }
    text.push_str("\n|---|---|---|---|---|---|\n");
    for missing in Missing::ALL {
        for (name, of) in [
            ("established", (|it| it.established) as fn(Fates) -> Fate),
            ("new", |it| it.new),
        ] {
            write!(text, "| {} | {name} |", missing.text()).unwrap();
            for redirect in Redirect::ALL {
                let fate = of(redirect.fates(*missing));
                let mark = if fate.is_open() { "**" } else { "" };
                write!(text, " {mark}{fate}{mark} |").unwrap();
            }
            text.push('\n');
        }
    }
    text
}

#[test]
fn the_book_prints_what_is_declared() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../book/src/break-it.md");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains(&table()), "put this into it:\n{}", table());
}
