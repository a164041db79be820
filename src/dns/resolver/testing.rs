//! Messages and settings for the unit tests of this folder.

use std::net::Ipv4Addr;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, OpCode, Query as Question, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, MX, NS, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::{CacheConfig, names};
use crate::dns::wire::Query;
use crate::time::Now;

/// When the tests begin.
pub(super) const START: Now = Now {
    mono_ns: 1_000_000_000_000,
    unix_ms: 1_700_000_000_000,
};

/// A name in wire form.
pub(super) fn wire(name: &str) -> Box<[u8]> {
    names::wire(name).expect("tests give domain names")
}

/// An upstream's reply, its records given as `owner ttl type rdata`.
pub(super) fn message(
    name: &str,
    qtype: u16,
    rcode: u16,
    answer: &[&str],
    authority: &[&str],
) -> Vec<u8> {
    let mut message = Message::response(77, OpCode::Query);
    message.metadata.recursion_available = true;
    message.metadata.response_code = ResponseCode::from(0, u8::try_from(rcode).unwrap());
    message.add_query(question(name, qtype));
    for line in answer {
        message.add_answer(record(line));
    }
    for line in authority {
        message.add_authority(record(line));
    }
    message.to_vec().unwrap()
}

fn question(name: &str, qtype: u16) -> Question {
    Question::query(Name::from_ascii(name).unwrap(), RecordType::from(qtype))
}

fn record(line: &str) -> Record {
    let fields: Vec<&str> = line.split(' ').collect();
    let [owner, ttl, rtype, rdata @ ..] = &fields[..] else {
        panic!("{line}: owner ttl type rdata expected");
    };
    let name = |text: &str| Name::from_ascii(text).unwrap();
    let rdata = match *rtype {
        "A" => RData::A(A(rdata[0].parse::<Ipv4Addr>().unwrap())),
        "CNAME" => RData::CNAME(CNAME(name(rdata[0]))),
        "NS" => RData::NS(NS(name(rdata[0]))),
        "MX" => RData::MX(MX::new(rdata[0].parse().unwrap(), name(rdata[1]))),
        "TXT" => RData::TXT(TXT::new(vec![rdata[0].to_owned()])),
        "SOA" => {
            let n = |at: usize| rdata[at].parse::<i32>().unwrap();
            let minimum = rdata[6].parse().unwrap();
            RData::SOA(SOA::new(
                name(rdata[0]),
                name(rdata[1]),
                rdata[2].parse().unwrap(),
                n(3),
                n(4),
                n(5),
                minimum,
            ))
        }
        other => panic!("{other} is not among the types of these tests"),
    };
    Record::from_rdata(name(owner), ttl.parse().unwrap(), rdata)
}

/// A client's query.
pub(super) struct Asked {
    message: Message,
    packet: Vec<u8>,
}

impl Asked {
    pub(super) fn new(name: &str, qtype: u16) -> Self {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(question(name, qtype));
        Self::of(message)
    }

    pub(super) fn edns(mut self, dnssec_ok: bool) -> Self {
        let mut edns = Edns::new();
        edns.set_max_payload(4_096).set_dnssec_ok(dnssec_ok);
        self.message.set_edns(edns);
        Self::of(self.message)
    }

    pub(super) fn checking_disabled(mut self) -> Self {
        self.message.metadata.checking_disabled = true;
        Self::of(self.message)
    }

    fn of(message: Message) -> Self {
        let packet = message.to_vec().unwrap();
        Self { message, packet }
    }

    pub(super) fn query(&self) -> Query<'_> {
        Query::parse(&self.packet).unwrap()
    }
}

/// The default settings.
pub(super) fn config() -> CacheConfig {
    CacheConfig {
        size: 16 << 20,
        min_ttl: Duration::ZERO,
        max_ttl: Duration::from_secs(86_400),
        negative_max_ttl: Duration::from_secs(3_600),
        stale: Duration::from_secs(86_400),
        stale_wait: Duration::from_millis(1_800),
        stale_ttl: Duration::from_secs(30),
        failure_ttl: (Duration::from_secs(1), Duration::from_secs(300)),
        entry: 16 << 10,
        records: 100,
        ..CacheConfig::default()
    }
}
