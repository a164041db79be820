//! One exchange as dnstap payloads (protocol buffers), and the frames they travel in (Frame Streams).
//!
//! The schema is small and fixed, so its fields are written by hand.

use std::net::IpAddr;

use super::record::Record;
use crate::dns::{Outcome, Transport};

/// Appends the frames of an exchange to `out`: the query, and the answer if there was one. Returns how many.
pub(super) fn write(record: &Record<'_>, identity: &[u8], out: &mut Vec<u8>) -> u64 {
    let own = matches!(
        record.outcome,
        Outcome::Authoritative | Outcome::Nodata | Outcome::Nxdomain | Outcome::Referral
    );
    let (query, response) = if own {
        (AUTH_QUERY, AUTH_RESPONSE)
    } else {
        (CLIENT_QUERY, CLIENT_RESPONSE)
    };
    frame(out, |out| payload(record, query, identity, out));
    if record.answer.is_empty() {
        return 1;
    }
    frame(out, |out| payload(record, response, identity, out));
    2
}

/// Appends a frame with what `write` appends.
fn frame(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0; 4]);
    write(out);
    let length = (out.len() - start - 4) as u32; // Two messages at most.
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// A `Dnstap` message.
fn payload(record: &Record<'_>, kind: u64, identity: &[u8], out: &mut Vec<u8>) {
    let mut message = Vec::with_capacity(64 + record.query.len() + record.answer.len());
    number(&mut message, 1, kind);
    number(&mut message, 2, if record.client.is_ipv4() { 1 } else { 2 });
    number(
        &mut message,
        3,
        match record.transport {
            Transport::Udp => 1,
            Transport::Tcp => 2,
            Transport::Tls => 3,
            Transport::Https => 4,
            Transport::Quic => 7,
        },
    );
    match record.client {
        IpAddr::V4(client) => bytes(&mut message, 4, &client.octets()),
        IpAddr::V6(client) => bytes(&mut message, 4, &client.octets()),
    }
    let received_ns = record.unix_ms.saturating_mul(1_000_000);
    number(&mut message, 8, received_ns / SECOND);
    fixed(&mut message, 9, received_ns % SECOND);
    if matches!(kind, AUTH_QUERY | CLIENT_QUERY) {
        bytes(&mut message, 10, record.query);
    } else {
        let sent_ns = received_ns.saturating_add(record.took_ns);
        number(&mut message, 12, sent_ns / SECOND);
        fixed(&mut message, 13, sent_ns % SECOND);
        bytes(&mut message, 14, record.answer);
    }
    if !identity.is_empty() {
        bytes(out, 1, identity);
    }
    bytes(out, 2, VERSION.as_bytes());
    bytes(out, 14, &message);
    number(out, 15, MESSAGE);
}

/// A field with a number.
fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

/// A field with bytes.
fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// A field with a number below 2^32 in four bytes.
fn fixed(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3 | 5);
    out.extend((value as u32).to_le_bytes()); // Nanoseconds of a second.
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7F {
        out.push(value as u8 | 0x80); // Seven bits at a time.
        value >>= 7;
    }
    out.push(value as u8);
}

/// A control frame of Frame Streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// Content types the reader takes.
    Accept = 1,
    /// Frames follow.
    Start = 2,
    /// No more follow.
    Stop = 3,
    /// Content types the writer has.
    Ready = 4,
    /// All has been read.
    Finish = 5,
}

impl Control {
    /// The frame: an escape, a length, the type, and the content type unless it ends the stream.
    pub(super) fn frame(self) -> Vec<u8> {
        let mut body = (self as u32).to_be_bytes().to_vec();
        if !matches!(self, Self::Stop | Self::Finish) {
            body.extend(CONTENT_TYPE_FIELD.to_be_bytes());
            body.extend((CONTENT_TYPE.len() as u32).to_be_bytes());
            body.extend(CONTENT_TYPE);
        }
        let mut frame = vec![0; 4];
        frame.extend((body.len() as u32).to_be_bytes()); // Some ten bytes.
        frame.extend(body);
        frame
    }

    /// The kind of a control frame's body, and whether it speaks of our content type. `None`: it is none.
    pub(super) fn read(body: &[u8]) -> Option<(Self, bool)> {
        let (kind, mut fields) = body.split_first_chunk()?;
        let kind = match u32::from_be_bytes(*kind) {
            1 => Self::Accept,
            2 => Self::Start,
            3 => Self::Stop,
            4 => Self::Ready,
            5 => Self::Finish,
            _ => return None,
        };
        let mut ours = false;
        while !fields.is_empty() {
            let (field, rest) = fields.split_first_chunk()?;
            let (length, rest) = rest.split_first_chunk()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            let (value, rest) = rest.split_at_checked(length)?;
            ours |= u32::from_be_bytes(*field) == CONTENT_TYPE_FIELD && value == CONTENT_TYPE;
            fields = rest;
        }
        Some((kind, ours))
    }
}

/// The longest control frame that is read.
pub(super) const CONTROL_MAX: usize = 512;

const CONTENT_TYPE_FIELD: u32 = 1;
const CONTENT_TYPE: &[u8] = b"protobuf:dnstap.Dnstap";
const VERSION: &str = concat!("headwater ", env!("CARGO_PKG_VERSION"));
const SECOND: u64 = 1_000_000_000;
const MESSAGE: u64 = 1;
const AUTH_QUERY: u64 = 1;
const AUTH_RESPONSE: u64 = 2;
const CLIENT_QUERY: u64 = 5;
const CLIENT_RESPONSE: u64 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varint_takes_seven_bits_at_a_time() {
        let mut out = Vec::new();
        for value in [0, 127, 128, 300] {
            varint(&mut out, value);
        }
        assert_eq!(out, [0, 127, 0x80, 1, 0xAC, 2]);
    }

    #[test]
    fn exchange_is_two_frames_and_one_without_an_answer() {
        let record = Record {
            unix_ms: 1_500,
            took_ns: 7,
            client: "192.0.2.1".parse().unwrap(),
            transport: Transport::Udp,
            outcome: Outcome::CacheHit,
            sampled: false,
            answer_len: 2,
            query: b"qq",
            answer: b"aa",
        };
        let mut out = Vec::new();
        assert_eq!(write(&record, b"a", &mut out), 2);
        let first = 4 + u32::from_be_bytes(out[..4].try_into().unwrap()) as usize;
        let second = u32::from_be_bytes(out[first..first + 4].try_into().unwrap()) as usize;
        assert_eq!(out.len(), first + 4 + second);
        let body = &out[4..first];
        assert!(body.starts_with(b"\x0A\x01a\x12"));
        assert!(body.ends_with(b"\x52\x02qq\x78\x01"));
        assert!(out.ends_with(b"\x72\x02aa\x78\x01"));
        out.clear();
        assert_eq!(
            write(
                &Record {
                    answer: b"",
                    ..record
                },
                b"",
                &mut out
            ),
            1
        );
    }

    #[test]
    fn control_frame_is_read_as_written() {
        for control in [Control::Ready, Control::Accept, Control::Start] {
            assert_eq!(Control::read(&control.frame()[8..]), Some((control, true)));
        }
        assert_eq!(
            Control::read(&Control::Finish.frame()[8..]),
            Some((Control::Finish, false))
        );
        for bad in [&b""[..], b"\0\0\0\x09", b"\0\0\0\x01\0\0\0\x01\0\0\0\x09x"] {
            assert_eq!(Control::read(bad), None);
        }
    }
}
