//! Packets in, views and answers out; then any bytes at all.

use super::*;
use proptest::prelude::*;

fn packet(counts: [u16; 4], body: &[u8]) -> Vec<u8> {
    let mut packet = vec![0xAB, 0xCD, 0x01, 0x10];
    packet.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
    packet.extend_from_slice(body);
    packet
}

const QUESTION: &[u8] = b"\x03wWw\x04test\0\0\x01\0\x01";
const OPT: &[u8] = b"\0\0\x29\x10\0\0\0\x80\0\0\0";

fn asked(counts: [u16; 4], parts: &[&[u8]]) -> Vec<u8> {
    packet(counts, &parts.concat())
}

#[track_caller]
fn rejected(packet: &[u8], reject: Reject) {
    assert_eq!(Query::parse(packet).err(), Some(reject));
}

#[test]
fn parse_plain_question_is_borrowed_as_asked() {
    let packet = asked([1, 0, 0, 0], &[QUESTION]);
    let query = Query::parse(&packet).expect("a good query");
    assert_eq!(query.id, 0xABCD);
    assert!(query.recursion_desired && query.checking_disabled);
    assert_eq!(query.name, b"\x03wWw\x04test\0");
    assert_eq!((query.qtype, query.qclass), (1, 1));
    assert_eq!(query.question(), QUESTION);
    assert_eq!(query.edns, None);
}

#[test]
fn parse_opt_gives_payload_and_do() {
    let packet = asked([1, 0, 0, 1], &[QUESTION, OPT]);
    let edns = Query::parse(&packet).expect("a good query").edns;
    assert_eq!(
        edns,
        Some(Edns {
            payload: 4096,
            version: 0,
            dnssec_ok: true,
            options: Options::default(),
        })
    );
}

#[test]
fn parse_runt_or_response_is_dropped() {
    rejected(&[0; 11], Reject::Drop);
    let mut response = asked([1, 0, 0, 0], &[QUESTION]);
    response[2] |= FLAG_QR;
    rejected(&response, Reject::Drop);
}

#[test]
fn parse_other_opcodes_are_notimp() {
    for opcode in [1, 2, 4, 5, 6, 15] {
        let mut packet = asked([1, 0, 0, 0], &[QUESTION]);
        packet[2] |= opcode << 3;
        rejected(&packet, Reject::Error(Rcode::NotImp));
    }
}

#[test]
fn parse_malformed_is_formerr() {
    let formerr = Reject::Error(Rcode::FormErr);
    for counts in [[0, 0, 0, 0], [2, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0]] {
        rejected(&asked(counts, &[QUESTION, QUESTION]), formerr);
    }
    let long = [&[63; 64][..]; 4].concat();
    let bodies: &[&[&[u8]]] = &[
        &[&QUESTION[..QUESTION.len() - 1]],
        &[b"\x03ww"],
        &[b"\xC0\x0C\0\x01\0\x01"],
        &[b"\x40abc\0\0\x01\0\x01"],
        &[&long, b"\0\0\x01\0\x01"],
    ];
    for body in bodies {
        rejected(&asked([1, 0, 0, 0], body), formerr);
    }
    let additional: &[&[&[u8]]] = &[
        &[QUESTION],                                                // counted, not there
        &[QUESTION, &OPT[..10]],                                    // cut
        &[QUESTION, b"\x01a", OPT],                                 // OPT with an owner
        &[QUESTION, b"\0\0\x29\x10\0\0\0\0\0\0\x05\0\x0A\0\x08\0"], // option runs over
    ];
    for body in additional {
        rejected(&asked([1, 0, 0, 1], body), formerr);
    }
    rejected(&asked([1, 0, 0, 2], &[QUESTION, OPT, OPT]), formerr);
}

