//! Headers that a route, its virtual host and its table add and remove.

use std::collections::BTreeSet;

use super::request::{Context, Request};
use super::{Format, ReadError};
use crate::envoy::Fields;

/// What one level (route, virtual host, table, weighted cluster) does to headers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderEdits {
    remove: Vec<String>,
    add: Vec<Addition>,
}

#[derive(Clone, Debug, PartialEq)]
struct Addition {
    name: String,
    value: Format,
    append: Append,
    keep_empty: bool,
    path: String,
}

/// What happens when a header that is added is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Append {
    /// Both stay.
    AppendOrAdd,
    /// The old one stays.
    AddIfAbsent,
    /// The new one replaces it.
    OverwriteOrAdd,
    /// The new one replaces it; nothing happens when there is none.
    OverwriteIfExists,
}

/// Edits whose values are known: what happens to headers, level by level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedEdits(Vec<Level>);

/// What one level does. Whether a header is there already is looked at once for all of a level,
/// after its removals, and what replaces comes before what is added (`HeaderParser::evaluateHeaders`
/// in `source/common/router/header_parser.cc`).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Level {
    remove: Vec<String>,
    add: Vec<Added>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Added {
    name: String,
    value: String,
    append: Append,
}

impl HeaderEdits {
    /// Reads `{request,response}_headers_to_{add,remove}`.
    pub(super) fn read(fields: &Fields<'_>, of: &str) -> Result<Self, ReadError> {
        let remove_field = format!("{of}_headers_to_remove");
        let remove: Vec<String> = fields
            .texts(&remove_field)
            .iter()
            .map(|name| name.to_ascii_lowercase())
            .collect();
        if let Some(name) = remove.iter().find(|name| !modifiable(name)) {
            let reason = format!("`{name}` may not be removed");
            return Err(ReadError::new(fields.path_of(&remove_field), reason));
        }
        let add = fields.messages(&format!("{of}_headers_to_add"));
        let add = add.iter().map(Addition::read).collect::<Result<_, _>>()?;
        Ok(Self { remove, add })
    }

    /// Applies the edits to a request. Paths of values that are not modelled come back.
    pub(super) fn apply(
        &self,
        request: &mut Request,
        context: &Context,
        unknown: &mut Vec<String>,
    ) {
        // What is removed is no longer there for the values.
        request
            .headers
            .retain(|(name, _)| !self.remove.contains(name));
        let level = self.level(request, context, unknown);
        level.apply(&mut request.headers);
    }

    /// The edits with their values for a request.
    pub(super) fn resolve(
        &self,
        request: &Request,
        context: &Context,
        unknown: &mut Vec<String>,
    ) -> ResolvedEdits {
        let level = self.level(request, context, unknown);
        let empty = level.remove.is_empty() && level.add.is_empty();
        ResolvedEdits(if empty { Vec::new() } else { vec![level] })
    }

    fn level(&self, request: &Request, context: &Context, unknown: &mut Vec<String>) -> Level {
        let mut add = Vec::new();
        for addition in &self.add {
            match addition.value.text(request, context) {
                None => unknown.push(addition.path.clone()),
                Some(value) if value.is_empty() && !addition.keep_empty => {}
                Some(value) => add.push(Added {
                    name: addition.name.clone(),
                    value,
                    append: addition.append,
                }),
            }
        }
        Level {
            remove: self.remove.clone(),
            add,
        }
    }
}

impl Addition {
    fn read(fields: &Fields<'_>) -> Result<Self, ReadError> {
        let header = fields.message("header");
        let name = header
            .as_ref()
            .map(|header| header.text("key"))
            .unwrap_or_default()
            .to_ascii_lowercase();
        let path = header.as_ref().map_or_else(
            || fields.path_of("header"),
            |header| header.path_of("value"),
        );
        let text = header
            .as_ref()
            .map(|header| header.text("value"))
            .unwrap_or_default();
        let value = Format::parse(&text).map_err(|reason| ReadError::new(path.clone(), reason))?;
        let refuse = |reason: String| Err(ReadError::new(fields.path_of("header"), reason));
        if name == "host" || name.starts_with(':') {
            return refuse(format!(
                "`{name}` may not be set here; use the route's rewrites"
            ));
        }
        let append = match (
            fields.opt_flag("append"),
            fields.choice("append_action").as_str(),
        ) {
            (Some(_), action) if action != "APPEND_IF_EXISTS_OR_ADD" => {
                return refuse(
                    "`append` and `append_action` are both given; keep `append_action`".to_owned(),
                );
            }
            (Some(false), _) | (_, "OVERWRITE_IF_EXISTS_OR_ADD") => Append::OverwriteOrAdd,
            (_, "ADD_IF_ABSENT") => Append::AddIfAbsent,
            (_, "OVERWRITE_IF_EXISTS") => Append::OverwriteIfExists,
            _ => Append::AppendOrAdd,
        };
        Ok(Self {
            name,
            value,
            append,
            keep_empty: fields.flag("keep_empty_value"),
            path,
        })
    }
}

/// Neither a pseudo header nor the host may be edited this way.
fn modifiable(name: &str) -> bool {
    !name.starts_with(':') && name != "host"
}

impl ResolvedEdits {
    /// Applies the edits to headers whose names are in lower case.
    pub fn apply(&self, headers: &mut Vec<(String, String)>) {
        for level in &self.0 {
            level.apply(headers);
        }
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

impl Level {
    fn apply(&self, headers: &mut Vec<(String, String)>) {
        headers.retain(|(name, _)| !self.remove.contains(name));
        let there: BTreeSet<String> = headers.iter().map(|(name, _)| name.clone()).collect();
        let (mut replace, mut add) = (Vec::new(), Vec::new());
        for added in &self.add {
            match (added.append, there.contains(&added.name)) {
                (Append::OverwriteOrAdd, _) | (Append::OverwriteIfExists, true) => {
                    replace.push(added);
                }
                (Append::AppendOrAdd, _) | (Append::AddIfAbsent, false) => add.push(added),
                (Append::OverwriteIfExists, false) | (Append::AddIfAbsent, true) => {}
            }
        }
        for added in replace {
            headers.retain(|(name, _)| *name != added.name);
            headers.push((added.name.clone(), added.value.clone()));
        }
        for added in add {
            headers.push((added.name.clone(), added.value.clone()));
        }
    }
}
