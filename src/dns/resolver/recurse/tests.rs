//! Recursion over an Internet in memory: what is asked of whom, what is believed, what it costs.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hickory_proto::op::{Message, ResponseCode};

use self::internet::{Asked, Server, Zone, rec};
use super::super::budget::Budget;
use super::super::forward::{Avoid, Unanswered};
use super::super::key::Parts;
use super::super::partition::{Partition, Partitions};
use super::super::testing::START;
use super::net::{Net, Outlook, Silence};
use super::response::Response;
use super::trouble::Trouble;
use super::*;
use crate::metrics::Metrics;
use crate::time::Now;

#[path = "../../../../tests/support/internet.rs"]
pub(in super::super) mod internet;

/// An Internet without sockets; waiting moves its clock.
pub(in super::super) struct Memory {
    servers: HashMap<IpAddr, Server>,
    mono_ns: AtomicU64,
    asked: Mutex<Vec<(IpAddr, Asked)>>,
    silences: Mutex<HashMap<IpAddr, u32>>,
    /// What becomes of replies on their way.
    garble: Mutex<Option<Garble>>,
    /// Whether other errands go on while one has asked.
    takes_turns: AtomicBool,
    /// By partition: resolvers that are asked instead, the fastest first; and those that pass on no signatures.
    upstreams: HashMap<u16, Vec<Made>>,
    stripping: Vec<u16>,
}

type Garble = Box<dyn FnMut(&mut Vec<u8>) + Send>;

impl Net for Memory {
    fn now(&self) -> Now {
        START.plus(Duration::from_nanos(self.mono_ns.load(Ordering::Relaxed)))
    }

    fn dice(&self) -> u64 {
        7
    }

    fn outlook(&self, server: IpAddr, _: Now) -> Outlook {
        match self.silences.lock().unwrap().get(&server) {
            Some(3..) => Outlook::Rests,
            _ => Outlook::Ask(Duration::from_millis(400)),
        }
    }

    async fn ask(
        &self,
        server: IpAddr,
        _zone: &[u8],
        (name, qtype): (&[u8], u16),
        budget: &Budget,
        until: Now,
    ) -> Result<Vec<u8>, Silence> {
        budget.charge_packet().map_err(|_| Silence::Spent)?;
        if self.takes_turns.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        let asked = Asked {
            id: [0; 2],
            spelled: name.to_vec(),
            name: name.to_vec(),
            qtype,
            dnssec_ok: true,
            recursion_desired: false,
        };
        let reply = self.servers.get(&server).and_then(|s| s.reply(&asked));
        self.asked.lock().unwrap().push((server, asked));
        let Some(mut reply) = reply else {
            self.pass(until.since(self.now()));
            *self.silences.lock().unwrap().entry(server).or_default() += 1;
            return Err(Silence::Silent);
        };
        self.pass(Duration::from_millis(10));
        if let Some(garble) = &mut *self.garble.lock().unwrap() {
            garble(&mut reply);
        }
        Ok(reply)
    }

    async fn forward(
        &self,
        partition: Partition,
        (name, qtype): (&[u8], u16),
        avoid: Avoid,
        budget: &Budget,
    ) -> Result<(Response, u8), Unanswered> {
        let upstreams = self.upstreams.get(&partition.0);
        let upstreams = upstreams.ok_or(Unanswered::Nobody)?;
        let first = |bits: u64| (0..upstreams.len()).find(|place| bits >> place & 1 == 0);
        let place = first(avoid.never | avoid.last).or_else(|| first(avoid.never));
        let place = place.ok_or(Unanswered::Nobody)?;
        let upstream = &upstreams[place];
        budget.charge_packet().map_err(|_| Unanswered::Exhausted)?;
        let asked = Asked {
            id: [0; 2],
            spelled: name.to_vec(),
            name: name.to_vec(),
            qtype,
            dnssec_ok: true,
            recursion_desired: true,
        };
        let place = u8::try_from(place).unwrap();
        let at = IpAddr::from([0, 0, place, u8::try_from(partition.0).unwrap()]);
        self.asked.lock().unwrap().push((at, asked));
        self.pass(Duration::from_millis(10));
        let question = Parts {
            name,
            qtype,
            dnssec_ok: !self.stripping.contains(&partition.0),
            checking_disabled: true,
            partition: Partition(0),
        };
        // It has a budget of its own, as others have.
        let budget = Budget::new(
            50,
            upstream
                .recursor
                .world
                .net
                .now()
                .plus(Duration::from_secs(5)),
        );
        let fetched = upstream.recursor.fetch(question, &budget);
        // A resolver within a resolver: its type would be without end.
        let fetched: BoxFuture<'_, _> = Box::pin(fetched);
        let fetched = fetched.await.map_err(|_| Unanswered::Nobody)?;
        let response = Response::read(&fetched.message, name, qtype);
        response
            .map(|response| (response, place))
            .ok_or(Unanswered::Nobody)
    }

    async fn wait<T: Send>(&self, coming: impl Future<Output = T> + Send, _: Now) -> Option<T> {
        Some(coming.await)
    }
}

