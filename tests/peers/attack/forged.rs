//! Replies by somebody else than the server asked.

use std::sync::Mutex;

use super::*;

const AT: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 1);

/// The address no honest server gives.
const FORGED: &str = "203.0.113.66";

/// A thousand replies with another address, as from one who sees neither id nor case of the query but knows all else.
fn forgeries(seed: &mut u64, honest: &[u8], end: usize) -> Vec<Vec<u8>> {
    let mut next = || {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed
    };
    let forge = |n: u64| {
        let mut forged = honest.to_vec();
        let at = forged
            .windows(4)
            .position(|octets| octets == [192, 0, 2, 1])
            .expect("the reply has the address");
        forged[at..at + 4].copy_from_slice(&[203, 0, 113, 66]);
        let draw = next();
        match n % 4 {
            // Another id, everything else right; as guessed, and as counted up from it.
            0 | 1 => {
                let id = u16::from_be_bytes([honest[0], honest[1]]);
                let other = id.wrapping_add(1 + (draw % 65_535) as u16);
                forged[..2].copy_from_slice(&other.to_be_bytes());
            }
            // The right id and another case: one letter is enough.
            2 => forged[13] ^= 0x20,
            // The right id and another question.
            _ => forged[end - 3] ^= 28,
        }
        forged
    };
    (0..1_000).map(forge).collect()
}

#[test]
fn right_reply_wins_over_a_thousand_forged_before_it() {
    let names: Vec<String> = (0..20).map(|n| format!("www{n}")).collect();
    let lines: Vec<String> = names
        .iter()
        .map(|n| format!("{n} 300 A 192.0.2.1"))
        .collect();
    let server = Server::new(vec![zone("good.test.", AT, &lines)]);
    let seed = Mutex::new(0x5EED);
    let host = Host::new(AT, server).rewrite(move |asked, honest| {
        if asked.qtype != A
            || !asked.name.starts_with(b"\x04www") && !asked.name.starts_with(b"\x05www")
        {
            return vec![honest];
        }
        let mut seed = seed.lock().expect("nobody panics with it");
        let mut all = forgeries(&mut seed, &honest, 12 + asked.spelled.len() + 4);
        all.push(honest);
        all
    });
    let mut hosts = top(&[("good", AT)], &[]);
    hosts.push(host);
    beside(hosts, |internet| {
        let node = node(None, "");
        for name in &names {
            let name = format!("{name}.good.test.");
            let said = ask(&node, &name, A);
            assert_eq!(
                (said.code, &*said.data),
                (ResponseCode::NoError, &[String::from("192.0.2.1")][..]),
                "{name}"
            );
            internet.take();
            // What is kept is right, too, and answers without asking.
            let again = ask(&node, &name, A);
            assert_eq!(again.data, said.data, "{name}");
            assert_eq!(internet.take().len(), 0, "{name}");
        }
        let held = node.control(&["cache", "lookup", "www0.good.test."]);
        held.assert_success();
        assert!(!held.stdout.contains(FORGED), "{}", held.stdout);
        let rejected = node.metric("headwater_resolver_upstream_rejected_total", &[]);
        assert!(
            rejected >= 19_000.0,
            "only {rejected} of 20,000 forged replies were seen"
        );
    });
}

#[test]
fn node_answers_after_five_thousand_mutated_replies_as_before() {
    // A quarter of them mutated.
    const REPLIES: usize = 20_000;
    let bad = Ipv4Addr::new(198, 18, 1, 2);
    let good = zone("good.test.", AT, &[String::from("www 300 A 192.0.2.1")]);
    let mut lines: Vec<String> = [
        "A 192.0.2.7",
        "TXT text",
        "MX 10 www",
        "CNAME www",
        "DNAME www",
        "NS www",
    ]
    .iter()
    .enumerate()
    .map(|(n, data)| format!("*.w{n} 300 {data}"))
    .collect();
    lines.push(String::from("www 300 A 192.0.2.7"));
    let seed = Mutex::new(0xBAD_5EED_u64);
    let host = Host::new(bad, Server::new(vec![zone("bad.test.", bad, &lines)]));
    let host = host.rewrite(move |_, mut reply| {
        let mut seed = seed.lock().expect("nobody panics with it");
        let mut below = |bound: usize| {
            *seed ^= *seed << 13;
            *seed ^= *seed >> 7;
            *seed ^= *seed << 17;
            (*seed % bound as u64) as usize
        };
        // Three of four are as they were: a server that says nothing of use three times in a row rests.
        if below(4) > 0 {
            return vec![reply];
        }
        for _ in 0..=below(3) {
            // The id stays, or nothing of it would be read.
            let at = 2 + below(reply.len() - 2);
            match below(5) {
                0 => reply[at] ^= 1 << below(8),
                1 => reply[at] = below(256) as u8,
                2 => reply[at] = [0, 1, 0x3F, 0x40, 0xC0, 0xFF][below(6)],
                3 if at > 40 => reply.truncate(at),
                _ => {
                    let tail = reply[at..].to_vec();
                    reply.extend_from_slice(&tail);
                }
            }
        }
        reply.truncate(4_000);
        vec![reply]
    });
    let mut hosts = top(&[("good", AT), ("bad", bad)], &[]);
    hosts.extend([Host::new(AT, Server::new(vec![good])), host]);
    beside(hosts, |internet| {
        let node = node(None, "");
        let client = Client::new(Ipv4Addr::new(127, 3, 0, 1), &node);
        let mut round = 0_u32;
        let begun = Instant::now();
        let mut replies = 0;
        while replies < REPLIES {
            assert!(
                begun.elapsed() < Duration::from_secs(400),
                "only {replies} replies"
            );
            for n in 0..32_u32 {
                let name = format!("x{round}-{n}.w{}.bad.test.", n % 6);
                client.send(n as u16, &name, [A, 16, 15, 28][round as usize % 4]);
            }
            for _ in 0..32 {
                if client.receive(Duration::from_millis(50)).is_none() {
                    break;
                }
            }
            round += 1;
            replies += internet.take().iter().filter(|seen| seen.at == bad).count();
            if round.is_multiple_of(16) {
                // What failed is remembered, and would not be asked again.
                node.control(&["cache", "flush", "--all"]).assert_success();
            }
        }
        let said = ask(&node, "www.good.test.", A);
        assert_eq!(said.data, ["192.0.2.1"], "{said:?}");
        let log = std::fs::read_to_string(node.path("log")).expect("the node has a log");
        assert!(!log.contains("panicked"), "{log}");
    });
}
