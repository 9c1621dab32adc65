//! A reader that marks what it read.
//!
//! [`Fields`] is a view of one message at its path. When it goes out of scope, every field that is
//! set and that nobody asked for is noted in the [`Unread`] it was made with. So "not simulated" is
//! never a list that someone keeps: it is what is left over.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use prost_reflect::{DynamicMessage, FieldDescriptor, ReflectMessage, Value};

use super::pool::unpack;

/// Paths of fields that are set and that nobody read.
#[derive(Debug, Default)]
pub struct Unread(RefCell<BTreeSet<String>>);

impl Unread {
    /// Notes one path.
    pub fn note(&self, path: impl Into<String>) {
        self.0.borrow_mut().insert(path.into());
    }

    /// The paths, sorted.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.0.borrow().iter().cloned().collect()
    }

    /// Notes all paths of another.
    pub fn extend(&self, paths: &[String]) {
        self.0.borrow_mut().extend(paths.iter().cloned());
    }
}

/// A message as its reader sees it.
#[derive(Debug)]
pub struct Fields<'a> {
    message: Cow<'a, DynamicMessage>,
    path: String,
    read: RefCell<BTreeSet<u32>>,
    unread: &'a Unread,
}

impl Drop for Fields<'_> {
    fn drop(&mut self) {
        let read = self.read.borrow();
        for (field, _) in self.message.fields() {
            if !read.contains(&field.number()) {
                self.unread.note(self.path_of(field.name()));
            }
        }
    }
}

impl<'a> Fields<'a> {
    /// Reads a message that stands at `path` (empty for a resource itself).
    #[must_use]
    pub fn new(message: &'a DynamicMessage, path: impl Into<String>, unread: &'a Unread) -> Self {
        Self::over(Cow::Borrowed(message), path.into(), unread)
    }

    fn over(message: Cow<'a, DynamicMessage>, path: String, unread: &'a Unread) -> Self {
        Self {
            message,
            path,
            read: RefCell::default(),
            unread,
        }
    }

    /// The message's own path.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Notes the message itself as unread: it is known, and its effect is not modelled.
    pub fn note(&self) {
        self.unread.note(&self.path);
    }

    /// Notes paths that a part of the message was found to have unread.
    pub fn note_all(&self, paths: &[String]) {
        self.unread.extend(paths);
    }

    /// The message's full name.
    #[must_use]
    pub fn message_name(&self) -> String {
        self.message.descriptor().full_name().to_owned()
    }

    /// A field's path, in the spelling of protobuf JSON.
    #[must_use]
    pub fn path_of(&self, name: &str) -> String {
        let descriptor = self.message.descriptor();
        let json = descriptor
            .get_field_by_name(name)
            .map(|field| field.json_name().to_owned());
        let name = json.unwrap_or_else(|| name.to_owned());
        if self.path.is_empty() {
            name
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// The field, marked as read. None when it is not set.
    fn take(&self, name: &str) -> Option<(FieldDescriptor, Cow<'_, Value>)> {
        let field = self.message.descriptor().get_field_by_name(name)?;
        self.read.borrow_mut().insert(field.number());
        if !self.message.has_field(&field) {
            return None;
        }
        let value = self.message.get_field(&field);
        Some((field, value))
    }

    /// Marks a field as read although nothing depends on it.
    pub fn skip(&self, name: &str) {
        let _ = self.take(name);
    }

    /// Marks fields as read, and notes those that are set in another list.
    pub fn leave_to(&self, names: &[&str], other: &Unread) {
        for name in names {
            if self.take(name).is_some() {
                other.note(self.path_of(name));
            }
        }
    }

    /// Whether a field is set; marks it as read.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.take(name).is_some()
    }

    /// Which field of a oneof is set. Does not mark it.
    #[must_use]
    pub fn which(&self, oneof: &str) -> Option<String> {
        let descriptor = self.message.descriptor();
        let oneof = descriptor.oneofs().find(|it| it.name() == oneof)?;
        oneof
            .fields()
            .find(|field| self.message.has_field(field))
            .map(|field| field.name().to_owned())
    }

    /// A string; empty when it is not set.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        self.take(name)
            .and_then(|(_, value)| value.as_str().map(str::to_owned))
            .unwrap_or_default()
    }

