//! The book's commands: run as a reader would, and compared with what the page says they print.
//!
//! A fence marked `console` holds commands (lines that begin with `$ `), each followed by what it
//! prints, standard error included. `console exit=1` says how its last command ends, `console root`
//! that a page needs root from there on: without it the rest of that page is left out, and counted.
//! A page with `console kind` needs Docker, kind and kubectl, and the checkout, which it runs in: such pages
//! are run by themselves, when somebody asks for them. The commands
//! of a page run in order, in a folder of their own that begins with a copy of `fixtures/`; so a
//! page may edit what it likes. `…` at the end of an expected block stands for any further lines.
//! The pages are the book's and those of the incidents' fixtures.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use miette::{IntoDiagnostic, WrapErr};
use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag};

/// How long a command may take: the longest builds an image, on a machine that does other things too.
const LIMIT: Duration = Duration::from_secs(600);

/// The commands of one fence.
#[derive(Debug)]
struct Fence {
    /// Bytes of the fence's text in its page.
    range: std::ops::Range<usize>,
    /// 1-based line of the fence's first command.
    line: usize,
    /// How its last command must end.
    exit: i32,
    /// Whether it needs root.
    root: bool,
    /// Whether it needs a cluster of kind.
    kind: bool,
    /// Each command with what it must print.
    commands: Vec<(String, String)>,
}

/// What a page says and what came out, where they differ.
#[derive(Debug)]
pub struct Difference {
    /// The page.
    pub page: PathBuf,
    /// 1-based line of the fence.
    pub line: usize,
    /// The command.
    pub command: String,
    /// What the page says, and what came out.
    pub text: String,
}

/// What came of the book's commands.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Commands that were run.
    pub run: usize,
    /// Commands that were left out, because they need root.
    pub left_out: usize,
    /// What is not as the book says.
    pub differences: Vec<Difference>,
}

/// Which pages are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Those that need this machine alone.
    Machine,
    /// Those that need a cluster of kind.
    Kind,
}

/// Runs every page of a part of the book. With `update`, pages are rewritten to say what came out.
///
/// # Errors
/// When a page cannot be read or written, or a shell cannot be started.
pub fn run(root: &Path, part: Part, update: bool) -> miette::Result<Outcome> {
    let is_root = nix::unistd::geteuid().is_root();
    let (mut count, mut left_out) = (0, 0);
    let mut differences = Vec::new();
    let mut all = pages(&root.join("book/src"))?;
    all.extend(pages(&root.join("fixtures/incidents"))?);
    for page in all {
        let text = read(&page)?;
        let fences = fences(&text);
        let needs_kind = fences.iter().any(|fence| fence.kind);
        if fences.is_empty() || needs_kind != (part == Part::Kind) {
            continue;
        }
        let own = tempfile::tempdir().into_diagnostic()?;
        copy(&root.join("fixtures"), &own.path().join("fixtures"))?;
        let folder = if needs_kind { root } else { own.path() };
        let mut rewritten = String::new();
        let mut kept = 0;
        let mut possible = true;
        for fence in fences {
            possible &= is_root || !fence.root;
            if !possible {
                left_out += fence.commands.len();
                continue;
            }
            let mut said = String::new();
            let last = fence.commands.len();
            for (number, (command, want)) in fence.commands.iter().enumerate() {
                count += 1;
                let (got, code) = shell(root, folder, command)?;
                let exit = if number + 1 == last { fence.exit } else { 0 };
                if code != exit {
                    differences.push(difference(
                        &page,
                        &fence,
                        command,
                        &format!("it must end with exit code {exit} and ended with {code}:\n{got}"),
                    ));
                } else if !fence.matches(want, &got) && !update {
                    differences.push(difference(
                        &page,
                        &fence,
                        command,
                        &format!("the page says:\n{want}\nit prints:\n{got}"),
                    ));
                }
                said.push_str(&format!("$ {command}\n"));
                said.push_str(if fence.matches(want, &got) {
                    want
                } else {
                    &got
                });
            }
            rewritten.push_str(text.get(kept..fence.range.start).unwrap_or_default());
            rewritten.push_str(&said);
            kept = fence.range.end;
        }
        rewritten.push_str(text.get(kept..).unwrap_or_default());
        if update && rewritten != text {
            std::fs::write(&page, rewritten).into_diagnostic()?;
        }
    }
    Ok(Outcome {
        run: count,
        left_out,
        differences,
    })
}