#[test]
fn parse_name_of_255_bytes_is_taken_and_256_is_not() {
    let name = |labels: &[u8]| -> Vec<u8> {
        let label = |&len: &u8| [vec![len], vec![b'x'; usize::from(len)]].concat();
        [labels.iter().flat_map(label).collect(), vec![0]].concat()
    };
    assert_eq!(name_len(&name(&[63, 63, 63, 61])), Some(255));
    assert_eq!(name_len(&name(&[63, 63, 63, 62])), None);
    assert_eq!(name_len(&name(&[63, 63, 63, 61, 1])), None);
}

#[test]
fn parse_later_edns_version_is_badvers_and_answered_with_opt() {
    let mut opt = OPT.to_vec();
    opt[6] = 1;
    let packet = asked([1, 0, 0, 1], &[QUESTION, &opt]);
    rejected(&packet, Reject::Error(Rcode::BadVers));
    let mut out = [0; 512];
    let len = error(&packet, Rcode::BadVers, None, &mut out);
    let opt = &out[len - OPT_LEN..len];
    assert_eq!(out[3] & 0x0F, 0);
    assert_eq!(opt, b"\0\0\x29\x04\xD0\x01\0\x80\0\0\0");
    assert_eq!(&out[10..12], &[0, 1]);
}

#[test]
fn parse_options_beyond_the_bound_are_not_looked_at() {
    let mut rdata = [0, 8, 0, 0].repeat(OPTIONS_MAX);
    rdata.extend([0, 8, 0xFF]);
    let mut opt = b"\0\0\x29\x10\0\0\0\0\0".to_vec();
    opt.extend(u16::try_from(rdata.len()).expect("131 bytes").to_be_bytes());
    opt.extend(rdata);
    let packet = asked([1, 0, 0, 1], &[QUESTION, &opt]);
    let options = |bound| {
        let query = Query::parse_within(&packet, bound).expect("the rest is not looked at");
        query.edns.expect("an OPT").options
    };
    assert!(options(OPTIONS_MAX).more());
    assert_eq!(
        Query::parse(&packet)
            .map(|q| q.edns.map(|e| e.options.more()))
            .ok(),
        Some(Some(true))
    );
    assert!(Query::parse_within(&packet, OPTIONS_MAX + 1).is_err());
}

#[test]
fn error_repeats_question_rd_and_cd() {
    let packet = asked([1, 0, 0, 0], &[QUESTION]);
    let mut out = [0; 512];
    let len = error(&packet, Rcode::Refused, None, &mut out);
    let mut expected = packet.clone();
    expected[2] |= FLAG_QR;
    expected[3] |= 5;
    assert_eq!(&out[..len], &expected[..]);
}

