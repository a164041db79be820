//! What those do who want the resolver to believe or to do the wrong thing.

use std::collections::HashSet;
use std::net::SocketAddr;

use super::*;

/// An upstream that sees the packets themselves and where they come from, and sends what `answers` says, in that order.
async fn raw(answers: impl Fn(&[u8], SocketAddr) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut packet = [0; 4_096];
        while let Ok((len, client)) = socket.recv_from(&mut packet).await {
            for (n, answer) in answers(&packet[..len], client).iter().enumerate() {
                let _ = socket.send_to(answer, client).await;
                // As if it were on another machine: who receives is not kept from it.
                if n % 100 == 99 {
                    tokio::task::yield_now().await;
                }
            }
        }
    });
    address
}

fn config_for(upstream: SocketAddr) -> Config {
    Config {
        upstreams: vec![upstream.into()],
        ..config(&[])
    }
}

/// The reply to the bytes of a query: one address, the question as it was asked.
fn honest(packet: &[u8], host: u8) -> Vec<u8> {
    let query = Message::from_vec(packet).unwrap();
    let mut reply = reply(&query, ResponseCode::NoError);
    reply.add_answer(a(&query.queries[0].name.to_ascii(), 300, host));
    reply.to_vec().unwrap()
}

#[tokio::test]
async fn thousand_forged_replies_do_not_keep_the_right_one_from_winning() {
    let upstream = raw(|packet, _| {
        let mut answers = Vec::new();
        for n in 0..1_000_u16 {
            let mut forged = honest(packet, 66);
            let id = u16::from_be_bytes([forged[0], forged[1]]);
            match n % 4 {
                // A question of another type, another case, a cut one; else another id.
                0 => {
                    let question_end = 12 + forged[12..].iter().position(|&b| b == 0).unwrap();
                    forged[question_end + 2] = 28;
                }
                1 => forged[13] ^= 0x20,
                2 => forged.truncate(forged.len() / 2),
                _ => forged[..2].copy_from_slice(&id.wrapping_add(1 + n).to_be_bytes()),
            }
            answers.push(forged);
        }
        answers.push(honest(packet, 1));
        answers
    })
    .await;
    let bench = bench(config_for(upstream));
    for n in 0..5 {
        let ask = ask(&format!("www{n}.example."), RecordType::A);
        let (outcome, message) = bench.ask(&ask).await;
        assert_eq!(outcome, Outcome::Resolved);
        assert_eq!(hosts(&message), ["192.0.2.1"]);
        let (_, message) = bench.cached(&ask, Duration::ZERO).unwrap();
        assert_eq!(hosts(&message), ["192.0.2.1"]);
        assert!(
            bench
                .cached(
                    &super::ask(&format!("www{n}.example."), RecordType::AAAA),
                    Duration::ZERO
                )
                .is_none()
        );
    }
    let rejected = &bench.metrics.resolver.rejected;
    for counter in [
        &rejected.id,
        &rejected.case,
        &rejected.question,
        &rejected.malformed,
    ] {
        assert!(counter.get() >= 5, "{counter:?}");
    }
}

#[tokio::test]
async fn five_hundred_clients_with_one_question_are_one_upstream_query() {
    let gate = Arc::new(Notify::new());
    let script = |query: &Message, _| Some(address(query, 1));
    let upstream = Upstream::start_gated(script, Some(Arc::clone(&gate))).await;
    let bench = Arc::new(bench(patient(&upstream)));
    let clients: Vec<_> = (0..500)
        .map(|_| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move { bench.ask(&ask("www.example.", RecordType::A)).await })
        })
        .collect();
    eventually(async || upstream.count() > 0, "the query").await;
    gate.notify_one();
    for client in clients {
        assert_eq!(hosts(&client.await.unwrap().1), ["192.0.2.1"]);
    }
    // A retransmission is the same query; the gate is quicker than that.
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn upstream_that_died_makes_one_client_wait_and_the_next_ones_not() {
    let upstream = Upstream::start(|_, _| None).await;
    let bench = bench(patient(&upstream));
    let ask = ask("www.example.", RecordType::A);
    bench.store_expired(&ask);
    assert_eq!(bench.ask(&ask).await.0, Outcome::CacheStale);
    for _ in 0..3 {
        let (outcome, message) = bench.cached(&ask, Duration::ZERO).unwrap();
        assert_eq!(outcome, Outcome::CacheStale);
        assert_eq!(message.answers[0].ttl, 30);
    }
}

