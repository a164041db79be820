//! One query to a server, as bytes; and whether what came back is its reply. Pure.

use std::time::Duration;

use super::super::message::CLASS_IN;

/// What is asked of a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    /// Wire form, never compressed, any case.
    pub(crate) name: &'a [u8],
    pub(crate) qtype: u16,
    /// The zone asked about (wire form, lower case), as far as is known: whose questions are bounded together.
    pub(crate) zone: &'a [u8],
    /// RD: the server is itself a resolver.
    pub(crate) recursion_desired: bool,
    /// CD: it is not to validate.
    pub(crate) checking_disabled: bool,
    /// DO: with signatures and proofs.
    pub(crate) dnssec_ok: bool,
}

/// A query that was sent, with what its reply must repeat.
#[derive(Debug)]
pub(super) struct Sent {
    bytes: Vec<u8>,
    question_end: usize,
    /// Whether the case of the name was drawn, so that a reply must repeat it.
    cased: bool,
    /// Our cookie, if it was sent.
    cookie: Option<[u8; 8]>,
}

/// A cookie towards one server (RFC 7873): ours, and its own once it has given one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cookie {
    pub(super) client: [u8; 8],
    server: [u8; 32],
    server_len: u8,
}

impl Cookie {
    pub(super) fn new(client: [u8; 8]) -> Self {
        Self {
            client,
            ..Self::default()
        }
    }

    /// What the server gave; empty: nothing yet.
    pub(super) fn server(&self) -> &[u8] {
        &self.server[..usize::from(self.server_len)]
    }

    /// Takes up the server's part: 8 to 32 octets, or none to forget it.
    pub(super) fn learn(&mut self, server: &[u8]) {
        self.server_len = 0;
        if let Some(room) = self.server.get_mut(..server.len()) {
            room.copy_from_slice(server);
            // At most 32.
            self.server_len = server.len() as u8;
        }
    }
}

/// The OPT of a query.
#[derive(Clone, Copy, Debug)]
pub(super) enum Edns<'a> {
    /// There is none.
    Absent,
    /// With this cookie.
    Cookie(&'a Cookie),
    /// For an encrypted connection: padded to a multiple of 128 octets (RFC 8467 section 4.1), so that its length tells little
    /// of the name.
    Padded {
        /// Whether it asks how long the connection may be idle (RFC 7828).
        keepalive: bool,
    },
}

