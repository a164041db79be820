//! What the cache does to have an answer before it is asked for: refreshing, taking over, concluding.

use super::*;

/// Puts an answer into the cache that came `age` seconds ago.
fn store_aged(bench: &Bench, ask: &Ask, ttl: u32, age: u64) {
    let query = Query::parse(&ask.packet).unwrap();
    let mut reply = address(&Message::from_vec(&ask.packet).unwrap(), 77);
    reply.answers[0].ttl = ttl;
    let now = Now::read();
    let past = Now {
        mono_ns: now.mono_ns - age * 1_000_000_000,
        unix_ms: now.unix_ms - age * 1_000,
    };
    let message = reply.to_vec().unwrap();
    assert!(
        bench
            .resolver
            .cache()
            .store(&query, Partition(0), &message, past)
    );
}

#[tokio::test]
async fn answer_about_to_expire_is_refreshed_when_it_is_asked_for() {
    let upstream = Upstream::start(|query, _| Some(address(query, 1))).await;
    let bench = bench(config(&[&upstream]));
    let ask = ask("www.example.", RecordType::A);
    store_aged(&bench, &ask, 100, 80);
    assert_eq!(bench.ask(&ask).await.0, Outcome::CacheHit);
    store_aged(&bench, &ask, 100, 95);
    assert_eq!(upstream.count(), 0, "with a fifth left nothing is done");
    for _ in 0..10 {
        let (outcome, message) = bench.ask(&ask).await;
        assert_eq!(outcome, Outcome::CacheHit);
        assert!(hosts(&message) == ["192.0.2.77"] || hosts(&message) == ["192.0.2.1"]);
    }
    let refreshed = async || {
        let (_, message) = bench.cached(&ask, Duration::ZERO).unwrap();
        hosts(&message) == ["192.0.2.1"]
    };
    eventually(refreshed, "the refresh").await;
    assert_eq!(upstream.count(), 1, "asked for ten times, refreshed once");
    eventually(
        async || bench.metrics.resolver.prefetches.done.get() == 1,
        "the count",
    )
    .await;
}

