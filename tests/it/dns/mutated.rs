//! Mutated packets against the fast path as the daemon runs it: zones, policy, cache.

use std::net::IpAddr;
use std::sync::Arc;

use headwater::dns::engine::{Engine, Fast};
use headwater::dns::keeper::Keeper;
use headwater::dns::resolver::cache::Partition;
use headwater::dns::resolver::{Resolver, policy};
use headwater::dns::wire::Query;
use headwater::dns::{Transport, ZoneConfig};
use headwater::metrics::Metrics;
use headwater::time::Now;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;

use super::harness::{config, forward_to, query};
use crate::fuzz::laws::ZONE;
use crate::fuzz::mutate::{Mutator, seeds};

#[test]
fn mutated_packets_are_answered_within_bounds_and_good_ones_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("example.test.zone");
    std::fs::write(&file, ZONE).unwrap();
    let metrics = Arc::new(Metrics::new());
    let zones = vec![ZoneConfig {
        name: "example.test.".to_owned(),
        file,
        ttl: 300,
        ..ZoneConfig::default()
    }];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _runtime = runtime.enter();
    let resolver = forward_to("127.0.0.1:9".parse().unwrap());
    let resolver = Resolver::new(resolver, Arc::clone(&metrics)).unwrap();
    resolver.load_policy(&policy::Config {
        special_use_names: true,
        records: vec![policy::record("printer.lan. A 192.0.2.7").unwrap()],
        private_answers: Some(vec![]),
        ..policy::Config::default()
    });
    let now = Now::read();
    let good = query(9, "www.example.", RecordType::A);
    let stored = resolver.cache().store(
        &Query::parse(&good).unwrap(),
        Partition(0),
        &seeds("reply")[0],
        now,
    );
    assert!(stored, "the first seed is a good reply");
    let keeper = Arc::new(Keeper::new(zones, Arc::clone(&metrics)));
    let _ = keeper.reload(None);
    let engine = Engine::new(&config(), keeper, Some(resolver), metrics);
    let mut near = engine.near(1);
    let client: IpAddr = "127.0.0.1".parse().unwrap();
    let (mut mutator, mut packet, mut out) = (Mutator::new("message"), Vec::new(), [0; 65_535]);
    let mut ends = [0_u32; 3];
    for round in 0..200_000_u32 {
        mutator.next(&mut packet);
        let (transport, limit) = match round % 4 {
            0 => (Transport::Tcp, 65_535),
            _ => (Transport::Udp, 1_232),
        };
        let mut snapshot = engine.snapshot().with(near.as_mut(), None);
        let out = &mut out[..limit];
        match snapshot.fast(&packet, client, transport, now, u64::from(round), out) {
            Fast::Respond { len, .. } => {
                ends[0] += 1;
                assert!((12..=limit).contains(&len));
                assert_eq!(out[..2], packet[..2]);
                if round % 16 == 0 {
                    let read = Message::from_vec(&out[..len]);
                    assert!(read.is_ok(), "{read:?} to {}", packet.escape_ascii());
                }
            }
            Fast::Slow { .. } => ends[1] += 1,
            Fast::Drop(_) => {
                ends[2] += 1;
                assert!(
                    packet.len() < 12 || packet[2] & 0x80 != 0,
                    "{}",
                    packet.escape_ascii()
                );
            }
        }
        if round % 10_000 == 0 {
            for (name, code) in [
                ("www.example.test.", ResponseCode::NoError),
                ("none.example.test.", ResponseCode::NXDomain),
                ("www.example.", ResponseCode::NoError),
                ("localhost.", ResponseCode::NoError),
            ] {
                let asked = query(9, name, RecordType::A);
                let fast = snapshot.fast(&asked, client, Transport::Udp, now, 0, out);
                let Fast::Respond { len, .. } = fast else {
                    panic!("{name}: {fast:?}");
                };
                let answer = Message::from_vec(&out[..len]).unwrap();
                assert_eq!(answer.metadata.response_code, code, "{name}");
            }
        }
    }
    assert!(ends.iter().all(|&count| count > 1_000), "{ends:?}");
}