impl Sent {
    /// Writes the query. `case`: a bit for each octet of the name, over and over; set: the other case (0x20); `None`: as it is.
    pub(super) fn new(question: &Question<'_>, id: u16, case: Option<u64>, edns: Edns<'_>) -> Self {
        let name = question.name;
        let room = match edns {
            Edns::Absent => 0,
            Edns::Cookie(_) => OPT + COOKIE_MAX,
            Edns::Padded { .. } => OPT + BLOCK,
        };
        let mut bytes = Vec::with_capacity(HEADER + name.len() + 4 + room);
        bytes.extend(id.to_be_bytes());
        bytes.push(u8::from(question.recursion_desired));
        bytes.push(u8::from(question.checking_disabled) << 4);
        let has_opt = !matches!(edns, Edns::Absent);
        bytes.extend([0, 1, 0, 0, 0, 0, 0, u8::from(has_opt)]);
        bytes.extend(name);
        if let Some(case) = case {
            for (at, octet) in bytes[HEADER..].iter_mut().enumerate() {
                // Length octets are at most 63, so they are never letters.
                if octet.is_ascii_alphabetic() && case >> (at % 64) & 1 != 0 {
                    *octet ^= 0x20;
                }
            }
        }
        bytes.extend(question.qtype.to_be_bytes());
        bytes.extend(CLASS_IN.to_be_bytes());
        let question_end = bytes.len();
        if has_opt {
            let [size_high, size_low] = PAYLOAD.to_be_bytes();
            let do_high = u8::from(question.dnssec_ok) << 7;
            bytes.extend([0, 0, 41, size_high, size_low, 0, 0, do_high, 0]);
        }
        match edns {
            Edns::Absent => {}
            Edns::Cookie(cookie) => {
                let len = 8 + cookie.server_len;
                bytes.extend([0, 4 + len, 0, COOKIE, 0, len]);
                bytes.extend(cookie.client);
                bytes.extend(cookie.server());
            }
            Edns::Padded { keepalive } => {
                let option: &[u8] = if keepalive {
                    &[0, KEEPALIVE, 0, 0]
                } else {
                    &[]
                };
                let bare = bytes.len() + 2 + option.len() + 4;
                let padding = bare.next_multiple_of(BLOCK) - bare;
                // Less than two blocks, so one octet holds each length.
                bytes.extend([0, (option.len() + 4 + padding) as u8]);
                bytes.extend(option);
                bytes.extend([0, PADDING, 0, padding as u8]);
                bytes.resize(bytes.len() + padding, 0);
            }
        }
        Self {
            bytes,
            question_end,
            cased: case.is_some(),
            cookie: match edns {
                Edns::Cookie(cookie) => Some(cookie.client),
                Edns::Absent | Edns::Padded { .. } => None,
            },
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives the query another id.
    pub(super) fn set_id(&mut self, id: u16) {
        self.bytes[..2].copy_from_slice(&id.to_be_bytes());
    }

    /// Whether `packet`, from the server that was asked, is the reply to this.
    ///
    /// # Errors
    /// What is wrong with it; the reply may still be on its way.
    pub(super) fn check(&self, packet: &[u8]) -> Result<(), Flaw> {
        let Some(header) = packet.first_chunk::<HEADER>() else {
            return Err(Flaw::Malformed);
        };
        // A response (QR) to a query (opcode 0).
        if header[2] & 0xF8 != 0x80 {
            return Err(Flaw::Malformed);
        }
        if header[..2] != self.bytes[..2] {
            return Err(Flaw::Id);
        }
        let questions = u16::from_be_bytes([header[4], header[5]]);
        if questions == 0 && header[3] & 0x0F == FORMERR {
            // Who cannot read a query cannot repeat its question.
            return Ok(());
        }
        let (asked, found) = (
            &self.bytes[HEADER..self.question_end],
            packet.get(HEADER..self.question_end),
        );
        match found {
            Some(found) if questions == 1 && found == asked => {}
            Some(found) if questions == 1 && found.eq_ignore_ascii_case(asked) => {
                if self.cased {
                    return Err(Flaw::Case);
                }
            }
            _ => return Err(Flaw::Question),
        }
        let Some(signs) = Signs::read(packet) else {
            return Err(Flaw::Malformed);
        };
        match (self.cookie, signs.cookie) {
            (Some(ours), Some(cookie))
                if !matches!(cookie.len(), 8 | 16..=40) || !cookie.starts_with(&ours) =>
            {
                Err(Flaw::Cookie)
            }
            _ => Ok(()),
        }
    }
}

/// Why a packet is not the reply that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Not a DNS response.
    Malformed,
    /// Another id.
    Id,
    /// Another question.
    Question,
    /// The question in another case than it was asked in.
    Case,
    /// Somebody else's cookie (RFC 7873 section 5.3).
    Cookie,
}

/// What the header and OPT of a reply say beside its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signs<'a> {
    /// TC.
    pub(super) truncated: bool,
    /// With the upper bits from OPT.
    pub(super) rcode: u16,
    /// Whether there is an OPT.
    pub(super) edns: bool,
    /// The COOKIE option, whole.
    pub(super) cookie: Option<&'a [u8]>,
    /// How long the connection may be idle (RFC 7828).
    pub(super) keepalive: Option<Duration>,
}

impl<'a> Signs<'a> {
    /// Reads a reply. `None`: it is malformed (what comes behind its OPT is not looked at). A truncated one may end anywhere.
    pub(super) fn read(reply: &'a [u8]) -> Option<Self> {
        let header = reply.first_chunk::<HEADER>()?;
        let mut signs = Self {
            truncated: header[2] & 2 != 0,
            rcode: u16::from(header[3] & 0x0F),
            edns: false,
            cookie: None,
            keepalive: None,
        };
        match signs.read_opt(reply, header) {
            Some(()) => Some(signs),
            None => signs.truncated.then_some(signs),
        }
    }

    fn read_opt(&mut self, reply: &'a [u8], header: &[u8; HEADER]) -> Option<()> {
        let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let mut at = HEADER;
        for _ in 0..count(4) {
            at = skip_name(reply, at)? + 4;
        }
        let records = u32::from(count(6)) + u32::from(count(8)) + u32::from(count(10));
        for _ in 0..records {
            let root = *reply.get(at)? == 0;
            let fixed_at = skip_name(reply, at)?;
            let fixed: &[u8; 10] = reply.get(fixed_at..)?.first_chunk()?;
            let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
            let rdata = reply.get(fixed_at + 10..fixed_at + 10 + length)?;
            if root && fixed[..2] == [0, 41] {
                self.edns = true;
                self.rcode |= u16::from(fixed[4]) << 4;
                self.read_options(rdata);
                return Some(());
            }
            at = fixed_at + 10 + length;
        }
        Some(())
    }

