//! EDNS in every odd shape, beside NSD, Knot and BIND (RFC 6891): what comes back is equal, or a named difference says why.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::harness::{Bind, COMMON, Knot, Node, Nsd};

/// A question with something odd about its EDNS, and what we answer.
struct Case {
    name: &'static str,
    /// Bytes behind the question; the counts of all sections but the question's.
    tail: Vec<u8>,
    counts: [u8; 3],
    /// Of the header: the low byte of its flags.
    flags: u8,
    /// What is asked.
    question: Vec<u8>,
    /// Code, flags, what OPT says, whether there are answers; "-": silence.
    ours: &'static str,
    /// Who says something else, what, and why it may.
    unlike: Vec<(&'static str, &'static str, &'static str)>,
}

const SMALL: (&[u8], u16) = (b"\x03www\x01e\x04test\0", 1);
const LARGE: (&[u8], u16) = (b"\x05large\x01e\x04test\0", 16);

const DO: &str = "DO is copied into every answer with OPT (RFC 3225 section 3)";
const OPT: &str = "who sends OPT gets OPT, with an error, too (RFC 6891 section 6.1.1)";
const CD: &str = "CD is copied (RFC 4035 section 3.1.6), as BIND does";

fn question((name, qtype): (&[u8], u16)) -> Vec<u8> {
    [name, &qtype.to_be_bytes(), &[0, 1]].concat()
}

/// An OPT record.
fn opt(owner: &[u8], payload: u16, ttl: [u8; 4], options: &[u8]) -> Vec<u8> {
    let len = u16::try_from(options.len()).expect("short");
    [
        owner,
        &[0, 41],
        &payload.to_be_bytes(),
        &ttl,
        &len.to_be_bytes(),
        options,
    ]
    .concat()
}

fn case(name: &'static str, tail: Vec<u8>, ours: &'static str) -> Case {
    Case {
        name,
        counts: [0, 0, u8::from(!tail.is_empty())],
        tail,
        flags: 0,
        question: question(SMALL),
        ours,
        unlike: Vec::new(),
    }
}

impl Case {
    fn unlike(mut self, peer: &'static str, says: &'static str, why: &'static str) -> Self {
        self.unlike.push((peer, says, why));
        self
    }

    fn counts(self, counts: [u8; 3]) -> Self {
        Self { counts, ..self }
    }

    fn flags(self, flags: u8) -> Self {
        Self { flags, ..self }
    }

    fn large(self) -> Self {
        Self {
            question: question(LARGE),
            ..self
        }
    }

