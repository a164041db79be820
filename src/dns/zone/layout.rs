//! The data of record types field by field: master-file tokens to wire form, and back to text.
//!
//! Two kinds of types stand here. The common ones, since most records of most zones are of these and nothing is allocated
//! for them; `domain` has them too, its word on a problem counts, and a test holds both to the same result. And those that
//! `domain` reads in generic form only.

mod apl;
mod loc;

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use domain::base::iana::SecurityAlgorithm;
use domain::utils::{base16, base64};

use super::entry::Token;
use super::name::{self, Symbols};
use super::rdata;

/// A part of record data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    U8,
    U16,
    U32,
    Ip4,
    Ip6,
    /// A name, uncompressed.
    Name,
    /// Names up to the end, maybe none.
    Names,
    /// A character string: a length byte and that many bytes.
    Text,
    /// The same, or nothing.
    TextMaybe,
    /// Character strings up to the end, at least one.
    Texts,
    /// Bytes without a length up to the end, one token.
    Bytes,
    /// Up to the end, in several tokens if wanted.
    Hex,
    Base64,
    /// Pairs of hexadecimal digits with hyphens between them.
    Eui(usize),
    /// 64 bits as four groups of hexadecimal digits.
    Locator,
    /// A number or mnemonic of a DNSSEC algorithm.
    Algorithm,
    /// A number or mnemonic of a certificate type (RFC 4398 section 2.1).
    Certificate,
    /// A bitmap of types up to the end (RFC 4034 section 4.1.2).
    Types,
    /// `0x` and hexadecimal digits, dots between them ignored (RFC 1706).
    Nsap,
    /// Algorithm, host identity tag and public key (RFC 8005 section 5).
    Host,
    /// Discovery bit, type of relay, and relay (RFC 8777 section 4.2).
    Relay,
    /// RFC 3123 section 4.
    Prefixes,
    /// RFC 1876 section 2.
    Location,
}

/// The layout of the data of a type with its expected text; `None`: not known here.
pub(super) fn of(rtype: u16) -> Option<&'static [Field]> {
    use Field::*;
    Some(match rtype {
        1 => &[Ip4],
        2 | 5 | 12 | 39 => &[Name],
        15 => &[U16, Name],
        16 => &[Texts],
        28 => &[Ip6],
        33 => &[U16, U16, U16, Name],
        _ => return alone(rtype),
    })
}

/// As [`of`], for the types that `domain` does not know.
pub(super) fn alone(rtype: u16) -> Option<&'static [Field]> {
    use Field::*;
    Some(match rtype {
        18 | 21 | 36 | 107 => &[U16, Name],
        19 => &[Text],
        20 => &[Text, TextMaybe],
        22 => &[Nsap],
        23 => &[Name],
        25 => &[U16, U8, Algorithm, Base64],
        26 => &[U16, Name, Name],
        27 => &[Text, Text, Text],
        29 => &[Location],
        37 => &[Certificate, U16, Algorithm, Base64],
        42 => &[Prefixes],
        49 => &[Base64],
        53 => &[U8, U8, U8, Hex],
        55 => &[Host, Names],
        56 | 99 | 258 | 261 | 262 => &[Texts],
        57 => &[U16, U8, Algorithm, Base64],
        58 => &[Name, Name],
        62 => &[U32, U16, Types],
        104 | 106 => &[U16, Locator],
        105 => &[U16, Ip4],
        108 => &[Eui(6)],
        109 => &[Eui(8)],
        256 => &[U16, U16, Bytes],
        260 => &[U8, Relay],
        32768 | 32769 => &[U16, Algorithm, U8, Hex],
        _ => return None,
    })
}