    /// Up to the first that is malformed.
    fn read_options(&mut self, options: &'a [u8]) {
        let mut rest = options;
        while let Some((&[c1, c2, l1, l2], tail)) = rest.split_first_chunk() {
            let length = usize::from(u16::from_be_bytes([l1, l2]));
            let Some(value) = tail.get(..length) else {
                return;
            };
            match ([c1, c2], value) {
                ([0, COOKIE], _) if self.cookie.is_none() => self.cookie = Some(value),
                ([0, KEEPALIVE], &[t1, t2]) => {
                    let tenths = u16::from_be_bytes([t1, t2]);
                    self.keepalive = Some(Duration::from_millis(100) * u32::from(tenths));
                }
                _ => {}
            }
            rest = &tail[length..];
        }
    }
}

/// Where the name at `at` ends. Does not follow pointers.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            label @ 1..=63 => at += 1 + usize::from(label),
            192.. => return Some(at + 2),
            _ => return None,
        }
    }
}

const HEADER: usize = crate::dns::wire::HEADER_LEN;
const FORMERR: u8 = 1;

/// The UDP payload size we say we take (DNS flag day 2020).
const PAYLOAD: u16 = 1232;

/// OPT without options; the COOKIE option, and its greatest length.
const OPT: usize = 11;
const COOKIE: u8 = 10;
const COOKIE_MAX: usize = 4 + 8 + 32;

