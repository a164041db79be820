//! A zone as the messages of a transfer: whole (AXFR, RFC 5936) or as differences (IXFR, RFC 1995).
//!
//! One message is composed at a time, when the one before it has left; the zone stays the version it was when the
//! transfer began.

use std::sync::Arc;

use super::history::Difference;
use super::message::{self, Composer, FLAG_AA, OPT_LEN, Question, response_flags};
use crate::dns::tsig::Session;
use crate::dns::zone::records::Cursor;
use crate::dns::zone::{Record, Zone};

/// A transfer to a secondary under way.
#[derive(Debug)]
pub(in crate::dns) struct Outgoing {
    id: u16,
    flags: u16,
    question: Option<Question>,
    zone: Arc<Zone>,
    soa: Record,
    state: State,
    session: Option<Session>,
    /// The first message has an OPT, since the request had one.
    edns: bool,
}

/// What comes next.
#[derive(Debug)]
enum State {
    /// The first SOA, then all records.
    Begin,
    Records(Cursor),
    /// The first SOA, then the steps.
    BeginSteps(Vec<Arc<Difference>>),
    /// So many steps are done, so many records of this one (its SOAs included).
    Steps(Vec<Arc<Difference>>, usize, usize),
    /// The last SOA.
    End,
    Done,
}

impl Outgoing {
    /// The transfer of `zone` in answer to `request`: of `steps` only, if given (none: the SOA alone says that nothing
    /// has changed). `None` if the zone has no SOA, which no zone in service lacks.
    pub(in crate::dns) fn new(
        request: &[u8],
        question: Question,
        zone: Arc<Zone>,
        steps: Option<Vec<Arc<Difference>>>,
        session: Option<Session>,
        edns: bool,
    ) -> Option<Self> {
        Some(Self {
            id: u16::from_be_bytes([request[0], request[1]]),
            flags: response_flags(request) | FLAG_AA,
            question: Some(question),
            soa: zone.soa()?,
            zone,
            state: match steps {
                Some(steps) => State::BeginSteps(steps),
                None => State::Begin,
            },
            session,
            edns,
        })
    }

    /// The next message; `None` after the last. `now` in seconds of Unix time, for the signature.
    pub(in crate::dns) fn next(&mut self, now: u64) -> Option<Vec<u8>> {
        self.message(usize::from(u16::MAX), now)
    }

    /// The whole transfer as one datagram of at most `limit` bytes if it fits; else only the SOA.
    pub(in crate::dns) fn datagram(mut self, limit: usize, now: u64) -> Vec<u8> {
        let (question, session, edns) = (self.question.clone(), self.session.clone(), self.edns);
        let whole = self.message(limit, now);
        if let (State::Done, Some(whole)) = (&self.state, whole) {
            return whole;
        }
        (self.question, self.session, self.edns) = (question, session, edns);
        self.state = State::BeginSteps(Vec::new());
        self.message(limit, now).unwrap_or_default()
    }

    fn message(&mut self, limit: usize, now: u64) -> Option<Vec<u8>> {
        if matches!(self.state, State::Done) {
            return None;
        }
        // The question is in the first message only (RFC 5936 section 2.2.1 leaves it open for the others).
        let question = self.question.take();
        let edns = std::mem::take(&mut self.edns);
        let room = self.session.as_ref().map_or(0, |s| s.key().room());
        let limit = limit.saturating_sub(room + if edns { OPT_LEN } else { 0 });
        let mut message = Composer::new(self.id, self.flags, question.as_ref(), limit);
        while self.fill(&mut message) {}
        let mut message = message.finish();
        if edns {
            message::append_opt(&mut message, None);
        }
        if let Some(session) = &mut self.session {
            session.sign(&mut message, now);
        }
        Some(message)
    }

