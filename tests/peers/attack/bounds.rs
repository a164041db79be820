//! What one client query may cost, however the zones it meets are made.

use super::*;

const VICTIM: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 1);

#[test]
fn referral_with_a_thousand_glueless_names_costs_at_most_twenty_packets() {
    let lines: Vec<String> = (0..1_000)
        .map(|n| format!("bomb 3600 NS n{n}.victim.test."))
        .collect();
    let mut hosts = top(&[("victim", VICTIM)], &lines);
    let victim = zone("victim.test.", VICTIM, &[]);
    hosts.push(Host::new(VICTIM, Server::new(vec![victim])));
    beside(hosts, |internet| {
        let node = node(None, "");
        for name in ["www.bomb.test.", "mail.bomb.test."] {
            internet.take();
            let said = ask(&node, name, A);
            let seen = internet.take();
            assert_eq!(said.code, ResponseCode::ServFail, "{name}");
            assert!(seen.len() <= 20, "{name}: {} {seen:?}", seen.len());
            // The referral was read, and some of its names looked up.
            assert!(seen.iter().any(|seen| seen.at == VICTIM) || name.starts_with("mail"));
        }
    });
}

/// One way to make a name expensive.
#[derive(Clone, Copy, Debug)]
struct Composition {
    number: u8,
    aliases: u8,
    dead: Dead,
    signed: bool,
}

/// Which name servers are silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dead {
    None,
    /// All but one of each zone.
    Most,
    /// Those of the last zone.
    Last,
}

impl Composition {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for aliases in [0, 4, 11] {
            for dead in [Dead::None, Dead::Most, Dead::Last] {
                for signed in [false, true] {
                    let number = u8::try_from(all.len()).expect("some");
                    all.push(Self {
                        number,
                        aliases,
                        dead,
                        signed,
                    });
                }
            }
        }
        all
    }

    fn tld(self) -> String {
        format!("c{}", self.number)
    }

    fn at(self, zone: u8, server: u8) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, 32 + self.number, 10 + zone * 8 + server)
    }

    /// Where its top-level domain is.
    fn top(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, 32 + self.number, 250)
    }

    /// The zone of its own top-level domain and the hosts beneath.
    fn build(self, now: u64) -> (Zone, Vec<Host>) {
        let tld = self.tld();
        let mut lines = Vec::new();
        let mut zones = Vec::new();
        let mut hosts = Vec::new();
        for n in 0..=self.aliases {
            let silent = match self.dead {
                Dead::None => 0,
                Dead::Most => 4,
                Dead::Last if n == self.aliases => 5,
                Dead::Last => 0,
            };
            for server in 0..5 {
                lines.push(format!("z{n} 3600 NS ns{server}.z{n}"));
                lines.push(format!("ns{server}.z{n} 3600 A {}", self.at(n, server)));
            }
            let own = if n == self.aliases {
                String::from("www 300 A 192.0.2.1")
            } else {
                format!("www 300 CNAME www.z{}.{tld}.", n + 1)
            };
            let zone = zone(&format!("z{n}.{tld}."), self.at(n, 0), &[own]);
            let zone = if self.signed {
                zone.sign(Signing::at(100 + n, now).nsec3(0, false))
            } else {
                zone
            };
            for server in 0..5 {
                let server_is = if server < silent {
                    Server::dead()
                } else {
                    Server::new(vec![zone.clone()])
                };
                hosts.push(Host::new(self.at(n, server), server_is));
            }
            zones.push(zone);
        }
        let at = self.top();
        let mut own = zone(&format!("{tld}."), at, &lines);
        for zone in &zones {
            own.delegate_securely(zone);
        }
        if self.signed {
            own = own.sign(Signing::at(99, now).nsec3(0, false));
        }
        hosts.push(Host::new(at, Server::new(vec![own.clone()])));
        (own, hosts)
    }
}

#[test]
fn aliases_times_dead_servers_times_validation_cost_at_most_fifty_packets_and_five_seconds() {
    let (now, all) = (unix(), Composition::all());
    let mut hosts = Vec::new();
    let mut tlds = Vec::new();
    let names: Vec<String> = all.iter().map(|made| made.tld()).collect();
    let children = names.iter().zip(&all).map(|(n, made)| (&**n, made.top()));
    let mut root = root(&children.collect::<Vec<_>>());
    for composition in &all {
        let (tld, its) = composition.build(now);
        tlds.push(tld);
        hosts.extend(its);
    }
    for tld in &tlds {
        root.delegate_securely(tld);
    }
    let signing = Signing::at(1, now);
    let anchor = signing.ds(&[0]);
    hosts.push(Host::new(ROOT, Server::new(vec![root.sign(signing)])));
    beside(hosts, |internet| {
        let mut costs = String::new();
        let mut over = Vec::new();
        for composition in &all {
            // Each by one that knows nothing yet.
            let node = node(Some(&anchor), "");
            internet.take();
            let said = ask(&node, &format!("www.z0.{}.", composition.tld()), A);
            let packets = internet.take().len();
            let line = format!(
                "{composition:?}: {packets} packets, {:?}, {}",
                said.time, said.code
            );
            writeln!(costs, "{line}").expect("a String takes all");
            if packets > 50 || said.time > Duration::from_secs(5) {
                over.push(line.clone());
            }
            let resolved = said.code == ResponseCode::NoError;
            let must =
                composition.dead == Dead::None && (composition.aliases < 11 || !composition.signed);
            let cannot = composition.dead == Dead::Last;
            if must && !resolved || cannot && resolved {
                over.push(line);
            }
        }
        eprintln!("{costs}");
        assert!(over.is_empty(), "{over:#?}\nof\n{costs}");
    });
}

