//! Makes `core/src/envoy/descriptors.bin`: every message of Envoy's configuration API, as one
//! descriptor set, from the protos that the crate `envoy-types` ships.
//!
//! `cargo run -p nodeway-ci --features descriptors --bin descriptors` writes it, `-- --check` says
//! whether the checked-in one is what the protos of the locked version give.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use prost_reflect::DescriptorPool;
use protox::Compiler;

/// Makes Envoy's descriptor set.
#[derive(Parser)]
struct Options {
    /// Compare with the checked-in file instead of writing it.
    #[arg(long)]
    check: bool,
}

/// Why no descriptor set came out.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cargo metadata does not say where `{0}` is; is it still a dependency of nodeway-ci?")]
    Unknown(&'static str),
    #[error("cargo metadata: {0}")]
    Cargo(String),
    #[error("{path}: {error}")]
    Io {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("{file}: {error}")]
    Proto { file: String, error: protox::Error },
    #[error("the compiled files do not fit together: {0}")]
    Join(#[from] prost_reflect::DescriptorError),
    #[error(
        "{0} is not what the protos give: run `cargo run -p nodeway-ci --features descriptors --bin descriptors`"
    )]
    Stale(PathBuf),
}

/// Folders of Envoy's API whose messages can stand in a resource.
const ROOTS: [&str; 4] = [
    "envoy/admin",
    "envoy/config",
    "envoy/extensions",
    "envoy/type",
];

/// Files that protox cannot compile, and what a resource then cannot hold.
/// Here: a relative name that protox looks for in indirect imports too (`DnsCacheConfig` of the
/// cluster type `envoy.clusters.dynamic_forward_proxy`).
const LEFT_OUT: [&str; 1] = ["envoy/extensions/clusters/dynamic_forward_proxy/v3/cluster.proto"];

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(done) => {
            println!("{done}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<String, Error> {
    let protos = protos()?;
    let (count, bytes) = compile(&protos)?;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../core/src/envoy/descriptors.bin");
    let io = |error| Error::Io {
        path: file.clone(),
        error,
    };
    if options.check {
        if std::fs::read(&file).map_err(io)? != bytes {
            return Err(Error::Stale(file));
        }
        return Ok(format!("current: {} files, {} bytes", count, bytes.len()));
    }
    std::fs::write(&file, &bytes).map_err(io)?;
    Ok(format!("written: {} files, {} bytes", count, bytes.len()))
}

/// The folder of protos in the sources of `envoy-types`.
fn protos() -> Result<PathBuf, Error> {
    let output = Command::new(option_env!("CARGO").unwrap_or("cargo"))
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--features",
            "nodeway-ci/envoy-protos",
        ])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .output()
        .map_err(|error| Error::Cargo(error.to_string()))?;
    if !output.status.success() {
        return Err(Error::Cargo(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        ));
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|error| Error::Cargo(error.to_string()))?;
    metadata
        .get("packages")
        .and_then(serde_json::Value::as_array)
        .into_iter()
        .flatten()
        .find(|package| {
            package
                .get("name")
                .is_some_and(|name| name == "envoy-types")
        })
        .and_then(|package| package.get("manifest_path")?.as_str())
        .and_then(|manifest| Some(Path::new(manifest).parent()?.join("proto")))
        .ok_or(Error::Unknown("envoy-types"))
}

/// Compiles every file of the roots and joins the results into one set without comments.
///
/// Each file has a compiler of its own: in one for all, a relative name would also be looked for
/// in files that its own file does not import. The sets are joined as bytes by a pool: read into
/// plain structs they would lose the options that are extensions, Envoy's validation rules.
fn compile(protos: &Path) -> Result<(usize, Vec<u8>), Error> {
    let api = protos.join("data-plane-api");
    let mut includes = entries(protos)?;
    includes.push(protos.join("cel-spec/proto"));
    let mut pool = DescriptorPool::new();
    for root in ROOTS {
        for path in files(&api.join(root))? {
            let name = path
                .strip_prefix(&api)
                .unwrap_or(&path)
                .to_string_lossy()
                .into_owned();
            if pool.get_file_by_name(&name).is_some() || LEFT_OUT.contains(&name.as_str()) {
                continue;
            }
            let failed = |error| Error::Proto {
                file: name.clone(),
                error,
            };
            let mut compiler = Compiler::new(&includes).map_err(failed)?;
            compiler.include_imports(true).include_source_info(false);
            compiler.open_file(&name).map_err(failed)?;
            pool.decode_file_descriptor_set(compiler.encode_file_descriptor_set().as_slice())?;
        }
    }
    Ok((pool.files().len(), pool.encode_to_vec()))
}

/// What is in a folder, sorted by name.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let io = |error| Error::Io {
        path: folder.to_owned(),
        error,
    };
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(io)?
        .map(|entry| entry.map(|e| e.path()).map_err(io))
        .collect::<Result<_, _>>()?;
    paths.sort();
    Ok(paths)
}

/// Every proto in a folder and the folders in it, in order.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    for path in entries(folder)? {
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "proto")
        {
            found.push(path);
        }
    }
    Ok(found)
}
