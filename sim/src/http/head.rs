//! The head of a message: its first line and its header fields.

use super::{BodyLength, Headers, HttpError, MAX_HEAD};

/// How many header fields a head may have; Envoy's default.
const MAX_HEADERS: usize = 100;

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// `GET`
    pub method: String,
    /// What stands between method and version: `/details/0?x=1`, or a whole URL.
    pub target: String,
    /// Header fields.
    pub headers: Headers,
    /// Whether the version is 1.0.
    pub old: bool,
}

/// The head of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// `200`
    pub status: u16,
    /// Header fields.
    pub headers: Headers,
    /// Whether the version is 1.0.
    pub old: bool,
}

impl RequestHead {
    /// A request of version 1.1 without header fields.
    #[must_use]
    pub fn new(method: impl Into<String>, target: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            target: target.into(),
            headers: Headers::default(),
            old: false,
        }
    }

    /// Reads a head from the beginning of `bytes`: it and its length, or nothing when more is needed.
    ///
    /// # Errors
    ///
    /// When the bytes are no HTTP/1 head, or one that is too long.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, HttpError> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut fields);
        let Some(length) = length(request.parse(bytes), bytes)? else {
            return Ok(None);
        };
        let head = Self {
            method: request.method.unwrap_or_default().to_owned(),
            target: request.path.unwrap_or_default().to_owned(),
            headers: headers(request.headers)?,
            old: request.version == Some(0),
        };
        Ok(Some((head, length)))
    }

    /// Appends the head's bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{} {} HTTP/1.1\r\n", self.method, self.target).as_bytes());
        write_headers(&self.headers, out);
    }

    /// How long the body is.
    ///
    /// # Errors
    ///
    /// When the header fields contradict each other.
    pub fn body(&self) -> Result<BodyLength, HttpError> {
        Ok(declared(&self.headers)?.unwrap_or(BodyLength::None))
    }

    /// Whether another request may follow on this connection.
    #[must_use]
    pub fn keeps_alive(&self) -> bool {
        keeps_alive(self.old, &self.headers)
    }
}

impl ResponseHead {
    /// A response of version 1.1 without header fields.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self {
            status,
            headers: Headers::default(),
            old: false,
        }
    }

    /// Reads a head from the beginning of `bytes`: it and its length, or nothing when more is needed.
    ///
    /// # Errors
    ///
    /// When the bytes are no HTTP/1 head, or one that is too long.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, HttpError> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut fields);
        let Some(length) = length(response.parse(bytes), bytes)? else {
            return Ok(None);
        };
        let status = response.code.unwrap_or_default();
        // Three digits, which `httparse` asks for, may be no status all the same (RFC 9110, section 15).
        if http::StatusCode::from_u16(status).is_err() {
            return Err(HttpError::Head(format!("{status:03} is no status")));
        }
        let head = Self {
            status,
            headers: headers(response.headers)?,
            old: response.version == Some(0),
        };
        Ok(Some((head, length)))
    }

    /// Appends the head's bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        let line = format!(
            "HTTP/1.1 {} {}\r\n",
            self.status,
            reason_phrase(self.status)
        );
        out.extend_from_slice(line.as_bytes());
        write_headers(&self.headers, out);
    }

    /// How long the body is, which also depends on the request's method (RFC 9112, section 6.3).
    ///
    /// # Errors
    ///
    /// When the header fields contradict each other.
    pub fn body(&self, method: &str) -> Result<BodyLength, HttpError> {
        let without = matches!(self.status, 100..=199 | 204 | 304) || method == "HEAD";
        if without {
            return Ok(BodyLength::None);
        }
        Ok(declared(&self.headers)?.unwrap_or(BodyLength::UntilClose))
    }

    /// Whether another request may follow on this connection.
    #[must_use]
    pub fn keeps_alive(&self) -> bool {
        keeps_alive(self.old, &self.headers)
    }
}

fn length(
    parsed: Result<httparse::Status<usize>, httparse::Error>,
    bytes: &[u8],
) -> Result<Option<usize>, HttpError> {
    match parsed {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => Ok(Some(length)),
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => Ok(None),
        Ok(_) => Err(HttpError::HeadTooLong),
        Err(error) => Err(HttpError::Head(error.to_string())),
    }
}

fn headers(fields: &[httparse::Header<'_>]) -> Result<Headers, HttpError> {
    let mut headers = Headers::default();
    for field in fields {
        let value = std::str::from_utf8(field.value)
            .map_err(|_| HttpError::Head(format!("`{}` is no text", field.name)))?;
        headers.add(&field.name.to_ascii_lowercase(), value.trim());
    }
    Ok(headers)
}

fn write_headers(headers: &Headers, out: &mut Vec<u8>) {
    for (name, value) in &headers.0 {
        out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// The length that header fields give. Both lengths at once is how requests are smuggled: refused.
fn declared(headers: &Headers) -> Result<Option<BodyLength>, HttpError> {
    let codings: Vec<&str> = headers.all("transfer-encoding").collect();
    let lengths: Vec<&str> = headers
        .all("content-length")
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    if !codings.is_empty() {
        let codings = codings.join(", ");
        if codings.eq_ignore_ascii_case("chunked") && lengths.is_empty() {
            return Ok(Some(BodyLength::Chunked));
        }
        return Err(HttpError::TransferEncoding(codings));
    }
    let Some((first, others)) = lengths.split_first() else {
        return Ok(None);
    };
    let is_number = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit());
    match first.parse() {
        Ok(length) if is_number && others.iter().all(|other| other == first) => {
            Ok(Some(BodyLength::Length(length)))
        }
        _ => Err(HttpError::ContentLength(lengths.join(", "))),
    }
}

fn keeps_alive(old: bool, headers: &Headers) -> bool {
    if old {
        headers.has_token("connection", "keep-alive")
    } else {
        !headers.has_token("connection", "close")
    }
}

/// The words after a status.
#[must_use]
pub fn reason_phrase(status: u16) -> &'static str {
    http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Unknown")
}