impl Fence {
    /// Whether what came out is what the page says. What touches the kernel takes another time each
    /// time.
    fn matches(&self, want: &str, got: &str) -> bool {
        if self.root || self.kind {
            matches(&timeless(want), &timeless(got))
        } else {
            matches(want, got)
        }
    }
}

/// A text without what time makes of it: milliseconds, and the blanks beside them.
fn timeless(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        for index in 1..words.len() {
            let is_time = words.get(index).is_some_and(|word| *word == "ms");
            if let (true, Some(number)) = (is_time, words.get_mut(index - 1)) {
                *number = "N";
            }
        }
        out.push_str(&words.join(" "));
        out.push('\n');
    }
    out
}

fn difference(page: &Path, fence: &Fence, command: &str, text: &str) -> Difference {
    Difference {
        page: page.to_owned(),
        line: fence.line,
        command: command.to_owned(),
        text: text.to_owned(),
    }
}

/// Whether what came out is what the page says, up to a last line `…`.
fn matches(want: &str, got: &str) -> bool {
    match want.strip_suffix("…\n") {
        Some(beginning) => got.starts_with(beginning),
        None => want == got,
    }
}

fn read(path: &Path) -> miette::Result<String> {
    std::fs::read_to_string(path)
        .into_diagnostic()
        .wrap_err_with(|| path.display().to_string())
}

/// Every page below a folder, in the order of names.
fn pages(folder: &Path) -> miette::Result<Vec<PathBuf>> {
    let mut pages = Vec::new();
    for entry in std::fs::read_dir(folder)
        .into_diagnostic()
        .wrap_err("book/src")?
    {
        let path = entry.into_diagnostic()?.path();
        if path.is_dir() {
            pages.extend(self::pages(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    pages.sort();
    Ok(pages)
}

fn fences(text: &str) -> Vec<Fence> {
    let mut fences = Vec::new();
    let mut exit = None;
    for (event, range) in Parser::new(text).into_offset_iter() {
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                let mut words = info.split_whitespace();
                exit = (words.next() == Some("console")).then(|| {
                    let words: Vec<&str> = words.collect();
                    let code = words.iter().find_map(|word| word.strip_prefix("exit="));
                    let code = code.and_then(|code| code.parse().ok()).unwrap_or(0);
                    (code, words.contains(&"root"), words.contains(&"kind"))
                });
            }
            Event::Text(_) => {
                if let Some((exit, root, kind)) = exit.take() {
                    fences.push(Fence {
                        root,
                        kind,
                        ..fence(text, range, exit)
                    });
                }
            }
            _ => {}
        }
    }
    fences
}

fn fence(text: &str, range: std::ops::Range<usize>, exit: i32) -> Fence {
    // A parser may hand out a block line by line; the block itself ends where its fence does.
    let rest = text.get(range.start..).unwrap_or_default();
    let length = rest.find("\n```").map_or(rest.len(), |end| end + 1);
    let block = rest.get(..length).unwrap_or_default();
    let mut commands: Vec<(String, String)> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command.to_owned(), String::new())),
            (None, Some((_, output))) => output.push_str(&format!("{line}\n")),
            (None, None) => {}
        }
    }
    let before = text.get(..range.start).unwrap_or_default();
    Fence {
        range: range.start..range.start + length,
        line: before.lines().count() + 1,
        exit,
        root: false,
        kind: false,
        commands,
    }
}

