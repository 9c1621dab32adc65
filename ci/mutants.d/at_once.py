"""All mutants of a module in one build, for `ci/mutants --at-once`.

cargo-mutants builds the crate anew for each change, 40 s of it for core. Here every changed body of a function stands in
one crate as an arm of a `match`, and an environment variable says which of them runs: one build, then some two mutants a
second. What cannot stand beside others (functions that give `impl Trait`, functions within functions) is counted as not asked.

at_once.py PACKAGE FOLDER FILTER  <  the list of `cargo mutants --list --json`
Prints a line for each that survives. Exit code 1 when one does, 2 when it cannot be asked.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CHOSEN = "NODEWAY_MUTANT"
# What one run of the tests may take, in times of the unchanged one, and in seconds at least.
TIMES, SECONDS = 15, 30
MOST_ROUNDS = 20


def say(what):
    print(f"ci/mutants: {what}", file=sys.stderr, flush=True)


def fail(what):
    say(what)
    sys.exit(2)


def copy_tracked(tree):
    """The files that git knows, as they are now; what is the same stays, so that it is not built again."""
    listed = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        source, copy = Path(name), tree / name
        if source.is_file() and (not copy.exists() or copy.read_bytes() != source.read_bytes()):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)


def offsets(text):
    """Where each line begins; spans of cargo-mutants are lines and columns from 1."""
    begins = [0]
    for line in text.split("\n"):
        begins.append(begins[-1] + len(line) + 1)
    return lambda at: begins[at["line"] - 1] + at["column"] - 1


def body_begins(function, name):
    """Behind the brace that opens the body; none if that cannot be told."""
    found = re.search(r"\bfn\s+" + re.escape(name) + r"\b", function)
    if not found:
        return None
    depth = 0
    for at in range(found.end(), len(function)):
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(function[at], 0)
        if function[at] == "{" and depth == 0:
            return at + 1
    return None


def arms(text, position, mutants, begin, end):
    """Each changed body of one function, by its number."""
    for number, mutant in mutants:
        start, stop = position(mutant["span"]["start"]), position(mutant["span"]["end"])
        if begin <= start <= stop <= end:
            changed = text[begin:start] + mutant["replacement"] + text[stop:end]
            yield number, f"{number} => {{ //MUTANT {number}\n{changed}\n}}\n"


def mutate(text, mutants):
    """A file with all its mutants, and the numbers of those that are in it."""
    position, functions = offsets(text), defaultdict(list)
    for number, mutant in mutants:
        span = mutant["function"]["span"]
        functions[position(span["start"]), position(span["end"])].append((number, mutant))
    within = lambda a, b: a != b and b[0] <= a[0] and a[1] <= b[1]
    outer = [it for it in functions if not any(within(it, other) for other in functions)]
    asked = []
    for begin, end in sorted(outer, reverse=True):
        function = functions[begin, end][0][1]["function"]
        name = function["function_name"].split("::")[-1].split(">")[-1].strip()
        body = body_begins(text[begin:end], name)
        if body is None or "impl " in (function["return_type"] or ""):
            continue
        head = re.sub(r"\bconst (?=fn\s+" + re.escape(name) + r"\b)", "", text[begin : begin + body])
        body, last = begin + body, end - 1
        changed = list(arms(text, position, functions[begin, end], body, last))
        if changed:
            asked += [number for number, _ in changed]
            all_arms = "".join(arm for _, arm in changed)
            match = f"\nmatch crate::mutant() {{\n{all_arms}_ => {{ //MUTANT 0\n{text[body:last]}\n}}}}\n}}"
            text = text[:begin] + head + match + text[end:]
    return text, asked


def choose(library):
    """The function that says which mutant runs, and no lints: what is compiled is nobody's style."""
    lines = library.read_text().split("\n")
    first = next(at for at, line in enumerate(lines) if line and not line.startswith("//!"))
    lines.insert(first, "#![allow(warnings, clippy::all)]")
    lines.append(
        "pub(crate) fn mutant() -> u32 {\n"
        "    static CHOSEN: std::sync::OnceLock<u32> = std::sync::OnceLock::new();\n"
        f'    *CHOSEN.get_or_init(|| std::env::var("{CHOSEN}").ok().and_then(|it| it.parse().ok()).unwrap_or(0))\n'
        "}\n"
    )
    library.write_text("\n".join(lines))


