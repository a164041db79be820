//! Engine and front together, over real sockets on loopback: what a client sees.
//! Own zones and the transports here, foreign names in `slow`.

use std::io::{ErrorKind, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use headwater::dns::{Config, Outcome, Transport};
use headwater::metrics::dns::Limit;
use headwater::time::Now;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, RecordType};

use self::harness::{
    Server, addresses, ask, config, framed, query, receive, receive_stream, texts, wait, zone,
};

mod edns;

mod encrypted;

mod harness;

pub(crate) use self::harness::forward_to;

mod mutated;

mod reasons;

mod slow;

#[test]
fn udp_answers_from_a_zone() {
    let server = Server::start(&zone(1), config());
    let client = server.udp();
    let answer = ask(&client, &query(7, "www.example.test.", RecordType::A));
    assert_eq!(answer.metadata.id, 7);
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(answer.metadata.authoritative);
    assert_eq!(addresses(&answer), ["192.0.2.1"]);
    let missing = ask(&client, &query(8, "nowhere.example.test.", RecordType::A));
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(missing.authorities[0].record_type(), RecordType::SOA);
    let foreign = ask(&client, &query(9, "www.example.org.", RecordType::A));
    assert_eq!(foreign.metadata.response_code, ResponseCode::Refused);
}

#[test]
fn udp_packets_that_are_no_queries_do_no_harm() {
    let server = Server::start(&zone(1), config());
    let client = server.udp();
    let good = query(1, "www.example.test.", RecordType::A);
    let mut response = good.clone();
    response[2] |= 0x80;
    let mut noise = 0x9E37_79B9_7F4A_7C15_u64;
    let mut sent = 2;
    client.send(&response).unwrap();
    client.send(b"").unwrap();
    for length in 1..400 {
        let packet: Vec<u8> = (0..length)
            .map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise as u8
            })
            .collect();
        client.send(&packet).unwrap();
        sent += 1;
    }
    // Every cut and every flipped octet of a good query, too.
    for cut in 0..good.len() {
        client.send(&good[..cut]).unwrap();
        let mut bent = good.clone();
        bent[cut] ^= 0xFF;
        client.send(&bent).unwrap();
        sent += 2;
    }
    // The answer to a question asked last comes after all others of its socket.
    let last = query(0xBEEF, "mail.example.test.", RecordType::A);
    client.send(&last).unwrap();
    let answer = loop {
        let answer = receive(&client);
        if answer[..2] == [0xBE, 0xEF] && answer.len() > last.len() {
            break Message::from_vec(&answer).unwrap();
        }
    };
    assert_eq!(addresses(&answer), ["192.0.2.9"]);
    wait("every packet is counted once", || {
        server.queries(Transport::Udp) == sent + 1
    });
    assert!(
        server
            .metrics
            .dns
            .query_count(Transport::Udp, Outcome::Dropped)
            >= 2
    );
}

#[test]
fn tcp_with_many_queries_in_one_write_answers_all() {
    const QUERIES: u16 = 5_000;
    let server = Server::start(&zone(1), config());
    let mut client = server.tcp();
    let mut reader = client.try_clone().unwrap();
    let read = std::thread::spawn(move || {
        let mut seen = vec![false; usize::from(QUERIES)];
        for _ in 0..QUERIES {
            let answer = receive_stream(&mut reader).expect("an answer to each query");
            assert_eq!(addresses(&answer), ["192.0.2.1"]);
            let id = usize::from(answer.metadata.id);
            assert!(!seen[id], "one answer to query {id}");
            seen[id] = true;
        }
    });
    let all: Vec<u8> = (0..QUERIES)
        .flat_map(|id| framed(&query(id, "www.example.test.", RecordType::A)))
        .collect();
    client.write_all(&all).unwrap();
    read.join().unwrap();
    assert_eq!(server.queries(Transport::Tcp), u64::from(QUERIES));
}

#[test]
fn tcp_message_in_pieces_is_answered() {
    let server = Server::start(&zone(1), config());
    let mut client = server.tcp();
    for octet in framed(&query(3, "www.example.test.", RecordType::A)) {
        client.write_all(&[octet]).unwrap();
    }
    assert_eq!(receive_stream(&mut client).unwrap().metadata.id, 3);
}

#[test]
fn tcp_client_that_half_closes_gets_its_answers() {
    let server = Server::start(&zone(1), config());
    let mut client = server.tcp();
    let two: Vec<u8> = [1, 2]
        .into_iter()
        .flat_map(|id| framed(&query(id, "www.example.test.", RecordType::A)))
        .collect();
    client.write_all(&two).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(receive_stream(&mut client).unwrap().metadata.id, 1);
    assert_eq!(receive_stream(&mut client).unwrap().metadata.id, 2);
    assert!(receive_stream(&mut client).is_none(), "then the end");
}

