//! Connect calls: made for real, because the kernel runs their hooks in no other way.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getpeername, setsockopt, socket,
    sockopt,
};
use nodeway_live::bpf::Ran;

use super::Trouble;

/// Calls, and checks that a connected client sees whom it called.
pub(super) fn call(to: SocketAddr, is_tcp: bool) -> Result<Ran, Trouble> {
    let family = match to.ip() {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let kind = if is_tcp {
        SockType::Stream
    } else {
        SockType::Datagram
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family, kind, flags, None)?;
    // No TIME_WAIT of these clients stays in the way of the round's own.
    setsockopt(&fd, sockopt::Linger, &no_linger())?;
    let called = connect(fd.as_raw_fd(), &SockaddrStorage::from(to));
    if is_tcp
        && called.is_ok()
        && let Ok(peer) = getpeername::<SockaddrStorage>(fd.as_raw_fd())
        && peer != SockaddrStorage::from(to)
    {
        return Err(format!("a client that called {to} sees {peer} as its peer").into());
    }
    Ok(Ran {
        returned: 1,
        mark: 0,
        took: Duration::ZERO,
    })
}

const fn no_linger() -> nix::libc::linger {
    nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    }
}