#[tokio::test]
async fn answer_is_not_refreshed_where_that_is_switched_off() {
    let upstream = Upstream::start(|query, _| Some(address(query, 1))).await;
    let mut config = config(&[&upstream]);
    config.cache.prefetch = false;
    let off = bench(config);
    let on = bench(super::config(&[&upstream]));
    let ask = ask("www.example.", RecordType::A);
    for bench in [&off, &on] {
        store_aged(bench, &ask, 100, 95);
        bench.ask(&ask).await;
    }
    eventually(
        async || on.metrics.resolver.prefetches.done.get() == 1,
        "the other one",
    )
    .await;
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn names_kept_warm_are_there_before_they_are_asked_for() {
    let upstream = Upstream::start(|query, _| Some(address(query, 1))).await;
    let mut config = config(&[&upstream]);
    config.cache.keep_warm = vec![WarmName {
        name: "www.example.".into(),
        types: vec![1, 28],
    }];
    let bench = bench(config);
    let asks = [RecordType::A, RecordType::AAAA].map(|rtype| ask("www.example.", rtype));
    let warm = async || {
        asks.iter()
            .all(|ask| bench.cached(ask, Duration::ZERO).is_some())
    };
    eventually(warm, "both").await;
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn refreshes_at_once_are_bounded_and_counted() {
    let upstream = Upstream::start(|_, _| None).await;
    let mut config = config(&[&upstream]);
    config.cache.refreshes = 1;
    config.cache.keep_warm = vec![WarmName {
        name: "warm.example.".into(),
        types: vec![1, 28],
    }];
    let bench = bench(config);
    let limits = &bench.metrics.resolver.limits;
    let warm = async || limits.refreshes.get() > 0;
    eventually(warm, "of two names to be kept warm one waits").await;
    let dropped = &bench.metrics.resolver.prefetches.dropped;
    assert_eq!(dropped.get(), 0);
    for name in ["a.example.", "b.example."] {
        let ask = ask(name, RecordType::A);
        store_aged(&bench, &ask, 100, 95);
        assert_eq!(bench.ask(&ask).await.0, Outcome::CacheHit);
    }
    let again = async || dropped.get() == 1;
    eventually(again, "of two answers about to expire one is left").await;
}

#[tokio::test]
async fn sends_to_one_server_are_bounded_and_counted() {
    let upstream = Upstream::start(|_, _| None).await;
    let mut config = config(&[&upstream]);
    config.upstream.sends = 1;
    config.time = Duration::from_millis(300);
    let bench = bench(config);
    let (outcome, _) = bench.ask(&ask("www.example.", RecordType::A)).await;
    assert_eq!(outcome, Outcome::Servfail);
    assert_eq!(upstream.count(), 1);
    assert_eq!(bench.metrics.resolver.limits.sends.get(), 1);
}

#[tokio::test]
async fn name_beneath_one_that_does_not_exist_is_not_asked_for() {
    let upstream = Upstream::start(|query, _| {
        let mut reply = reply(query, ResponseCode::NXDomain);
        reply.add_authority(soa("example.", 900, 60));
        Some(reply)
    })
    .await;
    let mut config = config(&[&upstream]);
    let cutting = bench(config.clone());
    config.cache.nxdomain_cut = false;
    let asking = bench(config);
    for (bench, queries) in [(&cutting, 1), (&asking, 4)] {
        let before = upstream.count();
        bench.ask(&ask("gone.example.", RecordType::A)).await;
        for asked in ["a.gone.example.", "b.a.gone.example.", "gone.example."] {
            let (_, message) = bench.ask(&ask(asked, RecordType::MX)).await;
            assert_eq!(message.response_code, ResponseCode::NXDomain);
            assert_eq!(message.queries[0].name, name(asked));
            assert_eq!(message.authorities.len(), 1);
        }
        assert_eq!(upstream.count() - before, queries);
        bench.ask(&ask("other.example.", RecordType::A)).await;
        assert_eq!(upstream.count() - before, queries + 1);
    }
    cutting.resolver.flush(&Flush::All);
    let before = upstream.count();
    cutting.ask(&ask("c.gone.example.", RecordType::A)).await;
    assert_eq!(upstream.count() - before, 1, "the cut was flushed too");
}

#[tokio::test]
async fn cache_written_and_read_by_another_resolver_answers_there() {
    let upstream = Upstream::start(|query, _| Some(address(query, 1))).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cache.saved");
    let first = bench(config(&[&upstream]));
    let asks: Vec<Ask> = (0..20)
        .map(|n| {
            build(
                &format!("n{n}.example."),
                RecordType::A,
                Some(n % 2 == 0),
                n % 3 == 0,
            )
        })
        .collect();
    for ask in &asks {
        first.ask(ask).await;
    }
    let old = ask("old.example.", RecordType::A);
    store_aged(&first, &old, 100, 60);
    assert_eq!(first.resolver.save(&file).unwrap(), 21);

    let second = bench(config(&[&upstream]));
    let loaded = second.resolver.load(&file).unwrap();
    assert_eq!((loaded.entries, loaded.skipped, loaded.refused), (21, 0, 0));
    assert_eq!(second.metrics.resolver.restored.get(), 21);
    let before = upstream.count();
    for ask in &asks {
        let (outcome, message) = second.ask(ask).await;
        assert_eq!(outcome, Outcome::CacheHit);
        assert!((290..=300).contains(&message.answers[0].ttl));
    }
    let (_, message) = second.ask(&old).await;
    assert!((30..=40).contains(&message.answers[0].ttl), "{message}");
    assert_eq!(upstream.count(), before);
    let again = second.resolver.load(&file).unwrap();
    assert_eq!((again.entries, again.skipped), (0, 21), "they are here");
}

#[tokio::test]
async fn cache_file_that_is_damaged_loses_only_what_is() {
    let upstream = Upstream::start(|query, _| Some(address(query, 1))).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cache.saved");
    let first = bench(config(&[&upstream]));
    for n in 0..10 {
        first
            .ask(&ask(&format!("n{n}.example."), RecordType::A))
            .await;
    }
    first.resolver.save(&file).unwrap();
    let whole = std::fs::read(&file).unwrap();

    let mut bent = whole.clone();
    bent[40] ^= 0xFF;
    std::fs::write(&file, &bent).unwrap();
    let second = bench(config(&[&upstream]));
    let loaded = second.resolver.load(&file).unwrap();
    assert_eq!((loaded.entries, loaded.refused), (9, 1));
    assert!(loaded.problems[0].starts_with("octet 18: "), "{loaded:?}");

    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let third = bench(config(&[&upstream]));
    let loaded = third.resolver.load(&file).unwrap();
    assert!(loaded.entries >= 4 && loaded.refused == 1, "{loaded:?}");

    std::fs::write(&file, "something else").unwrap();
    let loaded = third.resolver.load(&file).unwrap();
    assert_eq!((loaded.entries, loaded.refused), (0, 1));
    assert!(third.resolver.load(&folder.path().join("none")).is_err());
}

#[tokio::test]
async fn answer_of_a_forward_zone_is_not_taken_over_without_it() {
    let upstream = Upstream::start(|query, _| Some(address(query, 1))).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cache.saved");
    let mut config = config(&[&upstream]);
    config.forward = vec![ForwardZone {
        zone: "corp.example.".into(),
        upstreams: vec![upstream.address.into()],
    }];
    let first = bench(config);
    first.ask(&ask("www.corp.example.", RecordType::A)).await;
    first.ask(&ask("www.example.", RecordType::A)).await;
    first.resolver.save(&file).unwrap();
    let second = bench(super::config(&[&upstream]));
    let loaded = second.resolver.load(&file).unwrap();
    assert_eq!((loaded.entries, loaded.skipped), (1, 1));
    assert!(second.resolver.lookup("www.corp.example.", None).is_empty());
}