/// How the data of a type that only this file knows is written, for messages.
pub(super) fn expected(rtype: u16) -> Option<&'static str> {
    Some(match rtype {
        18 => "SUBTYPE NAME",
        19 => "a PSDN address",
        20 => "an ISDN address and perhaps a subaddress",
        21 | 36 | 107 => "PREFERENCE NAME",
        22 => "0x and hexadecimal digits",
        23 => "one name",
        25 | 57 => "FLAGS PROTOCOL ALGORITHM BASE64",
        26 => "PREFERENCE NAME NAME",
        27 => "LONGITUDE LATITUDE ALTITUDE",
        29 => {
            "DEGREES [MINUTES [SECONDS]] N|S DEGREES [MINUTES [SECONDS]] E|W ALTITUDE [SIZE [PRECISION [PRECISION]]]"
        }
        37 => "TYPE KEY-TAG ALGORITHM BASE64",
        42 => "[!]FAMILY:ADDRESS/PREFIX…",
        49 => "BASE64",
        53 => "USAGE SELECTOR MATCHING HEX",
        55 => "ALGORITHM HEX BASE64 [NAME…]",
        56 | 99 | 258 | 261 | 262 => "texts of at most 255 bytes each",
        58 => "NAME NAME",
        62 => "SERIAL FLAGS TYPE…",
        104 | 106 => "PREFERENCE and 64 bits as XXXX:XXXX:XXXX:XXXX",
        105 => "PREFERENCE and an IPv4 address",
        108 => "XX-XX-XX-XX-XX-XX",
        109 => "XX-XX-XX-XX-XX-XX-XX-XX",
        256 => "PRIORITY WEIGHT \"TARGET\"",
        260 => "PRECEDENCE DISCOVERY TYPE RELAY",
        32768 | 32769 => "KEY-TAG ALGORITHM DIGEST-TYPE HEX",
        _ => return None,
    })
}

/// Where and why data is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// The token; behind the last one: the record ends too early.
    pub(super) token: usize,
    /// What it should be; empty: more than expected.
    pub(super) why: &'static str,
}

/// The tokens of one record's data.
#[derive(Debug)]
struct Tokens<'t> {
    all: &'t [Token<'t>],
    next: usize,
}

impl<'t> Tokens<'t> {
    fn next(&mut self) -> Result<&'t [u8], &'static str> {
        let token = self.all.get(self.next);
        self.next += 1; // Also at the end: that is where it is wrong.
        token.map(|token| token.text).ok_or(END)
    }

    fn more(&self) -> bool {
        self.next < self.all.len()
    }

    /// The next token as ASCII text without escapes.
    fn plain(&mut self) -> Result<&'t str, &'static str> {
        std::str::from_utf8(self.next()?).map_err(|_| "not ASCII")
    }

    /// All tokens left as one.
    fn rest(&mut self) -> Result<String, &'static str> {
        let mut text = self.plain()?.to_owned();
        while self.more() {
            text.push_str(self.plain()?);
        }
        Ok(text)
    }
}

