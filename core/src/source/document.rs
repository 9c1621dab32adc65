//! A text's documents: YAML or JSON values in which every node knows its place.
//!
//! A text is cut at its `---` lines before it is parsed, so that one document's syntax error hides
//! no other's. That is exact: a line that begins with `---` ends whatever YAML was open (YAML
//! 1.2.2, rule `c-forbidden`). What an alias may expand to is bounded by the text's own length.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::{Location, Spanned};

use super::Text;
use super::error::{Fault, Place, SourceError};
use super::path::Step;

/// How deep a document may nest. Envoy's resources in a `List` of configs stay below 35.
const MAX_DEPTH: usize = 48;

/// A value and the place of it.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) tree: Tree,
    place: Place,
}

/// A value of a document.
#[derive(Clone, Debug)]
pub(crate) enum Tree {
    Scalar(Value),
    Seq(Vec<Node>),
    Map(Vec<(Spot, Node)>),
}

/// A key and the place of it.
#[derive(Clone, Debug)]
pub(crate) struct Spot {
    key: String,
    place: Place,
}

impl Node {
    /// The value of a key, of a mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match &self.tree {
            Tree::Map(entries) => entries
                .iter()
                .find(|(spot, _)| spot.key == key)
                .map(|(_, node)| node),
            _ => None,
        }
    }

    /// The text of a key's value, when it is one.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match &self.get(key)?.tree {
            Tree::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Puts a text in under a key that is not there yet.
    pub(crate) fn fill(&mut self, key: &str, value: &str) {
        let place = self.place.clone();
        if self.get(key).is_none()
            && let Tree::Map(entries) = &mut self.tree
        {
            let spot = Spot {
                key: key.to_owned(),
                place: place.clone(),
            };
            entries.push((
                spot,
                Self {
                    tree: Tree::Scalar(Value::String(value.to_owned())),
                    place,
                },
            ));
        }
    }

    /// Where the value begins.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Where the field of that path is: its key, or as much of the way there as exists.
    pub(crate) fn find(&self, path: &[Step]) -> &Place {
        let Some((step, rest)) = path.split_first() else {
            return &self.place;
        };
        match (step, &self.tree) {
            (Step::Key(key), Tree::Map(entries)) => {
                match entries.iter().find(|(spot, _)| spot.key == *key) {
                    Some((spot, _)) if rest.is_empty() => &spot.place,
                    Some((_, node)) => node.find(rest),
                    None => &self.place,
                }
            }
            (Step::Index(index), Tree::Seq(items)) => items
                .get(*index)
                .map_or(&self.place, |item| item.find(rest)),
            _ => &self.place,
        }
    }

    /// The bare value.
    pub(crate) fn value(&self) -> Value {
        match &self.tree {
            Tree::Scalar(value) => value.clone(),
            Tree::Seq(items) => Value::Array(items.iter().map(Self::value).collect()),
            Tree::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|(spot, node)| (spot.key.clone(), node.value()))
                    .collect(),
            ),
        }
    }

    /// Moves every place of the tree down by lines and bytes: a document's own are relative.
    fn shift(&mut self, cut: &Cut<'_>) {
        cut.shift(&mut self.place);
        match &mut self.tree {
            Tree::Scalar(_) => {}
            Tree::Seq(items) => items.iter_mut().for_each(|item| item.shift(cut)),
            Tree::Map(entries) => {
                for (spot, node) in entries {
                    cut.shift(&mut spot.place);
                    node.shift(cut);
                }
            }
        }
    }

    /// A value whose nodes all stand at one place: JSON that is no YAML.
    fn at(value: Value, place: &Place) -> Self {
        let tree = match value {
            Value::Array(items) => Tree::Seq(
                items
                    .into_iter()
                    .map(|item| Self::at(item, place))
                    .collect(),
            ),
            Value::Object(entries) => Tree::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| {
                        (
                            Spot {
                                key,
                                place: place.clone(),
                            },
                            Self::at(value, place),
                        )
                    })
                    .collect(),
            ),
            scalar => Tree::Scalar(scalar),
        };
        Self {
            tree,
            place: place.clone(),
        }
    }
}

