//! Envoy's regular expressions: RE2's syntax on bytes, matching the whole text.

use regex::bytes::{Regex, RegexBuilder, Replacer};

use super::ReadError;
use crate::envoy::Fields;

/// A `RegexMatcher`.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: String,
    whole: Regex,
    part: Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Pattern {
    /// Reads an `envoy.type.matcher.v3.RegexMatcher`.
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, ReadError> {
        // RE2 is the only engine there is.
        fields.skip("google_re2");
        let source = fields.text("regex");
        Self::new(&source).map_err(|reason| ReadError::new(fields.path_of("regex"), reason))
    }

    /// Compiles a pattern.
    ///
    /// # Errors
    ///
    /// Why it is no regular expression.
    pub fn new(source: &str) -> Result<Self, String> {
        let syntax = translate(source)
            .map_err(|error| format!("`{source}` is no regular expression: {error}"))?;
        let whole = compile(&format!(r"\A(?:{syntax})\z"));
        // Compiled alone first, so that the error shows what the user wrote.
        let part = compile(&syntax)
            .map_err(|error| format!("`{source}` is no regular expression: {error}"))?;
        let whole =
            whole.map_err(|error| format!("`{source}` is no regular expression: {error}"))?;
        Ok(Self {
            source: source.to_owned(),
            whole,
            part,
        })
    }

    /// The pattern as written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the whole text matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.whole.is_match(text.as_bytes())
    }

    /// Replaces every match; `\1` in the substitution is the first group.
    #[must_use]
    pub fn replace_all(&self, text: &str, substitution: &str) -> String {
        let replaced = self
            .part
            .replace_all(text.as_bytes(), Substitution(substitution));
        String::from_utf8_lossy(&replaced).into_owned()
    }

    /// The named groups of a match of the whole text.
    pub(super) fn group<'t>(&self, text: &'t str, name: &str) -> Option<&'t str> {
        let found = self.whole.captures(text.as_bytes())?.name(name)?;
        text.get(found.range())
    }
}

/// RE2 knows no Unicode classes behind `\d`, `\w` and `\s`; with letters beyond ASCII, it does.
fn compile(syntax: &str) -> Result<Regex, String> {
    let build = |unicode| RegexBuilder::new(syntax).unicode(unicode).build();
    build(false).or_else(|_| build(true)).map_err(|error| {
        let text = error.to_string();
        text.lines().last().map_or_else(
            || text.clone(),
            |line| line.trim_start_matches("error: ").to_owned(),
        )
    })
}

/// RE2's syntax in that of the crate `regex`, where they differ.
struct Translation<'a> {
    rest: &'a str,
    out: String,
    in_class: bool,
    /// Whether the last thing was a repetition, and whether it was made lazy.
    repeated: Option<bool>,
}

/// RE2's limit for `{n}`.
const MAX_REPETITION: u32 = 1000;

fn translate(source: &str) -> Result<String, String> {
    let mut translation = Translation {
        rest: source,
        out: String::with_capacity(source.len()),
        in_class: false,
        repeated: None,
    };
    while let Some(c) = translation.rest.chars().next() {
        translation.step(c)?;
    }
    Ok(translation.out)
}

impl<'a> Translation<'a> {
    /// Takes some bytes off the front.
    fn take(&mut self, length: usize) -> &'a str {
        let (head, tail) = self
            .rest
            .split_at_checked(length)
            .unwrap_or((self.rest, ""));
        self.rest = tail;
        head
    }

    fn step(&mut self, c: char) -> Result<(), String> {
        let repeated = self.repeated.take();
        if c == '\\' {
            self.escape();
            return Ok(());
        }
        let head = self.take(c.len_utf8());
        match c {
            '[' if !self.in_class => {
                self.open_class();
                return Ok(());
            }
            '[' if self.rest.starts_with(':') => {
                self.named_class();
                return Ok(());
            }
            // In a class RE2 knows neither nesting nor set operations; outside, escapes change nothing.
            '[' | '&' | '~' => self.out.push('\\'),
            ']' => self.in_class = false,
            '*' | '+' | '?' if !self.in_class => self.repeated = Some(self.repeat(c, repeated)?),
            '{' if !self.in_class => match repetition(self.rest) {
                Some(most) if most > MAX_REPETITION => {
                    return Err(format!(
                        "repeats {most} times, at most {MAX_REPETITION} are allowed"
                    ));
                }
                Some(_) => {}
                // A brace that begins no repetition is the character itself.
                None => self.out.push('\\'),
            },
            _ => {}
        }
        self.out.push_str(head);
        Ok(())
    }

    /// `a*?` is lazy; `a**` is refused.
    fn repeat(&self, c: char, before: Option<bool>) -> Result<bool, String> {
        match before {
            None => Ok(false),
            Some(false) if c == '?' => Ok(true),
            Some(_) => Err(format!("`{c}` repeats a repetition")),
        }
    }

    /// The beginning of a class; a `]` right there is a member.
    fn open_class(&mut self) {
        self.in_class = true;
        self.out.push('[');
        if self.rest.starts_with('^') {
            let not = self.take(1);
            self.out.push_str(not);
        }
        if self.rest.starts_with(']') {
            self.take(1);
            self.out.push_str("\\]");
        }
    }

    /// `[:digit:]` in a class.
    fn named_class(&mut self) {
        let end = self.rest.find(":]").map_or(self.rest.len(), |end| end + 2);
        let name = self.take(end);
        self.out.push('[');
        self.out.push_str(name);
    }

    fn escape(&mut self) {
        self.take(1);
        let length = self.rest.chars().next().map_or(0, char::len_utf8);
        let escaped = self.take(length);
        if escaped == "Q" {
            let (literal, rest) = self.rest.split_once("\\E").unwrap_or((self.rest, ""));
            self.out.push_str(&regex::escape(literal));
            self.rest = rest;
            return;
        }
        self.out.push('\\');
        self.out.push_str(escaped);
        if matches!(escaped, "p" | "P" | "x") && self.rest.starts_with('{') {
            // No repetition begins there.
            let brace = self.take(1);
            self.out.push_str(brace);
        }
    }
}

/// The most repetitions, when what follows a `{` makes it one: `3}`, `3,}` or `3,5}`.
fn repetition(rest: &str) -> Option<u32> {
    let (inside, _) = rest.split_once('}')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u32::MAX))
    };
    match inside.split_once(',') {
        Some((min, "")) => number(min),
        Some((min, max)) => number(min).and(number(max)),
        None => number(inside),
    }
}

/// A substitution in RE2's writing.
struct Substitution<'a>(&'a str);

impl Replacer for Substitution<'_> {
    fn replace_append(&mut self, found: &regex::bytes::Captures<'_>, out: &mut Vec<u8>) {
        let mut bytes = self.0.bytes();
        while let Some(byte) = bytes.next() {
            match (byte, (byte == b'\\').then(|| bytes.next()).flatten()) {
                (_, Some(digit @ b'0'..=b'9')) => {
                    let group = found.get(usize::from(digit - b'0'));
                    out.extend(group.map(|group| group.as_bytes()).unwrap_or_default());
                }
                (_, Some(other)) => out.push(other),
                (byte, None) => out.push(byte),
            }
        }
    }
}