/// Appends the wire form of data with this layout.
///
/// # Errors
/// Where and why it is not taken; `out` may then have grown.
pub(super) fn encode(
    fields: &[Field],
    tokens: &[Token<'_>],
    origin: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Wrong> {
    let mut tokens = Tokens {
        all: tokens,
        next: 0,
    };
    for &field in fields {
        append(field, &mut tokens, origin, out).map_err(|why| Wrong {
            token: tokens.next.saturating_sub(1),
            why,
        })?;
    }
    if tokens.more() {
        return Err(Wrong {
            token: tokens.next,
            why: "",
        });
    }
    Ok(())
}

fn append(
    field: Field,
    tokens: &mut Tokens<'_>,
    origin: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), &'static str> {
    match field {
        Field::U8 => out.push(number(tokens.next()?)?),
        Field::U16 => out.extend(number::<u16>(tokens.next()?)?.to_be_bytes()),
        Field::U32 => out.extend(number::<u32>(tokens.next()?)?.to_be_bytes()),
        Field::Ip4 => {
            out.extend(address::<Ipv4Addr>(tokens.next()?)?.octets());
        }
        Field::Ip6 => {
            out.extend(address::<Ipv6Addr>(tokens.next()?)?.octets());
        }
        Field::Name => name::from_text(tokens.next()?, origin, out)?,
        Field::Names => {
            while tokens.more() {
                name::from_text(tokens.next()?, origin, out)?;
            }
        }
        Field::Text => text(tokens.next()?, out)?,
        Field::TextMaybe => {
            if tokens.more() {
                text(tokens.next()?, out)?;
            }
        }
        Field::Texts => {
            text(tokens.next()?, out)?;
            while tokens.more() {
                text(tokens.next()?, out)?;
            }
        }
        Field::Bytes => {
            let token = tokens.next()?;
            if token.is_empty() {
                return Err("empty");
            }
            for symbol in Symbols(token) {
                out.push(symbol?.0);
            }
        }
        Field::Hex => {
            let bytes: Vec<u8> = base16::decode(&tokens.rest()?).map_err(|_| HEX)?;
            if bytes.is_empty() {
                return Err(HEX);
            }
            out.extend(bytes);
        }
        Field::Base64 => {
            let bytes: Vec<u8> = base64::decode(&tokens.rest()?).map_err(|_| BASE64)?;
            if bytes.is_empty() {
                return Err(BASE64);
            }
            out.extend(bytes);
        }
        Field::Eui(len) => {
            let start = out.len();
            for pair in tokens.plain()?.split('-') {
                out.push(hex(pair, 2..=2)? as u8); // Two digits.
            }
            if out.len() - start != len {
                return Err("not that many pairs of hexadecimal digits");
            }
        }
        Field::Locator => {
            let start = out.len();
            for group in tokens.plain()?.split(':') {
                out.extend(hex(group, 1..=4)?.to_be_bytes());
            }
            if out.len() - start != 8 {
                return Err("not four groups of hexadecimal digits");
            }
        }
        Field::Algorithm => out.push(algorithm(tokens.next()?)?),
        Field::Certificate => {
            let token = tokens.next()?;
            let known = CERTIFICATES
                .iter()
                .find(|(_, mnemonic)| token.eq_ignore_ascii_case(mnemonic.as_bytes()));
            let value = known.map_or_else(|| number(token), |(value, _)| Ok(*value))?;
            out.extend(value.to_be_bytes());
        }
        Field::Types => types(tokens, out)?,
        Field::Nsap => {
            let text = tokens.plain()?;
            let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
            let digits = digits.ok_or("no 0x before it")?.replace('.', "");
            let bytes: Vec<u8> = base16::decode(&digits).map_err(|_| HEX)?;
            if bytes.is_empty() {
                return Err(HEX);
            }
            out.extend(bytes);
        }
        Field::Host => host(tokens, out)?,
        Field::Relay => relay(tokens, origin, out)?,
        Field::Prefixes => {
            while tokens.more() {
                apl::encode(tokens.plain()?, out)?;
            }
        }
        Field::Location => loc::encode(tokens, out)?,
    }
    Ok(())
}

fn address<T: std::str::FromStr>(text: &[u8]) -> Result<T, &'static str> {
    let text = std::str::from_utf8(text).ok();
    text.and_then(|text| text.parse().ok())
        .ok_or("not an address")
}

/// A decimal number.
fn number<T: TryFrom<u32>>(text: &[u8]) -> Result<T, &'static str> {
    if text.is_empty() {
        return Err("not a number");
    }
    let mut value = 0_u32;
    for &byte in text {
        if !byte.is_ascii_digit() {
            return Err("not a decimal number");
        }
        value = value
            .checked_mul(10)
            .and_then(|value| value.checked_add(u32::from(byte - b'0')))
            .ok_or("too large")?;
    }
    T::try_from(value).map_err(|_| "too large")
}

/// Hexadecimal digits, so many of them; at most four.
fn hex(text: &str, digits: std::ops::RangeInclusive<usize>) -> Result<u16, &'static str> {
    if !digits.contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(HEX);
    }
    u16::from_str_radix(text, 16).map_err(|_| HEX)
}

/// A character string.
fn text(token: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let start = out.len();
    out.push(0);
    for symbol in Symbols(token) {
        out.push(symbol?.0);
    }
    let len = out.len() - start - 1;
    out[start] = u8::try_from(len).map_err(|_| "more than 255 bytes")?;
    Ok(())
}

fn algorithm(token: &[u8]) -> Result<u8, &'static str> {
    match SecurityAlgorithm::from_mnemonic(token) {
        Some(algorithm) => Ok(algorithm.to_int()),
        None => number(token),
    }
}

fn types(tokens: &mut Tokens<'_>, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let mut types = std::collections::BTreeSet::new();
    while tokens.more() {
        types.insert(rdata::rtype(tokens.next()?).ok_or("not a type")?);
    }
    let types: Vec<u16> = types.into_iter().collect();
    for window in types.chunk_by(|one, next| one >> 8 == next >> 8) {
        let mut bits = [0_u8; 32];
        let mut len = 0;
        for rtype in window {
            let low = usize::from(rtype & 0xFF);
            bits[low / 8] |= 0x80 >> (low % 8);
            len = low / 8 + 1;
        }
        out.extend([(window[0] >> 8) as u8, len as u8]); // At most 255 and 32.
        out.extend(&bits[..len]);
    }
    Ok(())
}

