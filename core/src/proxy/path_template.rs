//! Envoy's URI templates: `/users/{id}/**`, matched and filled in again.
//!
//! A segment is a literal, `*` (one segment), `**` (any rest), `{name}` or `{name=pattern}`; a
//! literal suffix may follow the last operator (`/**.m3u8`). Nothing may glob after a `**`.

use std::collections::BTreeSet;

use super::Pattern;

/// A template that paths are matched against.
#[derive(Clone, Debug, PartialEq)]
pub struct PathTemplate {
    source: String,
    pattern: Pattern,
    names: BTreeSet<String>,
}

/// One piece of a template as it is read.
struct Reader<'a> {
    rest: &'a str,
    syntax: String,
    names: BTreeSet<String>,
    seen_rest: bool,
}

/// What a segment's characters may be, as the inside of a class.
const LITERAL: &str = r"a-zA-Z0-9\-._~%!$&'()+,;=:@";
const MAX_NAMES: usize = 5;
const MAX_NAME: usize = 16;

impl PathTemplate {
    /// Reads a template.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn new(source: &str) -> Result<Self, String> {
        let wrong = |reason: &str| format!("`{source}` is no path template: {reason}");
        let rest = source
            .strip_prefix('/')
            .ok_or_else(|| wrong("it must begin with `/`"))?;
        if !source.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong("it must be printable ASCII"));
        }
        let mut reader = Reader {
            rest,
            syntax: "/".to_owned(),
            names: BTreeSet::new(),
            seen_rest: false,
        };
        reader.segments().map_err(|reason| wrong(&reason))?;
        let pattern = Pattern::new(&reader.syntax).map_err(|reason| wrong(&reason))?;
        Ok(Self {
            source: source.to_owned(),
            pattern,
            names: reader.names,
        })
    }

    /// The template as written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether a path without query matches.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        self.pattern.matches(path)
    }

    /// Checks that a rewrite uses only names of this template.
    ///
    /// # Errors
    ///
    /// What is wrong with the rewrite.
    pub fn check_rewrite(&self, rewrite: &str) -> Result<(), String> {
        for (name, is_name) in rewrite_parts(rewrite)? {
            if is_name && !self.names.contains(name) {
                return Err(format!(
                    "`{rewrite}` uses {{{name}}}, which `{}` does not have",
                    self.source
                ));
            }
        }
        Ok(())
    }

    /// The rewrite with the names filled in from a path that matches.
    #[must_use]
    pub fn rewrite(&self, path: &str, rewrite: &str) -> Option<String> {
        let mut out = String::new();
        for (part, is_name) in rewrite_parts(rewrite).ok()? {
            out.push_str(if is_name {
                self.pattern.group(path, part)?
            } else {
                part
            });
        }
        Some(out)
    }
}

/// A rewrite's literals and names in order.
pub(super) fn rewrite_parts(rewrite: &str) -> Result<Vec<(&str, bool)>, String> {
    let wrong = |reason: &str| format!("`{rewrite}` is no path template rewrite: {reason}");
    if !rewrite.starts_with('/') || rewrite.contains("//") {
        return Err(wrong("it must begin with `/` and have no `//`"));
    }
    let mut parts = Vec::new();
    let mut rest = rewrite;
    while !rest.is_empty() {
        let (literal, after) = rest
            .split_once('{')
            .map_or((rest, None), |(l, r)| (l, Some(r)));
        if !literal.bytes().all(|byte| byte == b'/' || is_literal(byte)) {
            return Err(wrong("a character of its literals is not allowed"));
        }
        if !literal.is_empty() {
            parts.push((literal, false));
        }
        let Some(after) = after else { break };
        let (name, tail) = after
            .split_once('}')
            .ok_or_else(|| wrong("a `{` is not closed"))?;
        if !is_name(name) {
            return Err(wrong("a name is none"));
        }
        parts.push((name, true));
        rest = tail;
    }
    Ok(parts)
}

fn is_literal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@".contains(&byte)
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl Reader<'_> {
    fn segments(&mut self) -> Result<(), String> {
        while !self.rest.is_empty() {
            if self.rest.starts_with('{') {
                self.name()?;
            } else {
                self.plain()?;
            }
            if let Some(rest) = self.rest.strip_prefix('/') {
                self.syntax.push('/');
                self.rest = rest;
            } else if !self.rest.is_empty() {
                // A suffix after an operator must be the end.
                self.literal()?;
                return if self.rest.is_empty() {
                    Ok(())
                } else {
                    Err("a suffix must be its end".to_owned())
                };
            }
        }
        Ok(())
    }

    /// `*`, `**` or a literal.
    fn plain(&mut self) -> Result<(), String> {
        if let Some(rest) = self.rest.strip_prefix("**") {
            self.rest = rest;
            self.glob(true)
        } else if let Some(rest) = self.rest.strip_prefix('*') {
            self.rest = rest;
            self.glob(false)
        } else {
            self.literal()
        }
    }

    fn glob(&mut self, rest: bool) -> Result<(), String> {
        if self.seen_rest {
            return Err("nothing may glob after `**`".to_owned());
        }
        self.seen_rest = rest;
        let class = if rest {
            format!("[{LITERAL}/]*")
        } else {
            format!("[{LITERAL}]+")
        };
        self.syntax.push_str(&class);
        Ok(())
    }

    fn literal(&mut self) -> Result<(), String> {
        let end = self.rest.find('/').unwrap_or(self.rest.len());
        let (literal, rest) = self.rest.split_at(end);
        if literal.is_empty() || !literal.bytes().all(is_literal) {
            return Err(format!("`{literal}` is no literal"));
        }
        self.syntax.push_str(&regex::escape(literal));
        self.rest = rest;
        Ok(())
    }

    /// `{name}` or `{name=pattern}`.
    fn name(&mut self) -> Result<(), String> {
        let inside = self.rest.strip_prefix('{').unwrap_or_default();
        let (inside, rest) = inside.split_once('}').ok_or("a `{` is not closed")?;
        let (name, pattern) = inside
            .split_once('=')
            .map_or((inside, "*"), |(name, pattern)| (name, pattern));
        if !is_name(name) || name.len() > MAX_NAME {
            return Err(format!("`{name}` is no name of at most {MAX_NAME} letters"));
        }
        if self.names.len() >= MAX_NAMES || !self.names.insert(name.to_owned()) {
            return Err(format!(
                "`{name}` is there twice, or there are more than {MAX_NAMES} names"
            ));
        }
        self.syntax.push_str(&format!("(?P<{name}>"));
        let mut inner = Reader {
            rest: pattern,
            syntax: String::new(),
            names: BTreeSet::new(),
            seen_rest: self.seen_rest,
        };
        inner.inside_a_name()?;
        self.syntax.push_str(&inner.syntax);
        self.syntax.push(')');
        self.seen_rest = inner.seen_rest;
        self.rest = rest;
        Ok(())
    }

    fn inside_a_name(&mut self) -> Result<(), String> {
        if self.rest.is_empty() {
            return Err("a name's pattern is empty".to_owned());
        }
        loop {
            self.plain()?;
            match self.rest.strip_prefix('/') {
                Some("") => return Err("a name's pattern must not end in `/`".to_owned()),
                Some(rest) => {
                    self.syntax.push('/');
                    self.rest = rest;
                }
                None if self.rest.is_empty() => return Ok(()),
                None => return Err("a name's pattern has something after its operator".to_owned()),
            }
        }
    }
}
