//! Numbers out of a range, by name: so that a new object does not move the others.
//!
//! A name's number is its hash, or the next free one after it. Objects draw in the order of their
//! names, so the same objects always get the same numbers; another object moves a number only when
//! the two hashes collide.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sha2::{Digest, Sha256};

/// A range of numbers, some of which are taken.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    first: u32,
    size: u32,
    taken: BTreeSet<u32>,
}

impl Pool {
    pub(crate) fn new(first: u32, size: u32) -> Self {
        Self {
            first,
            size,
            taken: BTreeSet::new(),
        }
    }

    /// Marks a number as taken by what was there before.
    pub(crate) fn take(&mut self, number: u32) {
        self.taken.insert(number);
    }

    /// The number of that name; none when all are taken.
    pub(crate) fn draw(&mut self, name: &str) -> Option<u32> {
        let start = hash(name) % u64::from(self.size.max(1));
        let start = u32::try_from(start).ok()?;
        // Two looks at the set's order instead of a step per taken number.
        let free = self
            .free_from(start, self.size)
            .or_else(|| self.free_from(0, start))?;
        self.taken.insert(free);
        Some(free)
    }

    fn free_from(&self, start: u32, end: u32) -> Option<u32> {
        let mut candidate = self.first + start;
        for taken in self.taken.range(candidate..self.first + end) {
            if *taken != candidate {
                break;
            }
            candidate += 1;
        }
        (candidate < self.first + end).then_some(candidate)
    }
}

fn hash(name: &str) -> u64 {
    Sha256::digest(name.as_bytes())
        .iter()
        .take(8)
        .fold(0, |hash, byte| (hash << 8) | u64::from(*byte))
}

/// The address that many after a network's first.
pub(crate) fn address(network: IpAddr, offset: u32) -> IpAddr {
    match network {
        IpAddr::V4(network) => Ipv4Addr::from_bits(network.to_bits().wrapping_add(offset)).into(),
        IpAddr::V6(network) => {
            Ipv6Addr::from_bits(network.to_bits().wrapping_add(offset.into())).into()
        }
    }
}

/// How far an address is after a network's first, if it is not before it.
pub(crate) fn offset(network: IpAddr, address: IpAddr) -> Option<u32> {
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            address.to_bits().checked_sub(network.to_bits())
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            u32::try_from(address.to_bits().checked_sub(network.to_bits())?).ok()
        }
        _ => None,
    }
}

/// A network's first address, of `10.244.1.0/24`.
pub(crate) fn first_of(cidr: &str) -> Option<IpAddr> {
    cidr.split_once('/')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_name_moves_no_number_unless_they_collide() {
        let names: Vec<String> = (0..50).map(|n| format!("default/s{n}")).collect();
        let draw = |skip: usize| {
            let mut pool = Pool::new(10, 60_000);
            let names = names.iter().enumerate().filter(|(n, _)| *n != skip);
            names
                .map(|(_, name)| (name.clone(), pool.draw(name).unwrap()))
                .collect::<Vec<_>>()
        };
        let all = draw(usize::MAX);
        for skip in 0..50 {
            assert!(draw(skip).iter().all(|drawn| all.contains(drawn)));
        }
    }

    #[test]
    fn a_pool_gives_each_number_once_and_then_none() {
        let mut pool = Pool::new(5, 20);
        pool.take(7);
        let mut drawn: Vec<u32> = (0..19)
            .map(|n| pool.draw(&n.to_string()).unwrap())
            .collect();
        drawn.sort_unstable();
        assert_eq!(drawn, (5..25).filter(|n| *n != 7).collect::<Vec<_>>());
        assert_eq!(pool.draw("one more"), None);
    }
}
