//! Foreign names: a resolver over an upstream that answers when the test says so.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use headwater::dns::{Config, Outcome, Transport};
use headwater::metrics::dns::Limit;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::harness::{
    Server, Upstream, addresses, ask, config, framed, query, receive, receive_stream, wait, zone,
};

#[test]
fn foreign_name_is_resolved_once_and_then_a_hit() {
    let upstream = Upstream::start();
    let server = Server::start_with(&zone(1), config(), Some(upstream.address));
    let question = query(1, "www.example.org.", RecordType::A);
    let client = server.udp();
    for _ in 0..3 {
        assert_eq!(addresses(&ask(&client, &question)), ["198.51.100.7"]);
    }
    let mut stream = server.tcp();
    stream.write_all(&framed(&question)).unwrap();
    let answer = receive_stream(&mut stream).unwrap();
    assert_eq!(addresses(&answer), ["198.51.100.7"]);
    let dns = &server.metrics.dns;
    wait("outcomes are counted", || {
        server.queries(Transport::Udp) == 3
    });
    assert_eq!(dns.query_count(Transport::Udp, Outcome::Resolved), 1);
    assert_eq!(dns.query_count(Transport::Udp, Outcome::CacheHit), 2);
    wait("outcomes are counted", || {
        dns.query_count(Transport::Tcp, Outcome::CacheHit) == 1
    });
    // An own name never goes upstream.
    let own = ask(&client, &query(2, "gone.example.test.", RecordType::A));
    assert_eq!(own.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(upstream.asked.load(Ordering::SeqCst), 1);
}

#[test]
fn tcp_answers_leave_when_they_are_ready() {
    let upstream = Upstream::start();
    let server = Server::start_with(&zone(1), config(), Some(upstream.address));
    let mut client = server.tcp();
    let both = [
        framed(&query(1, "held.example.org.", RecordType::A)),
        framed(&query(2, "www.example.test.", RecordType::A)),
        framed(&query(3, "www.example.org.", RecordType::A)),
    ];
    client.write_all(&both.concat()).unwrap();
    assert_eq!(receive_stream(&mut client).unwrap().metadata.id, 2);
    assert_eq!(receive_stream(&mut client).unwrap().metadata.id, 3);
    upstream.release();
    let last = receive_stream(&mut client).unwrap();
    assert_eq!((last.metadata.id, addresses(&last).len()), (1, 1));
}

#[test]
fn tcp_queries_beyond_the_unanswered_wait_and_are_answered() {
    let upstream = Upstream::start();
    let server = Server::start_with(
        &zone(1),
        Config {
            tcp_unanswered: 2,
            ..config()
        },
        Some(upstream.address),
    );
    let mut client = server.tcp();
    let many: Vec<u8> = (0..20)
        .flat_map(|id| framed(&query(id, &format!("held{id}.example.org."), RecordType::A)))
        .collect();
    client.write_all(&many).unwrap();
    let dns = &server.metrics.dns;
    wait("the limit holds", || {
        dns.limit_count(Limit::TcpUnanswered) > 0
    });
    assert_eq!(dns.in_flight.get(), 2);
    upstream.release();
    let mut ids: Vec<u16> = (0..20)
        .map(|_| receive_stream(&mut client).unwrap().metadata.id)
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, Vec::from_iter(0..20));
}

#[test]
fn network_over_its_share_gets_nothing_over_udp_and_servfail_over_tcp() {
    let upstream = Upstream::start();
    let server = Server::start_with(
        &zone(1),
        Config {
            queries_in_flight_per_network: 2,
            ..config()
        },
        Some(upstream.address),
    );
    let client = server.udp();
    for id in 1..=3 {
        let name = format!("held{id}.example.org.");
        client.send(&query(id, &name, RecordType::A)).unwrap();
    }
    let dns = &server.metrics.dns;
    wait("the share is used", || {
        dns.limit_count(Limit::QueriesInFlightPerNetwork) == 1
    });
    let mut stream = server.tcp();
    stream
        .write_all(&framed(&query(4, "held4.example.org.", RecordType::A)))
        .unwrap();
    let refused = receive_stream(&mut stream).unwrap();
    assert_eq!(refused.metadata.response_code, ResponseCode::ServFail);
    // Own zones are not touched by it.
    let own = ask(&client, &query(5, "www.example.test.", RecordType::A));
    assert_eq!(own.metadata.id, 5);
    upstream.release();
    let mut ids = [receive(&client)[1], receive(&client)[1]];
    ids.sort_unstable();
    assert_eq!(ids, [1, 2]);
    wait("all is counted", || server.queries(Transport::Udp) == 4);
    assert_eq!(dns.query_count(Transport::Udp, Outcome::Dropped), 1);
}

#[test]
fn all_queries_in_flight_used_is_servfail_at_once() {
    let upstream = Upstream::start();
    let server = Server::start_with(
        &zone(1),
        Config {
            queries_in_flight: 1,
            ..config()
        },
        Some(upstream.address),
    );
    let client = server.udp();
    client
        .send(&query(1, "held.example.org.", RecordType::A))
        .unwrap();
    wait("one is in flight", || {
        server.metrics.dns.in_flight.get() == 1
    });
    let refused = ask(&client, &query(2, "held2.example.org.", RecordType::A));
    assert_eq!(refused.metadata.id, 2);
    assert_eq!(refused.metadata.response_code, ResponseCode::ServFail);
    upstream.release();
    assert_eq!(receive(&client)[..2], [0, 1]);
}

#[test]
fn late_answer_for_a_network_over_its_share_is_dropped() {
    let upstream = Upstream::start();
    let server = Server::start_with(
        &zone(1),
        Config {
            queries_in_flight_per_network: 2,
            udp_late: Duration::ZERO,
            ..config()
        },
        Some(upstream.address),
    );
    let client = server.udp();
    for id in 1..=2 {
        let name = format!("held{id}.example.org.");
        client.send(&query(id, &name, RecordType::A)).unwrap();
    }
    wait("both are in flight", || {
        server.metrics.dns.in_flight.get() == 2
    });
    upstream.release();
    // Two in flight are more than half of two: the first to end is dropped; the other is alone then.
    wait("both have ended", || server.queries(Transport::Udp) == 2);
    assert!(server.metrics.dns.limit_count(Limit::UdpLate) >= 1);
}

#[test]
fn stop_waits_for_queries_in_flight() {
    let upstream = Upstream::start();
    let mut server = Server::start_with(&zone(1), config(), Some(upstream.address));
    let (client, mut stream) = (server.udp(), server.tcp());
    client
        .send(&query(1, "held1.example.org.", RecordType::A))
        .unwrap();
    stream
        .write_all(&framed(&query(2, "held2.example.org.", RecordType::A)))
        .unwrap();
    wait("both are in flight", || {
        server.metrics.dns.in_flight.get() == 2
    });
    server.stop.cancel();
    wait("nothing is accepted any more", || {
        TcpStream::connect(server.address).is_err()
    });
    upstream.release();
    assert_eq!(receive(&client)[..2], [0, 1]);
    assert_eq!(receive_stream(&mut stream).unwrap().metadata.id, 2);
    assert!(receive_stream(&mut stream).is_none());
    server.join();
}