    /// Adds records of the present state; false when the message is full or the transfer done. An RRset fits a
    /// message (the zone's builder sees to that), so a record does.
    fn fill(&mut self, message: &mut Composer) -> bool {
        let put = |message: &mut Composer, record: &Record| {
            message.push(0, &record.owner, record.rtype, record.ttl, &record.data)
        };
        match &mut self.state {
            State::Begin => {
                put(message, &self.soa);
                self.state = State::Records(Cursor::default());
            }
            State::Records(at) => {
                let all = self.zone.walk(at, |owner, rtype, ttl, data| {
                    message.push(0, owner, rtype, ttl, data)
                });
                if !all {
                    return false;
                }
                self.state = State::End;
            }
            State::BeginSteps(steps) => {
                put(message, &self.soa);
                self.state = if steps.is_empty() {
                    State::Done
                } else {
                    State::Steps(std::mem::take(steps), 0, 0)
                };
            }
            State::Steps(steps, step, at) => {
                let Some(now) = steps.get(*step) else {
                    self.state = State::End;
                    return true;
                };
                let parts = [std::slice::from_ref(&now.old), &now.removed];
                let parts = parts
                    .into_iter()
                    .chain([std::slice::from_ref(&now.new), &now.added]);
                for record in parts.flatten().skip(*at) {
                    if !put(message, record) {
                        return false;
                    }
                    *at += 1;
                }
                (*step, *at) = (*step + 1, 0);
            }
            State::End => {
                if !put(message, &self.soa) {
                    return false;
                }
                self.state = State::Done;
            }
            State::Done => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Message;
    use super::*;
    use crate::dns::ZoneConfig;

    fn zone(serial: u32, hosts: usize) -> Arc<Zone> {
        let config = ZoneConfig {
            name: "test.".to_owned(),
            ..ZoneConfig::default()
        };
        let mut text = format!("@ 60 SOA ns h {serial} 2 3 4 5\n@ 60 NS ns.other.\n");
        for host in 0..hosts {
            text.push_str(&format!("host{host} 60 A 192.0.2.1\n"));
        }
        let loaded = crate::dns::zone::load_text(&config, text.as_bytes());
        loaded.expect("a good zone").zone
    }

    fn question(qtype: u16) -> Question {
        Question {
            name: (*b"\x04test\0").into(),
            qtype,
            qclass: 1,
        }
    }

    const REQUEST: [u8; 12] = [7, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];

    fn messages(mut transfer: Outgoing) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| transfer.next(0)).collect()
    }

    fn records(messages: &[Vec<u8>]) -> Vec<Record> {
        let read = |m: &Vec<u8>| Message::parse(m).expect("a good message").sections[0].clone();
        messages.iter().flat_map(read).map(|e| e.record).collect()
    }

    #[test]
    fn axfr_of_a_large_zone_is_well_filled_and_begins_and_ends_with_the_soa() {
        let zone = zone(1, 20_000);
        let transfer = Outgoing::new(&REQUEST, question(252), zone.clone(), None, None, false);
        let messages = messages(transfer.expect("a SOA"));
        for full in &messages[..messages.len() - 1] {
            assert!(full.len() > 65_000, "{}", full.len());
        }
        let records = records(&messages);
        assert_eq!(records.len(), 20_003);
        assert_eq!(records[0], zone.soa().expect("a SOA"));
        assert_eq!(records[0], records[20_002]);
        // Owners cost a label and a pointer.
        let bytes: usize = messages.iter().map(Vec::len).sum();
        assert!(bytes < 20_000 * 28, "{bytes}");
    }

    #[test]
    fn datagram_has_the_differences_if_they_fit_else_the_soa() {
        let versions = [zone(1, 0), zone(2, 3), zone(3, 90)];
        for (pair, records) in [([0, 1], 7), ([1, 2], 1)] {
            let [old, new] = pair.map(|at: usize| versions[at].clone());
            let step = Arc::new(Difference::between(&old, &new).expect("a step"));
            let transfer =
                Outgoing::new(&REQUEST, question(251), new, Some(vec![step]), None, true);
            let datagram = transfer.expect("a SOA").datagram(512, 0);
            assert!(datagram.len() <= 512);
            assert_eq!(self::records(&[datagram]).len(), records);
        }
    }

    #[test]
    fn ixfr_gives_each_step_and_nothing_when_nothing_changed() {
        let versions = [zone(1, 0), zone(2, 9_000), zone(3, 1)];
        let steps: Vec<_> = versions
            .windows(2)
            .map(|pair| Arc::new(Difference::between(&pair[0], &pair[1]).expect("a step")))
            .collect();
        let last = versions[2].clone();
        let transfer = Outgoing::new(
            &REQUEST,
            question(251),
            last.clone(),
            Some(steps),
            None,
            false,
        );
        let messages = messages(transfer.expect("a SOA"));
        assert!(messages.len() > 3);
        let serials: Vec<u32> = records(&messages)
            .iter()
            .filter(|r| r.rtype == 6)
            .map(super::super::history::serial)
            .collect();
        assert_eq!(serials, [3, 1, 2, 2, 3, 3]);
        let none = Outgoing::new(&REQUEST, question(251), last, Some(vec![]), None, true);
        assert_eq!(records(&self::messages(none.expect("a SOA"))).len(), 1);
    }
}
