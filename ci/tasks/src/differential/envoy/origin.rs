//! The origin behind every cluster: it answers a request with the request's own head, as it came.

use std::io::{self, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// A header of the answer that edits of responses find there.
pub(super) const FOUND: (&str, &str) = ("x-a", "origin");

/// Serves a cluster of that name for as long as the process lives; where.
pub(super) fn serve(cluster: &'static str) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                // Envoy closes when it likes.
                let _ = converse(stream, cluster);
            });
        }
    });
    Ok(address)
}

fn converse(stream: TcpStream, cluster: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let head = read_head(&mut reader)?;
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\nx-origin: {cluster}\r\n{}: {}\r\ncontent-length: {}\r\n\r\n",
            FOUND.0,
            FOUND.1,
            head.len()
        )
        .into_bytes();
        answer.extend(head);
        writer.write_all(&answer)?;
    }
}

/// The bytes up to the empty line.
pub(super) fn read_head(reader: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        reader.read_exact(&mut byte)?;
        head.extend(byte);
    }
    Ok(head)
}
