//! A process that may outlive us: known by its number and the moment it began.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use crate::clock::Deadline;

/// How long a process may take to end by itself.
const GRACE: Duration = Duration::from_secs(2);
/// How long the admin may take.
const ADMIN_WITHIN: Duration = Duration::from_secs(5);

/// A process. Numbers are used again; the moment of the start tells one from the next.
#[derive(Debug)]
pub(super) struct Pid {
    number: u32,
    /// In ticks since the machine's start; none if it was gone before we could look.
    started: Option<u64>,
    /// Ours to collect.
    child: Option<Child>,
}

impl Pid {
    pub(super) fn of_child(child: Child) -> Self {
        let number = child.id();
        Self {
            number,
            started: stat(number).map(|(_, started)| started),
            child: Some(child),
        }
    }

    /// `NUMBER STARTED`
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let (number, started) = text.trim().split_once(' ')?;
        Some(Self {
            number: number.parse().ok()?,
            started: Some(started.parse().ok()?),
            child: None,
        })
    }

    pub(super) fn to_text(&self) -> String {
        format!("{} {}\n", self.number, self.started.unwrap_or_default())
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Whether it runs: a process that ended and that nobody collected does not.
    pub(super) fn lives(&self) -> bool {
        let now = stat(self.number);
        now.is_some_and(|(state, started)| {
            !matches!(state, 'Z' | 'X') && Some(started) == self.started
        })
    }

    /// Asks it to end, and makes it end.
    pub(super) fn end(&mut self) {
        self.signal(Signal::SIGTERM);
        self.wait(GRACE);
        self.kill();
    }

    /// Ends it at once.
    pub(super) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait(GRACE);
        if let Some(child) = &mut self.child
            && !matches!(child.try_wait(), Ok(Some(_)))
        {
            // It cannot refuse SIGKILL; a pause in the kernel is all that is left.
            let _ = child.wait();
        }
    }

    fn signal(&self, signal: Signal) {
        if let (true, Ok(number)) = (self.lives(), i32::try_from(self.number)) {
            // It may have ended since.
            let _ = kill(nix::unistd::Pid::from_raw(number), signal);
        }
    }

    fn wait(&self, within: Duration) {
        let deadline = Deadline::within(within);
        while self.lives() && deadline.pause(Duration::from_millis(2)) {}
    }
}

/// A process's state and start, out of `/proc`.
fn stat(number: u32) -> Option<(char, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
    // The second field is the program's name in brackets, and may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// What the admin behind a Unix socket answers. The socket is reached by way of its open folder,
/// since an address has room for 107 bytes only.
pub(super) fn admin(folder: &Path, socket: &str, method: &str, what: &str) -> io::Result<String> {
    let folder = File::open(folder)?;
    let path = format!("/proc/self/fd/{}/{socket}", folder.as_raw_fd());
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(ADMIN_WITHIN))?;
    stream.set_write_timeout(Some(ADMIN_WITHIN))?;
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
    fn this_process_lives_and_one_that_began_at_another_time_does_not() {
        let number = std::process::id();
        let (_, started) = stat(number).unwrap();
        let own = Pid::from_text(&format!("{number} {started}")).unwrap();
        let other = Pid::from_text(&format!("{number} {}", started + 1)).unwrap();
        assert!(own.lives());
        assert!(!other.lives());
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