impl Memory {
    fn pass(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap();
        self.mono_ns.fetch_add(ns, Ordering::Relaxed);
    }
}

/// A recursor over such an Internet.
pub(in super::super) struct Made {
    pub(in super::super) recursor: Recursor<Memory>,
    pub(in super::super) metrics: Metrics,
}

pub(in super::super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl Made {
    /// The root is at 192.0.2.1.
    pub(in super::super) fn new(servers: Vec<(&str, Server)>) -> Self {
        Self::with(servers, |_| {})
    }

    pub(in super::super) fn with(
        servers: Vec<(&str, Server)>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        Self::behind(servers, Vec::new(), &[], change)
    }

    /// With upstreams for forward zones (".": for all names beneath no other), of which several of one zone come in the order they are asked
    /// in; `stripping` are the zones whose upstreams pass on no signatures.
    pub(in super::super) fn behind(
        servers: Vec<(&str, Server)>,
        upstreams: Vec<(&str, Made)>,
        stripping: &[&str],
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = config();
        change(&mut config);
        let metrics = Metrics::new();
        let zones: Vec<_> = (upstreams.iter().map(|(zone, _)| *zone))
            .filter(|zone| *zone != ".")
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .map(|zone| Box::from(internet::name(zone)))
            .collect();
        let routes = Arc::new(Partitions::new(zones).unwrap());
        let partition = |zone: &str| routes.find(&internet::name(zone)).0;
        let memory = Memory {
            stripping: stripping.iter().map(|zone| partition(zone)).collect(),
            upstreams: upstreams
                .into_iter()
                .fold(HashMap::new(), |mut all, (zone, made)| {
                    let of_zone: &mut Vec<Made> = all.entry(partition(zone)).or_default();
                    of_zone.push(made);
                    all
                }),
            servers: servers.into_iter().map(|(at, s)| (ip(at), s)).collect(),
            mono_ns: AtomicU64::new(0),
            asked: Mutex::default(),
            silences: Mutex::default(),
            garble: Mutex::default(),
            takes_turns: AtomicBool::new(false),
        };
        Self {
            recursor: Recursor::new(memory, config, routes, &metrics),
            metrics,
        }
    }

    /// A resolver that asks this one for everything, and validates by the same settings.
    pub(in super::super) fn forwarding(self, stripping: bool) -> Self {
        let dnssec = self.recursor.world.config.dnssec.clone();
        let stripping: &[&str] = if stripping { &["."] } else { &[] };
        Self::behind(Vec::new(), vec![(".", self)], stripping, |config| {
            config.from_root = false;
            config.forwards = true;
            config.dnssec = dnssec;
        })
    }

    /// Resolves with a full budget of 50 packets and 5 s; also how many packets it took and how long.
    pub(in super::super) fn resolve(&self, name: &str, qtype: u16) -> Outcome {
        self.ask(name, qtype, false)
    }

    pub(in super::super) fn ask(&self, name: &str, qtype: u16, checking_disabled: bool) -> Outcome {
        let net = &self.recursor.world.net;
        let began = net.now();
        let before = net.asked.lock().unwrap().len();
        let budget = Budget::new(50, began.plus(Duration::from_secs(5)));
        let wire = internet::name(name);
        let question = Parts {
            name: &wire,
            qtype,
            dnssec_ok: true,
            checking_disabled,
            partition: self.recursor.world.routes.find(&wire),
        };
        let result = block_on(self.recursor.fetch(question, &budget));
        Outcome {
            onward: (result.as_ref().ok())
                .and_then(|fetched| fetched.onward.as_ref())
                .map(|(name, _)| internet::text(name)),
            answer: result.and_then(|fetched| match Message::from_vec(&fetched.message) {
                Ok(message) => Ok(message),
                // RDATA of types that are passed on unread may be anything.
                Err(_) if net.garble.lock().unwrap().is_some() => {
                    Err(Trouble::Unreachable(Dname::root()))
                }
                Err(error) => panic!("{name}: {error}"),
            }),
            packets: net.asked.lock().unwrap().len() - before,
            time: net.now().since(began),
        }
    }

    /// Resolves all `names` at once, each on 50 packets and 60 s of its own; what became of each, in order.
    fn resolve_at_once(&self, names: &[String], qtype: u16) -> Vec<Result<(), Trouble>> {
        let net = &self.recursor.world.net;
        net.takes_turns.store(true, Ordering::Relaxed);
        let until = net.now().plus(Duration::from_secs(60));
        let errands = names.iter().map(|name| async move {
            let wire = internet::name(name);
            let question = Parts {
                name: &wire,
                qtype,
                dnssec_ok: true,
                checking_disabled: false,
                partition: Partition(0),
            };
            let fetched = self.recursor.fetch(question, &Budget::new(50, until)).await;
            fetched.map(|_| ())
        });
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let all = futures_util::future::join_all(errands);
        runtime.enable_time().build().unwrap().block_on(async {
            tokio::time::timeout(Duration::from_secs(30), all)
                .await
                .expect("errands do not wait for each other")
        })
    }

    /// From now on replies are changed at random, by the dice of `seed`: octets, ends, and records put twice.
    pub(in super::super) fn garble(&self, seed: u64) {
        let mut state = seed;
        let mut roll = move |bound: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            usize::try_from(state >> 33).unwrap() % bound.max(1)
        };
        let garble: Garble = Box::new(move |reply| {
            for _ in 0..roll(4) {
                let at = roll(reply.len());
                match roll(8) {
                    0 => reply.truncate(at),
                    1 => reply.extend_from_within(at..),
                    2 if reply.len() > 12 => reply[2 + roll(10)] ^= 1 << roll(8),
                    _ if !reply.is_empty() => reply[at] = u8::try_from(roll(256)).unwrap(),
                    _ => {}
                }
            }
        });
        *self.recursor.world.net.garble.lock().unwrap() = Some(garble);
    }

    pub(in super::super) fn pass(&self, secs: u64) {
        self.recursor.world.net.pass(Duration::from_secs(secs));
    }

    /// What was asked of the server at `at`, in order.
    pub(in super::super) fn asked(&self, at: &str) -> Vec<String> {
        let asked = self.recursor.world.net.asked.lock().unwrap();
        asked
            .iter()
            .filter(|(server, _)| *server == ip(at))
            .map(|(_, asked)| format!("{} {}", internet::text(&asked.name), asked.qtype))
            .collect()
    }
}

