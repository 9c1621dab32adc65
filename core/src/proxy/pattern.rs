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
        let syntax = escape_loose_braces(source);
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

/// RE2 takes a `{` that begins no repetition as the character itself.
fn escape_loose_braces(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut in_class = false;
    while let Some(c) = rest.chars().next() {
        let (head, tail) = rest.split_at(c.len_utf8());
        rest = tail;
        match c {
            '\\' => {
                out.push('\\');
                let escaped = rest.chars().next().map_or(0, char::len_utf8);
                let (head, tail) = rest.split_at(escaped);
                out.push_str(head);
                rest = tail;
                if matches!(head, "p" | "P" | "x") && rest.starts_with('{') {
                    let end = rest.find('}').map_or(rest.len(), |end| end + 1);
                    let (head, tail) = rest.split_at(end);
                    out.push_str(head);
                    rest = tail;
                }
                continue;
            }
            '[' if !in_class => in_class = true,
            ']' => in_class = false,
            '{' if !in_class && !repetition(rest) => out.push('\\'),
            _ => {}
        }
        out.push_str(head);
    }
    out
}

/// Whether what follows a `{` makes it a repetition: `3}`, `3,}` or `3,5}`.
fn repetition(rest: &str) -> bool {
    let Some((inside, _)) = rest.split_once('}') else {
        return false;
    };
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match inside.split_once(',') {
        Some((min, max)) => number(min) && (max.is_empty() || number(max)),
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