def write(tree, mutants, left_out):
    """The tree with all mutants but those that are left out; the numbers of those in it."""
    copy_tracked(tree)
    by_file, asked = defaultdict(list), []
    for number, mutant in mutants.items():
        if mutant.get("function") and number not in left_out:
            by_file[mutant["file"]].append((number, mutant))
    for name, of_file in by_file.items():
        text, inside = mutate(Path(name).read_text(), of_file)
        (tree / name).write_text(text)
        asked += inside
    choose(tree / "core/src/lib.rs")
    return asked


def build(tree, package):
    """The test binary, or the numbers of mutants that do not compile."""
    target = tree.parent / "build"
    command = ["cargo", "test", "--quiet", "--locked", "--package", package, "--lib", "--no-run", "--message-format", "json"]
    built = subprocess.run(
        command, cwd=tree, capture_output=True, text=True, env=dict(os.environ, CARGO_TARGET_DIR=str(target))
    )
    wrong, other, texts = set(), [], {}
    for line in built.stdout.splitlines():
        said = json.loads(line) if line.startswith("{") else {}
        if built.returncode == 0 and said.get("executable"):
            return Path(said["executable"]), wrong
        message = said.get("message")
        if not isinstance(message, dict) or message.get("level") != "error":
            continue
        spans = [it for it in message["spans"] if it["is_primary"]]
        for span in spans:
            name = span["file_name"]
            lines = texts.setdefault(name, (tree / name).read_text().split("\n") if (tree / name).is_file() else [])
            marks = (re.search(r"//MUTANT (\d+)", line) for line in reversed(lines[: span["line_start"]]))
            mark = next(filter(None, marks), None)
            if mark and mark[1] != "0":
                wrong.add(int(mark[1]))
            else:
                other.append(message["rendered"])
    if not wrong:
        fail("it does not compile, and no mutant is why:\n" + "\n".join(other[:5]) + built.stderr[-2000:])
    return None, wrong


def tested(binary, tree, number, words, seconds, cases=None):
    """What the tests say of one mutant; 0 is none. So many cases of each property, or as many as it says itself."""
    command = ["bash", "-c", 'ulimit -v 4000000; exec nice -n 19 "$@"', "x", str(binary), "--quiet", "--test-threads", "1", *words]
    environment = dict(os.environ, INSTA_UPDATE="no", RUST_BACKTRACE="0", **{CHOSEN: str(number)})
    if cases:
        environment["PROPTEST_CASES"] = str(cases)
    try:
        run = subprocess.run(
            command, cwd=tree / "core", env=environment, timeout=seconds, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return "hung"
    return "survived" if run.returncode == 0 else "caught"


def main():
    package, folder, words = sys.argv[1], Path(sys.argv[2]).absolute(), sys.argv[3]
    mutants = dict(enumerate(json.load(sys.stdin), 1))
    tree, left_out = folder / "tree", set()
    tree.mkdir(parents=True, exist_ok=True)
    for round_ in range(1, MOST_ROUNDS + 1):
        asked = write(tree, mutants, left_out)
        say(f"building {len(asked)} of {len(mutants)} mutants at once, round {round_}")
        binary, wrong = build(tree, package)
        if binary:
            break
        left_out |= wrong
    else:
        fail(f"after {MOST_ROUNDS} rounds it still does not compile")
    before = os.times().elapsed
    if tested(binary, tree, 0, [words], 600) != "survived":
        fail(f"the tests of `{words}` fail without any mutant")
    seconds = max(SECONDS, TIMES * (os.times().elapsed - before))
    counts = defaultdict(int)

    def ask(number):
        # Most are noticed by few cases, in a fifth of the time.
        said = tested(binary, tree, number, [words], seconds, cases=8)
        # More cases, and tests of other modules, may hold it.
        if said == "survived":
            said = tested(binary, tree, number, [], 600)
        counts[said] += 1
        if said == "survived":
            print(mutants[number]["name"], flush=True)

    with ThreadPoolExecutor(max(1, int(os.environ.get("JOBS", "2")))) as pool:
        list(pool.map(ask, asked))
    say(
        f"{len(asked)} asked: {counts['caught']} caught, {counts['hung']} hung, {counts['survived']} survived; "
        f"{len(left_out)} do not compile, {len(mutants) - len(asked) - len(left_out)} cannot stand beside others"
    )
    sys.exit(1 if counts["survived"] else 0)


main()
