//! The object and the verifier: every program loads at each optimization level, nothing in it can
//! panic, and it does not grow unseen. Needs root: `sudo -E cargo nextest run -p nodeway-live`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nodeway_live::bpf::{Globals, Object, ProgramName};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use rstest::rstest;

const TARGET: &str = "bpfel-unknown-none";
/// Which program takes how many instructions to verify, at most over all globals.
const KNOWN: &str = include_str!("bpf_instructions.txt");
/// What a compiler's mood may add.
const SLACK_PERCENT: u32 = 20;

/// The object at an optimization level: the one that is built in, or one built as live's build
/// script builds it.
fn object(level: &str) -> Vec<u8> {
    let (Some(object), Some(linker), Some(rustc)) = (
        option_env!("NODEWAY_EBPF_OBJECT"),
        option_env!("NODEWAY_EBPF_LINKER"),
        option_env!("NODEWAY_EBPF_RUSTC"),
    ) else {
        panic!("this build has no kernel programs: run ci/setup, then build again");
    };
    let object = PathBuf::from(object);
    if level == "3" {
        return nodeway_live::bpf::read(&object).unwrap();
    }
    // target/TARGET/release/nodeway-ebpf
    let target = object.ancestors().nth(3).unwrap();
    let flags = format!("-Clinker={linker}\x1f-Cdebuginfo=2\x1f-Clink-arg=--btf");
    let mut cargo = Command::new(env!("CARGO"));
    let foreign = |name: &str| name.starts_with("CARGO_") && name != "CARGO_HOME";
    for (name, _) in std::env::vars().filter(|(name, _)| foreign(name)) {
        cargo.env_remove(name);
    }
    for name in ["RUSTUP_TOOLCHAIN", "RUSTFLAGS", "RUSTC_WRAPPER"] {
        cargo.env_remove(name);
    }
    cargo
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../ebpf"))
        .args(["build", "--quiet", "--profile", "small", "--locked"])
        .args(["--target", TARGET, "--target-dir"])
        .arg(target)
        .env("RUSTC", rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags);
    if option_env!("NODEWAY_EBPF_BUILDS_CORE") == Some("true") {
        cargo.arg("-Zbuild-std=core");
    }
    let built = cargo.output().unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{said}");
    nodeway_live::bpf::read(&target.join(TARGET).join("small/nodeway-ebpf")).unwrap()
}

#[rstest]
fn every_program_loads_at_each_level_and_takes_no_more_to_verify_than_is_known(
    #[values("3", "s")] level: &str,
) {
    let bytes = object(level);
    let mut sizes: BTreeMap<ProgramName, (u32, u32)> = BTreeMap::new();
    for (sk_lookup, trace) in [(false, false), (false, true), (true, false), (true, true)] {
        let globals = Globals {
            sk_lookup,
            trace,
            netns_cookie: 1,
        };
        let mut object = Object::of(&bytes, globals, None).unwrap();
        for program in ProgramName::ALL {
            object.load(program).unwrap();
            let (verified, bytes) = object.size(program).unwrap();
            let most = sizes.entry(program).or_default();
            *most = (most.0.max(verified), most.1.max(bytes));
        }
    }
    let mut table = String::new();
    for (program, (verified, bytes)) in &sizes {
        writeln!(table, "{level} {program} {verified} {bytes}").unwrap();
    }
    println!("level, program, instructions verified, bytes\n{table}");
    for (program, (verified, bytes)) in sizes {
        let (known_verified, known_bytes) = known(level, program.as_str());
        let is_small = |now: u32, known: u32| {
            u64::from(now) * 100 <= u64::from(known) * u64::from(100 + SLACK_PERCENT)
        };
        assert!(
            is_small(verified, known_verified) && is_small(bytes, known_bytes),
            "{program} has grown at level {level}; if it has to, put this into \
             live/tests/bpf_instructions.txt:\n{table}"
        );
    }
}

fn known(level: &str, program: &str) -> (u32, u32) {
    for line in KNOWN.lines() {
        if let [at, name, verified, bytes] = line.split(' ').collect::<Vec<_>>()[..]
            && (at, name) == (level, program)
        {
            return (verified.parse().unwrap(), bytes.parse().unwrap());
        }
    }
    (0, 0)
}

/// A panic path is "last insn is not an exit or jmp" to the verifier, sooner or later.
#[rstest]
fn nothing_in_the_object_can_panic(#[values("3", "s")] level: &str) {
    let bytes = object(level);
    let file = object::File::parse(bytes.as_slice()).unwrap();
    let names: Vec<&str> = file.symbols().filter_map(|it| it.name().ok()).collect();
    assert!(names.contains(&"nw_tc_ethernet"), "{names:?}");
    let panics: Vec<&&str> = names.iter().filter(|it| it.contains("panic")).collect();
    assert!(panics.is_empty(), "{panics:?}");
}

/// What shows under `-v`: why, line by line.
#[test]
fn a_refused_program_comes_with_the_verifiers_log() {
    let mut bytes = object("3");
    // `r0 = 1; exit` at the end of connect4 becomes `r0 = 7; exit`, which a connect hook must not
    // return: found as the first such pair of its section.
    let file = object::File::parse(bytes.as_slice()).unwrap();
    let section = file.section_by_name("cgroup/connect4").unwrap();
    let (start, size) = section.file_range().unwrap();
    let [start, size] = [start, size].map(|it| usize::try_from(it).unwrap());
    let code = &mut bytes[start..start + size];
    let returns = [0xb7, 0, 0, 0, 1, 0, 0, 0];
    let mut changed = 0;
    for instruction in code.chunks_mut(8).filter(|it| **it == returns) {
        instruction[4] = 7;
        changed += 1;
    }
    assert!(changed > 0, "connect4 returns 1 somewhere");
    let globals = Globals {
        sk_lookup: false,
        trace: false,
        netns_cookie: 1,
    };
    let mut object = Object::of(&bytes, globals, None).unwrap();
    let error = object.load(ProgramName::Connect4).unwrap_err();
    let nodeway_live::bpf::LoadError::Refused { program, log, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(program, "nw_connect4");
    assert!(log.contains("R0"), "{log}");
}