#[test]
fn tcp_client_that_reads_nothing_is_closed() {
    let server = Server::start(
        &zone(1),
        Config {
            tcp_unread_time: Duration::from_millis(300),
            ..config()
        },
    );
    let mut client = server.tcp();
    client
        .set_write_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let many: Vec<u8> = (0..1000)
        .flat_map(|id| framed(&query(id, "www.example.test.", RecordType::A)))
        .collect();
    // Until neither side takes any more, and then until the server gives up.
    wait("the server closes", || {
        match client.write(&many) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return true,
            Ok(_) => {}
        }
        false
    });
    wait("the limit is counted", || {
        server.metrics.dns.limit_count(Limit::TcpUnread) == 1
    });
}

#[test]
fn tcp_connections_beyond_the_limit_of_an_address_are_refused() {
    let server = Server::start(
        &zone(1),
        Config {
            tcp_connections_per_address: 2,
            ..config()
        },
    );
    let answers = |client: &mut TcpStream| {
        // A refused connection may be gone before the query is written.
        let _ = client.write_all(&framed(&query(1, "www.example.test.", RecordType::A)));
        receive_stream(client).is_some()
    };
    let mut first = server.tcp();
    assert!(answers(&mut first));
    let mut second = server.tcp();
    assert!(answers(&mut second));
    assert!(!answers(&mut server.tcp()));
    let dns = &server.metrics.dns;
    assert_eq!(dns.limit_count(Limit::TcpConnectionsPerAddress), 1);
    assert_eq!(dns.tcp_connections.get(), 2);
    drop(first);
    wait("a place is free again", || dns.tcp_connections.get() == 1);
    assert!(answers(&mut server.tcp()));
    assert!(answers(&mut second));
}

#[test]
fn tcp_idle_and_half_a_message_are_closed() {
    let server = Server::start(
        &zone(1),
        Config {
            tcp_idle: Duration::from_millis(200),
            tcp_message: Duration::from_millis(200),
            ..config()
        },
    );
    let mut idle = server.tcp();
    let mut half = server.tcp();
    half.write_all(&[0, 40, 1]).unwrap();
    assert!(receive_stream(&mut idle).is_none());
    assert!(receive_stream(&mut half).is_none());
    let dns = &server.metrics.dns;
    wait("both limits are counted", || {
        dns.limit_count(Limit::TcpIdle) == 1 && dns.limit_count(Limit::TcpMessage) == 1
    });
}

#[test]
fn reload_while_queried_loses_no_query_and_shows_no_mix() {
    let server = Server::start(&zone(1), config());
    let done = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicU32::new(0));
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let (client, mut stream) = (server.udp(), server.tcp());
            let done = Arc::clone(&done);
            std::thread::spawn(move || {
                let (mut asked, mut last) = (0_u16, 0);
                while !done.load(Ordering::Relaxed) {
                    asked = asked.wrapping_add(1);
                    let question = query(asked, "both.example.test.", RecordType::TXT);
                    let answer = if asked % 2 == 0 {
                        ask(&client, &question)
                    } else {
                        stream.write_all(&framed(&question)).unwrap();
                        receive_stream(&mut stream).expect("an answer")
                    };
                    // Two records of one RRset say which version they are of.
                    let versions = texts(&answer);
                    assert_eq!(versions.len(), 2, "{answer:?}");
                    assert_eq!(versions[0], versions[1]);
                    assert!(versions[0] >= last, "never back to an older version");
                    last = versions[0];
                }
                asked
            })
        })
        .collect();
    let windows = {
        let (client, done, asked) = (server.udp(), Arc::clone(&done), Arc::clone(&asked));
        std::thread::spawn(move || {
            let mut last = 0;
            while !done.load(Ordering::Relaxed) {
                last = ask_window(&client, last);
                asked.fetch_add(u32::from(WINDOW), Ordering::Relaxed);
            }
        })
    };
    // Goes on on a busy machine, until as many were asked as on a quiet one.
    let mut serial = 1;
    while serial < 1_001 || asked.load(Ordering::Relaxed) < 10_000 {
        assert!(!windows.is_finished(), "no query lost");
        serial += 1;
        std::fs::write(&server.file, zone(serial)).unwrap();
        let status = server.engine.keeper().reload(Some("EXAMPLE.test")).unwrap();
        assert_eq!(status[0].serial, Some(serial));
        assert_eq!(status[0].problems, [""; 0]);
    }
    done.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(client.join().expect("no query lost") > 0);
    }
    windows.join().expect("no query lost");
}

