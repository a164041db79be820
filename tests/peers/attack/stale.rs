//! What clients get once a server is dead.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::harness::poll;

#[test]
fn stale_answer_comes_within_the_wait_and_then_at_once() {
    let at = Ipv4Addr::new(198, 18, 1, 1);
    let dead = Arc::new(AtomicBool::new(false));
    let is_dead = Arc::clone(&dead);
    let own = zone("old.test.", at, &[String::from("www 2 A 192.0.2.1")]);
    let server = Server::new(vec![own]).hook(move |_, reply| {
        if is_dead.load(Ordering::SeqCst) {
            *reply = None;
        }
    });
    let mut hosts = top(&[("old", at)], &[]);
    hosts.push(Host::new(at, server));
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
        assert!(first.time <= Duration::from_millis(1_850), "{first:?}");
        let mut times: Vec<Duration> = (0..100)
            .map(|_| {
                let said = ask(&node, "www.old.test.", A);
                assert_eq!(said.data, ["192.0.2.1"]);
                said.time
            })
            .collect();
        times.sort();
        // The slower half is for a machine that is busy with something else.
        assert!(times[50] <= Duration::from_millis(10), "{times:?}");
    });
}
