//! What an Envoy wrote.

use std::collections::VecDeque;
use std::path::Path;

/// The last lines of a log.
pub(super) fn last_words(path: &Path, lines: usize) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let mut last = VecDeque::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        if last.len() == lines {
            last.pop_front();
        }
        last.push_back(line);
    }
    if last.is_empty() {
        return "nothing".to_owned();
    }
    last.make_contiguous().join("\n")
}

/// The lines that are written to their end.
pub(super) fn whole_lines(text: &str) -> impl Iterator<Item = &str> {
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_being_written_does_not_count() {
        let lines: Vec<&str> = whole_lines("{1}\n{2}\n{3").collect();
        assert_eq!(lines, ["{1}", "{2}"]);
    }
}