/// Queries on their way at once.
const WINDOW: u16 = 64;

/// Asks [`WINDOW`] questions of several kinds at once and takes one answer to each, none of which is of an older version than
/// `last`; gives the newest.
fn ask_window(client: &UdpSocket, last: u32) -> u32 {
    const KINDS: [(&str, RecordType); 4] = [
        ("both.example.test.", RecordType::TXT),
        ("nowhere.example.test.", RecordType::A),
        ("example.test.", RecordType::SOA),
        ("www.example.test.", RecordType::MX),
    ];
    let kind = |id: u16| KINDS[usize::from(id) % KINDS.len()];
    for id in 0..WINDOW {
        let (name, rtype) = kind(id);
        client.send(&query(id, name, rtype)).unwrap();
    }
    let (mut newest, mut seen) = (last, [false; WINDOW as usize]);
    for _ in 0..WINDOW {
        let answer = Message::from_vec(&receive(client)).unwrap();
        let id = answer.metadata.id;
        let again = std::mem::replace(&mut seen[usize::from(id)], true);
        assert!(!again, "one answer to each: {answer:?}");
        let versions = match kind(id).1 {
            RecordType::TXT => texts(&answer),
            _ => serials(&answer),
        };
        assert!(!versions.is_empty(), "{answer:?}");
        for version in versions {
            assert!(version >= last, "never back to an older version");
            newest = newest.max(version);
        }
    }
    newest
}

/// Serials of the SOA records of an answer.
fn serials(answer: &Message) -> Vec<u32> {
    let records = answer.answers.iter().chain(&answer.authorities);
    records
        .filter_map(|record| match &record.data {
            RData::SOA(soa) => Some(soa.serial),
            _ => None,
        })
        .collect()
}

#[test]
fn broken_zone_file_leaves_the_old_zone_in_service() {
    let server = Server::start(&zone(5), config());
    std::fs::write(&server.file, "@ IN SOA what\n").unwrap();
    let status = server.engine.keeper().reload(None).unwrap();
    assert_eq!(status[0].serial, Some(5));
    assert!(
        status[0]
            .problems
            .iter()
            .any(|p| p.contains("example.test.zone:1: ")),
        "file and line in {:?}",
        status[0].problems
    );
    let answer = ask(&server.udp(), &query(1, "www.example.test.", RecordType::A));
    assert_eq!(addresses(&answer), ["192.0.2.1"]);
    let text = server.metrics.text();
    assert!(text.contains(r#"headwater_zone_reload_failures_total{zone="example.test."} 1"#));
    assert!(text.contains(r#"headwater_zone_serial{zone="example.test."} 5"#));
    std::fs::write(&server.file, zone(6)).unwrap();
    let status = server.engine.keeper().reload(None).unwrap();
    assert_eq!((status[0].serial, status[0].problems.len()), (Some(6), 0));
    assert!(server.engine.keeper().reload(Some("other.test.")).is_none());
}

#[test]
fn zone_never_loaded_is_servfail_not_refused() {
    let server = Server::start("no zone at all\n", config());
    let client = server.udp();
    for name in ["example.test.", "www.example.test."] {
        let answer = ask(&client, &query(1, name, RecordType::A));
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::ServFail,
            "{name}"
        );
    }
    let beside = ask(&client, &query(2, "notexample.test.", RecordType::A));
    assert_eq!(beside.metadata.response_code, ResponseCode::Refused);
}

#[test]
fn stop_answers_what_has_arrived_and_ends() {
    let mut server = Server::start(&zone(1), config());
    let mut client = server.tcp();
    let udp = server.udp();
    client
        .write_all(&framed(&query(1, "www.example.test.", RecordType::A)))
        .unwrap();
    assert_eq!(receive_stream(&mut client).unwrap().metadata.id, 1);
    udp.send(&query(2, "www.example.test.", RecordType::A))
        .unwrap();
    server.stop.cancel();
    assert_eq!(receive(&udp)[..2], [0, 2]);
    assert!(
        receive_stream(&mut client).is_none(),
        "the server ends the stream"
    );
    server.join();
    assert!(TcpStream::connect(server.address).is_err());
    assert_eq!(server.metrics.dns.tcp_connections.get(), 0);
}

#[test]
fn heartbeat_of_idle_workers_goes_on() {
    let server = Server::start(&zone(1), config());
    let start = Now::read();
    wait("more than one idle turn", || {
        let now = Now::read();
        let (_, silence) = server.heartbeat.silence(now).expect("workers");
        assert!(silence < Duration::from_secs(5), "{silence:?}");
        now.since(start) > Duration::from_millis(1200) && silence < Duration::from_millis(600)
    });
}