#[derive(Debug)]
pub(in super::super) struct Outcome {
    pub(in super::super) answer: Result<Message, Trouble>,
    pub(in super::super) packets: usize,
    pub(in super::super) time: Duration,
    /// Where its aliases lead, if that is into another partition.
    pub(in super::super) onward: Option<String>,
}

impl Outcome {
    /// The answer section's data as text, signatures left out.
    #[track_caller]
    pub(in super::super) fn data(&self) -> Vec<String> {
        let message = self.answer.as_ref().expect("an answer");
        message
            .answers
            .iter()
            .filter(|record| u16::from(record.record_type()) != internet::RRSIG)
            .map(|record| format!("{} {}", record.record_type(), record.data))
            .collect()
    }

    #[track_caller]
    pub(in super::super) fn rcode(&self) -> ResponseCode {
        self.answer.as_ref().expect("an answer").response_code
    }

    #[track_caller]
    pub(in super::super) fn trouble(&self) -> &Trouble {
        self.answer.as_ref().expect_err("no answer")
    }

    #[track_caller]
    pub(in super::super) fn authentic(&self) -> bool {
        self.answer.as_ref().expect("an answer").authentic_data
    }

    /// The least TTL of the answer section.
    #[track_caller]
    pub(in super::super) fn ttl(&self) -> u32 {
        let message = self.answer.as_ref().expect("an answer");
        message
            .answers
            .iter()
            .map(|record| record.ttl)
            .min()
            .unwrap()
    }
}

/// Nothing here ever waits.
pub(in super::super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    match future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the Internet in memory does not wait"),
    }
}

pub(in super::super) fn config() -> Config {
    Config {
        hints: Hints::parse(". NS ns.root.\nns.root. A 192.0.2.1\n").unwrap(),
        qname_minimisation: true,
        families: Families {
            ip4: true,
            ip6: false,
        },
        deny_servers: vec!["127.0.0.0/8".parse().unwrap()],
        port: 53,
        size: 16 << 20,
        depth: 12,
        waiters: 1_000,
        aliases: 11,
        glueless: 5,
        name_servers: 13,
        from_root: true,
        forwards: false,
        dnssec: None,
        max_ttl: Duration::from_secs(86_400),
        negative_max_ttl: Duration::from_secs(3_600),
    }
}

pub(in super::super) fn root(lines: &[&str]) -> Zone {
    let own = ["@ 86400 NS ns.root.", "ns.root. 86400 A 192.0.2.1"];
    Zone::new(".", &[&own[..], lines].concat())
}

/// A zone with a server of its own.
pub(in super::super) fn zone(apex: &str, lines: &[&str]) -> Zone {
    Zone::new(apex, &[&["@ 3600 NS ns"][..], lines].concat())
}

/// Root, `test.` at 192.0.2.2 and `example.test.` at 192.0.2.3 with `lines`.
fn small(lines: &[&str]) -> Vec<(&'static str, Server)> {
    vec![
        (
            "192.0.2.1",
            Server::new(vec![root(&[
                "test. 7200 NS ns.test.",
                "ns.test. 7200 A 192.0.2.2",
            ])]),
        ),
        (
            "192.0.2.2",
            Server::new(vec![zone(
                "test.",
                &[
                    "ns 3600 A 192.0.2.2",
                    "example 600 NS ns.example",
                    "ns.example 600 A 192.0.2.3",
                ],
            )]),
        ),
        (
            "192.0.2.3",
            Server::new(vec![zone(
                "example.test.",
                &[&["ns 3600 A 192.0.2.3"][..], lines].concat(),
            )]),
        ),
    ]
}

const A: u16 = internet::A;