fn host(tokens: &mut Tokens<'_>, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let algorithm: u8 = number(tokens.next()?)?;
    let tag: Vec<u8> = base16::decode(tokens.plain()?).map_err(|_| HEX)?;
    let length = u8::try_from(tag.len()).map_err(|_| "more than 255 bytes")?;
    let key: Vec<u8> = base64::decode(tokens.plain()?).map_err(|_| BASE64)?;
    let key_length = u16::try_from(key.len()).map_err(|_| "more than 65535 bytes")?;
    if length == 0 || key_length == 0 {
        return Err("empty");
    }
    out.extend([length, algorithm]);
    out.extend(key_length.to_be_bytes());
    out.extend(tag);
    out.extend(key);
    Ok(())
}

fn relay(tokens: &mut Tokens<'_>, origin: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let discovery: u8 = number(tokens.next()?)?;
    let kind: u8 = number(tokens.next()?)?;
    if discovery > 1 || kind > 3 {
        return Err("too large");
    }
    out.push(discovery << 7 | kind);
    let relay = tokens.next()?;
    match kind {
        0 if relay == b"." => {}
        0 => return Err("not `.`, as that type wants"),
        1 => out.extend(address::<Ipv4Addr>(relay)?.octets()),
        2 => out.extend(address::<Ipv6Addr>(relay)?.octets()),
        _ => name::from_text(relay, origin, out)?,
    }
    Ok(())
}

/// Data in wire form as text; `None`: it has not this layout.
pub(super) fn to_text(fields: &[Field], wire: &[u8]) -> Option<String> {
    let mut out = String::new();
    let mut rest = wire;
    for (at, &field) in fields.iter().enumerate() {
        let before = out.len();
        if at > 0 {
            out.push(' ');
        }
        let start = out.len();
        print(field, &mut rest, &mut out)?;
        if out.len() == start {
            out.truncate(before);
        }
    }
    rest.is_empty().then_some(out)
}

fn print(field: Field, rest: &mut &[u8], out: &mut String) -> Option<()> {
    match field {
        Field::U8 => push(out, take::<1>(rest)?[0]),
        Field::U16 => push(out, u16::from_be_bytes(take(rest)?)),
        Field::U32 => push(out, u32::from_be_bytes(take(rest)?)),
        Field::Ip4 => push(out, Ipv4Addr::from(take::<4>(rest)?)),
        Field::Ip6 => push(out, Ipv6Addr::from(take::<16>(rest)?)),
        Field::Name => push(out, print_name(rest)?),
        Field::Names => {
            let mut space = "";
            while !rest.is_empty() {
                let _ = write!(out, "{space}{}", print_name(rest)?); // A String takes everything.
                space = " ";
            }
        }
        Field::Text => print_text(rest, out)?,
        Field::TextMaybe => {
            if !rest.is_empty() {
                print_text(rest, out)?;
            }
        }
        Field::Texts => {
            print_text(rest, out)?;
            while !rest.is_empty() {
                out.push(' ');
                print_text(rest, out)?;
            }
        }
        Field::Bytes => {
            if rest.is_empty() {
                return None;
            }
            quote(std::mem::take(rest), out);
        }
        Field::Hex => {
            if rest.is_empty() {
                return None;
            }
            push(out, base16::encode_display(std::mem::take(rest)));
        }
        Field::Base64 => {
            if rest.is_empty() {
                return None;
            }
            push(out, base64::encode_string(std::mem::take(rest)));
        }
        Field::Eui(len) => {
            let (bytes, after) = rest.split_at_checked(len)?;
            for (at, byte) in bytes.iter().enumerate() {
                let _ = write!(out, "{}{byte:02x}", if at == 0 { "" } else { "-" }); // As above.
            }
            *rest = after;
        }
        Field::Locator => {
            for at in 0..4 {
                let group = u16::from_be_bytes(take(rest)?);
                let _ = write!(out, "{}{group:04x}", if at == 0 { "" } else { ":" }); // As above.
            }
        }
        Field::Algorithm => push(out, take::<1>(rest)?[0]),
        Field::Certificate => {
            let value = u16::from_be_bytes(take(rest)?);
            match CERTIFICATES.iter().find(|(known, _)| *known == value) {
                Some((_, mnemonic)) => out.push_str(mnemonic),
                None => push(out, value),
            }
        }
        Field::Types => print_types(rest, out)?,
        Field::Nsap => {
            if rest.is_empty() {
                return None;
            }
            push(
                out,
                format_args!("0x{}", base16::encode_display(std::mem::take(rest))),
            );
        }
        Field::Host => {
            let [length, algorithm] = take(rest)?;
            let key_length = usize::from(u16::from_be_bytes(take(rest)?));
            if length == 0 || key_length == 0 {
                return None;
            }
            let (tag, after) = rest.split_at_checked(usize::from(length))?;
            let (key, after) = after.split_at_checked(key_length)?;
            *rest = after;
            push(
                out,
                format_args!(
                    "{algorithm} {} {}",
                    base16::encode_display(tag),
                    base64::encode_string(key)
                ),
            );
        }
        Field::Relay => {
            let [kind] = take(rest)?;
            push(out, format_args!("{} {} ", kind >> 7, kind & 0x7F));
            match kind & 0x7F {
                0 => out.push('.'),
                1 => push(out, Ipv4Addr::from(take::<4>(rest)?)),
                2 => push(out, Ipv6Addr::from(take::<16>(rest)?)),
                3 => push(out, print_name(rest)?),
                _ => return None,
            }
        }
        Field::Prefixes => apl::print(rest, out)?,
        Field::Location => loc::print(&take(rest)?, out)?,
    }
    Some(())
}

