//! Durations, sizes and rates as people write them: `"1d"`, `"64 MiB"`, `"1 Gbit/s"`. Pure.

use std::time::Duration;

/// Reads a duration: one or more of number and unit, such as `5s`, `300ms` or `1h30m`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, after) = split_number(rest)?;
        let number: u64 = number.parse().ok()?;
        let after = after.trim_start();
        let end = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit = match unit {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" | "min" => Duration::from_secs(60),
            "h" => Duration::from_secs(3_600),
            "d" => Duration::from_secs(86_400),
            "w" => Duration::from_secs(604_800),
            _ => return None,
        };
        let part = unit.checked_mul(u32::try_from(number).ok()?)?;
        total = total.checked_add(part)?;
        rest = after.trim_start();
    }
    Some(total)
}

/// Writes a duration the way [`duration`] reads it.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    const UNITS: [(u64, &str); 5] = [
        (604_800, "w"),
        (86_400, "d"),
        (3_600, "h"),
        (60, "m"),
        (1, "s"),
    ];
    let millis = duration.subsec_millis();
    let mut secs = duration.as_secs();
    if millis != 0 && secs == 0 {
        return format!("{millis}ms");
    }
    let mut text = String::new();
    for (size, unit) in UNITS {
        if secs >= size {
            text.push_str(&format!("{}{unit}", secs / size));
            secs %= size;
        }
    }
    if millis != 0 {
        text.push_str(&format!("{millis}ms"));
    }
    if text.is_empty() {
        text.push_str("0s");
    }
    text
}

/// Reads a size in bytes: a number, or a number with `B`, `KiB` … `TiB` (1024) or `kB` … `TB` (1000).
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text.trim())?;
    let unit: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    scaled(number, unit)
}

/// Writes a size the way [`size`] reads it, to one decimal of a binary unit.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (1 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];
    for (size, unit) in UNITS {
        if bytes >= size {
            let whole = bytes / size;
            // Below 1024 units the tenth is exact enough and never rounds up to a full unit.
            let tenth = (bytes % size) / (size / 10 + 1);
            return if tenth == 0 {
                format!("{whole} {unit}")
            } else {
                format!("{whole}.{tenth} {unit}")
            };
        }
    }
    format!("{bytes} B")
}

/// Reads a rate, in bytes per second: `1 Gbit/s`, `100 Mbit/s` (1000), or `12 MB/s`, `12 MiB/s`.
pub(super) fn rate(text: &str) -> Option<u64> {
    let text = text.trim().strip_suffix("/s")?;
    let (number, unit) = split_number(text)?;
    let bits: u64 = match unit.trim_start() {
        "bit" => 1,
        "kbit" | "Kbit" => 1_000,
        "Mbit" => 1_000_000,
        "Gbit" => 1_000_000_000,
        "Tbit" => 1_000_000_000_000,
        _ => return size(text),
    };
    Some(scaled(number, bits)? / 8)
}

/// The leading digits (and one decimal point), and what follows.
fn split_number(text: &str) -> Option<(&str, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// `number`, which may have a decimal part, times `unit`, without going through floating point.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    if part.is_empty() || part.len() > 6 {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    let tens = 10_u64.checked_pow(u32::try_from(part.len()).ok()?)?;
    let part = u128::from(part.parse::<u64>().ok()?) * u128::from(unit) / u128::from(tens);
    whole.checked_add(u64::try_from(part).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_duration(text: &str, millis: Option<u64>) {
        assert_eq!(
            duration(text),
            millis.map(Duration::from_millis),
            "{text:?}"
        );
    }

    #[track_caller]
    fn check_size(text: &str, bytes: Option<u64>) {
        assert_eq!(size(text), bytes, "{text:?}");
    }

    #[track_caller]
    fn check_rate(text: &str, bytes: Option<u64>) {
        assert_eq!(rate(text), bytes, "{text:?}");
    }

    #[test]
    fn duration_takes_units_and_their_sums() {
        check_duration("0s", Some(0));
        check_duration("300ms", Some(300));
        check_duration("5 s", Some(5_000));
        check_duration("1h30m", Some(5_400_000));
        check_duration("1d", Some(86_400_000));
        check_duration("2w", Some(1_209_600_000));
    }

    #[test]
    fn duration_without_a_known_unit_is_refused() {
        for text in ["", "5", "s", "5 parsecs", "-1s", "1.5h", "99999999999w"] {
            check_duration(text, None);
        }
    }

    #[test]
    fn duration_text_reads_back() {
        for secs in [0, 1, 59, 60, 300, 5_400, 86_400, 90_061, 604_800] {
            let duration = Duration::from_secs(secs);
            assert_eq!(super::duration(&duration_text(duration)), Some(duration));
        }
        assert_eq!(duration_text(Duration::from_millis(300)), "300ms");
        assert_eq!(duration_text(Duration::from_millis(1_800)), "1s800ms");
    }

    #[test]
    fn size_takes_binary_and_decimal_units() {
        check_size("512", Some(512));
        check_size("64 MiB", Some(64 << 20));
        check_size("50GiB", Some(50 << 30));
        check_size("1.5 KiB", Some(1_536));
        check_size("2 MB", Some(2_000_000));
    }

    #[test]
    fn size_that_is_none_is_refused() {
        for text in ["", "MiB", "5 apples", "-1 B", "1.", "99999999 TiB"] {
            check_size(text, None);
        }
    }

    #[test]
    fn size_text_is_short() {
        assert_eq!(size_text(1_000), "1000 B");
        assert_eq!(size_text(64 << 20), "64 MiB");
        assert_eq!(size_text(1_536), "1.4 KiB"); // rounds down
        assert_eq!(size_text((1 << 30) - 1), "1023.9 MiB");
    }

    #[test]
    fn rate_is_in_bytes_per_second() {
        check_rate("1 Gbit/s", Some(125_000_000));
        check_rate("100Mbit/s", Some(12_500_000));
        check_rate("12 MB/s", Some(12_000_000));
        check_rate("1 Gbit", None);
        check_rate("fast", None);
    }
}