fn place_of(location: Location) -> Place {
    let span = location.span();
    let range = span
        .byte_offset()
        .zip(span.byte_len())
        .and_then(|(offset, len)| {
            let start = usize::try_from(offset).ok()?;
            Some((start, start.checked_add(usize::try_from(len).ok()?)?))
        });
    Place {
        line: narrow(location.line()),
        column: narrow(location.column()),
        span: range,
    }
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl From<Spanned<Tree>> for Node {
    fn from(spanned: Spanned<Tree>) -> Self {
        Self {
            place: place_of(spanned.referenced),
            tree: spanned.value,
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TreeVisitor;

        impl<'de> Visitor<'de> for TreeVisitor {
            type Value = Tree;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping, a sequence or a scalar")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
                Ok(Tree::Scalar(value.into()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
                Ok(Tree::Scalar(value.into()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
                Ok(Tree::Scalar(value.into()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
                Ok(Tree::Scalar(value.into()))
            }
            fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
                Ok(Tree::Scalar(value.into()))
            }
            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Scalar(Value::Null))
            }
            fn visit_none<E>(self) -> Result<Tree, E> {
                Ok(Tree::Scalar(Value::Null))
            }
            fn visit_some<D: serde::Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<Tree, D::Error> {
                deserializer.deserialize_any(self)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element::<Spanned<Tree>>()? {
                    items.push(item.into());
                }
                Ok(Tree::Seq(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
                let mut entries = Vec::new();
                while let Some((key, value)) = map.next_entry::<Spanned<String>, Spanned<Tree>>()? {
                    entries.push((
                        Spot {
                            place: place_of(key.referenced),
                            key: key.value,
                        },
                        value.into(),
                    ));
                }
                Ok(Tree::Map(entries))
            }
        }

        deserializer.deserialize_any(TreeVisitor)
    }
}

/// A piece of a text between two `---` lines.
struct Cut<'a> {
    text: &'a str,
    lines_before: u32,
    bytes_before: usize,
}

impl Cut<'_> {
    fn shift(&self, place: &mut Place) {
        place.line = place.line.saturating_add(self.lines_before);
        place.span = place.span.map(|(start, end)| {
            (
                start.saturating_add(self.bytes_before),
                end.saturating_add(self.bytes_before),
            )
        });
    }

    /// Whether there is nothing but comments, directives and markers.
    fn is_blank(&self) -> bool {
        self.text.lines().all(|line| {
            let line = line.strip_prefix("---").unwrap_or(line).trim();
            line.is_empty() || line == "..." || line.starts_with('#') || line.starts_with('%')
        })
    }
}

/// Cuts before every line that begins with a `---` of its own.
fn cuts(content: &str) -> Vec<Cut<'_>> {
    let mut cuts = Vec::new();
    let (mut start, mut start_line, mut at) = (0_usize, 0_u32, 0_usize);
    for (line_number, line) in (0_u32..).zip(content.split_inclusive('\n')) {
        let marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if marker && at > start {
            cuts.push(Cut {
                text: content.get(start..at).unwrap_or_default(),
                lines_before: start_line,
                bytes_before: start,
            });
            (start, start_line) = (at, line_number);
        }
        at += line.len();
    }
    cuts.push(Cut {
        text: content.get(start..).unwrap_or_default(),
        lines_before: start_line,
        bytes_before: start,
    });
    cuts
}

/// A text's documents, and the mistakes of those that are none. Empty documents are passed over.
pub(crate) fn documents(text: &Text) -> (Vec<Node>, Vec<SourceError>) {
    let (mut nodes, mut errors) = (Vec::new(), Vec::new());
    let content = text
        .content
        .strip_prefix('\u{feff}')
        .unwrap_or(&text.content);
    let bom = text.content.len() - content.len();
    for mut cut in cuts(content) {
        if cut.is_blank() {
            continue;
        }
        cut.bytes_before += bom;
        match parse(cut.text) {
            Ok(found) => nodes.extend(found.into_iter().map(|mut node| {
                node.shift(&cut);
                node
            })),
            Err(error) => errors.push(syntax_error(&text.name, &cut, &error)),
        }
    }
    (nodes, errors)
}

fn parse(text: &str) -> Result<Vec<Node>, serde_saphyr::Error> {
    let yaml = serde_saphyr::from_multiple_with_options::<Spanned<Tree>>(text, options(text.len()));
    match yaml {
        Ok(documents) => Ok(documents.into_iter().map(Node::from).collect()),
        // JSON may be indented with tabs and stand one after the other, which YAML refuses.
        Err(error) => json(text).ok_or(error),
    }
}

fn json(text: &str) -> Option<Vec<Node>> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let mut nodes = Vec::new();
    loop {
        let rest = text.get(stream.byte_offset()..)?;
        let start = text.len() - rest.trim_start().len();
        let Some(value) = stream.next() else { break };
        let line = text.get(..start)?.matches('\n').count() + 1;
        let place = Place::line(u32::try_from(line).ok()?);
        nodes.push(Node::at(value.ok()?, &place));
    }
    Some(nodes)
}

/// Bounds in proportion to the text: without aliases, no text has more nodes than bytes.
fn options(bytes: usize) -> serde_saphyr::Options {
    let nodes = bytes.saturating_mul(2).saturating_add(10_000);
    let mut limits = serde_saphyr::options::AliasLimits::default();
    limits.max_total_replayed_events = nodes;
    serde_saphyr::options! {
        with_snippet: false,
        legacy_octal_numbers: true,
        // A Pod named `n` or `on` is no boolean: YAML 1.1's other spellings only ever surprised.
        strict_booleans: true,
        alias_limits: limits,
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_events: nodes.saturating_mul(2),
            max_nodes: nodes,
            max_recorded_anchor_events: nodes,
            max_total_scalar_bytes: bytes.saturating_mul(4).saturating_add(1 << 20),
            max_recorded_anchor_bytes: bytes.saturating_mul(4).saturating_add(1 << 20),
        },
    }
}

fn syntax_error(file: &Arc<str>, cut: &Cut<'_>, error: &serde_saphyr::Error) -> SourceError {
    let mut place = error.location().map_or(Place::line(1), place_of);
    let indent_has_tab = cut
        .text
        .lines()
        .nth((place.line as usize).saturating_sub(1))
        .is_some_and(|line| {
            line.chars()
                .take_while(|c| c.is_whitespace())
                .any(|c| c == '\t')
        });
    cut.shift(&mut place);
    let (fault, reason, fix) = fault_of(error, indent_has_tab);
    SourceError {
        file: Arc::clone(file),
        place,
        fault,
        object: None,
        field: String::new(),
        reason,
        fix: fix.to_owned(),
        other: None,
    }
}

/// What is wrong, by the parser's own kinds of errors, why, and what to do about it.
fn fault_of(error: &serde_saphyr::Error, indent_has_tab: bool) -> (Fault, String, &'static str) {
    use serde_saphyr::Error as Yaml;
    let message = one_line(&error.without_snippet().to_string());
    match innermost(error) {
        Yaml::Budget {
            breach: serde_saphyr::budget::BudgetBreach::Depth { .. },
            ..
        } => too_deep(),
        // The scanner's own limit, below the budget: its kind is a type of the scanner's crate, which is none of ours.
        Yaml::ExternalMessage { msg, .. } if msg.contains("recursion limit") => too_deep(),
        Yaml::Budget { .. }
        | Yaml::AliasReplayCounterOverflow { .. }
        | Yaml::AliasReplayLimitExceeded { .. }
        | Yaml::AliasExpansionLimitExceeded { .. }
        | Yaml::AliasReplayStackDepthExceeded { .. } => (
            Fault::Budget,
            "the text grows out of proportion when its aliases are expanded".to_owned(),
            "write out what the aliases (`*name`) stand for",
        ),
        _ if indent_has_tab => (
            Fault::Syntax,
            message,
            "indent YAML with spaces: replace the tab at the beginning of the line",
        ),
        Yaml::DuplicateMappingKey { key, .. } => duplicate_key(key.as_deref()),
        _ => (
            Fault::Syntax,
            message,
            "correct the YAML at this line; the mistake may begin on the line before",
        ),
    }
}

fn too_deep() -> (Fault, String, &'static str) {
    (
        Fault::Budget,
        format!("the text is nested more than {MAX_DEPTH} levels deep"),
        "nest it less; no Kubernetes object is that deep",
    )
}

/// Two manifests written one after the other are the usual cause where the key is one that each object begins with.
fn duplicate_key(key: Option<&str>) -> (Fault, String, &'static str) {
    let begins_an_object = matches!(key, Some("apiVersion" | "kind"));
    (
        Fault::Syntax,
        key.map_or_else(
            || "a key stands twice in one mapping".to_owned(),
            |key| format!("the key `{key}` stands twice in one mapping"),
        ),
        if begins_an_object {
            "when another object begins here, write `---` on a line before it; or keep one of the two keys"
        } else {
            "keep one of the two keys"
        },
    )
}

/// An error without the snippet and the alias it was met by.
fn innermost(error: &serde_saphyr::Error) -> &serde_saphyr::Error {
    match error.without_snippet() {
        serde_saphyr::Error::AliasError { error, .. } => innermost(error),
        error => error,
    }
}

/// A parser's message as one line without its own place, which stands in front already.
pub(crate) fn one_line(message: &str) -> String {
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let end = message.find(" at line ").unwrap_or(message.len());
    message
        .get(..end)
        .unwrap_or(&message)
        .trim_end_matches('.')
        .to_owned()
}