#[test]
fn error_without_a_readable_question_is_a_header() {
    let mut out = [0; 512];
    let packet = asked([1, 0, 0, 0], &[b"\x09x"]);
    let len = error(&packet, Rcode::FormErr, None, &mut out);
    assert_eq!(
        &out[..len],
        &[0xAB, 0xCD, 0x81, 0x11, 0, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(error(&[0; 11], Rcode::FormErr, None, &mut out), 0);
}

#[test]
fn udp_limit_follows_client_and_configuration() {
    let mut packet = asked([1, 0, 0, 1], &[QUESTION, OPT]);
    let at = packet.len() - 8;
    for (payload, limit) in [(0, 512), (511, 512), (700, 700), (1232, 1232), (4096, 1232)] {
        packet[at..at + 2].copy_from_slice(&u16::to_be_bytes(payload));
        let query = Query::parse(&packet).expect("a good query");
        assert_eq!(udp_limit(&query, 1232), limit);
    }
    let packet = asked([1, 0, 0, 0], &[QUESTION]);
    assert_eq!(udp_limit(&Query::parse(&packet).expect("good"), 1232), 512);
}

proptest! {
    #[test]
    fn any_bytes_parse_or_get_an_answer_that_is_one(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        check_any(&bytes)?;
    }

    #[test]
    fn any_damage_to_a_query_is_answered_within_bounds(
        at in 0usize..100, value: u8, cut in 0usize..100,
    ) {
        let mut packet = asked([1, 0, 0, 1], &[QUESTION, OPT]);
        let at = at % packet.len();
        packet[at] = value;
        packet.truncate(packet.len() - cut % packet.len());
        check_any(&packet)?;
    }
}

fn check_any(bytes: &[u8]) -> Result<(), TestCaseError> {
    let mut out = [0; CODE_LEN_MAX];
    let parsed = Query::parse(bytes);
    if let Ok(query) = &parsed {
        prop_assert!(query.name.len() <= NAME_MAX);
        prop_assert!(query.question().starts_with(query.name));
    }
    let len = error(bytes, Rcode::FormErr, None, &mut out);
    if bytes.len() >= HEADER_LEN {
        let message = hickory_proto::op::Message::from_vec(&out[..len]);
        prop_assert!(message.is_ok(), "{message:?}");
    }
    Ok(())
}

/// An OPT with these options.
fn opt(options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut rdata = Vec::new();
    for (code, data) in options {
        rdata.extend(code.to_be_bytes());
        rdata.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
        rdata.extend_from_slice(data);
    }
    let mut opt = b"\0\0\x29\x10\0\0\0\0\0".to_vec();
    opt.extend(u16::try_from(rdata.len()).expect("short").to_be_bytes());
    [opt, rdata].concat()
}

#[test]
fn options_that_change_an_answer_are_read_and_others_ignored() {
    let cookie = b"clientclserverse";
    let options: &[(u16, &[u8])] = &[
        (8, b"x"),
        (3, b""),
        (10, cookie),
        (10, b"other123"),
        (12, &[0; 9]),
    ];
    let packet = asked([1, 0, 0, 1], &[QUESTION, &opt(options)]);
    let query = Query::parse(&packet).expect("a good query");
    let read = query.edns.expect("an OPT").options;
    assert!(read.nsid() && read.padding() && !read.keepalive() && !read.is_empty());
    let cookie = query.cookie().expect("a cookie");
    assert_eq!(
        (cookie.client, cookie.server),
        (b"clientcl", &b"serverse"[..])
    );
    let packet = asked([1, 0, 0, 1], &[QUESTION, &opt(&[(11, b""), (65001, b"")])]);
    let read = Query::parse(&packet).expect("a good query").edns;
    let read = read.expect("an OPT").options;
    assert!(read.keepalive() && !read.nsid() && read.cookie(&packet).is_none());
}

#[test]
fn cookie_of_an_impossible_length_is_formerr() {
    for len in 0..50 {
        let packet = asked([1, 0, 0, 1], &[QUESTION, &opt(&[(10, &[7; 50][..len])])]);
        let good = len == 8 || (16..=40).contains(&len);
        assert_eq!(Query::parse(&packet).is_ok(), good, "{len}");
    }
}

#[test]
fn question_may_be_missing_only_beside_a_cookie() {
    let packet = asked([0, 0, 0, 1], &[&opt(&[(10, b"clientcl")])]);
    let Err(Reject::CookieOnly(edns)) = Query::parse(&packet) else {
        panic!("a cookie alone");
    };
    let mut options = OptionsOut::new();
    options.cookie(b"clientcl", &[9; 16]);
    let extra = Extra {
        options: options.as_bytes(),
        block: 0,
    };
    let mut out = [0; 512];
    let len = cookie_answer(&packet, edns, extra, &mut out);
    let expected = [
        &[0xAB, 0xCD, 0x81, 0x10, 0, 0, 0, 0, 0, 0, 0, 1][..],
        b"\0\0\x29\x04\xD0\0\0\0\0\0\x1C\0\x0A\0\x18clientcl",
        &[9; 16],
    ];
    assert_eq!(&out[..len], &expected.concat()[..]);
    rejected(
        &asked([0, 0, 0, 1], &[&opt(&[(3, b"")])]),
        Reject::Error(Rcode::FormErr),
    );
    let mut later = opt(&[(10, b"clientcl")]);
    later[6] = 1;
    rejected(
        &asked([0, 0, 0, 1], &[&later]),
        Reject::Error(Rcode::BadVers),
    );
}

#[test]
fn tsig_is_found_and_must_be_the_last_record() {
    let tsig = b"\x03key\0\0\xFA\0\xFF\0\0\0\0\0\0";
    let packet = asked([1, 0, 0, 2], &[QUESTION, OPT, tsig]);
    let at = u16::try_from(HEADER_LEN + QUESTION.len() + OPT.len()).ok();
    assert_eq!(Query::parse(&packet).expect("a good query").tsig, at);
    let packet = asked([1, 0, 0, 2], &[QUESTION, tsig, OPT]);
    rejected(&packet, Reject::Error(Rcode::FormErr));
}

#[test]
fn reasons_come_with_an_opt_only_and_never_push_out_records() {
    let reason = Reason::new(Ede::Prohibited, "not for you");
    let plain = asked([1, 0, 0, 0], &[QUESTION]);
    let mut out = [0; 512];
    let bare = code(
        &Query::parse(&plain).expect("good"),
        Rcode::Refused,
        Some(reason),
        &mut out,
    );
    assert_eq!(bare, HEADER_LEN + QUESTION.len());
    let packet = asked([1, 0, 0, 1], &[QUESTION, OPT]);
    let query = Query::parse(&packet).expect("good");
    let len = code(&query, Rcode::Refused, Some(reason), &mut out);
    assert!(out[..len].ends_with(b"\0\x11\0\x0F\0\x0D\0\x12not for you"));
    assert_eq!(
        error(&packet, Rcode::Refused, Some(reason), &mut [0; 512]),
        len
    );

    let mut writer = Writer::new(&query, 512, &mut out).expect("room");
    let room = 512 - OPT_LEN - writer.position();
    assert!(writer.append(&vec![1; room - 6]));
    writer.reason(reason);
    writer.reason(reason);
    let len = writer.finish();
    assert!(
        out[..len].ends_with(b"\0\x06\0\x0F\0\x02\0\x12"),
        "without its text, and once"
    );
    assert_eq!(len, 512);
}

#[test]
fn padding_fills_the_block_or_what_room_there_is() {
    let packet = asked([1, 0, 0, 1], &[QUESTION, OPT]);
    let mut query = Query::parse(&packet).expect("good");
    query.extra.block = BLOCK;
    for (data, limit, expected) in [
        (0, 4096, 468),
        (420, 4096, 468),
        (428, 4096, 936),
        (600, 700, 700),
    ] {
        let mut out = [1; 4096];
        let mut writer = Writer::new(&query, limit, &mut out).expect("room");
        assert!(writer.append(&vec![1; data]));
        assert_eq!(writer.finish(), expected, "{data} bytes");
        assert_eq!(out[expected - 1], 0);
    }
}

#[test]
fn all_an_opt_may_carry_fits_the_shortest_answer() {
    let label = |len: u8| [vec![len], vec![b'x'; usize::from(len)]].concat();
    let name = [label(63), label(63), label(63), label(61), vec![0]].concat();
    let packet = asked([1, 0, 0, 1], &[&name, b"\0\x01\0\x01", OPT]);
    let mut query = Query::parse(&packet).expect("good");
    let mut options = OptionsOut::new();
    options.nsid(&[7; NSID_MAX + 1]);
    options.cookie(&[1; 8], &[2; 16]);
    options.keepalive(100);
    query.extra.options = options.as_bytes();
    let text = "fifty-eight bytes of explanation, which is the most of it.";
    assert_eq!(text.len(), TEXT_MAX);
    let mut out = [0; CODE_LEN_MAX];
    let mut writer = Writer::new(&query, CODE_LEN_MAX, &mut out).expect("room");
    writer.reason(Reason::new(Ede::Other, text));
    writer.reason(Reason::new(Ede::NetworkError, text));
    assert_eq!(writer.finish(), CODE_LEN_MAX);
    assert!(out.ends_with(text.as_bytes()));
    assert!(hickory_proto::op::Message::from_vec(&out).is_ok());
}
