//! Some values of one thing: their median, the least and the greatest.

use std::fmt;

use serde::Serialize;

use super::median;

/// A median with its spread; zeros of no values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of all these values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        let median = median(&mut values);
        let ends = values.first().zip(values.last());
        let (min, max) = ends.map_or((0.0, 0.0), |(min, max)| (*min, *max));
        Self { median, min, max }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, min, max } = self;
        let places = f.precision().unwrap_or(2);
        write!(f, "{median:.places$} ({min:.places$}..{max:.places$})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_middle_the_least_and_the_greatest() {
        let spread = Spread::of([3.0, 1.0, 2.0, 9.0, 0.5]);
        assert_eq!((spread.median, spread.min, spread.max), (2.0, 0.5, 9.0));
        assert_eq!(spread.to_string(), "2.00 (0.50..9.00)");
        assert_eq!(format!("{spread:.1}"), "2.0 (0.5..9.0)");
    }

    #[test]
    fn no_values_have_no_spread() {
        assert_eq!(Spread::of([]), Spread::default());
    }
}
