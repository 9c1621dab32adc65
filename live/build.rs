//! Builds the kernel's programs (`ebpf/`), where this machine can.
//!
//! They need a rustc that has `core` for `bpfel-unknown-none` (Debian's `rustc-web` with
//! `libstd-rust-web-dev-bpf`; else one with rust-src, which builds it) and `bpf-linker`. Without
//! them the crate still builds, and loading a program says what is missing; with `CI=true` that is
//! a build error, in a checkout.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "bpfel-unknown-none";

/// Of the outer cargo: meant for another target, another compiler, or clippy.
const FOREIGN: [&str; 11] = [
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_PROFILE_RELEASE_OPT_LEVEL",
    "CARGO_TARGET_DIR",
    "CLIPPY_ARGS",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

/// A package of a registry has not the programs: cargo packs no workspace within another's folder. Whoever
/// depends on it can install nothing for it, so that is no error, whatever `CI` says.
const PACKAGED: &str = concat!(
    "a registry's package comes without their source; take a checkout of ",
    env!("CARGO_PKG_REPOSITORY"),
    " and run ci/setup there"
);

fn main() {
    println!("cargo:rustc-check-cfg=cfg(nodeway_ebpf_object)");
    println!("cargo:rerun-if-env-changed=EBPF_RUSTC");
    let root = root();
    if !root.join("ebpf/Cargo.toml").is_file() {
        println!("cargo:rerun-if-changed=build.rs");
        println!("cargo:rustc-env=NODEWAY_EBPF_MISSING={PACKAGED}");
        return;
    }
    for path in [
        "ebpf/src",
        "ebpf/Cargo.toml",
        "ebpf/Cargo.lock",
        "core/datapath/src",
    ] {
        println!("cargo:rerun-if-changed={}", root.join(path).display());
    }
    match build(&root) {
        Ok(object) => {
            println!("cargo:rustc-cfg=nodeway_ebpf_object");
            println!("cargo:rustc-env=NODEWAY_EBPF_OBJECT={}", object.display());
        }
        Err(missing) => {
            // What was missing may be there by then; what was found is no reason to build everything again.
            for variable in ["PATH", "CI"] {
                println!("cargo:rerun-if-env-changed={variable}");
            }
            if env::var("CI").is_ok_and(|ci| ci == "true") {
                println!("cargo::error=the kernel's programs cannot be built: {missing}");
            } else {
                println!("cargo:warning=built without the kernel's programs: {missing}");
            }
            println!("cargo:rustc-env=NODEWAY_EBPF_MISSING={missing}");
        }
    }
}

/// The checkout.
fn root() -> PathBuf {
    let here = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let here = PathBuf::from(here);
    here.parent().map(Path::to_path_buf).unwrap_or(here)
}

/// Builds the object, or says in one line what is missing.
fn build(root: &Path) -> Result<PathBuf, String> {
    let compiler = Compiler::find()?;
    let linker = linker(root)?;
    // For the test that builds the object at other optimization levels.
    let rustc = compiler.rustc.display();
    println!("cargo:rustc-env=NODEWAY_EBPF_RUSTC={rustc}");
    println!("cargo:rustc-env=NODEWAY_EBPF_LINKER={}", linker.display());
    println!(
        "cargo:rustc-env=NODEWAY_EBPF_BUILDS_CORE={}",
        compiler.builds_core
    );
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?);
    let target = out.join("ebpf");
    let flags = [
        format!("linker={}", linker.display()),
        "debuginfo=2".to_owned(),
        "link-arg=--btf".to_owned(),
    ];
    let flags: Vec<String> = flags.iter().map(|flag| format!("-C{flag}")).collect();
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for variable in FOREIGN {
        cargo.env_remove(variable);
    }
    cargo
        .current_dir(root.join("ebpf"))
        .args([
            "build",
            "--quiet",
            "--release",
            "--locked",
            "--target",
            TARGET,
        ])
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTC", &compiler.rustc)
        // aya-ebpf uses one unstable feature: inline assembly for this target.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    if compiler.builds_core {
        cargo.arg("-Zbuild-std=core");
    }
    let built = cargo
        .output()
        .map_err(|error| format!("cargo cannot be started: {error}"))?;
    if !built.status.success() {
        let said = String::from_utf8_lossy(&built.stderr);
        // A program that does not compile is nothing to work around.
        println!(
            "cargo::error=ebpf/ does not build with {}: {}",
            compiler.rustc.display(),
            said.lines().collect::<Vec<_>>().join(" | ")
        );
        return Err("ebpf/ does not compile".to_owned());
    }
    Ok(target.join(TARGET).join("release").join("nodeway-ebpf"))
}

/// A rustc that can compile for the target.
struct Compiler {
    rustc: PathBuf,
    builds_core: bool,
}

impl Compiler {
    fn find() -> Result<Self, String> {
        let mut candidates: Vec<OsString> = ["EBPF_RUSTC", "RUSTC"]
            .into_iter()
            .filter_map(env::var_os)
            .collect();
        candidates.push("/usr/bin/rustc".into());
        candidates.extend(nightly());
        let candidates: Vec<(PathBuf, PathBuf)> = candidates
            .into_iter()
            .map(PathBuf::from)
            .filter_map(|rustc| Some((sysroot(&rustc)?, rustc)))
            .collect();
        let has_core = candidates.iter().find(|(sysroot, _)| has_core(sysroot));
        let has_source = || candidates.iter().find(|(sysroot, _)| has_source(sysroot));
        if let Some((_, rustc)) = has_core {
            return Ok(Self {
                rustc: rustc.clone(),
                builds_core: false,
            });
        }
        has_source()
            .map(|(_, rustc)| Self {
                rustc: rustc.clone(),
                builds_core: true,
            })
            .ok_or_else(|| {
                "no rustc here can compile for bpfel-unknown-none; run ci/setup, or: apt-get install \
                 rustc-web libstd-rust-web-dev-bpf, or: rustup toolchain install nightly --component \
                 rust-src; $EBPF_RUSTC names another"
                    .to_owned()
            })
    }
}

fn nightly() -> Option<OsString> {
    let found = Command::new("rustup")
        .args(["which", "--toolchain", "nightly", "rustc"])
        .output()
        .ok()
        .filter(|found| found.status.success())?;
    let path = String::from_utf8(found.stdout).ok()?;
    Some(path.trim().into())
}

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    let mut command = Command::new(rustc);
    for variable in FOREIGN {
        command.env_remove(variable);
    }
    let said = command.args(["--print", "sysroot"]).output().ok()?;
    let path = String::from_utf8(said.stdout).ok()?;
    said.status.success().then(|| PathBuf::from(path.trim()))
}

fn has_core(sysroot: &Path) -> bool {
    let folder = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    let Ok(files) = folder.read_dir() else {
        return false;
    };
    files.filter_map(Result::ok).any(|file| {
        let name = file.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libcore-") && name.ends_with(".rlib")
    })
}

fn has_source(sysroot: &Path) -> bool {
    sysroot
        .join("lib/rustlib/src/rust/library/Cargo.lock")
        .exists()
}

/// `bpf-linker`, of the path or of the checkout's own tools.
fn linker(root: &Path) -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain([root.join("target/tools/bin")])
        .map(|folder| folder.join("bpf-linker"))
        .find(|linker| linker.is_file())
        .ok_or_else(|| {
            "bpf-linker is missing; run ci/setup, or: cargo install bpf-linker (LLVM of the same \
             version as rustc's)"
                .to_owned()
        })
}
