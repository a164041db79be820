//! What a forger would have to guess: ports, ids and the case of names.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const CLIENTS: usize = 4;
const QUERIES: usize = 2_048;

/// Sum of squared deviations from equal shares over what is expected (Pearson): near `counts.len() - 1` when all is chance.
fn chi_square(counts: &[usize]) -> f64 {
    let expected = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
    let deviation = |&count: &usize| (count as f64 - expected).powi(2) / expected;
    counts.iter().map(deviation).sum()
}

/// Panics unless numbers from `least` to 65,535 look drawn by chance over `buckets` equal parts: beyond the bound one run in
/// a million would be.
#[track_caller]
fn assert_chance(what: &str, numbers: &[u16], least: u16, buckets: usize) {
    let mut counts = vec![0; buckets];
    let range = 65_536 - usize::from(least);
    for &number in numbers {
        assert!(number >= least, "{what}: {number}");
        counts[usize::from(number - least) * buckets / range] += 1;
    }
    let freedom = (buckets - 1) as f64;
    // Wilson and Hilferty's approximation, at 4.75 standard deviations.
    let part = 2.0 / (9.0 * freedom);
    let bound = freedom * (1.0 - part + 4.75 * part.sqrt()).powi(3);
    let found = chi_square(&counts);
    assert!(
        found < bound,
        "{what}: chi-square {found:.0}, at most {bound:.0} of {} numbers: {counts:?}",
        numbers.len()
    );
}

#[test]
fn chi_square_tells_counters_from_chance() {
    let counter: Vec<u16> = (0..4_096).collect();
    let caught = std::panic::catch_unwind(|| assert_chance("a counter", &counter, 0, 64));
    assert!(caught.is_err());
    // Half of the range, as the kernel's own ports are.
    let half: Vec<u16> = (0..4_096).map(|n| 32_768 + n * 7).collect();
    let caught = std::panic::catch_unwind(|| assert_chance("half", &half, 1_024, 16));
    assert!(caught.is_err());
    let spread: Vec<u16> = (0..4_096_u32)
        .map(|n| (n * 40_503 % 65_536) as u16)
        .collect();
    assert_chance("spread evenly", &spread, 0, 64);
}

#[test]
fn ports_ids_and_case_are_random_over_their_whole_range_for_every_thread() {
    let at = Ipv4Addr::new(198, 18, 1, 1);
    let mut hosts = top(&[("big", at)], &[]);
    let big = zone(
        "big.test.",
        at,
        &[String::from("*.abcdefgh 300 A 192.0.2.1")],
    );
    hosts.push(Host::new(at, Server::new(vec![big])));
    beside(hosts, |internet| {
        let config = COMMON.replace("[dns]\n", "[dns]\nworkers = 4\n");
        let mut node = node(None, "");
        node.stop();
        node.configure(&format!(
            "{config}\n[resolver]\nmode = \"recursive\"\nroot_hints = \"@DIR@/hints\"\ndnssec = false\n\
             special_use_names = false\n"
        ));
        node.start();
        ask(&node, "first.abcdefgh.big.test.", A);
        internet.take();
        let node = &node;
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                scope.spawn(move || flow(node, client));
            }
        });
        let mut by_client: BTreeMap<u8, Vec<Seen>> = BTreeMap::new();
        for seen in internet.take() {
            // The name begins with the client's digit.
            if seen.at == at && seen.asked.name[1].is_ascii_digit() {
                by_client.entry(seen.asked.name[1]).or_default().push(seen);
            }
        }
        assert_eq!(by_client.len(), CLIENTS);
        let mut all_ports = BTreeSet::new();
        for (client, seen) in &by_client {
            assert!(seen.len() >= QUERIES / 10 * 9, "{}", seen.len());
            let ids: Vec<u16> = seen
                .iter()
                .map(|s| u16::from_be_bytes(s.asked.id))
                .collect();
            assert_chance(&format!("ids of client {client}"), &ids, 0, 64);
            // Nor do they follow from those before.
            let steps: Vec<u16> = ids.windows(2).map(|w| w[1].wrapping_sub(w[0])).collect();
            assert_chance(
                &format!("steps between ids of client {client}"),
                &steps,
                0,
                64,
            );
            let ports: BTreeSet<u16> = seen.iter().map(|s| s.from.port()).collect();
            assert!(
                ports.len() >= 80,
                "client {client} saw {} ports",
                ports.len()
            );
            let ports: Vec<u16> = ports.into_iter().collect();
            assert_chance(&format!("ports of client {client}"), &ports, 1_024, 16);
            all_ports.extend(ports);
            // Each of the letters of the zone stands for itself.
            for letter in 0..8 {
                let upper = |seen: &&Seen| {
                    let from = seen.asked.spelled.len() - b"\x08abcdefgh\x03big\x04test\0".len();
                    seen.asked.spelled[from + 1 + letter].is_ascii_uppercase()
                };
                let upper = seen.iter().filter(upper).count() as f64 / seen.len() as f64;
                // As above, 4.75 standard deviations: at 3.6 one run in a hundred has such a letter by chance.
                let bound = 4.75 * 0.5 / (seen.len() as f64).sqrt();
                assert!((upper - 0.5).abs() < bound, "letter {letter}: {upper}");
            }
        }
        let (least, most) = (all_ports.first().copied(), all_ports.last().copied());
        assert!(
            least < Some(3_072) && most > Some(63_488),
            "{least:?} to {most:?}"
        );
    });
}

/// Asks for [`QUERIES`] names from one socket, so that one thread has them all, 16 at once.
fn flow(node: &Node, number: usize) {
    let client = Client::new(Ipv4Addr::new(127, 9, number as u8, 1), node);
    let mut sent = 0;
    let mut waiting = 0_usize;
    while sent < QUERIES || waiting > 0 {
        while sent < QUERIES && waiting < 16 {
            client.send(
                sent as u16,
                &format!("{number}x{sent}.abcdefgh.big.test."),
                A,
            );
            sent += 1;
            waiting += 1;
        }
        // What was asked is counted at the server; on a busy machine some of it may fail.
        let answer = client.receive(Duration::from_secs(8));
        answer.expect("every query is answered");
        waiting -= 1;
    }
}
