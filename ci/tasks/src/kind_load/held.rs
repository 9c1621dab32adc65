//! Connections that a client keeps: how many are cut, and how many are ended by the server's word.
//!
//! The load generator sends a request again when a kept connection turns out to be closed, as HTTP
//! clients do. Nothing is sent again here: what is cut is counted.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nodeway_live::netns::{NetNs, NetNsError};
use serde::Serialize;

use crate::load::event::pause;

/// Connections of each kind.
const EACH_KIND: usize = 10;
/// Between two requests of a busy one.
const EACH: Duration = Duration::from_millis(200);
/// An answer that is not there by then does not come.
const WITHIN: Duration = Duration::from_secs(5);
/// Whether the load is over is looked at that often.
const LOOK: Duration = Duration::from_millis(20);

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: held\r\n\r\n";

/// What became of connections of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// Requests with an answer of status 200.
    pub answered: u32,
    /// Connections of which an answer said that they end.
    pub told: u32,
    /// Connections that ended without a word, and requests that were lost with them.
    pub cut: u32,
    /// Requests without an answer, with another status, or that found nobody listening.
    pub failed: u32,
}

impl Kept {
    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.told += other.told;
        self.cut += other.cut;
        self.failed += other.failed;
    }
}

/// What became of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Holding {
    /// Those that ask five times a second.
    pub busy: Kept,
    /// Those that ask once and then say nothing: no answer can tell them of an end.
    pub idle: Kept,
}

/// Connections that are being kept.
#[derive(Debug)]
pub struct Held {
    stop: Arc<AtomicBool>,
    busy: Vec<JoinHandle<Kept>>,
    idle: Vec<JoinHandle<Kept>>,
}

impl Held {
    /// Opens them, from a namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn start(from: &NetNs, to: SocketAddr) -> Result<Self, NetNsError> {
        let mut held = Self {
            stop: Arc::new(AtomicBool::new(false)),
            busy: Vec::new(),
            idle: Vec::new(),
        };
        for _ in 0..EACH_KIND {
            let start = |client: fn(SocketAddr, &AtomicBool) -> Kept| {
                let (from, stop) = (from.try_clone()?, Arc::clone(&held.stop));
                let client = move || from.run(|| client(to, &stop)).unwrap_or_default();
                Ok::<_, NetNsError>(std::thread::spawn(client))
            };
            let (busy, idle) = (start(busy)?, start(idle)?);
            held.busy.push(busy);
            held.idle.push(idle);
        }
        Ok(held)
    }

    /// Lets go of them.
    #[must_use]
    pub fn end(self) -> Holding {
        self.stop.store(true, Ordering::Relaxed);
        let sum = |threads: Vec<JoinHandle<Kept>>| {
            let mut all = Kept::default();
            for thread in threads {
                let panicked = |_| Kept {
                    failed: 1,
                    ..Kept::default()
                };
                all.add(thread.join().unwrap_or_else(panicked));
            }
            all
        };
        Holding {
            busy: sum(self.busy),
            idle: sum(self.idle),
        }
    }
}

/// How a request on a kept connection ended.
enum Ended {
    /// Answered; the connection goes on.
    Goes,
    /// Answered; the connection ends by the server's word.
    Told,
    /// The connection ended before the first byte of an answer.
    Cut,
    /// All else.
    Failed,
}

fn busy(to: SocketAddr, stop: &AtomicBool) -> Kept {
    let (mut kept, mut connection) = (Kept::default(), None);
    while !stop.load(Ordering::Relaxed) {
        let stream = match connection.take() {
            Some(stream) => Ok(stream),
            None => open(to),
        };
        match stream.map(|stream| (ask(&stream), stream)) {
            Ok((Ended::Goes, stream)) => {
                kept.answered += 1;
                connection = Some(stream);
            }
            Ok((Ended::Told, _)) => {
                kept.answered += 1;
                kept.told += 1;
            }
            Ok((Ended::Cut, _)) => kept.cut += 1,
            Ok((Ended::Failed, _)) | Err(_) => kept.failed += 1,
        }
        pause(EACH);
    }
    kept
}

fn idle(to: SocketAddr, stop: &AtomicBool) -> Kept {
    let mut kept = Kept::default();
    let stream = match open(to).map(|stream| (ask(&stream), stream)) {
        Ok((Ended::Goes, stream)) => stream,
        _ => {
            kept.failed += 1;
            return kept;
        }
    };
    kept.answered += 1;
    while !stop.load(Ordering::Relaxed) {
        pause(LOOK);
    }
    // What came meanwhile: nothing, or the end.
    let came = stream
        .set_nonblocking(true)
        .and_then(|()| stream.peek(&mut [0]));
    match came {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        _ => kept.cut += 1,
    }
    kept
}

fn open(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, WITHIN)?;
    stream.set_read_timeout(Some(WITHIN))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a client's patience is real time"
)]
fn ask(mut stream: &TcpStream) -> Ended {
    let begun = Instant::now();
    if stream.write_all(REQUEST).is_err() {
        return Ended::Cut;
    }
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    while begun.elapsed() < WITHIN {
        match stream.read(&mut piece) {
            Ok(0) if answer.is_empty() => return Ended::Cut,
            Err(error) if error.kind() == ErrorKind::ConnectionReset && answer.is_empty() => {
                return Ended::Cut;
            }
            Ok(0) | Err(_) => return Ended::Failed,
            Ok(length) => answer.extend_from_slice(piece.get(..length).unwrap_or_default()),
        }
        if let Some(ended) = whole(&answer) {
            return ended;
        }
    }
    Ended::Failed
}

/// What an answer says, once all of it is there.
fn whole(answer: &[u8]) -> Option<Ended> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let field = |name: &str| {
        let mut lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let found = lines.find(|(it, _)| it.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim())
    };
    let Some(length) = field("content-length").and_then(|it| it.parse::<usize>().ok()) else {
        return Some(Ended::Failed);
    };
    if body.len() < length {
        return None;
    }
    Some(if !head.starts_with("HTTP/1.1 200") {
        Ended::Failed
    } else if field("connection").is_some_and(|it| it.eq_ignore_ascii_case("close")) {
        Ended::Told
    } else {
        Ended::Goes
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::goes_on("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "Goes")]
    #[case::ends(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        "Told"
    )]
    #[case::another_status("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", "Failed")]
    #[case::no_length("HTTP/1.1 200 OK\r\n\r\n", "Failed")]
    #[case::half_a_body("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no", "")]
    #[case::half_a_head("HTTP/1.1 200 OK\r\ncontent", "")]
    fn an_answer_says_whether_the_connection_goes_on(#[case] answer: &str, #[case] said: &str) {
        let ended = match whole(answer.as_bytes()) {
            None => "",
            Some(Ended::Goes) => "Goes",
            Some(Ended::Told) => "Told",
            Some(Ended::Cut) => "Cut",
            Some(Ended::Failed) => "Failed",
        };
        assert_eq!(ended, said);
    }

    #[test]
    fn a_connection_that_ends_without_a_word_is_cut() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = server.local_addr().unwrap();
        let end = std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut request = [0; REQUEST.len()];
            stream.read_exact(&mut request).unwrap();
        });
        let stream = open(to).unwrap();
        assert!(matches!(ask(&stream), Ended::Cut));
        end.join().unwrap();
    }
}