    /// A string, or the value of a `StringValue`; none when it is not set.
    #[must_use]
    pub fn opt_text(&self, name: &str) -> Option<String> {
        let (_, value) = self.take(name)?;
        match unwrapped(&value) {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// A list of strings.
    #[must_use]
    pub fn texts(&self, name: &str) -> Vec<String> {
        self.values(name, |value| value.as_str().map(str::to_owned))
    }

    /// A list of numbers.
    #[must_use]
    pub fn numbers(&self, name: &str) -> Vec<u32> {
        self.values(name, Value::as_u32)
    }

    fn values<T>(&self, name: &str, of: impl Fn(&Value) -> Option<T>) -> Vec<T> {
        let taken = self.take(name);
        let list = taken
            .as_ref()
            .and_then(|(_, value)| value.as_list())
            .unwrap_or_default();
        list.iter().filter_map(of).collect()
    }

    /// A boolean, or the value of a `BoolValue`; false when it is not set.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.opt_flag(name).unwrap_or_default()
    }

    /// A boolean, or the value of a `BoolValue`; none when it is not set.
    #[must_use]
    pub fn opt_flag(&self, name: &str) -> Option<bool> {
        let (_, value) = self.take(name)?;
        unwrapped(&value).as_bool()
    }

    /// An unsigned number, or the value of its wrapper; none when it is not set.
    #[must_use]
    pub fn opt_number(&self, name: &str) -> Option<u32> {
        let (_, value) = self.take(name)?;
        unwrapped(&value).as_u32()
    }

    /// An unsigned number; 0 when it is not set.
    #[must_use]
    pub fn number(&self, name: &str) -> u32 {
        self.opt_number(name).unwrap_or_default()
    }

    /// A signed number; 0 when it is not set.
    #[must_use]
    pub fn signed(&self, name: &str) -> i64 {
        let Some((_, value)) = self.take(name) else {
            return 0;
        };
        value
            .as_i64()
            .or_else(|| value.as_i32().map(i64::from))
            .unwrap_or_default()
    }

    /// An enum's value by name; the first one when it is not set.
    #[must_use]
    pub fn choice(&self, name: &str) -> String {
        self.skip(name);
        let Some(field) = self.message.descriptor().get_field_by_name(name) else {
            return String::new();
        };
        let number = self.message.get_field(&field).as_enum_number();
        let kind = field.kind();
        match (kind.as_enum(), number) {
            (Some(kind), Some(number)) => kind
                .get_value(number)
                .map_or_else(|| number.to_string(), |value| value.name().to_owned()),
            _ => String::new(),
        }
    }

    /// A `google.protobuf.Duration`; negative ones count as zero.
    #[must_use]
    pub fn duration(&self, name: &str) -> Option<Duration> {
        let (_, value) = self.take(name)?;
        let message = value.as_message()?;
        let seconds = message.get_field_by_name("seconds")?.as_i64()?;
        let nanos = message.get_field_by_name("nanos")?.as_i32()?;
        Some(Duration::new(
            u64::try_from(seconds).unwrap_or(0),
            u32::try_from(nanos).unwrap_or(0).min(999_999_999),
        ))
    }

    /// The bytes of a field.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let (_, value) = self.take(name)?;
        value.as_bytes().map(|bytes| bytes.to_vec())
    }

    /// A message in a field.
    #[must_use]
    pub fn message(&self, name: &str) -> Option<Fields<'_>> {
        let (_, value) = self.take(name)?;
        let message = match value {
            Cow::Borrowed(Value::Message(message)) => Cow::Borrowed(message),
            Cow::Owned(Value::Message(message)) => Cow::Owned(message),
            _ => return None,
        };
        Some(Fields::over(message, self.path_of(name), self.unread))
    }

    /// A message in a field, whose unread fields are noted elsewhere.
    #[must_use]
    pub fn message_into<'s>(&'s self, name: &str, unread: &'s Unread) -> Option<Fields<'s>> {
        self.message(name).map(|fields| fields.scoped(unread))
    }

    /// The same message, whose unread fields are noted elsewhere.
    #[must_use]
    pub fn scoped<'s>(self, unread: &'s Unread) -> Fields<'s>
    where
        'a: 's,
    {
        let mut fields: Fields<'s> = self;
        fields.unread = unread;
        fields
    }

    /// The messages in a repeated field.
    #[must_use]
    pub fn messages(&self, name: &str) -> Vec<Fields<'_>> {
        let Some((_, Cow::Borrowed(Value::List(items)))) = self.take(name) else {
            return Vec::new();
        };
        let path = self.path_of(name);
        let mut messages = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            if let Value::Message(message) = item {
                messages.push(Fields::over(
                    Cow::Borrowed(message),
                    format!("{path}[{i}]"),
                    self.unread,
                ));
            }
        }
        messages
    }

    /// What a `google.protobuf.Any` in a field holds.
    #[must_use]
    pub fn any(&self, name: &str) -> Option<Fields<'_>> {
        let (_, value) = self.take(name)?;
        let message = unpack(value.as_message()?)?;
        Some(Fields::over(
            Cow::Owned(message),
            self.path_of(name),
            self.unread,
        ))
    }
}

/// The value in a wrapper (`google.protobuf.BoolValue`), or the value itself.
fn unwrapped(value: &Value) -> Value {
    match value {
        Value::Message(message) if message.descriptor().full_name().ends_with("Value") => message
            .get_field_by_name("value")
            .map_or_else(|| value.clone(), Cow::into_owned),
        other => other.clone(),
    }
}
