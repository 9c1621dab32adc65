//! The words of a line, taken one after the other, and the values that they are.

use std::collections::VecDeque;
use std::str::FromStr;

use super::{Parsed, What};

/// The words of a line that are left.
pub(super) struct Words(VecDeque<String>);

impl From<Vec<String>> for Words {
    fn from(words: Vec<String>) -> Self {
        Self(words.into())
    }
}

impl Words {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn contains(&self, word: &str) -> bool {
        self.0.iter().any(|it| it == word)
    }

    /// The next word, which stays.
    pub(super) fn peek(&self) -> Option<&str> {
        self.0.front().map(String::as_str)
    }

    pub(super) fn next(&mut self, wanted: &str) -> Parsed<String> {
        self.0
            .pop_front()
            .ok_or_else(|| What::Malformed(format!("the line ends where {wanted} should stand")))
    }

    pub(super) fn value<T: FromStr>(&mut self, option: &str) -> Parsed<T> {
        let text = self.next(&format!("the value of `{option}`"))?;
        text.parse().map_err(|_| no_value(&text, option))
    }

    /// The next word, if it is one of those.
    pub(super) fn take_any(&mut self, options: &[&str]) -> Option<String> {
        let there = self.peek().is_some_and(|it| options.contains(&it));
        there.then(|| self.0.pop_front()).flatten()
    }

    /// Whether the next word is that, and then takes it.
    pub(super) fn take(&mut self, option: &str) -> bool {
        self.take_any(&[option]).is_some()
    }
}

/// A number, decimal or hexadecimal.
pub(super) fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// What an option cannot mean.
pub(super) fn no_value(text: &str, option: &str) -> What {
    What::Malformed(format!("`{text}` is no value of `{option}`"))
}
