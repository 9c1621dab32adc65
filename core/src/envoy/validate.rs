//! The rules that Envoy's protos state about their own fields (`validate.rules`), held.
//!
//! Envoy refuses a message that breaks one. The rules are options in the descriptors; they are
//! read once per message type and interpreted by name, so that a new Envoy brings its new rules.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use prost_reflect::{DynamicMessage, FieldDescriptor, MessageDescriptor, ReflectMessage, Value};
use regex::Regex;

use super::pool::{pool, unpack};

/// A field that breaks a rule of its proto.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field's path in the message.
    pub field: String,
    /// What the rule is.
    pub reason: String,
}

/// The rules of one message type.
struct MessageRules {
    fields: Vec<(FieldDescriptor, DynamicMessage)>,
    required_oneofs: Vec<prost_reflect::OneofDescriptor>,
}

/// The first rule that a message or a message in it breaks, in the order of field numbers.
///
/// # Errors
///
/// The field and the rule.
pub fn validate(message: &DynamicMessage) -> Result<(), Violation> {
    check(message, "")
}

fn check(message: &DynamicMessage, path: &str) -> Result<(), Violation> {
    let descriptor = message.descriptor();
    if descriptor.full_name() == "google.protobuf.Any" {
        return unpack(message).map_or(Ok(()), |inner| check(&inner, path));
    }
    if descriptor.full_name() == "google.protobuf.Duration" {
        return not_negative(message, path);
    }
    let rules = rules_of(&descriptor);
    for oneof in &rules.required_oneofs {
        if !oneof.fields().any(|field| message.has_field(&field)) {
            let names: Vec<_> = oneof
                .fields()
                .map(|field| field.json_name().to_owned())
                .collect();
            let field = join(path, oneof.name());
            return Err(Violation {
                field,
                reason: format!("one of {} is required", names.join(", ")),
            });
        }
    }
    for (field, rules) in &rules.fields {
        check_field(message, field, rules, path)?;
    }
    for (field, value) in message.fields() {
        let path = join(path, field.json_name());
        match value {
            Value::Message(inner) => check(inner, &path)?,
            Value::List(items) => {
                for (i, item) in items
                    .iter()
                    .enumerate()
                    .filter_map(|(i, item)| Some((i, item.as_message()?)))
                {
                    check(item, &format!("{path}[{i}]"))?;
                }
            }
            Value::Map(entries) => {
                for (key, value) in entries.iter().collect::<BTreeMap<_, _>>() {
                    if let Some(inner) = value.as_message() {
                        let key = key
                            .as_str()
                            .map_or_else(|| format!("{key:?}"), str::to_owned);
                        check(inner, &join(&path, &key))?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Envoy takes no negative duration anywhere.
fn not_negative(duration: &DynamicMessage, path: &str) -> Result<(), Violation> {
    let seconds = duration
        .get_field_by_name("seconds")
        .and_then(|it| it.as_i64());
    let nanos = duration
        .get_field_by_name("nanos")
        .and_then(|it| it.as_i32());
    if seconds.is_some_and(|it| it < 0) || nanos.is_some_and(|it| it < 0) {
        return Err(Violation {
            field: path.to_owned(),
            reason: "must not be negative".to_owned(),
        });
    }
    Ok(())
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// The rules of a message type, read from its descriptor at the first call.
fn rules_of(descriptor: &MessageDescriptor) -> Arc<MessageRules> {
    static RULES: OnceLock<Mutex<BTreeMap<String, Arc<MessageRules>>>> = OnceLock::new();
    let cache = RULES.get_or_init(Mutex::default);
    let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(rules) = cache.get(descriptor.full_name()) {
        return Arc::clone(rules);
    }
    let rules = Arc::new(read_rules(descriptor));
    cache.insert(descriptor.full_name().to_owned(), Arc::clone(&rules));
    rules
}

fn read_rules(descriptor: &MessageDescriptor) -> MessageRules {
    let mut found = MessageRules {
        fields: Vec::new(),
        required_oneofs: Vec::new(),
    };
    let (Some(rules), Some(required)) = (
        pool().get_extension_by_name("validate.rules"),
        pool().get_extension_by_name("validate.required"),
    ) else {
        return found;
    };
    for field in descriptor.fields() {
        let options = field.options();
        if options.has_extension(&rules)
            && let Some(rules) = options.get_extension(&rules).as_message()
        {
            found.fields.push((field, rules.clone()));
        }
    }
    for oneof in descriptor.oneofs() {
        if oneof.options().get_extension(&required).as_bool() == Some(true) {
            found.required_oneofs.push(oneof);
        }
    }
    found
}

fn check_field(
    message: &DynamicMessage,
    field: &FieldDescriptor,
    rules: &DynamicMessage,
    path: &str,
) -> Result<(), Violation> {
    let path = join(path, field.json_name());
    let set = message.has_field(field);
    // A member of a oneof is judged only when it is the one that is set.
    if !set && field.containing_oneof().is_some() {
        return Ok(());
    }
    if !set && (required(rules, "message") || required(rules, "duration") || required(rules, "any"))
    {
        return Err(Violation {
            field: path,
            reason: "is required".to_owned(),
        });
    }
    // A message is judged only when it is there; a scalar always.
    if !set && (field.supports_presence() && !field.is_list()) {
        return Ok(());
    }
    let value = message.get_field(field);
    broken(&value, rules, &path).map_or(Ok(()), Err)
}

fn required(rules: &DynamicMessage, of: &str) -> bool {
    part(rules, of).is_some_and(|rules| {
        rules
            .get_field_by_name("required")
            .and_then(|v| v.as_bool())
            == Some(true)
    })
}

/// The rules of one type (`string`, `repeated`) in a `FieldRules`.
fn part(rules: &DynamicMessage, name: &str) -> Option<DynamicMessage> {
    if !rules.has_field_by_name(name) {
        return None;
    }
    rules.get_field_by_name(name)?.as_message().cloned()
}

/// The rule that a value breaks, if it breaks one.
fn broken(value: &Value, rules: &DynamicMessage, path: &str) -> Option<Violation> {
    let violation = |reason| Violation {
        field: path.to_owned(),
        reason,
    };
    let (field, inner) = rules
        .fields()
        .find_map(|(field, value)| Some((field, value.as_message()?.clone())))?;
    match (field.name(), value) {
        ("repeated", Value::List(items)) => broken_list(items, &inner, path),
        ("map", Value::Map(entries)) => {
            let few = number(&inner, "min_pairs").filter(|min| as_number(entries.len()) < *min);
            few.map(|min| violation(format!("needs at least {min} entries")))
        }
        ("string", Value::String(text)) => broken_text(text, &inner).map(violation),
        ("bytes", Value::Bytes(bytes)) => {
            let short = number(&inner, "min_len").filter(|min| as_number(bytes.len()) < *min);
            short.map(|min| violation(format!("needs at least {min} bytes")))
        }
        ("enum", Value::EnumNumber(number)) => broken_enum(*number, &inner).map(violation),
        ("duration", Value::Message(message)) => broken_duration(message, &inner).map(violation),
        ("any" | "message" | "timestamp", _) => None,
        // The rules of a scalar also stand on its wrapper.
        (_, Value::Message(message)) => {
            let wrapped = message.get_field_by_name("value")?.into_owned();
            broken(&wrapped, rules, path)
        }
        _ => broken_number(scalar(value)?, &inner).map(violation),
    }
}

fn broken_list(items: &[Value], rules: &DynamicMessage, path: &str) -> Option<Violation> {
    let violation = |reason| {
        Some(Violation {
            field: path.to_owned(),
            reason,
        })
    };
    let count = as_number(items.len());
    if let Some(min) = number(rules, "min_items").filter(|min| count < *min) {
        return violation(format!("needs at least {min} items, has {count}"));
    }
    if let Some(max) = number(rules, "max_items").filter(|max| count > *max) {
        return violation(format!("takes at most {max} items, has {count}"));
    }
    if flag(rules, "unique")
        && items
            .iter()
            .enumerate()
            .any(|(i, item)| items.iter().skip(i + 1).any(|o| o == item))
    {
        return violation("items must differ from each other".to_owned());
    }
    let each = part(rules, "items")?;
    items
        .iter()
        .enumerate()
        .find_map(|(i, item)| broken(item, &each, &format!("{path}[{i}]")))
}

fn broken_enum(value: i32, rules: &DynamicMessage) -> Option<String> {
    let listed = |name: &str| -> Vec<i32> {
        let list = rules.get_field_by_name(name);
        list.as_ref()
            .and_then(|v| v.as_list())
            .unwrap_or_default()
            .iter()
            .filter_map(Value::as_i32)
            .collect()
    };
    let allowed = listed("in");
    if (!allowed.is_empty() && !allowed.contains(&value)) || listed("not_in").contains(&value) {
        return Some(format!("the value {value} is not allowed here"));
    }
    None
}

fn broken_text(text: &str, rules: &DynamicMessage) -> Option<String> {
    if text.is_empty() && flag(rules, "ignore_empty") {
        return None;
    }
    let length = as_number(text.chars().count());
    let bytes = as_number(text.len());
    if let Some(min) = number(rules, "min_len").filter(|min| length < *min) {
        return Some(if min <= 1.0 {
            "must not be empty".to_owned()
        } else {
            format!("needs at least {min} characters")
        });
    }
    if let Some(min) = number(rules, "min_bytes").filter(|min| bytes < *min) {
        return Some(if min <= 1.0 {
            "must not be empty".to_owned()
        } else {
            format!("needs at least {min} bytes")
        });
    }
    if let Some(max) = number(rules, "max_len").filter(|max| length > *max) {
        return Some(format!("takes at most {max} characters"));
    }
    if let Some(max) = number(rules, "max_bytes").filter(|max| bytes > *max) {
        return Some(format!("takes at most {max} bytes"));
    }
    if let Some(prefix) = word(rules, "prefix").filter(|prefix| !text.starts_with(prefix.as_str()))
    {
        return Some(format!("must start with `{prefix}`"));
    }
    let pattern = word(rules, "pattern").or_else(|| well_known_pattern(rules))?;
    let regex = compiled(&pattern)?;
    (!regex.is_match(text)).then(|| format!("`{}` does not match {pattern}", text.escape_debug()))
}

/// A pattern of the rules, compiled once: they are the descriptors' own, so there are few.
fn compiled(pattern: &str) -> Option<Regex> {
    static COMPILED: Mutex<BTreeMap<String, Option<Regex>>> = Mutex::new(BTreeMap::new());
    // A poisoned map is still a map of compiled patterns.
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = compiled.get(pattern) {
        return known.clone();
    }
    let regex = Regex::new(pattern).ok();
    compiled.insert(pattern.to_owned(), regex.clone());
    regex
}

/// The pattern behind `well_known_regex`: a header's name or value, strict or not.
fn well_known_pattern(rules: &DynamicMessage) -> Option<String> {
    let strict = !rules.has_field_by_name("strict") || flag(rules, "strict");
    let kind = rules
        .get_field_by_name("well_known_regex")?
        .as_enum_number()?;
    let pattern = match (kind, strict) {
        (1, true) => r"^:?[0-9a-zA-Z!#$%&'*+-.^_|~`]+$",
        (2, true) => r"^[^\x00-\x08\n-\x1F\x7F]*$",
        // Loosely, a name is held to the rule of a value, and may be empty.
        (1 | 2, false) => r"^[^\x00\n\r]*$",
        _ => return None,
    };
    Some(pattern.to_owned())
}

fn broken_duration(value: &DynamicMessage, rules: &DynamicMessage) -> Option<String> {
    let seconds = |message: &DynamicMessage| -> Option<f64> {
        let seconds = message.get_field_by_name("seconds")?.as_i64()?;
        let nanos = message.get_field_by_name("nanos")?.as_i32()?;
        #[expect(clippy::cast_precision_loss, reason = "bounds of durations are small")]
        Some(seconds as f64 + f64::from(nanos) / 1e9)
    };
    let bound = |name: &str| part(rules, name).as_ref().and_then(seconds);
    out_of_bounds(seconds(value)?, &bound).map(|reason| format!("{reason} seconds"))
}

fn broken_number(value: f64, rules: &DynamicMessage) -> Option<String> {
    if value == 0.0 && flag(rules, "ignore_empty") {
        return None;
    }
    let bound = |name: &str| number(rules, name);
    if let Some(reason) = out_of_bounds(value, &bound) {
        return Some(reason);
    }
    let allowed = rules.get_field_by_name("in")?;
    let allowed = allowed.as_list()?;
    (!allowed.is_empty() && !allowed.iter().filter_map(scalar).any(|it| it == value))
        .then(|| format!("the value {value} is not allowed here"))
}

fn out_of_bounds(value: f64, bound: &dyn Fn(&str) -> Option<f64>) -> Option<String> {
    if let Some(limit) = bound("gt").filter(|limit| value <= *limit) {
        return Some(format!("is {value}, must be more than {limit}"));
    }
    if let Some(limit) = bound("gte").filter(|limit| value < *limit) {
        return Some(format!("is {value}, must be at least {limit}"));
    }
    if let Some(limit) = bound("lt").filter(|limit| value >= *limit) {
        return Some(format!("is {value}, must be less than {limit}"));
    }
    if let Some(limit) = bound("lte").filter(|limit| value > *limit) {
        return Some(format!("is {value}, must be at most {limit}"));
    }
    bound("const")
        .filter(|it| value != *it)
        .map(|it| format!("is {value}, must be {it}"))
}

fn number(rules: &DynamicMessage, name: &str) -> Option<f64> {
    if !rules.has_field_by_name(name) {
        return None;
    }
    scalar(rules.get_field_by_name(name)?.as_ref())
}

fn flag(rules: &DynamicMessage, name: &str) -> bool {
    rules
        .get_field_by_name(name)
        .and_then(|value| value.as_bool())
        == Some(true)
}

fn word(rules: &DynamicMessage, name: &str) -> Option<String> {
    if !rules.has_field_by_name(name) {
        return None;
    }
    rules.get_field_by_name(name)?.as_str().map(str::to_owned)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "rules bound lengths and counts, not addresses"
)]
fn as_number(count: usize) -> f64 {
    count as f64
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a bound above 2^53 is stated nowhere"
)]
fn scalar(value: &Value) -> Option<f64> {
    Some(match value {
        Value::U32(n) => f64::from(*n),
        Value::I32(n) => f64::from(*n),
        Value::U64(n) => *n as f64,
        Value::I64(n) => *n as f64,
        Value::F32(n) => f64::from(*n),
        Value::F64(n) => *n,
        _ => return None,
    })
}
