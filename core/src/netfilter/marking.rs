//! Which bits of a packet's mark are ours, and which table and rule deliver what is marked.
//!
//! Cilium's own by default. Where another program on the machine uses them, all of it moves:
//! rules are written with the default and then [`Ruleset::remark`]ed. The upper half of a mark is
//! the listener's port and does not move.

use nodeway_datapath::{PROXY_MASK, TO_PROXY};

use super::tproxy;
use super::{Match, PolicyRule, Routing, Ruleset, Target};

/// The bits that have the port.
const PORT: u32 = 0xffff_0000;

/// A mark's bits, the routing table behind them, and the place of the rule that leads there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marking {
    rule: PolicyRule,
}

/// Why a marking is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMarking {
    /// No bit at all would say that a packet is ours.
    #[error(
        "the mark {value:#x}/{mask:#x} is no mark: the value must be some of the mask's bits, and not 0"
    )]
    Value {
        /// The value.
        value: u32,
        /// The mask.
        mask: u32,
    },
    /// The upper half is the port's.
    #[error(
        "the mask {0:#x} takes bits of the listener's port; choose among the lower 16 bits, as 0xf00"
    )]
    Mask(u32),
    /// The kernel's own tables cannot be ours.
    #[error("the routing table {0} is the kernel's own; choose another from 1 to 252 or above 255")]
    Table(u32),
    /// A rule after the one of the table `main` (32766) is never asked.
    #[error("a rule at preference {0} is never asked; choose one from 1 to 32765")]
    Preference(u32),
}

impl Default for Marking {
    fn default() -> Self {
        Self {
            rule: PolicyRule {
                mark: TO_PROXY,
                mask: PROXY_MASK,
                table: tproxy::ROUTING_TABLE,
                preference: tproxy::PREFERENCE,
            },
        }
    }
}

impl Marking {
    /// A marking of one's own.
    ///
    /// # Errors
    /// When it could mark nothing, or lead nowhere.
    pub const fn new(
        value: u32,
        mask: u32,
        table: u32,
        preference: u32,
    ) -> Result<Self, BadMarking> {
        if mask & PORT != 0 {
            return Err(BadMarking::Mask(mask));
        }
        if value == 0 || value & !mask != 0 {
            return Err(BadMarking::Value { value, mask });
        }
        if matches!(table, 0 | 253..=255) {
            return Err(BadMarking::Table(table));
        }
        if !matches!(preference, 1..=32_765) {
            return Err(BadMarking::Preference(preference));
        }
        let mark = value;
        Ok(Self {
            rule: PolicyRule {
                mark,
                mask,
                table,
                preference,
            },
        })
    }

    /// The value of its bits.
    #[must_use]
    pub const fn value(&self) -> u32 {
        self.rule.mark
    }

    /// Its bits.
    #[must_use]
    pub const fn mask(&self) -> u32 {
        self.rule.mask
    }

    /// What delivers marked packets.
    #[must_use]
    pub fn routing(&self) -> Routing {
        Routing {
            rules: vec![self.rule],
            local: Vec::new(),
        }
    }

    /// A mark that is written with the default.
    const fn of(&self, default: u32) -> u32 {
        if default & PROXY_MASK == TO_PROXY {
            (default & PORT) | self.rule.mark
        } else {
            default
        }
    }

    /// The bits that are compared or set where the default ones are.
    const fn bits(&self, default: u32) -> u32 {
        match default {
            u32::MAX => u32::MAX,
            default if default & PROXY_MASK == PROXY_MASK => (default & PORT) | self.rule.mask,
            default => default,
        }
    }
}

impl Ruleset {
    /// Moves all marks of our own from Cilium's bits to others.
    pub fn remark(&mut self, marking: &Marking) {
        let chains = self
            .tables
            .values_mut()
            .flat_map(|chains| chains.values_mut());
        for rule in chains.flat_map(|chain| &mut chain.rules) {
            for one in &mut rule.matches {
                if let Match::Mark { value, mask, .. } = one {
                    (*value, *mask) = (marking.of(*value), marking.bits(*mask));
                }
            }
            if let Some(Target::Mark { value, mask } | Target::Tproxy { value, mask, .. }) =
                &mut rule.target
            {
                (*value, *mask) = (marking.of(*value), marking.bits(*mask));
            }
        }
        for set in self.sets.values_mut() {
            set.remark(|mark| marking.of(mark));
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use nodeway_datapath::{Family, Frontend, FrontendState};

    use super::*;
    use crate::frontend::FrontendKey;
    use crate::netfilter::text;

    fn rules(listeners: u16) -> Ruleset {
        let mut rules = Ruleset::new(Family::V4);
        tproxy::install(&mut rules);
        for n in 0..listeners {
            let key = FrontendKey {
                address: [10, 96, 0, 1].into(),
                port: 80 + n,
            };
            let frontend = Frontend {
                // 0x2f00 + n: bits of the default mark stand in the port too.
                listener_port: 12_032 + n,
                state: FrontendState::Active,
                ranged: false,
            };
            tproxy::put(&mut rules, key, &frontend);
        }
        tproxy::lead(&mut rules, &(0..listeners).map(|n| 12_032 + n).collect());
        rules
    }

    #[test]
    fn the_default_changes_nothing() {
        let mut moved = rules(40);
        moved.remark(&Marking::default());
        assert_eq!(moved, rules(40));
        assert_eq!(Marking::default().routing(), tproxy::routing());
    }

    #[rstest]
    fn other_bits_stand_wherever_the_default_ones_did(#[values(1, 40)] listeners: u16) {
        let mut moved = rules(listeners);
        moved.remark(&Marking::new(0x40, 0xf0, 77, 5).unwrap());
        let wanted = |text: &str| {
            let text = text.replace("0x200/0xf00", "0x40/0xf0");
            text.replace("0x200/0xffffffff", "0x40/0xffffffff")
        };
        let text = text::ruleset(&moved);
        for line in text.lines() {
            assert!(
                !line.contains("0x200") && !line.contains("/0xf00"),
                "{line}"
            );
        }
        let marks = |rules: &Ruleset| text::ruleset(rules).matches("--mark").count();
        assert_eq!(marks(&moved), marks(&rules(listeners)));
        assert_eq!(
            text.lines()
                .filter(|line| line.contains("0x40/0xf0"))
                .count(),
            wanted(&text::ruleset(&rules(listeners)))
                .lines()
                .filter(|line| line.contains("0x40/0xf0"))
                .count()
        );
        assert!(text::sets(&moved).contains("skbmark 0x2f0040"));
    }

    #[rstest]
    #[case::the_ports_bits(0x1_0000, 0xf_0000, 77, 5, "bits of the listener's port")]
    #[case::nothing(0, 0xf00, 77, 5, "is no mark")]
    #[case::bits_outside(0x1200, 0xf00, 77, 5, "is no mark")]
    #[case::table_main(0x200, 0xf00, 254, 5, "kernel's own")]
    #[case::no_table(0x200, 0xf00, 0, 5, "kernel's own")]
    #[case::before_the_first(0x200, 0xf00, 77, 0, "never asked")]
    #[case::after_main(0x200, 0xf00, 77, 32_766, "never asked")]
    fn what_is_no_marking_says_why(
        #[case] value: u32,
        #[case] mask: u32,
        #[case] table: u32,
        #[case] preference: u32,
        #[case] why: &str,
    ) {
        let error = Marking::new(value, mask, table, preference).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}
