//! One parser under libFuzzer: `NODEWAY_PARSER` names it. Without a name it prints all, with the files that each begins at.

#![no_main]

use std::env;
use std::process::exit;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use nodeway_fuzz::{PARSERS, Parser, parser};

static CHOSEN: OnceLock<&Parser> = OnceLock::new();

fn chosen() -> &'static Parser {
    let Some(found) = env::var("NODEWAY_PARSER")
        .ok()
        .and_then(|name| parser(&name))
    else {
        for parser in PARSERS {
            println!(
                "{} {}",
                parser.name,
                parser.begins_at().collect::<Vec<_>>().join(" ")
            );
        }
        exit(2);
    };
    found
}

fuzz_target!(
    init: {
        let _ = CHOSEN.set(chosen());
    },
    |bytes: &[u8]| {
        (CHOSEN.get_or_init(chosen).hold)(bytes);
    }
);
