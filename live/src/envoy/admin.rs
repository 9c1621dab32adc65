//! Envoy's admin, which is a Unix socket that only its user and root may open.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The socket's name in an Envoy's folder.
pub(super) const SOCKET: &str = "admin.sock";

/// How long it may take to answer.
const WITHIN: Duration = Duration::from_secs(10);

/// The admin of an Envoy, or whoever else speaks HTTP at a socket in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    folder: PathBuf,
    socket: &'static str,
    within: Duration,
}

impl Admin {
    /// That of the Envoy in a folder.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        Self::at(folder, SOCKET)
    }

    pub(crate) fn at(folder: &Path, socket: &'static str) -> Self {
        Self {
            folder: folder.to_owned(),
            socket,
            within: WITHIN,
        }
    }

    /// The same, given no more time than that to answer.
    #[must_use]
    pub fn within(self, within: Duration) -> Self {
        Self { within, ..self }
    }

    /// Asks something (`/stats?filter=server`).
    ///
    /// # Errors
    /// When nobody answers in time, or not with 200.
    pub fn get(&self, what: &str) -> io::Result<String> {
        self.ask("GET", what)
    }

    /// Has something done (`/drain_listeners?graceful`).
    ///
    /// # Errors
    /// When nobody answers in time, or not with 200.
    pub fn post(&self, what: &str) -> io::Result<String> {
        self.ask("POST", what)
    }

    /// How many connections of clients are open; its own are not counted.
    ///
    /// # Errors
    /// When it does not answer, or not with a number.
    pub fn connections(&self) -> io::Result<u64> {
        // `server.total_connections` is as old as the last flush; these are not, and the admin's
        // own connections are no worker's.
        let answer = self.get(r"/stats?filter=%5C.worker_%5B0-9%5D%2B%5C.downstream_cx_active$")?;
        sum(&answer).ok_or_else(|| io::Error::other(format!("no numbers: `{}`", answer.trim())))
    }

    /// The socket is reached by way of its open folder, since an address has room for 107 bytes
    /// only.
    fn ask(&self, method: &str, what: &str) -> io::Result<String> {
        let folder = File::open(&self.folder)?;
        let path = format!("/proc/self/fd/{}/{}", folder.as_raw_fd(), self.socket);
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(self.within))?;
        stream.set_write_timeout(Some(self.within))?;
        write!(
            stream,
            "{method} {what} HTTP/1.1\r\nhost: admin\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )?;
        let mut reader = BufReader::new(stream);
        let (status, chunked) = head(&mut reader)?;
        let mut body = Vec::new();
        if chunked {
            while chunk(&mut reader, &mut body)? {}
        } else {
            reader.read_to_end(&mut body)?;
        }
        let body = String::from_utf8_lossy(&body).into_owned();
        if status != 200 {
            let said = body.trim();
            return Err(io::Error::other(format!("{status} {said}")));
        }
        Ok(body)
    }
}

/// The sum of `NAME: NUMBER` lines; none if one has no number.
fn sum(stats: &str) -> Option<u64> {
    let lines = stats.lines().filter(|line| !line.trim().is_empty());
    let numbers = lines.map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    numbers.sum()
}

/// The status, and whether the body comes in chunks.
fn head(reader: &mut impl io::BufRead) -> io::Result<(u16, bool)> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|it| it.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no HTTP: `{line}`")))?;
    let mut chunked = false;
    loop {
        line.clear();
        if reader.read_line(&mut line)? <= 2 {
            return Ok((status, chunked));
        }
        chunked |= line
            .trim()
            .eq_ignore_ascii_case("transfer-encoding: chunked");
    }
}

/// One chunk; false for the last.
fn chunk(reader: &mut impl io::BufRead, body: &mut Vec<u8>) -> io::Result<bool> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let size = u64::from_str_radix(line.trim(), 16)
        .map_err(|_| io::Error::other(format!("no chunk: `{line}`")))?;
    reader.take(size).read_to_end(body)?;
    let mut end = String::new();
    reader.read_line(&mut end)?;
    Ok(size > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_those_of_all_workers() {
        assert_eq!(
            sum("a.worker_0.downstream_cx_active: 2\nb.worker_1.x: 3\n"),
            Some(5)
        );
        assert_eq!(sum(""), Some(0));
        assert_eq!(sum("not found"), None);
    }

    #[test]
    fn a_body_in_chunks_is_put_together() {
        let mut reader = &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"[..];
        assert_eq!(head(&mut reader).unwrap(), (200, true));
        let mut body = Vec::new();
        while chunk(&mut reader, &mut body).unwrap() {}
        assert_eq!(body, b"abc0123456789abcdef");
    }
}