    fn packet(&self) -> Vec<u8> {
        let [an, ns, ar] = self.counts;
        let header = [0xAB, 0xCD, 0, self.flags, 0, 1, 0, an, 0, ns, 0, ar];
        [&header[..], &self.question, &self.tail].concat()
    }
}

fn cases() -> Vec<Case> {
    let root = |payload, ttl, options: &[u8]| opt(b"\0", payload, ttl, options);
    let plain = || root(1232, [0; 4], &[]);
    vec![
        case("none", Vec::new(), "NOERROR aa an"),
        case("plain", plain(), "NOERROR aa opt an"),
        case(
            "DO",
            root(1232, [0, 0, 0x80, 0], &[]),
            "NOERROR aa opt do an",
        ),
        case(
            "all other flags",
            root(1232, [0, 0, 0x7F, 0xFF], &[]),
            "NOERROR aa opt an",
        ),
        case("version 1", root(1232, [0, 1, 0, 0], &[]), "BADVERS opt"),
        case(
            "version 255 with DO",
            root(1232, [0, 255, 0x80, 0], &[]),
            "BADVERS opt do",
        ).unlike("NSD", "BADVERS opt", DO),
        case(
            "version 1 and an unknown option",
            root(1232, [0, 1, 0, 0], &[0xFD, 0xE9, 0, 1, 7]),
            "BADVERS opt",
        ),
        case(
            "an extended code",
            root(1232, [0xFF, 0, 0, 0], &[]),
            "NOERROR aa opt an",
        ),
        case(
            "an unknown option",
            root(1232, [0; 4], &[0xFD, 0xE9, 0, 4, 1, 2, 3, 4]),
            "NOERROR aa opt an",
        ),
        case(
            "an empty unknown option",
            root(1232, [0; 4], &[0xFD, 0xE9, 0, 0]),
            "NOERROR aa opt an",
        ),
        case(
            "option 0",
            root(1232, [0; 4], &[0, 0, 0, 0]),
            "NOERROR aa opt an",
        ),
        case(
            "the same option twice",
            root(1232, [0; 4], &[0xFD, 0xE9, 0, 0, 0xFD, 0xE9, 0, 0]),
            "NOERROR aa opt an",
        ),
        case(
            "an option that goes on",
            root(1232, [0; 4], &[0xFD, 0xE9, 0, 9, 1]),
            "FORMERR opt",
        ).unlike("NSD", "FORMERR", OPT).unlike("Knot", "FORMERR", OPT).unlike("BIND", "FORMERR", OPT),
        case(
            "half an option head",
            root(1232, [0; 4], &[0xFD, 0xE9, 0]),
            "FORMERR opt",
        ).unlike("NSD", "FORMERR", OPT).unlike("Knot", "FORMERR", OPT).unlike("BIND", "FORMERR", OPT),
        case("two OPT", [plain(), plain()].concat(), "FORMERR opt").unlike("NSD", "FORMERR", OPT).unlike("Knot", "FORMERR", OPT).unlike("BIND", "FORMERR", OPT).counts([0, 0, 2]),
        case(
            "OPT of another owner",
            opt(b"\x01a\0", 1232, [0; 4], &[]),
            "FORMERR",
        ).unlike("Knot", "NOERROR aa opt an", "OPT has the root as its owner (RFC 6891 section 6.1.2); Knot does not look"),
        case("OPT among the answers", plain(), "FORMERR").counts([1, 0, 0]),
        case("OPT in the authority section", plain(), "FORMERR").counts([0, 1, 0]),
        case("OPT that is not there", Vec::new(), "FORMERR").counts([0, 0, 1]),
        case("OPT cut in its head", plain()[..7].to_vec(), "FORMERR"),
        case(
            "OPT cut in its options",
            root(1232, [0; 4], &[0xFD, 0xE9, 0, 4, 1, 2, 3, 4])[..13].to_vec(),
            "FORMERR",
        ),
        case(
            "more bytes behind",
            [plain(), vec![1, 2, 3]].concat(),
            "NOERROR aa opt an",
        ).unlike("Knot", "FORMERR", "what is behind the message harms nobody, and NSD and BIND answer it, too"),
        case(
            "an address beside OPT",
            [plain(), vec![0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, 1]].concat(),
            "NOERROR aa opt an",
        ).unlike("NSD", "FORMERR", "a record in the additional section means nothing to us; RFC 6891 section 6.1.1 lets OPT be anywhere in it")
        .counts([0, 0, 2]),
        case("AD", plain(), "NOERROR aa opt an").flags(0x20),
        case("CD", plain(), "NOERROR aa cd opt an").unlike("NSD", "NOERROR aa opt an", CD).unlike("Knot", "NOERROR aa opt an", CD).flags(0x10),
        case("Z", plain(), "NOERROR aa opt an").flags(0x40),
        case("large, none", Vec::new(), "NOERROR aa tc").unlike("BIND", "NOERROR aa tc an", "BIND gives the records that fit; the client may not use a part of an RRset (RFC 2181 section 9)").large(),
        case("large, 0", root(0, [0; 4], &[]), "NOERROR aa tc opt").large(),
        case("large, 511", root(511, [0; 4], &[]), "NOERROR aa tc opt").large(),
        case("large, 512", root(512, [0; 4], &[]), "NOERROR aa tc opt").large(),
        case("large, 1231", root(1231, [0; 4], &[]), "NOERROR aa opt an").large(),
        case("large, 4096", root(4096, [0; 4], &[]), "NOERROR aa opt an").large(),
        case(
            "large, 65535",
            root(65_535, [0; 4], &[]),
            "NOERROR aa opt an",
        )
        .large(),
        case(
            "large, 512, DO",
            root(512, [0, 0, 0x80, 0], &[]),
            "NOERROR aa tc opt do",
        )
        .large(),
    ]
}

/// What a server answers, in words; "-": nothing.
fn ask(server: u16, packet: &[u8]) -> String {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    socket.set_read_timeout(Some(WAIT)).expect("a timeout");
    socket
        .connect(SocketAddr::from((Ipv4Addr::LOCALHOST, server)))
        .expect("loopback");
    let mut buffer = [0; 65_535];
    for _ in 0..TRIES {
        socket.send(packet).expect("loopback takes a datagram");
        if let Ok(len) = socket.recv(&mut buffer) {
            assert_eq!(buffer[..2], packet[..2]);
            return words(&buffer[..len]);
        }
    }
    "-".to_owned()
}

/// Skips a name.
fn behind_name(message: &[u8], mut at: usize) -> usize {
    loop {
        match message[at] {
            0 => return at + 1,
            0xC0.. => return at + 2,
            len => at += 1 + usize::from(len),
        }
    }
}

fn words(message: &[u8]) -> String {
    let count = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
    let mut at = 12;
    for _ in 0..count(4) {
        at = behind_name(message, at) + 4;
    }
    let mut opt = None;
    for _ in 0..count(6) + count(8) + count(10) {
        let fixed = behind_name(message, at);
        let rtype = u16::from_be_bytes([message[fixed], message[fixed + 1]]);
        if rtype == 41 {
            assert!(opt.is_none(), "one OPT");
            opt = Some([4, 5, 6, 7].map(|at| message[fixed + at]));
        }
        let len = u16::from_be_bytes([message[fixed + 8], message[fixed + 9]]);
        at = fixed + 10 + usize::from(len);
    }
    assert_eq!(at, message.len(), "nothing behind");
    let code = u16::from(message[3] & 15) | opt.map_or(0, |opt| u16::from(opt[0]) << 4);
    let mut words = vec![match code {
        0 => "NOERROR".to_owned(),
        1 => "FORMERR".to_owned(),
        4 => "NOTIMP".to_owned(),
        5 => "REFUSED".to_owned(),
        16 => "BADVERS".to_owned(),
        code => format!("code {code}"),
    }];
    let mut flag = |set: bool, word: &str| words.extend(set.then(|| word.to_owned()));
    flag(message[2] & 4 != 0, "aa");
    flag(message[2] & 2 != 0, "tc");
    flag(message[3] & 0x40 != 0, "z");
    flag(message[3] & 0x20 != 0, "ad");
    flag(message[3] & 0x10 != 0, "cd");
    if let Some([_, version, high, low]) = opt {
        flag(true, "opt");
        flag(version != 0, "version");
        flag(high & 0x80 != 0, "do");
        flag(high & 0x7F != 0 || low != 0, "flags");
    }
    flag(count(6) > 0, "an");
    words.join(" ")
}

#[test]
fn odd_edns_is_answered_as_nsd_knot_and_bind_do() {
    let mut zone = String::from(
        "$TTL 300\n@ SOA ns host 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\nwww A 192.0.2.1\n",
    );
    for at in 0..4 {
        zone.push_str(&format!("large TXT \"{at}{}\"\n", "x".repeat(200)));
    }
    let mut node = Node::new(&format!(
        "{COMMON}\n[resolver]\nmode = \"off\"\n[[zone]]\nname = \"e.test.\"\nfile = \"e.zone\"\n"
    ));
    node.write("e.zone", &zone);
    node.start();
    let zones = [("e.test", zone.as_str())];
    let (nsd, knot, bind) = (Nsd::start(&zones), Knot::start(&zones), Bind::start(&zones));
    let peers = [("NSD", nsd.port), ("Knot", knot.port), ("BIND", bind.port)];
    let mut wrong = Vec::new();
    for case in cases() {
        let packet = case.packet();
        let ours = ask(node.dns, &packet);
        if ours != case.ours {
            wrong.push(format!("{}: ours {ours:?}", case.name));
        }
        for (peer, port) in peers {
            let said = ask(port, &packet);
            let named = case.unlike.iter().find(|(named, ..)| *named == peer);
            let expected = named.map_or(case.ours, |(_, says, _)| says);
            if said != expected {
                wrong.push(format!("{}: {peer} {said:?}", case.name));
            }
            if let Some((_, says, why)) = named
                && *says == case.ours
            {
                wrong.push(format!("{}: {peer} is not unlike us ({why})", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Silence is an answer of some, so it may not take long.
const WAIT: Duration = Duration::from_millis(700);

const TRIES: usize = 3;
