//! Three mirrors and their origin, each in a network namespace of its own on a shaped link, that find each other by one way alone:
//! `tests/swarm/figures.sh` at a reduced size.

use std::path::Path;
use std::process::Command;

use super::harness::{run, tool};

/// Runs the script on links of `rate` Mbit/s; what the origin sent must stay below this many times the object (three mirrors alone:
/// 3), and every mirror has known the two others and the origin. Not each has bytes of the others: one that is ahead with all
/// chunks has none to take. `told`: they know where the origin is, else only its key.
#[track_caller]
fn check(way: &str, told: bool, size_mib: u32, rate: u32, most: f64) {
    for name in ["ip", "tc", "curl", "bc"] {
        tool(name);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/swarm/figures.sh");
    let mut command = Command::new("bash");
    command
        .arg(script)
        .arg(env!("CARGO_BIN_EXE_headwater"))
        .env("DISCOVER", way)
        .env("KEY", if told { "0" } else { "1" })
        .env("SIZE", size_mib.to_string())
        .env("RATE", rate.to_string());
    let output = run(&mut command);
    output.assert_success();
    let said = &output.stdout;
    let mirrors: Vec<&str> = said.lines().filter(|l| l.starts_with("node ")).collect();
    assert_eq!(mirrors.len(), 3, "{said}");
    for mirror in mirrors {
        assert!(mirror.contains(" found 3,"), "{said}");
    }
    let sent = said
        .lines()
        .find_map(|line| line.strip_prefix("the origin sent:"));
    let times: f64 = sent
        .and_then(|sent| sent.trim().rsplit_once(" B, ")?.1.strip_suffix(" x"))
        .and_then(|times| times.parse().ok())
        .unwrap_or_else(|| panic!("no figure in: {said}"));
    println!("{way}: the origin sent {times} x");
    assert!(times < most, "{way}: the origin sent {times} x\n{said}");
}

#[test]
fn mirrors_on_one_network_find_each_other_and_spare_the_origin() {
    check("lan", true, 32, 100, 2.0);
}

#[test]
fn mirrors_on_one_network_that_know_but_a_key_find_whose_it_is() {
    check("lan", false, 32, 100, 2.0);
}

#[test]
fn mirrors_that_meet_in_a_dht_find_each_other_and_spare_the_origin() {
    // Meeting takes two to four seconds, and twice that where other tests share the cores.
    check("dht", true, 48, 50, 2.2);
}
