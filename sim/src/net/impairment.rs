//! What is wrong with a link: packets that it loses, delays, doubles, or lets fall behind.
//!
//! Each direction of each link draws from a stream of its own, by its name: an impairment of one
//! link changes the luck of no other.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::seed::Random;

/// How long a packet that falls behind is held back at most, beyond twice the link's latency.
const HELD_BACK: Duration = Duration::from_millis(1);

/// A share of all packets, in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    /// All of them.
    pub const ALL: Self = Self(1_000_000);

    /// That many in a hundred; more than all is all.
    #[must_use]
    pub const fn percent(percent: u32) -> Self {
        let millionths = percent.saturating_mul(10_000);
        Self(if millionths > Self::ALL.0 {
            Self::ALL.0
        } else {
            millionths
        })
    }

    fn strikes(self, luck: &mut Random) -> bool {
        // Without a share nothing is drawn: what is off must not shift what is on.
        self.0 > 0 && luck.below(u64::from(Self::ALL.0)) < u64::from(self.0)
    }
}

/// A text that is no share.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no share of packets; write it as `5%`, from 0% to 100%")]
pub struct NotAShare(String);

impl FromStr for Share {
    type Err = NotAShare;

    /// `5%`, `0.25%`
    fn from_str(text: &str) -> Result<Self, NotAShare> {
        let not = || NotAShare(text.to_owned());
        let number = text.trim().strip_suffix('%').ok_or_else(not)?.trim_end();
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 4 {
            return Err(not());
        }
        let whole: u32 = whole.parse().map_err(|_| not())?;
        let fraction: u32 = format!("{fraction:0<4}").parse().map_err(|_| not())?;
        let share = whole.checked_mul(10_000).map(|it| it + fraction);
        share
            .filter(|share| *share <= Self::ALL.0)
            .map(Self)
            .ok_or_else(not)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / 10_000, self.0 % 10_000);
        if fraction == 0 {
            return write!(f, "{whole}%");
        }
        let fraction = format!("{fraction:04}");
        write!(f, "{whole}.{}%", fraction.trim_end_matches('0'))
    }
}

/// What is wrong with a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Impairment {
    /// Packets that never arrive.
    pub loss: Share,
    /// Packets that arrive twice.
    pub duplicate: Share,
    /// Packets that are held back, so that others overtake them.
    pub reorder: Share,
    /// What every packet takes longer.
    pub delay: Duration,
    /// Up to that much more, drawn for each packet; the order stays.
    pub jitter: Duration,
}

impl fmt::Display for Impairment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shares = [
            ("loss", self.loss),
            ("duplicate", self.duplicate),
            ("reorder", self.reorder),
        ];
        let shares = shares.iter().filter(|(_, share)| *share > Share::default());
        let times = [("delay", self.delay), ("jitter", self.jitter)];
        let times = times.iter().filter(|(_, time)| !time.is_zero());
        let all: Vec<String> = shares
            .map(|(name, share)| format!("{name} {share}"))
            .chain(times.map(|(name, time)| format!("{name} {time:?}")))
            .collect();
        f.write_str(&if all.is_empty() {
            "nothing wrong".to_owned()
        } else {
            all.join(", ")
        })
    }
}

/// Which packets of a link an impairment strikes, as seen from whose link it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Toward {
    /// Those that it sends and those that come to it.
    #[default]
    Both,
    /// Those that come to it.
    In,
    /// Those that it sends.
    Out,
}

/// What a link does to one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stroke {
    /// It is lost.
    Lost,
    /// It takes that much longer.
    Carried {
        /// Later than the link alone.
        more: Duration,
        /// Held back: others may overtake it.
        behind: Option<Duration>,
        /// And it arrives a second time.
        twice: bool,
    },
}

impl Impairment {
    /// Draws what becomes of the next packet of a link with that latency.
    pub(crate) fn strike(&self, latency: Duration, luck: &mut Random) -> Stroke {
        if self.loss.strikes(luck) {
            return Stroke::Lost;
        }
        let held = latency * 2 + HELD_BACK;
        Stroke::Carried {
            more: self.delay + up_to(self.jitter, luck),
            behind: self
                .reorder
                .strikes(luck)
                .then(|| latency + up_to(held, luck)),
            twice: self.duplicate.strikes(luck),
        }
    }
}

/// A time from nothing to `most`.
fn up_to(most: Duration, luck: &mut Random) -> Duration {
    let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
    if nanos == 0 {
        return Duration::ZERO;
    }
    Duration::from_nanos(luck.below(nanos.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::seed::Seed;

    #[rstest]
    #[case("5%", Some("5%"))]
    #[case("0.25%", Some("0.25%"))]
    #[case(" 100 %", Some("100%"))]
    #[case("100.0001%", None)]
    #[case("5", None)]
    #[case("-1%", None)]
    #[case(".5%", None)]
    #[case("99999999999%", None)]
    fn a_share_is_written_in_percent(#[case] text: &str, #[case] shown: Option<&str>) {
        let share = text.parse::<Share>().ok().map(|share| share.to_string());
        assert_eq!(share.as_deref(), shown);
    }

    #[test]
    fn a_share_strikes_about_as_often_as_it_says() {
        let mut luck = Seed(3).stream("a link");
        let share = Share::percent(5);
        let struck = (0..100_000).filter(|_| share.strikes(&mut luck)).count();
        assert!((4_700..5_300).contains(&struck), "{struck} of 100,000");
    }

    #[test]
    fn an_impairment_is_told_by_what_is_wrong_alone() {
        let slow = Impairment {
            loss: Share::percent(1),
            jitter: Duration::from_millis(3),
            ..Impairment::default()
        };
        assert_eq!(slow.to_string(), "loss 1%, jitter 3ms");
    }
}
