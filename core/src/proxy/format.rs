//! Envoy's format strings (`%REQ(x-user)%`), as far as the model can know what they stand for.

use super::request::{Context, Request, bare};

/// A parsed format string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// The first of these headers that is there, cut to a length.
    Header(Vec<String>, Option<usize>),
    /// The path: with its query or not, as it came or as it is.
    Path {
        query: bool,
        original: Original,
    },
    Remote {
        port: bool,
    },
    TraceId,
    /// A command that is not modelled.
    Unknown(String),
}

/// Which path `%PATH%` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Original {
    /// `x-envoy-original-path`
    Only,
    /// `:path`
    Never,
    /// The original one when there is one.
    First,
}

impl Format {
    /// Parses a format string.
    ///
    /// # Errors
    ///
    /// A `%` that is not closed, or a command that Envoy does not know.
    pub fn parse(source: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = source;
        while let Some((text, after)) = rest.split_once('%') {
            if !text.is_empty() {
                pieces.push(Piece::Text(text.to_owned()));
            }
            let (command, tail) = split_command(after).ok_or_else(|| {
                format!("`{source}` has a `%` that is not closed; write `%%` for a percent sign")
            })?;
            pieces.push(if command.is_empty() {
                Piece::Text("%".to_owned())
            } else {
                check_command(command).map_err(|reason| format!("`{source}`: {reason}"))?;
                Piece::of(command)
            });
            rest = tail;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    /// The text for a request. Absent values are empty. None when a command is not modelled, or
    /// nothing is known about the client and the format asks for it.
    #[must_use]
    pub fn text(&self, request: &Request, context: &Context) -> Option<String> {
        self.text_or(request, context, "")
    }

    /// The text for a request, with this for each absent value.
    pub(super) fn text_or(
        &self,
        request: &Request,
        context: &Context,
        absent: &str,
    ) -> Option<String> {
        let mut out = String::new();
        for piece in &self.0 {
            let before = out.len();
            piece.write(request, context, &mut out)?;
            if out.len() == before {
                out.push_str(absent);
            }
        }
        Some(out)
    }
}

/// A command up to its closing `%`; within parentheses a `%` is an ordinary character.
fn split_command(after: &str) -> Option<(&str, &str)> {
    let mut depth = 0_usize;
    for (at, byte) in after.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b'%' if depth == 0 => return Some((after.get(..at)?, after.get(at + 1..)?)),
            _ => {}
        }
    }
    None
}

/// Beginnings of the names of Envoy's commands
/// (`source/common/formatter/{http,stream_info}_formatter.cc`); extensions register few more.
const COMMANDS: [&str; 34] = [
    "ACCESS_LOG_TYPE",
    "BYTES_",
    "CEL",
    "CLUSTER_METADATA",
    "COALESCE",
    "COMMON_DURATION",
    "CONNECTION_",
    "CUSTOM_FLAGS",
    "DOWNSTREAM_",
    "DURATION",
    "DYNAMIC_METADATA",
    "EMIT_TIME",
    "ENVIRONMENT",
    "FILE_CONTENT",
    "FILTER_STATE",
    "GRPC_STATUS",
    "HOSTNAME",
    "LOCAL_REPLY_BODY",
    "METADATA",
    "PATH",
    "PER_REQUEST_STATE",
    "PROTOCOL",
    "QUERY_PARAM",
    "REQ",
    "RESP",
    "ROUNDTRIP_DURATION",
    "ROUTE_NAME",
    "START_TIME",
    "STREAM_ID",
    "TRACE_ID",
    "TRAILER",
    "UNIQUE_ID",
    "UPSTREAM_",
    "VIRTUAL_",
];

/// Commands that say nothing without parameters; Envoy 1.40 refuses them bare.
const WITH_PARAMETERS: [&str; 16] = [
    "CLUSTER_METADATA",
    "COALESCE",
    "COMMON_DURATION",
    "DYNAMIC_METADATA",
    "ENVIRONMENT",
    "FILTER_STATE",
    "METADATA",
    "QUERY_PARAM",
    "REQ",
    "REQUEST_HEADER",
    "RESP",
    "RESPONSE_HEADER",
    "RESPONSE_TRAILER",
    "TRAILER",
    "UPSTREAM_FILTER_STATE",
    "UPSTREAM_METADATA",
];

