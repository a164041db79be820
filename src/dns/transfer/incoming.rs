//! The answer of a primary, message by message, to a zone or to differences (RFC 5936, RFC 1995). Nothing of it is
//! used before all of it came and was found in order.

use super::history::{Difference, is_newer, serial};
use super::message::{IN, Message, SOA};
use crate::dns::zone::Record;
use crate::dns::zone::records::is_beneath;

/// An answer to AXFR or IXFR in the making.
#[derive(Debug)]
pub(in crate::dns) struct Incoming {
    apex: Box<[u8]>,
    id: u16,
    /// The serial here, if differences were asked for.
    have: Option<u32>,
    state: State,
}

/// What came.
#[derive(Debug)]
pub(in crate::dns) enum Came {
    /// The version here is current.
    Nothing,
    /// A whole zone: its SOA, and the other records.
    Whole(Record, Vec<Record>),
    /// What leads from the version here to the primary's.
    Steps(Vec<Difference>),
}

#[derive(Debug)]
enum State {
    /// Nothing came.
    Begin,
    /// The SOA of the primary's version; what follows decides.
    First(Record),
    Whole(Record, Vec<Record>),
    /// The steps done, and the one at work; its `new` is its `old` until it is known.
    Removing(Record, Vec<Difference>, Difference),
    Adding(Record, Vec<Difference>, Difference),
    Done,
}

/// Why an answer is no transfer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::dns) enum Refusal {
    /// The primary says so.
    #[error("the primary answered {}", rcode_text(*.0))]
    Rcode(u8),
    /// It does not hold together.
    #[error("found {0}")]
    Broken(&'static str),
}

impl Incoming {
    /// The answer to a request with this id; `have` is the serial here if differences were asked for.
    pub(in crate::dns) fn new(apex: &[u8], id: u16, have: Option<u32>) -> Self {
        Self {
            apex: apex.into(),
            id,
            have,
            state: State::Begin,
        }
    }

    /// Takes the next message. `Ok(None)`: more are to come.
    ///
    /// # Errors
    /// The transfer is not to be used.
    pub(in crate::dns) fn take(&mut self, message: Message) -> Result<Option<Came>, Refusal> {
        if !message.response || message.id != self.id || message.opcode != 0 {
            return Err(Refusal::Broken(
                "a message that is no answer to the request",
            ));
        }
        if message.rcode != 0 {
            return Err(Refusal::Rcode(message.rcode));
        }
        if message.question.is_some_and(|q| q.name != self.apex) {
            return Err(Refusal::Broken("an answer to another question"));
        }
        let [answer, ..] = message.sections;
        if answer.is_empty() {
            return Err(Refusal::Broken("a message without records"));
        }
        for entry in answer {
            if entry.class != IN || !is_beneath(&entry.record.owner, &self.apex) {
                return Err(Refusal::Broken("a record outside of the zone"));
            }
            self.record(entry.record)?;
        }
        if let (State::First(soa), Some(have)) = (&self.state, self.have)
            && !is_newer(serial(soa), have)
        {
            self.state = State::Done;
            return Ok(Some(Came::Nothing));
        }
        Ok(match &mut self.state {
            State::Whole(soa, records) if records.last().is_some_and(|last| last == soa) => {
                records.pop();
                let came = Came::Whole(soa.clone(), std::mem::take(records));
                self.state = State::Done;
                Some(came)
            }
            State::Removing(soa, steps, step) if *soa == step.old && !steps.is_empty() => {
                let came = Came::Steps(std::mem::take(steps));
                self.state = State::Done;
                Some(came)
            }
            _ => None,
        })
    }

    fn record(&mut self, record: Record) -> Result<(), Refusal> {
        let is_soa = record.rtype == SOA;
        if is_soa && record.owner != self.apex {
            return Err(Refusal::Broken("a SOA beneath the apex"));
        }
        let step = |old: Record| Difference {
            new: old.clone(),
            old,
            removed: Vec::new(),
            added: Vec::new(),
        };
        self.state = match std::mem::replace(&mut self.state, State::Done) {
            State::Begin if is_soa => State::First(record),
            State::Begin => return Err(Refusal::Broken("a first record that is no SOA")),
            State::First(soa) if is_soa && self.have == Some(serial(&record)) => {
                State::Removing(soa, Vec::new(), step(record))
            }
            State::First(soa) if is_soa && record != soa => {
                return Err(Refusal::Broken("differences from another serial"));
            }
            State::First(soa) => State::Whole(soa, vec![record]),
            State::Whole(soa, records) if records.last() == Some(&soa) => {
                return Err(Refusal::Broken("a record behind the last SOA"));
            }
            State::Whole(soa, _) if is_soa && record != soa => {
                return Err(Refusal::Broken("a last SOA that differs from the first"));
            }
            State::Whole(soa, mut records) => {
                records.push(record);
                State::Whole(soa, records)
            }
            State::Removing(soa, steps, step) if soa == step.old && !steps.is_empty() => {
                return Err(Refusal::Broken("a record behind the last SOA"));
            }
            State::Removing(soa, steps, mut step) => {
                if is_soa {
                    if !is_newer(serial(&record), serial(&step.old)) {
                        return Err(Refusal::Broken("differences that lead back"));
                    }
                    step.new = record;
                    State::Adding(soa, steps, step)
                } else {
                    step.removed.push(record);
                    State::Removing(soa, steps, step)
                }
            }
            State::Adding(soa, mut steps, mut now) => {
                if is_soa {
                    if record != now.new {
                        return Err(Refusal::Broken("differences with a gap"));
                    }
                    steps.push(now);
                    State::Removing(soa, steps, step(record))
                } else {
                    now.added.push(record);
                    State::Adding(soa, steps, now)
                }
            }
            State::Done => return Err(Refusal::Broken("a message behind the last one")),
        };
        Ok(())
    }
}