#[test]
fn name_is_found_from_the_root_and_each_server_sees_only_what_it_needs() {
    let made = Made::new(small(&["a.b.www 300 A 198.51.100.1"]));
    let outcome = made.resolve("a.b.www.example.test.", A);
    assert_eq!(outcome.data(), ["A 198.51.100.1"]);
    assert_eq!(made.asked("192.0.2.1"), [". 2", "test. 1"]);
    assert_eq!(made.asked("192.0.2.2"), ["example.test. 1"]);
    assert_eq!(
        made.asked("192.0.2.3"),
        [
            "www.example.test. 1",
            "b.www.example.test. 1",
            "a.b.www.example.test. 1"
        ]
    );
    let again = made.resolve("a.b.www.example.test.", A);
    assert_eq!((again.packets, again.data()), (0, outcome.data()));
}

/// Questions at once, none of which has been asked before, need one look-up of what they have in common.
#[test]
fn questions_that_need_one_delegation_look_it_up_once() {
    for minimised in [true, false] {
        let lines: Vec<String> = (0..40)
            .map(|n| format!("w{n} 300 A 198.51.100.1"))
            .collect();
        let lines: Vec<&str> = lines.iter().map(|line| &**line).collect();
        let made = Made::with(small(&lines), |config| {
            config.qname_minimisation = minimised;
        });
        let names: Vec<_> = (0..40).map(|n| format!("w{n}.example.test.")).collect();
        let all = made.resolve_at_once(&names, A);
        assert!(all.iter().all(Result::is_ok), "{all:?}");
        let counts = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|at| made.asked(at).len());
        assert_eq!(counts, [2, 1, 40], "minimised: {minimised}");
    }
}

#[test]
fn questions_that_need_the_address_of_one_server_look_it_up_once() {
    let mut servers = small(&["ns2 300 A 192.0.2.4"]);
    let mut lines = vec![
        String::from("ns 3600 A 192.0.2.2"),
        String::from("example 600 NS ns.example"),
    ];
    lines.push(String::from("ns.example 600 A 192.0.2.3"));
    lines.push(String::from("glueless 600 NS ns2.example"));
    let lines: Vec<&str> = lines.iter().map(|line| &**line).collect();
    servers[1].1 = Server::new(vec![zone("test.", &lines)]);
    let own: Vec<String> = (0..40)
        .map(|n| format!("w{n} 300 A 198.51.100.1"))
        .collect();
    let own: Vec<&str> = own.iter().map(|line| &**line).collect();
    servers.push(("192.0.2.4", Server::new(vec![zone("glueless.test.", &own)])));
    let made = Made::new(servers);
    let names: Vec<_> = (0..40).map(|n| format!("w{n}.glueless.test.")).collect();
    let all = made.resolve_at_once(&names, A);
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(made.asked("192.0.2.3"), ["ns2.example.test. 1"]);
    assert_eq!(made.asked("192.0.2.4").len(), 40);
}

#[test]
fn errands_whose_servers_lie_in_each_others_zones_end() {
    let mut servers = small(&[]);
    servers[1].1 = Server::new(vec![zone(
        "test.",
        &[
            "ns 3600 A 192.0.2.2",
            "a 600 NS ns.b",
            "b 600 NS ns.c",
            "c 600 NS ns.a",
        ],
    )]);
    let made = Made::new(servers);
    let names: Vec<_> = (0..30)
        .map(|n| format!("w{n}.{}.test.", ["a", "b", "c"][n % 3]))
        .collect();
    let all = made.resolve_at_once(&names, A);
    assert!(
        all.iter()
            .all(|ended| matches!(ended, Err(Trouble::Unreachable(_)))),
        "{all:?}"
    );
    assert!(
        made.asked("192.0.2.2").len() <= 9,
        "{:?}",
        made.asked("192.0.2.2")
    );
}