#[tokio::test]
async fn forwarder_is_believed_in_its_own_zone_only() {
    let world = Upstream::start(|query, _| Some(address(query, 1))).await;
    let corp = Upstream::start(|query, _| {
        let mut reply = reply(query, ResponseCode::NoError);
        let asked = query.queries[0].name.to_ascii();
        if asked.to_ascii_lowercase().starts_with("alias.") {
            let data = RData::CNAME(CNAME(name("www.bank.example.")));
            reply.add_answer(Record::from_rdata(name(&asked), 60, data));
        } else {
            reply.add_answer(a(&asked, 300, 2));
        }
        for _ in 0..2 {
            reply.add_answer(a("www.bank.example.", 86_400, 66));
        }
        reply.add_authority(soa("bank.example.", 86_400, 86_400));
        reply.add_additional(a("www.bank.example.", 86_400, 66));
        Some(reply)
    })
    .await;
    let mut config = config(&[&world]);
    config.forward = vec![ForwardZone {
        zone: "corp.example.".into(),
        upstreams: vec![corp.address.into()],
    }];
    let bench = bench(config);
    let (_, message) = bench.ask(&ask("www.corp.example.", RecordType::A)).await;
    assert_eq!(hosts(&message), ["192.0.2.2"]);
    assert!(message.authorities.is_empty() && message.additionals.is_empty());
    // What an alias leads to is asked of those who speak for it.
    for outcome in [Outcome::Resolved, Outcome::CacheHit] {
        let (ended, message) = bench.ask(&ask("alias.corp.example.", RecordType::A)).await;
        assert_eq!(ended, outcome);
        assert_eq!(hosts(&message), ["www.bank.example.", "192.0.2.1"]);
    }
    assert!(
        world
            .seen()
            .iter()
            .any(|seen| seen.name.eq_ignore_ascii_case("www.bank.example."))
    );
    let (_, message) = bench.ask(&ask("www.bank.example.", RecordType::A)).await;
    assert_eq!(hosts(&message), ["192.0.2.1"]);
}

#[tokio::test]
async fn aliases_between_zones_that_go_round_end() {
    let alias = |to: &'static str| {
        move |query: &Message, _| {
            let mut reply = reply(query, ResponseCode::NoError);
            let owner = query.queries[0].name.clone();
            let data = RData::CNAME(CNAME(name(to)));
            reply.add_answer(Record::from_rdata(owner, 60, data));
            Some(reply)
        }
    };
    // One way back leads to the upstreams for everything, the other into a forward zone: only that goes on.
    for (other, bound) in [("unused.example.", 0), ("b.example.", 1)] {
        let world = Upstream::start(alias("a.corp.example.")).await;
        let corp = Upstream::start(alias("b.example.")).await;
        let mut config = config(&[&world]);
        let zones = [("corp.example.", &corp), (other, &world)];
        config.forward = zones
            .map(|(zone, upstream)| ForwardZone {
                zone: zone.into(),
                upstreams: vec![upstream.address.into()],
            })
            .into();
        let bench = bench(config);
        bench.ask(&ask("a.corp.example.", RecordType::A)).await;
        let asked = world.count() + corp.count();
        assert!(asked <= 13, "{asked}");
        let reached = bench.metrics.resolver.limits.aliases.get();
        assert_eq!(reached, bound, "{other}");
    }
}

#[tokio::test]
async fn records_nobody_asked_for_are_neither_passed_on_nor_kept() {
    let upstream = Upstream::start(|query, _| {
        let mut reply = reply(query, ResponseCode::NoError);
        reply.add_answer(a(&query.queries[0].name.to_ascii(), 300, 1));
        reply.add_answer(a("victim.example.", 300, 66));
        reply.add_authority(soa("victim.example.", 300, 300));
        let ns = hickory_proto::rr::rdata::NS(name("ns.evil."));
        reply.add_authority(Record::from_rdata(
            name("victim.example."),
            300,
            RData::NS(ns),
        ));
        reply.add_additional(a("victim.example.", 300, 66));
        Some(reply)
    })
    .await;
    let bench = bench(config(&[&upstream]));
    let (_, message) = bench.ask(&ask("www.example.", RecordType::A)).await;
    assert_eq!(hosts(&message), ["192.0.2.1"]);
    assert!(message.authorities.is_empty() && message.additionals.is_empty());
    assert!(bench.resolver.lookup("victim.example.", None).is_empty());
    assert_eq!(bench.resolver.stats().entries, 1);
}

