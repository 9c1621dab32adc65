//! Durations as they are written on both sides: Go's in annotations, protobuf's in Envoy resources.

use std::time::Duration;

/// Reads what Go's `time.ParseDuration` reads (`1h30m`, `1.5s`, `0`), but nothing negative: no
/// time-out of Envoy is.
#[must_use]
pub fn from_go(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let number_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_end);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        total = total.checked_add(nanoseconds(number, unit)?)?;
        rest = next;
    }
    // Go counts nanoseconds in a signed 64-bit number.
    i64::try_from(total).ok()?;
    Some(Duration::from_nanos(total))
}

fn nanoseconds(number: &str, unit: &str) -> Option<u64> {
    let scale: u64 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let mut total = u128::from(whole) * u128::from(scale);
    let mut place = u128::from(scale);
    for digit in fraction.chars() {
        place /= 10;
        total += place * u128::from(digit.to_digit(10)?);
    }
    u64::try_from(total).ok()
}

/// Writes protobuf's JSON form: seconds with none, three, six or nine decimals.
#[must_use]
pub fn to_protobuf(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match duration.subsec_nanos() {
        0 => format!("{seconds}s"),
        nanos if nanos % 1_000_000 == 0 => format!("{seconds}.{:03}s", nanos / 1_000_000),
        nanos if nanos % 1_000 == 0 => format!("{seconds}.{:06}s", nanos / 1_000),
        nanos => format!("{seconds}.{nanos:09}s"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("10s", Some(10_000))]
    #[case("1h30m", Some(5_400_000))]
    #[case("1.5s", Some(1_500))]
    #[case(".5s", Some(500))]
    #[case("1.s", Some(1_000))]
    #[case("100ms", Some(100))]
    #[case("0", Some(0))]
    #[case("", None)]
    #[case("10", None)]
    #[case("s", None)]
    #[case(".s", None)]
    #[case("1.2.3s", None)]
    #[case("-1s", None)]
    #[case("1 s", None)]
    #[case("1d", None)]
    #[case("9999999999h", None)]
    fn a_duration_is_what_go_reads(#[case] text: &str, #[case] milliseconds: Option<u64>) {
        assert_eq!(from_go(text), milliseconds.map(Duration::from_millis));
    }

    #[rstest]
    #[case(0, "0s")]
    #[case(10_000_000_000, "10s")]
    #[case(1_500_000_000, "1.500s")]
    #[case(1_000, "0.000001s")]
    #[case(1, "0.000000001s")]
    fn protobuf_writes_decimals_by_threes(#[case] nanoseconds: u64, #[case] want: &str) {
        assert_eq!(to_protobuf(Duration::from_nanos(nanoseconds)), want);
    }

    proptest! {
        #[test]
        fn any_text_has_an_answer(text in "[0-9.+a-zµ-]{0,24}") {
            let _ = from_go(&text);
        }

        #[test]
        fn what_protobuf_writes_go_reads(nanoseconds in 0_u64..=i64::MAX as u64) {
            let duration = Duration::from_nanos(nanoseconds);
            prop_assert_eq!(from_go(&to_protobuf(duration)), Some(duration));
        }
    }
}
