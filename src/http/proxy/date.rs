//! HTTP dates (RFC 9110 section 5.6.7) as a cache reads them: the three forms to the letter, but in any case. Pure.

use http::{HeaderMap, HeaderName};

/// The date of the only `name` field, in seconds since 1970. `None` where there is none; `Some(None)` where what is
/// there is no date, or there are several that differ.
#[must_use]
pub fn field(headers: &HeaderMap, name: &HeaderName) -> Option<Option<u64>> {
    let mut fields = headers.get_all(name).iter();
    let first = fields.next()?;
    if fields.any(|other| other != first) {
        return Some(None);
    }
    Some(parse(first.as_bytes()))
}

/// Seconds since 1970 of a date; `None` if it is none.
#[must_use]
pub fn parse(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.trim_matches([' ', '\t']);
    if !text.is_ascii() {
        return None;
    }
    let (day, rest) = text.split_once([',', ' '])?;
    if text.as_bytes()[day.len()] == b' ' {
        return asctime(day, rest);
    }
    let rest = rest.strip_prefix(' ')?;
    if DAYS.iter().any(|d| d.eq_ignore_ascii_case(day)) {
        // Sun, 06 Nov 1994 08:49:37 GMT
        let [date, month, year, time, zone] = parts(rest)?;
        gmt(zone)?;
        return seconds(digits(year, 4)?, month, digits(date, 2)?, time);
    }
    if LONG_DAYS.iter().any(|d| d.eq_ignore_ascii_case(day)) {
        // Sunday, 06-Nov-94 08:49:37 GMT
        let (date, rest) = rest.split_once('-')?;
        let (month, rest) = rest.split_once('-')?;
        let mut rest = rest.split(' ');
        let (year, time, zone) = (rest.next()?, rest.next()?, rest.next()?);
        gmt(zone)?;
        let year = digits(year, 2)?;
        // Two digits: those of this century, up to fifty years ahead of when this was written.
        let year = if year < 76 { 2000 + year } else { 1900 + year };
        return seconds(year, month, digits(date, 2)?, time).filter(|_| rest.next().is_none());
    }
    None
}

/// Sun Nov  6 08:49:37 1994
fn asctime(day: &str, rest: &str) -> Option<u64> {
    if !DAYS.iter().any(|d| d.eq_ignore_ascii_case(day)) || rest.len() != 20 {
        return None;
    }
    let (month, rest) = rest.split_once(' ')?;
    let (date, rest) = (rest.get(..2)?, rest.get(2..)?.strip_prefix(' ')?);
    let date = match date.strip_prefix(' ') {
        Some(one) => digits(one, 1)?,
        None => digits(date, 2)?,
    };
    let (time, year) = rest.split_once(' ')?;
    seconds(digits(year, 4)?, month, date, time)
}

fn parts<const N: usize>(text: &str) -> Option<[&str; N]> {
    let mut found = text.split(' ');
    let mut parts = [""; N];
    for part in &mut parts {
        *part = found.next()?;
    }
    found.next().is_none().then_some(parts)
}

fn gmt(zone: &str) -> Option<()> {
    zone.eq_ignore_ascii_case("GMT").then_some(())
}

fn digits(text: &str, count: usize) -> Option<u64> {
    let good = text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    good.then(|| text.parse().ok()).flatten()
}

fn seconds(year: u64, month: &str, date: u64, time: &str) -> Option<u64> {
    let month = MONTHS.iter().position(|m| m.eq_ignore_ascii_case(month))?;
    let mut parts = time.split(':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next()?);
    let (hour, minute, second) = (digits(hour, 2)?, digits(minute, 2)?, digits(second, 2)?);
    let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let length = LENGTHS[month] + u64::from(leap && month == 1);
    let good = parts.next().is_none() && year >= 1970 && (1..=length).contains(&date);
    if !good || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let before = year - 1;
    let leaps = |y: u64| y / 4 - y / 100 + y / 400;
    let days = (year - 1970) * 365
        + (leaps(before) - leaps(1969))
        + LENGTHS[..month].iter().sum::<u64>()
        + u64::from(leap && month > 1)
        + date
        - 1;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const LONG_DAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
const LENGTHS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: Option<u64>) {
        assert_eq!(parse(text.as_bytes()), expected, "{text}");
    }

    #[test]
    fn three_forms_name_one_moment() {
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777));
        check("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777));
        check("Sun Nov  6 08:49:37 1994", Some(784_111_777));
    }

    #[test]
    fn case_does_not_count() {
        check("sUN, 06 NOV 1994 08:49:37 gMT", Some(784_111_777));
    }

    #[test]
    fn anything_else_is_no_date() {
        for bad in [
            "0",
            "",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 AEST",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Thu, 31 Feb 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 24:01:18 GMT",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn field_that_differs_from_another_is_no_date() {
        let mut headers = HeaderMap::new();
        let name = http::header::EXPIRES;
        assert_eq!(field(&headers, &name), None);
        headers.append(&name, "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap());
        assert_eq!(field(&headers, &name), Some(Some(784_111_777)));
        headers.append(&name, "Sun, 06 Nov 1994 08:49:38 GMT".parse().unwrap());
        assert_eq!(field(&headers, &name), Some(None));
    }

    proptest! {
        #[test]
        fn date_that_was_written_is_read(at in 0u64..253_402_300_799) {
            let text = crate::http::fresh::http_date(at);
            prop_assert_eq!(parse(text.as_bytes()), Some(at));
        }

        #[test]
        fn any_text_is_read_without_panic(text in "[ -~]{0,40}") {
            let _ = parse(text.as_bytes());
        }
    }
}
