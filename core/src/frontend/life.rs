//! A frontend's life on a node: a redirect that is switched on arms first where somebody has older
//! connections, and one that is switched off drains where it is still being served.
//!
//! ```text
//!  put ──► arming ──(no older connection left, or the bound)──► active
//!     └──(no older connection)──────────────────────────────────▲ │ removed
//!  gone ◄──(serves none, or the bound)── draining ◄──(serves some)┘
//! ```
//!
//! The clock is the caller's: `T` is a time of whatever clock it has.

use nodeway_datapath::FrontendState;

/// Where a frontend stands, and until when at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life<T> {
    /// Connections from before are left alone.
    Arming {
        /// When it is in force whatever is left.
        until: T,
    },
    /// In force.
    Active,
    /// What is served goes on; nothing new is taken.
    Draining {
        /// When it is gone whatever is left.
        until: T,
    },
}

impl<T: Copy + Ord> Life<T> {
    /// The life of a frontend that a plan has, new or changed: `before` is the one it had, `older`
    /// says whether somebody has a connection past the listener.
    #[must_use]
    pub fn put(before: Option<Self>, older: bool, until: T) -> Self {
        match before {
            Some(life @ (Self::Arming { .. } | Self::Active)) => life,
            _ if older => Self::Arming { until },
            _ => Self::Active,
        }
    }

    /// The life of a frontend that a plan has no more; none when it is gone at once. `served` says
    /// whether the proxy has a connection that came by it.
    #[must_use]
    pub fn removed(self, served: bool, until: T) -> Option<Self> {
        match self {
            Self::Draining { .. } => Some(self),
            Self::Arming { .. } | Self::Active => served.then_some(Self::Draining { until }),
        }
    }

    /// What has become of it by now; none when it is gone. Only one that switches asks who has a
    /// connection, which costs a look at each of them.
    #[must_use]
    pub fn review(
        self,
        now: T,
        older: impl FnOnce() -> bool,
        served: impl FnOnce() -> bool,
    ) -> Option<Self> {
        match self {
            Self::Arming { until } if until <= now || !older() => Some(Self::Active),
            Self::Draining { until } if until <= now || !served() => None,
            Self::Arming { .. } | Self::Active | Self::Draining { .. } => Some(self),
        }
    }

    /// Whether it will become something else by itself.
    #[must_use]
    pub const fn is_switching(self) -> bool {
        !matches!(self, Self::Active)
    }

    /// What hooks and rules know of it.
    #[must_use]
    pub const fn state(self) -> FrontendState {
        match self {
            Self::Arming { .. } => FrontendState::Arming,
            Self::Active => FrontendState::Active,
            Self::Draining { .. } => FrontendState::Draining,
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::Life::{self, Active, Arming, Draining};

    const ARMING: Life<u8> = Arming { until: 9 };
    const DRAINING: Life<u8> = Draining { until: 9 };

    #[rstest]
    #[case::new_and_nobody_was_there(None, false, Active)]
    #[case::new_and_somebody_was_there(None, true, Arming { until: 20 })]
    #[case::changed_while_arming(Some(ARMING), true, ARMING)]
    #[case::changed_in_force(Some(Active), true, Active)]
    #[case::back_while_draining(Some(DRAINING), false, Active)]
    #[case::back_while_draining_and_somebody_went_past(Some(DRAINING), true, Arming { until: 20 })]
    fn a_frontend_of_the_plan(
        #[case] before: Option<Life<u8>>,
        #[case] older: bool,
        #[case] after: Life<u8>,
    ) {
        assert_eq!(Life::put(before, older, 20), after);
    }

    #[rstest]
    #[case::that_serves_nobody(Active, false, None)]
    #[case::that_serves_somebody(Active, true, Some(Draining { until: 20 }))]
    #[case::that_was_arming(ARMING, true, Some(Draining { until: 20 }))]
    #[case::that_drains_already_keeps_its_bound(DRAINING, true, Some(DRAINING))]
    fn a_frontend_that_the_plan_has_no_more(
        #[case] before: Life<u8>,
        #[case] served: bool,
        #[case] after: Option<Life<u8>>,
    ) {
        assert_eq!(before.removed(served, 20), after);
    }

    #[rstest]
    #[case::arms_while_somebody_is_there(ARMING, 8, true, Some(ARMING))]
    #[case::is_in_force_when_nobody_is(ARMING, 8, false, Some(Active))]
    #[case::is_in_force_at_the_bound(ARMING, 9, true, Some(Active))]
    #[case::stays_in_force(Active, 99, true, Some(Active))]
    #[case::drains_while_it_serves(DRAINING, 8, true, Some(DRAINING))]
    #[case::is_gone_when_it_serves_nobody(DRAINING, 8, false, None)]
    #[case::is_gone_at_the_bound(DRAINING, 9, true, None)]
    fn a_frontend_as_time_passes(
        #[case] before: Life<u8>,
        #[case] now: u8,
        #[case] busy: bool,
        #[case] after: Option<Life<u8>>,
    ) {
        assert_eq!(before.review(now, || busy, || busy), after);
    }
}