fn rcode_text(code: u8) -> &'static str {
    match code {
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        9 => "NOTAUTH",
        10 => "NOTZONE",
        _ => "an unknown code",
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Entry;
    use super::*;

    fn soa(serial: u32) -> Record {
        let mut data = vec![0, 0];
        for number in [serial, 2, 3, 4, 5] {
            data.extend(number.to_be_bytes());
        }
        record(b"\x04test\0", SOA, &data)
    }

    fn a(last: u8) -> Record {
        record(b"\x01a\x04test\0", 1, &[192, 0, 2, last])
    }

    fn record(owner: &[u8], rtype: u16, data: &[u8]) -> Record {
        Record {
            owner: owner.into(),
            rtype,
            ttl: 60,
            data: data.into(),
        }
    }

    /// Feeds messages of these records.
    fn feed(have: Option<u32>, messages: &[&[Record]]) -> Result<Option<Came>, Refusal> {
        let mut incoming = Incoming::new(b"\x04test\0", 7, have);
        let mut came = None;
        for records in messages {
            let entry = |record: &Record| Entry {
                class: 1,
                record: record.clone(),
            };
            came = incoming.take(Message {
                id: 7,
                opcode: 0,
                response: true,
                rcode: 0,
                question: None,
                sections: [records.iter().map(entry).collect(), vec![], vec![]],
            })?;
        }
        Ok(came)
    }

    #[test]
    fn whole_zone_ends_with_its_soa_however_it_is_cut() {
        let records = [soa(5), a(1), a(2), soa(5)];
        for have in [None, Some(3)] {
            for cut in 1..4 {
                let (one, two) = records.split_at(cut);
                match feed(have, &[one, two]) {
                    Ok(Some(Came::Whole(first, rest))) => {
                        assert_eq!((first, rest), (soa(5), vec![a(1), a(2)]));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(matches!(feed(None, &[&records[..3]]), Ok(None)));
        assert!(matches!(
            feed(None, &[&[soa(5), soa(5)]]),
            Ok(Some(Came::Whole(_, rest))) if rest.is_empty()
        ));
    }

    #[test]
    fn differences_are_taken_step_by_step_however_they_are_cut() {
        let records = [
            soa(5),
            soa(3),
            a(1),
            soa(4),
            a(2),
            soa(4),
            soa(5),
            a(3),
            soa(5),
        ];
        for cut in 1..9 {
            let (one, two) = records.split_at(cut);
            match feed(Some(3), &[one, two]) {
                Ok(Some(Came::Steps(steps))) => {
                    assert_eq!(steps.len(), 2);
                    assert_eq!(
                        (&steps[0].removed, &steps[0].added),
                        (&vec![a(1)], &vec![a(2)])
                    );
                    assert_eq!((&steps[1].removed, &steps[1].added), (&vec![], &vec![a(3)]));
                    assert_eq!(steps[1].new, soa(5));
                }
                other => panic!("{other:?}"),
            }
        }
        for have in [3, 4] {
            let nothing = feed(Some(have), &[&[soa(3)]]);
            assert!(matches!(nothing, Ok(Some(Came::Nothing))));
        }
    }

    #[test]
    fn answers_that_do_not_hold_together_are_refused() {
        let foreign = record(b"\x01a\x05other\0", 1, &[1, 2, 3, 4]);
        let cases: [(Option<u32>, &[Record]); 8] = [
            (None, &[a(1), soa(5)]),
            (None, &[soa(5), foreign]),
            (None, &[soa(5), a(1), soa(6)]),
            (None, &[soa(5), a(1), soa(5), a(2)]),
            (Some(3), &[soa(5), soa(4), soa(5), soa(5)]),
            (Some(3), &[soa(5), soa(3), soa(2), soa(5)]),
            (Some(3), &[soa(5), soa(3), soa(4), soa(5)]),
            (None, &[]),
        ];
        for (have, records) in cases {
            let found = feed(have, &[records]);
            assert!(found.is_err(), "{records:?}: {found:?}");
        }
    }
}