/// The first one has one packet only, which is gone when it has primed.
#[test]
fn errand_that_runs_out_of_packets_takes_nobody_with_it() {
    let made = Made::new(small(&["w1 300 A 198.51.100.1", "w2 300 A 198.51.100.1"]));
    made.recursor
        .world
        .net
        .takes_turns
        .store(true, Ordering::Relaxed);
    let until = made.recursor.world.net.now().plus(Duration::from_secs(60));
    let budgets = [1, 50].map(|packets| Budget::new(packets, until));
    let names = ["w1.example.test.", "w2.example.test."].map(internet::name);
    let fetch = |n: usize| {
        let question = Parts {
            name: &names[n],
            qtype: A,
            dnssec_ok: true,
            checking_disabled: false,
            partition: Partition(0),
        };
        made.recursor.fetch(question, &budgets[n])
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (poor, rich) = runtime.block_on(futures_util::future::join(fetch(0), fetch(1)));
    assert_eq!(poor.unwrap_err(), Trouble::Packets);
    assert!(rich.is_ok(), "{rich:?}");
}

#[test]
fn name_without_minimisation_is_shown_whole() {
    let made = Made::with(small(&["www 300 A 198.51.100.1"]), |config| {
        config.qname_minimisation = false;
    });
    assert_eq!(
        made.resolve("www.example.test.", A).data(),
        ["A 198.51.100.1"]
    );
    assert_eq!(made.asked("192.0.2.1"), [". 2", "www.example.test. 1"]);
}

#[test]
fn name_of_forty_labels_takes_ten_shortened_questions_at_most() {
    let deep = format!("{}example.test.", "x.".repeat(40));
    let record = format!("{deep} 300 A 198.51.100.1");
    let made = Made::new(small(&[&record]));
    let outcome = made.resolve(&deep, A);
    assert_eq!(outcome.data(), ["A 198.51.100.1"]);
    assert!(outcome.packets <= 3 + 11, "{}", outcome.packets);
}

#[test]
fn name_whose_parent_is_wrongly_denied_is_found_all_the_same() {
    let mut servers = small(&["a.empty 300 A 198.51.100.1"]);
    servers[2].1 = std::mem::take(&mut servers[2].1).hook(|asked, reply| {
        if asked.name == internet::name("empty.example.test.") {
            reply.as_mut().unwrap().rcode = 3;
        }
    });
    let made = Made::new(servers);
    assert_eq!(
        made.resolve("a.empty.example.test.", A).data(),
        ["A 198.51.100.1"]
    );
}

#[test]
fn missing_name_and_type_are_negative_with_the_soa() {
    let made = Made::new(small(&["www 300 A 198.51.100.1"]));
    let missing = made.resolve("nowhere.example.test.", A);
    assert_eq!(missing.rcode(), ResponseCode::NXDomain);
    assert_eq!(missing.answer.unwrap().authorities.len(), 1);
    let typeless = made.resolve("www.example.test.", 15);
    assert_eq!(
        (typeless.rcode(), typeless.data().len()),
        (ResponseCode::NoError, 0)
    );
    assert_eq!(
        made.resolve("nowhere.example.test.", 16).packets,
        0,
        "no type of it"
    );
}

#[test]
fn data_ends_with_the_delegation_it_came_through() {
    let made = Made::new(small(&["www 86400 A 198.51.100.1"]));
    let ttl = made.resolve("www.example.test.", A).ttl();
    assert!((599..=600).contains(&ttl), "{ttl}: the delegation's is 600");
}

#[test]
fn data_with_a_second_to_live_is_given_for_its_second_and_with_none_for_none() {
    let made = Made::new(small(&["one 1 A 198.51.100.1", "none 0 A 198.51.100.1"]));
    for (name, ttl) in [("one", 1), ("none", 0)] {
        let name = format!("{name}.example.test.");
        assert_eq!(made.resolve(&name, A).ttl(), ttl, "{name}");
    }
    made.pass(2);
    assert_eq!(made.resolve("one.example.test.", A).ttl(), 1);
    // A part of its second is over, and what is left counts.
    let again = made.resolve("one.example.test.", A);
    assert_eq!((again.ttl(), again.packets), (1, 0));
}

#[test]
fn zone_taken_away_by_its_parent_dies_whatever_it_says_itself() {
    // The zone gives its own NS set a week, and is asked for it again and again.
    let mut servers = small(&["www 604800 A 198.51.100.1", "@ 604800 NS ns"]);
    let gone = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = Arc::clone(&gone);
    servers[1].1 = std::mem::take(&mut servers[1].1).hook(move |_, reply| {
        if flag.load(Ordering::Relaxed) {
            let reply = reply.as_mut().unwrap();
            *reply = internet::Reply {
                rcode: 3,
                authoritative: true,
                authority: vec![rec("test. 300 SOA ns.test. h.test. 1 2 3 4 300")],
                ..internet::Reply::default()
            };
        }
    });
    let made = Made::new(servers);
    assert_eq!(made.resolve("www.example.test.", A).data().len(), 1);
    gone.store(true, Ordering::Relaxed);
    for _ in 0..7 {
        made.pass(90);
        let _ = made.resolve("example.test.", internet::NS);
    }
    let outcome = made.resolve("www.example.test.", A);
    assert_eq!(outcome.rcode(), ResponseCode::NXDomain);
}

#[test]
fn thousand_glueless_servers_cost_twenty_packets_at_most() {
    let names: Vec<String> = (0..1_000)
        .map(|n| format!("bomb 3600 NS ns{n}.victim.test."))
        .collect();
    let lines: Vec<&str> = names.iter().map(|name| &**name).collect();
    let mut servers = small(&[]);
    servers[1].1 = Server::new(vec![zone(
        "test.",
        &[
            &[
                "ns 3600 A 192.0.2.2",
                "victim 3600 NS ns.victim",
                "ns.victim 3600 A 192.0.2.4",
            ],
            &lines[..],
        ]
        .concat(),
    )]);
    servers.push((
        "192.0.2.4",
        Server::new(vec![zone("victim.test.", &["ns 3600 A 192.0.2.4"])]),
    ));
    let made = Made::new(servers);
    let outcome = made.resolve("www.bomb.test.", A);
    assert!(matches!(outcome.trouble(), Trouble::Unreachable(_)));
    assert!(outcome.packets <= 20, "{}", outcome.packets);
    assert!(made.asked("192.0.2.4").len() <= 5);
    assert_eq!(made.metrics.resolver.limits.glueless.get(), 1);
    assert_eq!(made.metrics.resolver.limits.name_servers.get(), 1);
}

#[test]
fn glueless_servers_in_each_others_zones_end() {
    let mut servers = small(&[]);
    servers[1].1 = Server::new(vec![zone(
        "test.",
        &[
            "ns 3600 A 192.0.2.2",
            "left 3600 NS ns.right",
            "right 3600 NS ns.left",
        ],
    )]);
    let made = Made::new(servers);
    let outcome = made.resolve("www.left.test.", A);
    assert!(matches!(outcome.trouble(), Trouble::Unreachable(_)));
    assert!(outcome.packets <= 6, "{}", outcome.packets);
}

fn chain(length: usize) -> Vec<String> {
    let mut lines: Vec<String> = (0..length)
        .map(|n| format!("c{n} 300 CNAME c{}", n + 1))
        .collect();
    lines.push(format!("c{length} 300 A 198.51.100.1"));
    lines
}

#[test]
fn alias_chain_of_eleven_resolves_and_of_twelve_does_not() {
    let lines = chain(17);
    let lines: Vec<&str> = lines.iter().map(|line| &**line).collect();
    let made = Made::new(small(&lines));
    let good = made.resolve("c6.example.test.", A);
    assert_eq!(good.data().len(), 12, "eleven aliases and the address");
    let bad = made.resolve("c5.example.test.", A);
    assert_eq!(*bad.trouble(), Trouble::Aliases);
    let worse = made.resolve("c0.example.test.", A);
    assert_eq!(*worse.trouble(), Trouble::Aliases);
    assert!(worse.time <= Duration::from_secs(1), "{:?}", worse.time);
}

#[test]
fn alias_loops_end_at_once() {
    let made = Made::new(small(&[
        "a 300 CNAME b",
        "b 300 CNAME a",
        "self 300 CNAME self",
        "down 300 DNAME x.down",
    ]));
    for name in [
        "a.example.test.",
        "self.example.test.",
        "y.down.example.test.",
    ] {
        let outcome = made.resolve(name, A);
        assert_eq!(*outcome.trouble(), Trouble::Aliases, "{name}");
        assert!(outcome.packets < 20 && outcome.time <= Duration::from_secs(1));
    }
}

#[test]
fn subtree_alias_leads_names_beneath_it_and_comes_with_its_cname() {
    let made = Made::new(small(&[
        "old 300 DNAME new.example.test.",
        "www.new 300 A 198.51.100.1",
    ]));
    let outcome = made.resolve("www.old.example.test.", A);
    assert_eq!(
        outcome.data(),
        [
            "DNAME A25ldwdleGFtcGxlBHRlc3QA",
            "CNAME www.new.example.test.",
            "A 198.51.100.1"
        ]
        .map(String::from)
    );
    let other = made.resolve("other.old.example.test.", A);
    assert_eq!(other.packets, 2, "only its target, and what is above it");
}

#[test]
fn dead_servers_leave_time_for_the_one_that_lives() {
    let mut servers = small(&["www 300 A 198.51.100.1"]);
    servers[1].1 = Server::new(vec![zone(
        "test.",
        &[
            "ns 3600 A 192.0.2.2",
            "example 600 NS ns.example",
            "example 600 NS dead.example",
            "ns.example 600 A 192.0.2.3",
            "dead.example 600 A 192.0.2.66",
            "dead.example 600 A 192.0.2.67",
        ],
    )]);
    let made = Made::new(servers);
    let outcome = made.resolve("www.example.test.", A);
    assert_eq!(outcome.data(), ["A 198.51.100.1"]);
    assert!(outcome.time < Duration::from_secs(1), "{:?}", outcome.time);
}

#[test]
fn dead_zone_takes_no_more_than_its_bounds_and_then_nothing() {
    let mut servers = small(&[]);
    servers[2].1 = Server::dead();
    let made = Made::new(servers);
    let outcome = made.resolve("www.example.test.", A);
    assert!(matches!(outcome.trouble(), Trouble::Unreachable(_)));
    assert!(outcome.packets <= 3 + 3 && outcome.time <= Duration::from_secs(5));
    assert_eq!(made.asked("192.0.2.3").len(), 2, "turns of one server");
    let _ = made.resolve("once.more.example.test.", A);
    let next = made.resolve("other.example.test.", A);
    assert_eq!(next.packets, 0, "it rests");
}

#[test]
fn lame_servers_are_passed_over() {
    for lame in [
        // Refuses, fails, refers upwards, is a resolver, says nothing.
        internet::Reply {
            rcode: 5,
            ..Default::default()
        },
        internet::Reply {
            rcode: 2,
            ..Default::default()
        },
        internet::Reply {
            authority: vec![rec(". 86400 NS ns.root.")],
            ..Default::default()
        },
        internet::Reply {
            recursive: true,
            answer: vec![rec("www.example.test. 300 A 203.0.113.66")],
            ..Default::default()
        },
        internet::Reply::default(),
    ] {
        let mut servers = small(&["www 300 A 198.51.100.1"]);
        servers[1].1 = Server::new(vec![zone(
            "test.",
            &[
                "ns 3600 A 192.0.2.2",
                "example 600 NS ns.example",
                "example 600 NS lame.example",
                "ns.example 600 A 192.0.2.3",
                "lame.example 600 A 192.0.2.66",
                "lame.example 600 A 192.0.2.67",
                "lame.example 600 A 192.0.2.68",
            ],
        )]);
        for at in ["192.0.2.66", "192.0.2.67", "192.0.2.68"] {
            let lame = lame.clone();
            servers.push((
                at,
                Server::default().hook(move |_, reply| *reply = Some(lame.clone())),
            ));
        }
        let made = Made::new(servers);
        assert_eq!(
            made.resolve("www.example.test.", A).data(),
            ["A 198.51.100.1"],
            "{lame:?}"
        );
    }
}

/// What a hostile server adds to everything it says must not be found afterwards.
#[test]
fn servers_that_reply_to_no_avail_are_told_from_those_out_of_reach() {
    let reason = |server: Server| {
        let mut servers = small(&[]);
        servers[2].1 = server;
        let made = Made::new(servers);
        let outcome = made.resolve("www.example.test.", A);
        outcome.trouble().as_unanswered()
    };
    let code = |rcode| {
        let own = zone("example.test.", &["ns 3600 A 192.0.2.3"]);
        Server::new(vec![own]).hook(move |_, reply| reply.as_mut().unwrap().rcode = rcode)
    };
    assert_eq!(reason(Server::dead()), Unanswered::Nobody);
    assert_eq!(reason(code(5)), Unanswered::Nobody, "refused");
    let network = Unanswered::Failed(crate::dns::wire::Ede::NetworkError);
    assert_eq!(reason(code(2)), network, "SERVFAIL");
}

#[test]
fn poison_is_not_believed() {
    let poison = [
        "www.bank.test. 86400 A 203.0.113.66",
        "bank.test. 86400 NS ns.evil.test.",
        "ns.bank.test. 86400 A 203.0.113.66",
        "test. 86400 NS ns.evil.test.",
        "ns.test. 86400 A 203.0.113.66",
        ". 86400 NS ns.evil.test.",
        "ns.root. 86400 A 203.0.113.66",
        "www.bank.test. 86400 CNAME www.evil.test.",
        "bank.test. 86400 DNAME evil.test.",
        "test. 86400 DNAME evil.test.",
    ];
    for section in 0..3 {
        for alias in [false, true] {
            let mut servers = small(&[]);
            servers[1].1 = Server::new(vec![zone(
                "test.",
                &[
                    "ns 3600 A 192.0.2.2",
                    "evil 600 NS ns.evil",
                    "ns.evil 600 A 192.0.2.6",
                    "bank 600 NS ns.bank",
                    "ns.bank 600 A 192.0.2.7",
                ],
            )]);
            let evil = if alias {
                "www 300 CNAME www.bank.test."
            } else {
                "www 300 A 198.51.100.6"
            };
            servers.push((
                "192.0.2.6",
                Server::new(vec![zone("evil.test.", &["ns 3600 A 192.0.2.6", evil])]).hook(
                    move |_, reply| {
                        let reply = reply.as_mut().unwrap();
                        let to = match section {
                            0 => &mut reply.answer,
                            1 => &mut reply.authority,
                            _ => &mut reply.additional,
                        };
                        to.extend(poison.map(rec));
                    },
                ),
            ));
            servers.push((
                "192.0.2.7",
                Server::new(vec![zone(
                    "bank.test.",
                    &["ns 3600 A 192.0.2.7", "www 300 A 198.51.100.7"],
                )]),
            ));
            let made = Made::new(servers);
            for name in ["www.evil.test.", "other.evil.test.", "evil.test."] {
                let _ = made.resolve(name, A);
                let _ = made.resolve(name, internet::NS);
            }
            let outcome = made.resolve("www.bank.test.", A);
            assert_eq!(
                outcome.data(),
                ["A 198.51.100.7"],
                "section {section}, alias {alias}"
            );
            assert_eq!(made.resolve("ns.bank.test.", A).data(), ["A 192.0.2.7"]);
            assert_eq!(made.resolve("ns.test.", A).data(), ["A 192.0.2.2"]);
            assert_eq!(made.asked("203.0.113.66"), [""; 0]);
            if alias {
                let through = made.resolve("www.evil.test.", A);
                assert_eq!(through.data().last().unwrap(), "A 198.51.100.7");
            }
        }
    }
}

#[test]
fn glue_is_used_to_ask_and_never_as_an_answer() {
    let mut servers = small(&["ns 3600 A 198.51.100.9"]);
    servers[2].1 = Server::new(vec![Zone::new(
        "example.test.",
        &[
            "@ 3600 NS ns",
            "ns 3600 A 198.51.100.9",
            "www 300 A 198.51.100.1",
        ],
    )]);
    let made = Made::new(servers);
    assert_eq!(
        made.resolve("www.example.test.", A).data(),
        ["A 198.51.100.1"]
    );
    assert_eq!(
        made.resolve("ns.example.test.", A).data(),
        ["A 198.51.100.9"]
    );
}

#[test]
fn servers_on_our_own_machine_are_not_asked() {
    let mut servers = small(&[]);
    servers[1].1 = Server::new(vec![zone(
        "test.",
        &[
            "ns 3600 A 192.0.2.2",
            "example 600 NS ns.example",
            "ns.example 600 A 127.0.0.1",
        ],
    )]);
    let made = Made::new(servers);
    let outcome = made.resolve("www.example.test.", A);
    assert!(matches!(outcome.trouble(), Trouble::Unreachable(_)));
    assert_eq!(made.asked("127.0.0.1"), [""; 0]);
}

#[test]
fn budget_ends_an_errand_wherever_it_is() {
    // Aliases from zone to zone, each with two dead servers, one of them without glue.
    let mut test = vec![String::from("ns 3600 A 192.0.2.2")];
    let mut servers = small(&[]);
    for n in 0..12 {
        test.push(format!("z{n} 600 NS ns.z{n}"));
        test.push(format!("z{n} 600 NS dead{n}"));
        test.push(format!("z{n} 600 NS ns.z{}", n + 1));
        test.push(format!("ns.z{n} 600 A 192.0.2.{}", 100 + n));
        test.push(format!("dead{n} 600 A 192.0.2.{}", 200 + n));
        let address: &'static str = Box::leak(format!("192.0.2.{}", 100 + n).into_boxed_str());
        let alias = format!("www 300 CNAME www.z{}.test.", n + 1);
        let apex = format!("z{n}.test.");
        let ns = format!("ns 600 A {address}");
        servers.push((
            address,
            Server::new(vec![Zone::new(&apex, &["@ 3600 NS ns", &ns, &alias])]),
        ));
    }
    let lines: Vec<&str> = test.iter().map(|line| &**line).collect();
    servers[1].1 = Server::new(vec![zone("test.", &lines)]);
    let made = Made::new(servers);
    let outcome = made.resolve("www.z0.test.", A);
    assert!(outcome.answer.is_err());
    assert!(outcome.packets <= 50, "{}", outcome.packets);
    assert!(outcome.time <= Duration::from_secs(5), "{:?}", outcome.time);
}

#[test]
fn addresses_of_the_root_come_from_the_root() {
    let made = Made::with(small(&["www 300 A 198.51.100.1"]), |config| {
        // Out of date: the second has moved.
        let hints = ". NS a.\n. NS b.\na. A 192.0.2.99\nb. A 192.0.2.1\n";
        config.hints = Hints::parse(hints).unwrap();
    });
    assert_eq!(
        made.resolve("www.example.test.", A).data(),
        ["A 198.51.100.1"]
    );
    made.pass(700);
    let _ = made.resolve("www.example.test.", A);
    assert!(made.asked("192.0.2.99").len() <= 1, "only to prime");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Whatever servers send: no panic, no more than the budget, and what is judged to be of a zone is beneath it.
    #[test]
    fn garbled_replies_stay_within_bounds(seed: u64) {
        let made = Made::new(small(&["www 300 A 198.51.100.1", "a 300 CNAME www", "d 300 DNAME a"]));
        made.garble(seed);
        for name in ["www.example.test.", "a.example.test.", "x.d.example.test.", "no.example.test."] {
            let outcome = made.resolve(name, A);
            proptest::prop_assert!(outcome.packets <= 50);
            proptest::prop_assert!(outcome.time <= Duration::from_secs(6));
        }
    }

    #[test]
    fn judged_replies_stay_in_their_bailiwick(seed: u64, qtype in 1_u16..60) {
        let servers = small(&["www 300 A 198.51.100.1", "a 300 CNAME www", "sub 300 NS ns.sub", "ns.sub 300 A 192.0.2.9"]);
        let zone = Dname::parse("example.test.").unwrap();
        let made = Made::new(Vec::new());
        made.garble(seed);
        for name in ["www.example.test.", "a.example.test.", "www.sub.example.test.", "example.test."] {
            let asked = Asked {
                id: [0; 2],
                spelled: internet::name(name),
                name: internet::name(name),
                qtype,
                dnssec_ok: true,
                recursion_desired: false,
            };
            let mut reply = servers[2].1.reply(&asked).unwrap();
            if let Some(garble) = &mut *made.recursor.world.net.garble.lock().unwrap() {
                garble(&mut reply);
            }
            let Some(response) = response::Response::read(&reply, &asked.name, qtype) else {
                continue;
            };
            let name = Dname::new(&asked.name);
            match judge::judge(&response, &zone, &name, qtype, 13) {
                judge::Verdict::Answer { sets, proof } => {
                    for set in sets.iter().chain(&proof) {
                        proptest::prop_assert!(set.owner.is_beneath(&zone), "{set:?}");
                    }
                }
                judge::Verdict::Nothing(nothing) => {
                    for set in nothing.soa.iter().chain(&nothing.proof) {
                        proptest::prop_assert!(set.owner.is_beneath(&zone), "{set:?}");
                    }
                }
                judge::Verdict::Referral(referral) => {
                    proptest::prop_assert!(referral.zone.is_strictly_beneath(&zone));
                    proptest::prop_assert!(name.is_beneath(&referral.zone));
                    for server in &referral.servers {
                        proptest::prop_assert!(server.glue.is_empty() || server.name.is_beneath(&zone));
                    }
                }
                judge::Verdict::Lame(_) => {}
            }
        }
    }
}
