//! A cold debug build of the command: how long, of how many crates, and how large.

use std::io;
use std::path::Path;
use std::process::Command;

use super::{Line, timed};

/// Why nothing was built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A folder or a file could not be used.
    #[error("the folder of the build: {0}")]
    Io(#[from] io::Error),
    /// Cargo did not build it.
    #[error("cargo build failed:\n{0}")]
    Cargo(String),
}

/// Builds the package of that name from nothing, in a folder that is removed afterwards.
///
/// # Errors
/// When it does not build.
pub fn run(workspace: &Path, package: &str) -> Result<Vec<Line>, BuildError> {
    let folder = tempfile::tempdir()?;
    let (took, output) = timed(|| {
        Command::new(env!("CARGO"))
            .args(["build", "--locked", "--package", package, "--target-dir"])
            .arg(folder.path())
            .current_dir(workspace)
            .output()
    });
    let output = output?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(BuildError::Cargo(said.into_owned()));
    }
    let binary = folder.path().join("debug").join(package);
    Ok(vec![
        Line::plain("cold debug build", format!("{:.0} s", took.as_secs_f64())),
        Line::plain("crates compiled", compiled(&said).to_string()),
        Line::plain("target folder", megabytes(size(folder.path())?)),
        Line::plain("debug binary", megabytes(binary.metadata()?.len())),
    ])
}

fn compiled(said: &str) -> usize {
    let lines = said.lines().map(str::trim_start);
    lines.filter(|line| line.starts_with("Compiling ")).count()
}

fn size(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in folder.read_dir()? {
        let entry = entry?;
        bytes += match entry.file_type()? {
            kind if kind.is_dir() => size(&entry.path())?,
            _ => entry.metadata()?.len(),
        };
    }
    Ok(bytes)
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_without_dependencies_is_built_and_measured() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2024\"\n";
        std::fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
        let lock = "version = 4\n\n[[package]]\nname = \"tiny\"\nversion = \"0.1.0\"\n";
        std::fs::write(folder.path().join("Cargo.lock"), lock).unwrap();
        std::fs::create_dir(folder.path().join("src")).unwrap();
        std::fs::write(folder.path().join("src/main.rs"), "fn main() {}\n").unwrap();
        let lines = run(folder.path(), "tiny").unwrap();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[1].figure, "1");
    }

    #[test]
    fn what_does_not_build_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let error = run(folder.path(), "tiny").unwrap_err();
        assert!(error.to_string().contains("Cargo.toml"), "{error}");
    }
}