/// What Envoy refuses about a command.
fn check_command(command: &str) -> Result<(), String> {
    if WITH_PARAMETERS.contains(&command) {
        return Err(format!(
            "`%{command}%` has no parameters, and says nothing without; write `%{command}(…)%`"
        ));
    }
    if !COMMANDS.iter().any(|name| command.starts_with(name)) {
        return Err(format!("`%{command}%` is none of Envoy's commands"));
    }
    if let Some(options) = command
        .strip_prefix("PATH(")
        .and_then(|it| it.strip_suffix(')'))
    {
        let (query, original) = options.split_once(':').unwrap_or((options, ""));
        if !["", "WQ", "NQ"].contains(&query)
            || !["", "ORIG", "PATH", "ORIG_OR_PATH"].contains(&original)
        {
            return Err(format!(
                "`{options}` is no option of PATH; they are WQ or NQ, then ORIG, PATH or ORIG_OR_PATH"
            ));
        }
    }
    match command.rsplit_once(')') {
        Some((_, "")) | None => Ok(()),
        Some((_, length)) => {
            let digits = length.strip_prefix(':').unwrap_or_default();
            if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Ok(());
            }
            Err(format!("`{length}` is no length; write `:` and a number"))
        }
    }
}

impl Piece {
    fn of(command: &str) -> Self {
        Self::known(command).unwrap_or_else(|| Self::Unknown(command.to_owned()))
    }

    fn known(command: &str) -> Option<Self> {
        match command {
            "DOWNSTREAM_REMOTE_ADDRESS" => return Some(Self::Remote { port: true }),
            "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => return Some(Self::Remote { port: false }),
            "TRACE_ID" => return Some(Self::TraceId),
            "PATH" => {
                return Some(Self::Path {
                    query: true,
                    original: Original::First,
                });
            }
            _ => {}
        }
        let (name, arguments) = command.split_once('(')?;
        let (arguments, length) = arguments.rsplit_once(')')?;
        let length = match length.strip_prefix(':') {
            Some(length) => Some(length.parse().ok()?),
            None => None,
        };
        match name {
            "REQ" | "REQUEST_HEADER" => Some(Self::Header(
                arguments.split('?').map(str::to_ascii_lowercase).collect(),
                length,
            )),
            "PATH" if length.is_none() => {
                let (query, original) = arguments.split_once(':').unwrap_or((arguments, ""));
                let query = match query {
                    "WQ" | "" => true,
                    "NQ" => false,
                    _ => return None,
                };
                let original = match original {
                    "ORIG" => Original::Only,
                    "PATH" => Original::Never,
                    "ORIG_OR_PATH" | "" => Original::First,
                    _ => return None,
                };
                Some(Self::Path { query, original })
            }
            _ => None,
        }
    }

    fn write(&self, request: &Request, context: &Context, out: &mut String) -> Option<()> {
        match self {
            Self::Text(text) => out.push_str(text),
            Self::Header(names, length) => {
                let value = names
                    .iter()
                    .find_map(|name| request.header(name).first().copied());
                let value = value.unwrap_or_default();
                let end = length.unwrap_or(value.len()).min(value.len());
                out.push_str(value.get(..end).unwrap_or(value));
            }
            Self::Path { query, original } => {
                let first = request.header("x-envoy-original-path").first().copied();
                let path = match original {
                    Original::Only => first.unwrap_or_default(),
                    Original::Never => request.path.as_str(),
                    Original::First => first.unwrap_or(&request.path),
                };
                out.push_str(if *query { path } else { bare(path) });
            }
            Self::Remote { port: true } => out.push_str(&context.remote?.to_string()),
            Self::Remote { port: false } => out.push_str(&context.remote?.ip().to_string()),
            Self::TraceId => out.push_str(context.trace_id.as_ref()?),
            Self::Unknown(_) => return None,
        }
        Some(())
    }
}