fn push(out: &mut String, value: impl std::fmt::Display) {
    let _ = write!(out, "{value}"); // A String takes everything.
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

fn print_name(rest: &mut &[u8]) -> Option<String> {
    let mut len = 0;
    loop {
        let label = usize::from(*rest.get(len)?);
        len += label + 1;
        if label > 63 || len > crate::dns::wire::NAME_MAX {
            return None;
        }
        if label == 0 {
            break;
        }
    }
    let (name, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(name::to_text(name))
}

fn print_text(rest: &mut &[u8], out: &mut String) -> Option<()> {
    let [len] = take(rest)?;
    let (text, after) = rest.split_at_checked(usize::from(len))?;
    *rest = after;
    quote(text, out);
    Some(())
}

fn quote(text: &[u8], out: &mut String) {
    out.push('"');
    for &byte in text {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            0x20..=0x7E => out.push(char::from(byte)),
            _ => push(out, format_args!("\\{byte:03}")),
        }
    }
    out.push('"');
}

fn print_types(rest: &mut &[u8], out: &mut String) -> Option<()> {
    let mut space = "";
    let mut last = None;
    while !rest.is_empty() {
        let [window, len] = take(rest)?;
        let (bits, after) = rest.split_at_checked(usize::from(len))?;
        *rest = after;
        // Windows rise, and none has zeros at its end (RFC 4034 section 4.1.2).
        if last.is_some_and(|last| last >= window) || bits.len() > 32 || *bits.last()? == 0 {
            return None;
        }
        last = Some(window);
        for low in 0..bits.len() * 8 {
            if bits[low / 8] & 0x80 >> (low % 8) != 0 {
                let rtype = u16::from(window) << 8 | low as u16; // Below 256.
                push(out, format_args!("{space}{}", rdata::mnemonic(rtype)));
                space = " ";
            }
        }
    }
    Some(())
}

/// An address of a family as APL and messages know it.
fn family(address: IpAddr) -> u16 {
    match address {
        IpAddr::V4(_) => 1,
        IpAddr::V6(_) => 2,
    }
}

const END: &str = "end of the record";
const HEX: &str = "not hexadecimal digits";
const BASE64: &str = "not base 64";

const CERTIFICATES: &[(u16, &str)] = &[
    (1, "PKIX"),
    (2, "SPKI"),
    (3, "PGP"),
    (4, "IPKIX"),
    (5, "ISPKI"),
    (6, "IPGP"),
    (7, "ACPKIX"),
    (8, "IACPKIX"),
    (253, "URI"),
    (254, "OID"),
];
