//! Headers that a route, its virtual host and its table add and remove.

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

/// Edits whose values are known: what happens to a response, step by step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedEdits(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Remove(String),
    Add {
        name: String,
        value: String,
        append: Append,
    },
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
        let resolved = self.resolve(request, context, unknown);
        for step in resolved.0 {
            match step {
                Step::Add {
                    name,
                    value,
                    append,
                } if name.starts_with(':') || name == "host" => {
                    // A pseudo header is there once.
                    if append != Append::AddIfAbsent {
                        request.set(&name, &value);
                    }
                }
                step => step.apply(&mut request.headers),
            }
        }
    }

    /// The edits with their values for a request.
    pub(super) fn resolve(
        &self,
        request: &Request,
        context: &Context,
        unknown: &mut Vec<String>,
    ) -> ResolvedEdits {
        let mut steps: Vec<Step> = self.remove.iter().cloned().map(Step::Remove).collect();
        for addition in &self.add {
            match addition.value.text(request, context) {
                None => unknown.push(addition.path.clone()),
                Some(value) if value.is_empty() && !addition.keep_empty => {}
                Some(value) => {
                    steps.push(Step::Add {
                        name: addition.name.clone(),
                        value,
                        append: addition.append,
                    });
                }
            }
        }
        ResolvedEdits(steps)
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
        for step in &self.0 {
            step.clone().apply(headers);
        }
    }

    /// Whether nothing happens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

impl Step {
    fn apply(self, headers: &mut Vec<(String, String)>) {
        match self {
            Self::Remove(name) => headers.retain(|(key, _)| *key != name),
            Self::Add {
                name,
                value,
                append,
            } => {
                let there = headers.iter().any(|(key, _)| *key == name);
                match append {
                    Append::AddIfAbsent if there => return,
                    Append::OverwriteIfExists if !there => return,
                    Append::OverwriteOrAdd | Append::OverwriteIfExists => {
                        headers.retain(|(key, _)| *key != name)
                    }
                    Append::AppendOrAdd | Append::AddIfAbsent => {}
                }
                headers.push((name, value));
            }
        }
    }
}
