//! What clients get once a server is dead.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::harness::poll;

#[test]
fn stale_answer_comes_within_the_wait_and_then_at_once() {
    // So many that asking them all takes longer than a client is to wait.
    let at = [1, 2, 3, 4, 5].map(|n| Ipv4Addr::new(198, 18, 1, n));
    let dead = Arc::new(AtomicBool::new(false));
    let is_dead = Arc::clone(&dead);
    let own = zone("old.test.", at[0], &[String::from("www 2 A 192.0.2.1")]);
    let server = || {
        let is_dead = Arc::clone(&is_dead);
        Server::new(vec![own.clone()]).hook(move |_, reply| {
            if is_dead.load(Ordering::SeqCst) {
                *reply = None;
            }
        })
    };
    let more = at[1..].iter().zip(2..).flat_map(|(at, n)| {
        [
            format!("old 3600 NS ns{n}.old"),
            format!("ns{n}.old 3600 A {at}"),
        ]
    });
    let mut hosts = top(&[("old", at[0])], &more.collect::<Vec<_>>());
    hosts.extend(at.map(|at| Host::new(at, server())));
    beside(hosts, |_| {
        let node = node(None, "");
        assert_eq!(ask(&node, "www.old.test.", A).data, ["192.0.2.1"]);
        dead.store(true, Ordering::SeqCst);
        poll(Duration::from_secs(5), "the answer to expire", || {
            let held = node.control_json(&["cache", "lookup", "www.old.test."]);
            (held[0]["ttl"].as_i64()? < 0).then_some(())
        });
        let first = ask(&node, "www.old.test.", A);
        assert_eq!(first.data, ["192.0.2.1"], "{first:?}");
        assert!(first.time <= Duration::from_millis(1_800), "{first:?}");
        let mut times: Vec<Duration> = (0..100)
            .map(|_| {
                let said = ask(&node, "www.old.test.", A);
                assert_eq!(said.data, ["192.0.2.1"]);
                said.time
            })
            .collect();
        times.sort();
        eprintln!(
            "first {:?}, then median {:?}, 99 % within {:?}, slowest {:?}",
            first.time, times[50], times[98], times[99]
        );
        // One of the hundred is left to a machine that is busy with something else.
        assert!(times[98] <= Duration::from_millis(10), "{times:?}");
    });
}
