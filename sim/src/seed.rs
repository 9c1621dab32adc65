//! Where the simulation's luck comes from: one seed, and a stream for each thing by its *name*.
//!
//! Streams are made from hash(seed, name), never in order of creation, so that adding a pod
//! shifts the luck of no other.

/// The seed of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// The stream of the thing of that name.
    #[must_use]
    pub fn stream(self, name: &str) -> Random {
        // FNV-1a over the name, begun at the mixed seed: stable across machines and releases.
        let mut hash = 0xcbf2_9ce4_8422_2325 ^ mix(self.0);
        for byte in name.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Random { state: mix(hash) }
    }
}

/// A stream of random numbers: SplitMix64 (Steele, Lea, Flood, 2014).
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number below `bound`; zero if the bound is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of a 128-bit product is unbiased enough for bounds far below 2^64.
        u64::try_from((u128::from(self.draw()) * u128::from(bound)) >> 64).unwrap_or(0)
    }
}

/// The finalizer of SplitMix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_its_own_stream_whatever_was_asked_before() {
        let seed = Seed(7);
        let alone = seed.stream("veth of default/client").draw();
        let _ = seed.stream("uplink of node-1").draw();
        assert_eq!(seed.stream("veth of default/client").draw(), alone);
        assert_ne!(Seed(8).stream("veth of default/client").draw(), alone);
    }

    #[test]
    fn a_bounded_number_stays_below_its_bound() {
        let mut random = Seed(1).stream("bounds");
        assert!((0..1_000).all(|_| random.below(3) < 3));
        assert_eq!(random.below(0), 0);
    }
}
