//! EDNS options, cookies, questions about the server, and the rate limit.

use std::net::{Ipv4Addr, UdpSocket};

use headwater::dns::chaos::Identity;
use headwater::dns::cookie::Cookies;
use headwater::dns::rrl::Rate;
use headwater::dns::{Config, CookieConfig, Outcome, RateLimit, Transport};
use headwater::metrics::dns::Limit;
use hickory_proto::rr::RecordType;

use super::harness::{Server, Upstream, ask, config, framed, query, receive, wait, zone};

const NSID: u16 = 3;
const EDE: u16 = 15;
const COOKIE: u16 = 10;
const KEEPALIVE: u16 = 11;
const PADDING: u16 = 12;

/// `packet` with an OPT of these options.
pub(super) fn with_options(mut packet: Vec<u8>, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut rdata = Vec::new();
    for (code, data) in options {
        rdata.extend(code.to_be_bytes());
        rdata.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        rdata.extend_from_slice(data);
    }
    packet[11] = 1;
    packet.extend(b"\0\0\x29\x10\0\0\0\0\0");
    packet.extend(u16::try_from(rdata.len()).unwrap().to_be_bytes());
    packet.extend(rdata);
    packet
}

/// The response code and the options of an answer whose last record is the OPT.
pub(super) fn code_and_options(answer: &[u8]) -> (u16, Vec<(u16, Vec<u8>)>) {
    let message = hickory_proto::op::Message::from_vec(answer).unwrap();
    let code = message.metadata.response_code.into();
    let mut at = 12;
    let names = |at: &mut usize| loop {
        match answer[*at] {
            0 => break *at += 1,
            label if label >= 0xC0 => break *at += 2,
            label => *at += usize::from(label) + 1,
        }
    };
    for _ in &message.queries {
        names(&mut at);
        at += 4;
    }
    let number = |at: usize| usize::from(u16::from_be_bytes([answer[at], answer[at + 1]]));
    loop {
        names(&mut at);
        let (rtype, end) = (number(at), at + 10 + number(at + 8));
        at += 10;
        if rtype == 41 {
            let mut options = Vec::new();
            while at < end {
                let data = answer[at + 4..at + 4 + number(at + 2)].to_vec();
                options.push((u16::try_from(number(at)).unwrap(), data));
                at += 4 + number(at + 2);
            }
            assert_eq!(end, answer.len(), "nothing behind the OPT");
            return (code, options);
        }
        at = end;
    }
}

pub(super) fn exchange(client: &UdpSocket, packet: &[u8]) -> (u16, Vec<(u16, Vec<u8>)>) {
    client.send(packet).unwrap();
    code_and_options(&receive(client))
}

fn named() -> Config {
    Config {
        identity: Identity {
            version: "Headwater".to_owned(),
            name: "node a".to_owned(),
        },
        ..config()
    }
}

#[test]
fn server_names_itself_when_asked_and_only_as_configured() {
    let server = Server::start(&zone(1), named());
    let client = server.udp();
    let www = || query(1, "www.example.test.", RecordType::A);
    let (code, options) = exchange(&client, &with_options(www(), &[(NSID, b"")]));
    assert_eq!((code, options), (0, vec![(NSID, b"node a".to_vec())]));
    let (_, options) = exchange(
        &client,
        &with_options(www(), &[(PADDING, b"xx"), (65_001, b"")]),
    );
    assert_eq!(options, [], "not asked for; and no padding in the clear");
    let chaos = |name: &str| {
        let mut packet = query(2, name, RecordType::TXT);
        *packet.last_mut().unwrap() = 3;
        packet
    };
    for (name, text) in [("version.bind.", "Headwater"), ("id.server.", "node a")] {
        let answer = ask(&client, &chaos(name));
        assert_eq!(answer.answers[0].data.to_string(), text);
    }
    let silent = Server::start(&zone(1), config());
    let client = silent.udp();
    assert_eq!(
        exchange(&client, &with_options(www(), &[(NSID, b"")])).1,
        []
    );
    let refused = ask(&client, &chaos("version.bind."));
    assert_eq!(u16::from(refused.metadata.response_code), 5);
}

