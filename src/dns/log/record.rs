//! One exchange as bytes in a ring.

use std::net::{IpAddr, Ipv6Addr};

use crate::dns::{Outcome, Transport};

/// One query and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// When it came, Unix milliseconds.
    pub(super) unix_ms: u64,
    /// How long the answer took.
    pub(super) took_ns: u64,
    pub(super) client: IpAddr,
    pub(super) transport: Transport,
    pub(super) outcome: Outcome,
    /// It gets a line.
    pub(super) sampled: bool,
    /// Bytes of the answer; 0: there was none.
    pub(super) answer_len: u16,
    pub(super) query: &'a [u8],
    /// The answer, or its beginning.
    pub(super) answer: &'a [u8],
}

impl<'a> Record<'a> {
    /// What goes before query and answer.
    pub(super) fn head(&self) -> [u8; HEAD_LEN] {
        let mut head = [0; HEAD_LEN];
        head[..8].copy_from_slice(&self.unix_ms.to_be_bytes());
        head[8..16].copy_from_slice(&self.took_ns.to_be_bytes());
        let client = match self.client {
            IpAddr::V4(client) => client.to_ipv6_mapped(),
            IpAddr::V6(client) => client,
        };
        head[16..32].copy_from_slice(&client.octets());
        let family = u8::from(self.client.is_ipv6());
        head[32] = family << 1 | u8::from(self.sampled);
        head[33] = self.transport as u8;
        head[34] = self.outcome as u8;
        head[36..38].copy_from_slice(&self.answer_len.to_be_bytes());
        // A message has at most 65,535 bytes.
        head[38..40].copy_from_slice(&(self.query.len() as u16).to_be_bytes());
        head[40..42].copy_from_slice(&(self.answer.len() as u16).to_be_bytes());
        head
    }

    /// Bytes of query and answer behind this head.
    pub(super) fn len_behind(head: &[u8; HEAD_LEN]) -> usize {
        usize::from(number(head, 38)) + usize::from(number(head, 40))
    }

    /// The record of a head and what is behind it.
    pub(super) fn read(head: &[u8; HEAD_LEN], behind: &'a [u8]) -> Option<Self> {
        let (query, answer) = behind.split_at_checked(usize::from(number(head, 38)))?;
        let client: [u8; 16] = head[16..32].try_into().ok()?;
        let client = Ipv6Addr::from(client);
        let client = match client.to_ipv4_mapped() {
            Some(v4) if head[32] & 2 == 0 => IpAddr::V4(v4),
            _ => IpAddr::V6(client),
        };
        Some(Self {
            unix_ms: u64::from_be_bytes(head[..8].try_into().ok()?),
            took_ns: u64::from_be_bytes(head[8..16].try_into().ok()?),
            client,
            transport: *Transport::ALL.get(usize::from(head[33]))?,
            outcome: *Outcome::ALL.get(usize::from(head[34]))?,
            sampled: head[32] & 1 != 0,
            answer_len: number(head, 36),
            query,
            answer,
        })
    }
}

fn number(head: &[u8; HEAD_LEN], at: usize) -> u16 {
    u16::from_be_bytes([head[at], head[at + 1]])
}

/// Bytes before query and answer.
pub(super) const HEAD_LEN: usize = 48;

/// Bytes of an answer that a line is made of.
pub(super) const HEADER: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_survives_the_ring() {
        for client in ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"] {
            let record = Record {
                unix_ms: 1_700_000_000_123,
                took_ns: 45,
                client: client.parse().unwrap(),
                transport: Transport::Quic,
                outcome: Outcome::Dropped,
                sampled: true,
                answer_len: 60_000,
                query: b"query",
                answer: b"answer",
            };
            let head = record.head();
            assert_eq!(Record::len_behind(&head), 11);
            assert_eq!(Record::read(&head, b"queryanswer"), Some(record));
        }
    }
}
