//! Nodeway's parsers under arbitrary bytes, and what must hold of each: nothing panics, what is refused is refused with a
//! place, a reason and a fix, and what is printed is read again as it was.
//!
//! `ci/fuzz` lets libFuzzer look for bytes of which that does not hold. What it found stands in `finds/PARSER/`, and is asked
//! again by this crate's tests, beside the seeds that the project itself has.

mod archive;
mod rules;
mod texts;
mod wire;

/// A parser, and what must hold of it whatever it is given.
#[derive(Debug)]
pub struct Parser {
    /// Its name, as `ci/fuzz` takes it, and the folder of what was found.
    pub name: &'static str,
    /// Files of the project that it reads, by pattern: fuzzing begins at them, and at those in `seeds/PARSER/`.
    pub seeds: &'static [&'static str],
    /// Panics when something does not hold of these bytes.
    pub hold: fn(&[u8]),
}

/// Every parser, by name.
pub const PARSERS: &[Parser] = &[
    Parser {
        name: "access-log",
        seeds: &[],
        hold: wire::access_log,
    },
    Parser {
        name: "archive",
        seeds: &[],
        hold: archive::archive,
    },
    Parser {
        name: "certificate",
        seeds: &["core/src/certificate/*.pem", "sim/tests/https/*.pem"],
        hold: wire::certificate,
    },
    Parser {
        name: "cluster",
        seeds: &["fixtures/*/manifests/*.yaml", "fixtures/incidents/*/*.yaml"],
        hold: texts::cluster,
    },
    Parser {
        name: "config-dump",
        seeds: &["fixtures/dumps/config_dump.json"],
        hold: texts::config_dump,
    },
    Parser {
        name: "fixture",
        seeds: &["fixtures/*/fixture.yaml", "fixtures/faults/*/fixture.yaml"],
        hold: texts::fixture,
    },
    Parser {
        name: "format",
        seeds: &[],
        hold: wire::format,
    },
    Parser {
        name: "http",
        seeds: &[],
        hold: wire::http,
    },
    Parser {
        name: "manifests",
        seeds: &[
            "fixtures/*/manifests/*.yaml",
            "fixtures/findings/*/*.yaml",
            "fixtures/incidents/*/*.yaml",
            "fixtures/dumps/cluster.yaml",
        ],
        hold: texts::manifests,
    },
    Parser {
        name: "packet",
        seeds: &[],
        hold: wire::packet,
    },
    Parser {
        name: "recording",
        seeds: &[],
        hold: texts::recording,
    },
    Parser {
        name: "rules",
        seeds: &[],
        hold: rules::rules,
    },
    Parser {
        name: "sets",
        seeds: &[],
        hold: rules::sets,
    },
    Parser {
        name: "tls-hello",
        seeds: &[],
        hold: wire::tls_hello,
    },
];

impl Parser {
    /// Patterns of all files that it is asked about first, seen from the project's folder.
    pub fn begins_at(&self) -> impl Iterator<Item = String> {
        let own = ["seeds", "finds"].map(|kind| format!("ci/fuzz.d/{kind}/{}/*", self.name));
        self.seeds
            .iter()
            .map(|seeds| (*seeds).to_owned())
            .chain(own)
    }
}

/// The parser of that name.
#[must_use]
pub fn parser(name: &str) -> Option<&'static Parser> {
    PARSERS.iter().find(|parser| parser.name == name)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_must_hold_of_a_parser_holds_of_its_seeds_and_of_what_was_found() {
        let project = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        for parser in PARSERS {
            let patterns = parser.begins_at().map(|it| format!("{project}/{it}"));
            let files = patterns
                .flat_map(|it| glob::glob(&it).unwrap())
                .map(Result::unwrap);
            let mut count = 0;
            for file in files {
                // Shown by a test that fails.
                println!("{}: {}", parser.name, file.display());
                (parser.hold)(&fs::read(file).unwrap());
                count += 1;
            }
            assert!(count > 0, "{} begins at nothing", parser.name);
        }
    }
}
