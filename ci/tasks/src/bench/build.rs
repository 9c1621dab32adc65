//! A cold debug build of the command: how long, of how many crates, and how large; beside that of a commit before.

use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

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
    /// Git has no such commit, or its files could not be laid out.
    #[error("the files of commit {commit}: {said}")]
    Commit {
        /// As it was asked for.
        commit: String,
        /// What git or tar said.
        said: String,
    },
}

/// What a build from nothing took.
struct Built {
    took: Duration,
    crates: usize,
    folder: u64,
    binary: u64,
}

/// Builds the package of that name from nothing, in a folder that is removed afterwards; and for each of some commits once
/// more as it was there, which is the reference then.
///
/// # Errors
/// When it does not build.
pub fn run(workspace: &Path, package: &str, commits: &[String]) -> Result<Vec<Line>, BuildError> {
    // A commit that is not there is told before minutes of building.
    let before: Vec<TempDir> = commits
        .iter()
        .map(|commit| lay_out(workspace, commit))
        .collect::<Result<_, _>>()?;
    let now = figures(&build(workspace, package)?);
    if commits.is_empty() {
        let lines = now.map(|(what, figure, _)| Line::plain(what, figure));
        return Ok(lines.into());
    }
    let mut lines = Vec::new();
    for (commit, before) in commits.iter().zip(&before) {
        let then = figures(&build(before.path(), package)?);
        for ((what, figure, amount), (_, then, of)) in now.iter().zip(then) {
            lines.push(Line {
                reference: format!("{then} at {commit}"),
                ratio: format!("{:.2}", amount / of),
                ..Line::plain(*what, figure)
            });
        }
    }
    Ok(lines)
}

/// What is told of a build: as text, and as the number that a ratio is made of.
#[expect(
    clippy::cast_precision_loss,
    reason = "sizes of a build are far below 2^52"
)]
fn figures(built: &Built) -> [(&'static str, String, f64); 4] {
    let seconds = built.took.as_secs_f64();
    [
        ("cold debug build", format!("{seconds:.0} s"), seconds),
        (
            "crates compiled",
            built.crates.to_string(),
            built.crates as f64,
        ),
        (
            "target folder",
            megabytes(built.folder),
            built.folder as f64,
        ),
        ("debug binary", megabytes(built.binary), built.binary as f64),
    ]
}

fn build(workspace: &Path, package: &str) -> Result<Built, BuildError> {
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
    Ok(Built {
        took,
        crates: compiled(&said),
        folder: size(folder.path())?,
        binary: folder.path().join("debug").join(package).metadata()?.len(),
    })
}

/// The files of a commit, in a folder of their own.
fn lay_out(workspace: &Path, commit: &str) -> Result<TempDir, BuildError> {
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("commit.tar");
    let mut git = Command::new("git");
    git.current_dir(workspace).args(["archive", "--output"]);
    let mut tar = Command::new("tar");
    tar.current_dir(folder.path()).args(["-xf", "commit.tar"]);
    tell(git.arg(&archive).arg(commit))
        .and_then(|()| tell(&mut tar))
        .map_err(|said| BuildError::Commit {
            commit: commit.to_owned(),
            said,
        })?;
    Ok(folder)
}

/// Runs it, and says what it said when it failed.
fn tell(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
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

    /// A checkout of one commit, with a package that has no dependencies.
    fn tiny() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let manifest = "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2024\"\n";
        std::fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
        let lock = "version = 4\n\n[[package]]\nname = \"tiny\"\nversion = \"0.1.0\"\n";
        std::fs::write(folder.path().join("Cargo.lock"), lock).unwrap();
        std::fs::create_dir(folder.path().join("src")).unwrap();
        std::fs::write(folder.path().join("src/main.rs"), "fn main() {}\n").unwrap();
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            git.current_dir(folder.path()).args([
                "-c",
                "user.name=t",
                "-c",
                "user.email=t@example.com",
            ]);
            tell(git.args(arguments)).unwrap();
        };
        git(&["init", "--quiet"]);
        git(&["add", "."]);
        git(&["commit", "--quiet", "--message", "Begin"]);
        folder
    }

    #[test]
    fn a_package_without_dependencies_is_built_and_measured() {
        let lines = run(tiny().path(), "tiny", &[]).unwrap();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[1].figure, "1");
    }

    #[test]
    fn beside_a_commit_the_figures_have_ratios() {
        let folder = tiny();
        let lines = run(folder.path(), "tiny", &["HEAD".to_owned()]).unwrap();
        assert_eq!(lines[1].reference, "1 at HEAD");
        assert_eq!(lines[1].ratio, "1.00");
    }

    #[test]
    fn a_commit_that_is_not_there_is_named() {
        let error = run(tiny().path(), "tiny", &["nowhere".to_owned()]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("the files of commit nowhere: "),
            "{error}"
        );
    }

    #[test]
    fn what_does_not_build_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let error = run(folder.path(), "tiny", &[]).unwrap_err();
        assert!(error.to_string().contains("Cargo.toml"), "{error}");
    }
}