#[test]
fn tcp_client_hears_how_long_it_may_be_idle() {
    use std::io::Write as _;
    let server = Server::start(&zone(1), config());
    let packet = with_options(
        query(1, "www.example.test.", RecordType::A),
        &[(KEEPALIVE, b"")],
    );
    let mut client = server.tcp();
    client.write_all(&framed(&packet)).unwrap();
    let mut answer = vec![0; 2];
    std::io::Read::read_exact(&mut client, &mut answer).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes([answer[0], answer[1]]))];
    std::io::Read::read_exact(&mut client, &mut answer).unwrap();
    assert_eq!(code_and_options(&answer).1, [(KEEPALIVE, vec![0, 100])]);
    assert_eq!(exchange(&server.udp(), &packet).1, [], "not over UDP");
}

#[test]
fn cookie_is_given_known_again_and_worth_something() {
    let cookies = |required| Config {
        cookies: Some(CookieConfig {
            required,
            secret_file: None,
        }),
        ..config()
    };
    let server = Server::start(&zone(1), cookies(true));
    let client = server.udp();
    let www = || query(1, "www.example.test.", RecordType::A);
    let asked = |cookie: &[u8]| with_options(www(), &[(COOKIE, cookie)]);
    assert_eq!(exchange(&client, &asked(b"clientcl")), (0, vec![]), "off");

    server.engine.set_cookies(Some(Cookies::new([1; 16])));
    let (code, options) = exchange(&client, &asked(b"clientcl"));
    assert_eq!(code, 23, "BADCOOKIE, with a good one");
    let [(COOKIE, cookie), (EDE, _)] = &options[..] else {
        panic!("{options:?}");
    };
    assert_eq!((cookie.len(), &cookie[..8]), (24, &b"clientcl"[..]));
    assert_eq!(
        exchange(&client, &asked(cookie)),
        (0, options[..1].to_vec())
    );
    assert_eq!(
        exchange(
            &client,
            &asked(b"otherone\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0")
        )
        .0,
        23
    );
    assert_eq!(
        ask(&client, &www()).answers.len(),
        1,
        "who sends none need not have one"
    );

    // After a rollover the old secret is still known, and the cookie is made anew.
    let both = "02020202020202020202020202020202\n01010101010101010101010101010101";
    server
        .engine
        .set_cookies(Some(Cookies::from_text(both).unwrap()));
    let (code, renewed) = exchange(&client, &asked(cookie));
    assert_eq!(code, 0);
    assert_ne!(renewed, options);

    // A cookie without a question; and one that cannot be.
    let mut ping = with_options(
        vec![0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[(COOKIE, cookie)],
    );
    assert_eq!(exchange(&client, &ping), (0, renewed));
    ping = with_options(www(), &[(COOKIE, b"short")]);
    assert_eq!(exchange(&client, &ping).0, 1);
    wait("all are counted", || server.queries(Transport::Udp) == 8);
    let count = |outcome| server.metrics.dns.query_count(Transport::Udp, outcome);
    assert_eq!(count(Outcome::Cookie), 3);
    assert_eq!(count(Outcome::Formerr), 1);
}

#[test]
fn answer_of_an_upstream_carries_the_options_too() {
    let upstream = Upstream::start();
    let server = Server::start_with(&zone(1), named(), Some(upstream.address));
    server.engine.set_cookies(Some(Cookies::new([1; 16])));
    let client = server.udp();
    let mut packet = with_options(
        query(1, "www.example.org.", RecordType::A),
        &[(NSID, b""), (COOKIE, b"clientcl")],
    );
    packet[2] |= 1;
    for came in ["from upstream", "from the cache"] {
        let (code, options) = exchange(&client, &packet);
        assert_eq!(code, 0, "{came}");
        assert_eq!(options[0], (NSID, b"node a".to_vec()), "{came}");
        assert_eq!((options[1].0, options[1].1.len()), (COOKIE, 24), "{came}");
    }
}

#[test]
fn networks_beyond_the_buckets_of_the_rate_limit_are_counted() {
    let limited = Config {
        workers: 1,
        rate_limit: Some(RateLimit {
            rate: Rate {
                responses: 1,
                slip: 0,
            },
            buckets: 64,
            exempt: vec![],
        }),
        ..config()
    };
    let server = Server::start(&zone(1), limited);
    let client = |network| {
        let client = UdpSocket::bind((Ipv4Addr::new(127, 0, network, 9), 0)).unwrap();
        client.connect(server.address).unwrap();
        client
    };
    let clients: Vec<_> = (0..200).map(client).collect();
    // All of them within the second that a bucket takes to be full again.
    for client in &clients {
        client
            .send(&query(1, "www.example.test.", RecordType::A))
            .unwrap();
    }
    let lost = || server.metrics.dns.limit_count(Limit::RateLimitBuckets);
    wait("they are counted", || lost() > 0);
}

#[test]
fn equal_answers_are_limited_unless_the_client_is_known() {
    let limited = |exempt: &str| Config {
        workers: 1,
        cookies: Some(CookieConfig {
            required: false,
            secret_file: None,
        }),
        rate_limit: Some(RateLimit {
            rate: Rate {
                responses: 5,
                slip: 2,
            },
            buckets: 16_384,
            exempt: exempt.parse().into_iter().collect(),
        }),
        ..config()
    };
    let server = Server::start(&zone(1), limited(""));
    server.engine.set_cookies(Some(Cookies::new([1; 16])));
    let client = server.udp();
    // Names that do not exist are all alike, whatever they are.
    for id in 0..50 {
        let name = format!("{id}.nowhere.example.test.");
        client.send(&query(id, &name, RecordType::A)).unwrap();
    }
    wait("all are counted", || server.queries(Transport::Udp) == 50);
    let count = |outcome| server.metrics.dns.query_count(Transport::Udp, outcome);
    let (slipped, silent) = (count(Outcome::Slipped), count(Outcome::RateLimited));
    let answered = count(Outcome::Nxdomain);
    assert!(
        (5..20).contains(&answered),
        "{answered} of 5 at once and 5 a second"
    );
    assert!(silent - slipped <= 1 && slipped + silent + answered == 50);
    for _ in 0..answered + slipped {
        let answer = receive(&client);
        let truncated = answer[2] & 2 != 0;
        assert_eq!(truncated, answer[9] == 0, "TC and nothing, or the SOA");
    }
    // Another answer is not equal; and who has a cookie, or comes by TCP, is answered.
    let answer = ask(&client, &query(1, "www.example.test.", RecordType::A));
    assert_eq!(answer.answers.len(), 1);
    let miss = |cookie: &[u8]| {
        let packet = query(1, "no.example.test.", RecordType::A);
        with_options(packet, &[(COOKIE, cookie)])
    };
    let mut given = None;
    for _ in 0..8 {
        client.send(&miss(b"clientcl")).unwrap();
    }
    wait("all are counted", || server.queries(Transport::Udp) == 59);
    client.set_nonblocking(true).unwrap();
    let mut answer = [0; 512];
    while let Ok(len) = client.recv(&mut answer) {
        let (code, options) = code_and_options(&answer[..len]);
        assert!(matches!(code, 3 | 23), "a slip asks for the cookie");
        given = Some(options[0].1.clone());
    }
    client.set_nonblocking(false).unwrap();
    let given = given.expect("a cookie with the first that slips");
    for _ in 0..20 {
        assert_eq!(exchange(&client, &miss(&given)).0, 3);
    }

    let server = Server::start(&zone(1), limited("127.0.0.0/8"));
    let client = server.udp();
    for id in 0..50 {
        ask(&client, &query(id, "no.example.test.", RecordType::A));
    }
}