/// Runs one command line as the reader's shell would; what it prints, and how it ends.
fn shell(root: &Path, folder: &Path, command: &str) -> miette::Result<(String, i32)> {
    let binaries = root.join("target/debug");
    let path = format!(
        "{}:{}",
        binaries.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let mut bash = Command::new("bash");
    bash.args(["-c", &format!("{{ {command}\n}} 2>&1")])
        .current_dir(folder)
        .env("PATH", path)
        .env("NO_COLOR", "1")
        .env("COLUMNS", "120");
    let (mut text, code) = printed(&mut bash, LIMIT)
        .into_diagnostic()
        .wrap_err("bash is needed to run the book's commands")?;
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    // A page shows no trailing blanks, and an editor would take them away.
    let trimmed: String = text
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect();
    Ok((trimmed, code))
}

/// What a program prints, and how it ends. One that waits for what never comes is ended, and says so.
fn printed(program: &mut Command, limit: Duration) -> io::Result<(String, i32)> {
    let mut child = program
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let (tell, told) = mpsc::channel();
    if let Some(mut stdout) = child.stdout.take() {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let read = stdout.read_to_end(&mut bytes).map(|_| bytes);
            // Nobody may wait for it any more.
            let _ = tell.send(read);
        });
    }
    match told.recv_timeout(limit) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes?).into_owned();
            Ok((text, child.wait()?.code().unwrap_or(-1)))
        }
        Err(_) => {
            child.kill()?;
            child.wait()?;
            Ok((format!("ci/book: no end within {} s", limit.as_secs()), -1))
        }
    }
}

/// Copies a folder of files.
fn copy(from: &Path, to: &Path) -> miette::Result<()> {
    std::fs::create_dir_all(to).into_diagnostic()?;
    for entry in std::fs::read_dir(from)
        .into_diagnostic()
        .wrap_err("fixtures")?
    {
        let entry = entry.into_diagnostic()?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target).into_diagnostic()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_gives_its_commands_with_what_they_print() {
        let text = "# Page\n\n```console root exit=1\n$ one\na\n\nb\n$ two\n```\n\n```text\n$ three\n```\n";
        let fences = fences(text);
        assert_eq!(fences.len(), 1);
        assert_eq!(fences[0].exit, 1);
        assert!(fences[0].root);
        assert_eq!(fences[0].line, 4);
        assert_eq!(fences[0].commands[0], ("one".into(), "a\n\nb\n".into()));
        assert_eq!(fences[0].commands[1], ("two".into(), String::new()));
        assert_eq!(&text[fences[0].range.clone()], "$ one\na\n\nb\n$ two\n");
    }

    #[test]
    fn a_command_that_waits_for_what_never_comes_is_ended_and_says_so() {
        let mut bash = Command::new("bash");
        bash.args(["-c", "until false; do sleep 0.1; done"]);
        let ended = printed(&mut bash, Duration::from_millis(50)).unwrap();
        assert_eq!(ended, ("ci/book: no end within 0 s".to_owned(), -1));
    }

    #[test]
    fn the_page_of_problems_has_a_row_for_every_code() {
        let page = include_str!("../../../book/src/problems.md");
        for code in nodeway_core::problem::Code::ALL {
            assert!(
                page.contains(&format!("\n| [{code}](findings/{code}.md) |")),
                "{code} has no row"
            );
        }
    }

    #[test]
    fn what_needs_root_takes_another_time_each_time() {
        let fences = fences("```console root\n$ one\n✓ 200  0.9 ms\n```\n");
        assert!(fences[0].matches("✓ 200  0.9 ms\n", "✓ 200   12.3 ms\n"));
        assert!(!fences[0].matches("✓ 200  0.9 ms\n", "✓ 404  0.9 ms\n"));
    }

    #[test]
    fn an_ellipsis_stands_for_further_lines_and_for_nothing_else() {
        assert!(matches("a\n…\n", "a\nb\n"));
        assert!(!matches("a\n…\n", "b\n"));
        assert!(!matches("a\n", "a\nb\n"));
    }
}