/// Over all threads: what an observer sees of ports, ids and case must not help to foretell the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ports_ids_and_case_are_random_over_their_whole_range() {
    let seen = Arc::<Mutex<Vec<(u16, u16, usize, usize)>>>::default();
    let log = Arc::clone(&seen);
    let upstream = raw(move |packet, client| {
        let id = u16::from_be_bytes([packet[0], packet[1]]);
        let name = &packet[12..32];
        let upper = name.iter().filter(|b| b.is_ascii_uppercase()).count();
        let lower = name.iter().filter(|b| b.is_ascii_lowercase()).count();
        log.lock().unwrap().push((client.port(), id, upper, lower));
        vec![honest(packet, 1)]
    })
    .await;
    let bench = Arc::new(bench(config_for(upstream)));
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move {
                for n in 0..500 {
                    let name = format!("abcdefghijklmno{thread}x{n}.example.");
                    bench.ask(&ask(&name, RecordType::A)).await;
                }
            })
        })
        .collect();
    for thread in threads {
        thread.await.unwrap();
    }
    let seen = seen.lock().unwrap();
    assert!(seen.len() >= 2_000);
    // Chi-square over sixteen classes: 15 expected, above 60 once in ten million runs.
    let spread = |values: &[u16]| {
        let mut classes = [0_f64; 16];
        for value in values {
            classes[usize::from(value >> 12)] += 1.0;
        }
        let expected = values.len() as f64 / 16.0;
        classes
            .iter()
            .map(|n| (n - expected).powi(2) / expected)
            .sum::<f64>()
    };
    let ids: Vec<u16> = seen.iter().map(|(_, id, ..)| *id).collect();
    assert!(spread(&ids) < 60.0, "{}", spread(&ids));
    let low_bits: Vec<u16> = ids.iter().map(|id| id << 12).collect();
    assert!(spread(&low_bits) < 60.0, "{}", spread(&low_bits));
    assert!(ids.iter().collect::<HashSet<_>>().len() > seen.len() * 9 / 10);
    let ports: HashSet<u16> = seen.iter().map(|(port, ..)| *port).collect();
    let ports: Vec<u16> = ports.into_iter().collect();
    assert!(ports.len() >= 100, "{} ports", ports.len());
    // Those below 1024 are not used, which is little of the first class.
    assert!(spread(&ports) < 60.0, "{}", spread(&ports));
    let upper: usize = seen.iter().map(|(_, _, upper, _)| upper).sum();
    let lower: usize = seen.iter().map(|(_, _, _, lower)| lower).sum();
    let share = upper as f64 / (upper + lower) as f64;
    assert!((0.45..0.55).contains(&share), "{share}");
}

#[tokio::test]
async fn names_made_up_under_a_dead_zone_do_not_take_the_place_of_others() {
    let upstream = Upstream::start(|query, _| {
        let asked = query.queries[0].name.to_ascii().to_ascii_lowercase();
        (!asked.ends_with("dead.example.")).then(|| address(query, 1))
    })
    .await;
    let mut config = config(&[&upstream]);
    config.fetches = 4_096;
    config.upstream.fetches_per_server = 60;
    config.upstream.fetches_per_zone = 20;
    let bench = Arc::new(bench(config));
    // So that it is known how fast the upstream is.
    for n in 0..20 {
        bench
            .ask(&ask(&format!("first{n}.org."), RecordType::A))
            .await;
    }
    let client = |name: String| {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move { bench.ask(&ask(&name, RecordType::A)).await.0 })
    };
    let (mut dead, mut living) = (Vec::new(), Vec::new());
    for n in 0..1_000 {
        dead.push(client(format!("x{n}.y{n}.dead.example.")));
        if n % 10 == 0 {
            living.push(client(format!("www.domain{n}.org.")));
        }
        if n % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    let mut answered = 0;
    for client in living {
        answered += u32::from(client.await.unwrap() == Outcome::Resolved);
    }
    assert!(answered >= 99, "{answered} of 100");
    assert!(bench.metrics.resolver.limits.zone_fetches.get() > 500);
    for client in dead {
        client.abort();
    }
}