/// Options of encrypted connections, and what queries over them are padded to a multiple of.
const KEEPALIVE: u8 = 11;
const PADDING: u8 = 12;
const BLOCK: usize = 128;

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;
    use proptest::prelude::*;

    use super::super::super::testing::{message, wire};
    use super::*;

    const BARE: Edns<'_> = Edns::Padded { keepalive: false };

    fn question(name: &[u8]) -> Question<'_> {
        Question {
            name,
            qtype: 1,
            zone: b"\0",
            recursion_desired: true,
            checking_disabled: false,
            dnssec_ok: true,
        }
    }

    /// The reply of an upstream to `sent`, before it is bent.
    fn reply_to(sent: &Sent) -> Vec<u8> {
        let mut reply = message("www.example.", 1, 0, &["www.example. 9 A 192.0.2.1"], &[]);
        reply[..2].copy_from_slice(&sent.bytes()[..2]);
        reply[HEADER..sent.question_end].copy_from_slice(&sent.bytes[HEADER..sent.question_end]);
        reply
    }

    #[test]
    fn query_has_what_was_asked_and_nothing_else() {
        let name = wire("www.example.");
        let mut cookie = Cookie::new([7; 8]);
        for server in [&[][..], &[9; 16]] {
            cookie.learn(server);
            let sent = Sent::new(&question(&name), 0x1234, None, Edns::Cookie(&cookie));
            let message = Message::from_vec(sent.bytes()).unwrap();
            assert_eq!(message.id, 0x1234);
            assert!(message.recursion_desired && !message.checking_disabled);
            assert_eq!(message.queries[0].name.to_ascii(), "www.example.");
            let edns = message.edns.unwrap();
            assert_eq!((edns.max_payload(), edns.flags().dnssec_ok), (1232, true));
            let sent = sent.bytes();
            assert!(sent.ends_with(&[&[7; 8][..], server].concat()));
        }
        let plain = Sent::new(&question(&name), 1, None, Edns::Absent);
        assert!(Message::from_vec(plain.bytes()).unwrap().edns.is_none());
    }

    #[test]
    fn query_for_an_encrypted_connection_is_padded_to_a_multiple_of_128() {
        let mut lengths = std::collections::BTreeSet::new();
        for labels in 0..40 {
            let name = [b"\x03www".repeat(labels), vec![0]].concat();
            for keepalive in [false, true] {
                let edns = Edns::Padded { keepalive };
                let sent = Sent::new(&question(&name), 0, None, edns);
                assert_eq!(sent.bytes().len() % 128, 0, "{labels}");
                lengths.insert(sent.bytes().len());
                let signs = Signs::read(sent.bytes()).unwrap();
                assert!(signs.edns && signs.cookie.is_none());
                let message = Message::from_vec(sent.bytes()).unwrap();
                let options = message.edns.unwrap().options().clone();
                let codes: Vec<u16> = options.as_ref().iter().map(|(c, _)| (*c).into()).collect();
                let expected: &[u16] = if keepalive { &[11, 12] } else { &[12] };
                assert_eq!(codes, expected, "{labels}");
            }
        }
        assert_eq!(Vec::from_iter(lengths), [128, 256]);
    }

    #[test]
    fn reply_must_repeat_id_question_and_case() {
        let name = wire("www.example.");
        let sent = Sent::new(&question(&name), 7, Some(0x6666_6666_6666_6666), BARE);
        let good = reply_to(&sent);
        assert_eq!(sent.check(&good), Ok(()));
        let bend = |at: usize, bits: u8| {
            let mut bent = good.clone();
            bent[at] ^= bits;
            sent.check(&bent)
        };
        assert_eq!(bend(0, 1), Err(Flaw::Id));
        assert_eq!(bend(2, 0x80), Err(Flaw::Malformed));
        assert_eq!(bend(2, 0x28), Err(Flaw::Malformed));
        assert_eq!(bend(13, 0x20), Err(Flaw::Case));
        assert_eq!(bend(13, 1), Err(Flaw::Question));
        assert_eq!(bend(sent.question_end - 3, 2), Err(Flaw::Question));
        assert_eq!(bend(5, 3), Err(Flaw::Question));
        assert_eq!(sent.check(&good[..11]), Err(Flaw::Malformed));
        assert_eq!(sent.check(&good[..20]), Err(Flaw::Question));
        assert_eq!(sent.check(&good[..good.len() - 1]), Err(Flaw::Malformed));
    }

    #[test]
    fn reply_with_a_cookie_must_repeat_ours() {
        let name = wire("www.example.");
        let cookie = Cookie::new(*b"12345678");
        let sent = Sent::new(&question(&name), 7, None, Edns::Cookie(&cookie));
        let with = |cookie: &[u8]| {
            let mut reply = reply_to(&sent);
            reply[11] = 1;
            let len = u8::try_from(cookie.len()).unwrap();
            reply.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 4 + len, 0, 10, 0, len]);
            reply.extend(cookie);
            sent.check(&reply)
        };
        assert_eq!(with(b"12345678"), Ok(()));
        assert_eq!(with(b"12345678servers!"), Ok(()));
        assert_eq!(with(b"12345679servers!"), Err(Flaw::Cookie));
        assert_eq!(with(b"12345678short"), Err(Flaw::Cookie));
        assert_eq!(sent.check(&reply_to(&sent)), Ok(()), "none at all");
    }

    #[test]
    fn reply_that_could_not_read_the_query_need_not_repeat_it() {
        let name = wire("www.example.");
        let sent = Sent::new(&question(&name), 7, None, BARE);
        let mut reply = reply_to(&sent)[..12].to_vec();
        reply[3] |= FORMERR;
        reply[4..12].fill(0);
        assert_eq!(sent.check(&reply), Ok(()));
        reply[3] = 0;
        assert_eq!(sent.check(&reply), Err(Flaw::Question));
    }

    #[test]
    fn signs_are_those_of_header_and_opt() {
        let name = wire("www.example.");
        let sent = Sent::new(&question(&name), 7, None, Edns::Absent);
        let mut reply = reply_to(&sent);
        reply[2] |= 2;
        let plain = Signs::read(&reply).unwrap();
        assert!(plain.truncated && !plain.edns);
        assert_eq!((plain.rcode, plain.cookie), (0, None));

        reply[2] &= !2;
        reply[3] |= 7;
        reply[11] = 1;
        // BADCOOKIE is 23: 1 in OPT, 7 in the header.
        reply.extend(b"\0\0\x29\x04\xD0\x01\0\0\0\0\x11\0\x03\0\x01n\0\x0A\0\x08cookie!!");
        let signs = Signs::read(&reply).unwrap();
        assert_eq!((signs.rcode, signs.edns), (23, true));
        assert_eq!(signs.keepalive, None);
        assert_eq!(signs.cookie, Some(&b"cookie!!"[..]));
        for end in 0..reply.len() {
            assert_eq!(Signs::read(&reply[..end]), None, "cut at {end}");
        }
    }

    #[test]
    fn keepalive_is_read_in_tenths_of_a_second() {
        let name = wire("www.example.");
        let sent = Sent::new(&question(&name), 7, None, Edns::Absent);
        let mut reply = reply_to(&sent);
        reply[11] = 1;
        reply.extend(b"\0\0\x29\x04\xD0\0\0\0\0\0\x06\0\x0B\0\x02\0\x0F");
        let signs = Signs::read(&reply).unwrap();
        assert_eq!(signs.keepalive, Some(Duration::from_millis(1_500)));
    }

    proptest! {
        /// Whatever comes, reading it does not panic; and only the name's case may differ in what is sent.
        #[test]
        fn anything_is_read_or_refused(packet in prop::collection::vec(any::<u8>(), 0..80), case: u64) {
            let name = wire("www.example.");
            let sent = Sent::new(&question(&name), 7, Some(case), BARE);
            prop_assert!(sent.bytes()[HEADER..sent.question_end - 4].eq_ignore_ascii_case(&name));
            prop_assert!(sent.check(&packet).is_err() || packet.len() >= HEADER);
            let _ = Signs::read(&packet);
        }
    }
}
