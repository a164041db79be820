//! Errors leave with their reason (RFC 8914), for clients that show by an OPT that they read one.

use std::io::{Read as _, Write as _};
use std::net::UdpSocket;

use headwater::dns::Config;
use hickory_proto::rr::RecordType;

use super::edns::{code_and_options, exchange, with_options};
use super::harness::{Server, Upstream, config, framed, query, wait, zone};

const EDE: u16 = 15;
const OTHER: u16 = 0;
const PROHIBITED: u16 = 18;
const NOT_AUTHORITATIVE: u16 = 20;
const NOT_SUPPORTED: u16 = 21;
const INVALID_DATA: u16 = 24;

/// Asks with an OPT and without one; the first answer has `rcode` and this reason, the second no more than the code.
#[track_caller]
fn check(client: &UdpSocket, packet: &[u8], rcode: u16, reason: Option<u16>) {
    let (code, options) = exchange(client, &with_options(packet.to_vec(), &[]));
    assert_eq!((code, reason_of(&options)), (rcode, reason), "{options:?}");
    client.send(packet).unwrap();
    let plain = super::harness::receive(client);
    assert_eq!(u16::from(plain[3] & 15), rcode);
    assert_eq!(plain[10..12], [0, 0], "no OPT was sent, so none comes");
}

fn reason_of(options: &[(u16, Vec<u8>)]) -> Option<u16> {
    let (_, data) = options.iter().find(|(code, _)| *code == EDE)?;
    Some(u16::from_be_bytes([data[0], data[1]]))
}

fn with_opcode(mut packet: Vec<u8>, opcode: u8) -> Vec<u8> {
    packet[2] = opcode << 3;
    packet
}

fn with_class(mut packet: Vec<u8>, class: u8) -> Vec<u8> {
    *packet.last_mut().unwrap() = class;
    packet
}

#[test]
fn refusals_of_an_authoritative_server_say_why() {
    let server = Server::start(&zone(1), config());
    let client = server.udp();
    let ask = |name: &str, rtype| query(1, name, rtype);
    let version = with_class(ask("version.bind.", RecordType::TXT), 3);
    check(&client, &version, 5, Some(NOT_SUPPORTED));
    let hesiod = with_class(ask("www.example.test.", RecordType::A), 4);
    check(&client, &hesiod, 5, Some(NOT_SUPPORTED));
    let foreign = ask("www.other.test.", RecordType::A);
    check(&client, &foreign, 5, Some(PROHIBITED));
    let not_desired = with_opcode(foreign, 0);
    check(&client, &not_desired, 5, Some(NOT_AUTHORITATIVE));
    let status = with_opcode(ask("example.test.", RecordType::A), 2);
    check(&client, &status, 4, Some(NOT_SUPPORTED));
}

#[test]
fn refusals_of_transfers_notices_and_updates_say_why() {
    const NOTIFY: u8 = 4;
    const UPDATE: u8 = 5;
    let server = Server::start(&zone(1), config());
    let client = server.udp();
    let ask = |name: &str, rtype| query(1, name, rtype);
    let differences = ask("example.test.", RecordType::IXFR);
    check(&client, &differences, 5, Some(PROHIBITED));
    let elsewhere = ask("other.test.", RecordType::IXFR);
    check(&client, &elsewhere, 9, Some(NOT_AUTHORITATIVE));
    for (opcode, name, rcode, reason) in [
        (NOTIFY, "example.test.", 9, NOT_AUTHORITATIVE),
        (NOTIFY, "other.test.", 9, NOT_AUTHORITATIVE),
        (UPDATE, "example.test.", 5, PROHIBITED),
        (UPDATE, "other.test.", 9, NOT_AUTHORITATIVE),
    ] {
        let packet = with_opcode(ask(name, RecordType::SOA), opcode);
        check(&client, &packet, rcode, Some(reason));
    }
    let whole = ask("example.test.", RecordType::AXFR);
    check(&client, &whole, 1, Some(OTHER)); // Over UDP.
    let mut stream = server.tcp();
    stream
        .write_all(&framed(&with_options(whole, &[])))
        .unwrap();
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes(answer))];
    stream.read_exact(&mut answer).unwrap();
    let (code, options) = code_and_options(&answer);
    assert_eq!((code, reason_of(&options)), (5, Some(PROHIBITED)));
}

#[test]
fn messages_that_cannot_be_taken_are_told_why() {
    let server = Server::start(&zone(1), config());
    let client = server.udp();
    let www = query(1, "www.example.test.", RecordType::A);
    let mut cut = with_options(www.clone(), &[(10, &[1, 2, 3])]); // A cookie of three octets.
    let (code, options) = exchange(&client, &cut);
    assert_eq!((code, reason_of(&options)), (1, Some(OTHER)));
    cut = with_options(www, &[]);
    let version = cut.len() - 5;
    cut[version] = 1;
    let (code, options) = exchange(&client, &cut);
    assert_eq!((code, reason_of(&options)), (16, Some(NOT_SUPPORTED)));
}

#[test]
fn failures_of_this_server_say_why() {
    let broken = Server::start("no zone at all\n", config());
    let www = || query(1, "www.example.test.", RecordType::A);
    check(&broken.udp(), &www(), 2, Some(INVALID_DATA));
    let upstream = Upstream::start();
    let one = Config {
        queries_in_flight: 1,
        ..config()
    };
    let server = Server::start_with(&zone(1), one, Some(upstream.address));
    let client = server.udp();
    client
        .send(&query(1, "held.example.org.", RecordType::A))
        .unwrap();
    wait("one is in flight", || {
        server.metrics.dns.in_flight.get() == 1
    });
    let beyond = query(2, "held2.example.org.", RecordType::A);
    check(&server.udp(), &beyond, 2, Some(OTHER));
    upstream.release();
}
