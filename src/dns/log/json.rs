//! One exchange as a line of JSON.

use std::net::IpAddr;

use domain::base::iana::{Class, Rcode, Rtype};
use serde::Serialize;

use super::record::Record;
use crate::dns::wire::Query;
use crate::dns::zone::name;

#[derive(Debug, Serialize)]
struct Line {
    time: String,
    client: IpAddr,
    transport: &'static str,
    /// Name, class and type are absent when the query could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<String>,
    rd: bool,
    cd: bool,
    r#do: bool,
    /// Absent when there was no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    rcode: Option<String>,
    outcome: &'static str,
    bytes: u16,
    microseconds: u64,
}

/// Appends the line of an exchange to `out`.
pub(super) fn write(record: &Record<'_>, out: &mut Vec<u8>) {
    let query = Query::parse(record.query).ok();
    let line = Line {
        time: time(record.unix_ms),
        client: record.client,
        transport: record.transport.label(),
        name: query.map(|query| name::to_text(query.name)),
        class: query.map(|query| Class::from_int(query.qclass).to_string()),
        r#type: query.map(|query| Rtype::from_int(query.qtype).to_string()),
        rd: query.is_some_and(|query| query.recursion_desired),
        cd: query.is_some_and(|query| query.checking_disabled),
        r#do: query.is_some_and(|query| query.dnssec_ok()),
        rcode: (record.answer.get(3)).map(|flags| Rcode::masked_from_int(*flags).to_string()),
        outcome: record.outcome.label(),
        bytes: record.answer_len,
        microseconds: record.took_ns / 1_000,
    };
    let before = out.len();
    match serde_json::to_writer(&mut *out, &line) {
        Ok(()) => out.push(b'\n'),
        // Text and numbers only: it does not fail. If it did, half a line would be worse than none.
        Err(_) => out.truncate(before),
    }
}

/// A moment as in RFC 3339, in UTC.
fn time(unix_ms: u64) -> String {
    let (secs, ms) = (unix_ms / 1_000, unix_ms % 1_000);
    let (days, of_day) = (secs / 86_400, secs % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Year, month and day of the days since 1970. Years begin in March here, so that the leap day is the last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // Since 0000-03-01.
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::{Outcome, Transport};

    #[test]
    fn time_is_the_calendars() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(time(1_795_382_399_999), "2026-11-22T21:19:59.999Z");
        assert_eq!(time(4_107_542_399_000), "2100-02-28T23:59:59.000Z");
        assert_eq!(time(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn line_of_a_name_with_quotes_is_json_and_a_runt_has_no_name() {
        let query = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x03a\"\n\x04test\0\xFF\x01\0\x01";
        let record = Record {
            unix_ms: 0,
            took_ns: 12_345,
            client: "2001:db8::1".parse().unwrap(),
            transport: Transport::Tcp,
            outcome: Outcome::Dropped,
            sampled: true,
            answer_len: 0,
            query,
            answer: &[],
        };
        let mut out = Vec::new();
        write(&record, &mut out);
        write(
            &Record {
                query: b"x",
                ..record
            },
            &mut out,
        );
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines[0]["name"], "a\\\"\\010.test.");
        assert_eq!(lines[0]["type"], "TYPE65281");
        assert_eq!(lines[0]["rd"], true);
        assert_eq!(lines[0]["microseconds"], 12);
        assert!(lines[1].get("name").is_none() && lines[1].get("rcode").is_none());
    }
}