#[test]
fn alias_chain_of_eleven_resolves_and_loops_and_seventeen_end_within_a_second() {
    // Within one zone, and from zone to zone.
    let at = [Ipv4Addr::new(198, 18, 1, 1), Ipv4Addr::new(198, 18, 1, 2)];
    let mut lines = [Vec::new(), Vec::new()];
    for n in 0..17 {
        lines[0].push(format!("in{n} 300 CNAME in{}", n + 1));
        let (here, there) = (n % 2, ["two", "one"][n % 2]);
        lines[here].push(format!("out{n} 300 CNAME out{}.{there}.test.", n + 1));
    }
    lines[0].push(String::from("in17 300 A 192.0.2.1"));
    lines[1].push(String::from("out17 300 A 192.0.2.2"));
    lines[0].push(String::from("self 300 CNAME self"));
    lines[0].push(String::from("pair 300 CNAME pair.two.test."));
    lines[1].push(String::from("pair 300 CNAME pair.one.test."));
    lines[0].push(String::from("grow 300 DNAME grow.grow"));
    let mut hosts = top(&[("one", at[0]), ("two", at[1])], &[]);
    for (n, apex) in ["one.test.", "two.test."].into_iter().enumerate() {
        let zone = zone(apex, at[n], &lines[n]);
        hosts.push(Host::new(at[n], Server::new(vec![zone])));
    }
    beside(hosts, |internet| {
        let node = node(None, "");
        for (name, address) in [
            ("in6.one.test.", "192.0.2.1"),
            ("out6.one.test.", "192.0.2.2"),
        ] {
            let said = ask(&node, name, A);
            assert_eq!(said.code, ResponseCode::NoError, "{name}");
            assert_eq!(said.data.len(), 12, "{name}: {:?}", said.data);
            assert_eq!(said.data.last().map(String::as_str), Some(address));
        }
        for name in [
            "in0.one.test.",
            "out0.one.test.",
            "self.one.test.",
            "pair.one.test.",
            "x.grow.one.test.",
        ] {
            internet.take();
            let said = ask(&node, name, A);
            assert_eq!(said.code, ResponseCode::ServFail, "{name}");
            assert!(said.time <= Duration::from_secs(1), "{name}: {said:?}");
            assert!(internet.take().len() <= 50, "{name}");
        }
        let stopped = node.metric(
            "headwater_resolver_limit_hits_total",
            &[("limit", "aliases")],
        );
        assert!(stopped >= 5.0, "{stopped}");
    });
}

#[test]
fn five_hundred_clients_with_one_question_are_one_upstream_query() {
    let at = Ipv4Addr::new(198, 18, 1, 1);
    let mut hosts = top(&[("slow", at)], &[]);
    let slow = zone("slow.test.", at, &[String::from("www 300 A 192.0.2.1")]);
    let late = Duration::from_millis(700);
    hosts.push(Host::new(at, Server::new(vec![slow])).late(late));
    beside(hosts, |internet| {
        let node = node(None, "");
        // The way there is known.
        ask(&node, "other.slow.test.", A);
        internet.take();
        let clients: Vec<Client> = (0..500_u16)
            .map(|n| {
                let [high, low] = n.to_be_bytes();
                Client::new(Ipv4Addr::new(127, 1 + low % 50, high, 1 + low / 2), &node)
            })
            .collect();
        for (id, client) in (0_u16..).zip(&clients) {
            client.send(id, "www.slow.test.", A);
        }
        for (id, client) in (0_u16..).zip(&clients) {
            let answer = client.receive(Duration::from_secs(8));
            let (found, message) = answer.unwrap_or_else(|| panic!("client {id} got no answer"));
            assert_eq!(found, id);
            assert_eq!(message.response_code, ResponseCode::NoError, "client {id}");
            assert_eq!(message.answers.len(), 1);
        }
        let name = internet::name("www.slow.test.");
        let seen = internet.take();
        let asked = seen.iter().filter(|seen| seen.asked.name == name).count();
        assert_eq!((asked, seen.len()), (1, 1), "{seen:?}");
    });
}
