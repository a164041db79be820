//! RDATA of every type: master-file tokens to wire form and back.
//!
//! The conversions are `layout`'s where it knows the type, else `domain`'s; this file is the [`Scanner`] that hands the
//! latter our tokens, so that a problem is known with its line and token. Evaluated against `domain`'s own zone file reader, which stops at the first
//! problem, gives line and column only as text, and takes no TTL units.

use domain::base::iana::Rtype;
use domain::base::rdata::ComposeRecordData as _;
use domain::base::scan::{ConvertSymbols, EntrySymbol, Scanner, ScannerError, Symbol};
use domain::base::zonefile_fmt::{DisplayKind, ZonefileFmt as _};
use domain::base::{CharStr, Name, ParseRecordData as _, ParsedName};
use domain::dep::octseq::{Parser, str::Str};
use domain::rdata::{AllRecordData, ZoneRecordData};

use super::entry::Token;
use super::layout;
use super::name::{self, Symbols};

/// The number of a type: a mnemonic, or `TYPE` and a number (RFC 3597 section 5).
pub(in crate::dns) fn rtype(text: &[u8]) -> Option<u16> {
    // Most records are of these; the others are compared with one mnemonic after the other.
    match text {
        b"A" => Some(1),
        b"NS" => Some(2),
        b"AAAA" => Some(28),
        b"DS" => Some(43),
        b"RRSIG" => Some(46),
        b"NSEC3" => Some(50),
        b"NSAP-PTR" => Some(23),
        _ => Rtype::from_bytes(text).map(Rtype::to_int),
    }
}

/// The mnemonic of a type.
pub(super) fn mnemonic(rtype: u16) -> String {
    Rtype::from_int(rtype).to_string()
}

/// Whether records of this type may stand in a zone: not the pseudo, query and transaction types.
pub(super) fn storable(rtype: u16) -> bool {
    !matches!(rtype, 0 | OPT | NXNAME | 249..=255)
}

/// A TTL: seconds, or numbers with units (`1h30m`), at most 2^31 - 1 (RFC 2181 section 8).
pub(super) fn ttl(text: &[u8]) -> Result<u32, &'static str> {
    const EXPECTED: &str = "expected seconds, or numbers with units as in 1h30m";
    const RANGE: &str = "expected at most 2147483647 seconds";
    let mut total = 0_u64;
    let mut number: Option<u64> = None;
    for &byte in text {
        if byte.is_ascii_digit() {
            let value = number.unwrap_or(0) * 10 + u64::from(byte - b'0');
            if value > TTL_MAX {
                return Err(RANGE);
            }
            number = Some(value);
            continue;
        }
        let unit = match byte.to_ascii_lowercase() {
            b's' => 1,
            b'm' => 60,
            b'h' => 3_600,
            b'd' => 86_400,
            b'w' => 604_800,
            _ => return Err(EXPECTED),
        };
        total += number.take().ok_or(EXPECTED)? * unit;
        if total > TTL_MAX {
            return Err(RANGE);
        }
    }
    // A bare number is seconds; behind a unit (`1h30`) it would be a slip.
    match number {
        Some(_) if total > 0 => Err(EXPECTED),
        Some(seconds) => Ok(seconds as u32), // At most TTL_MAX.
        None if text.is_empty() => Err(EXPECTED),
        None => Ok(total as u32), // At most TTL_MAX.
    }
}

/// Puts the wire form of a record's data into `wire`, names uncompressed.
///
/// # Errors
/// What was found and expected.
pub(super) fn encode(
    rtype: u16,
    tokens: &[Token<'_>],
    origin: &[u8],
    wire: &mut Vec<u8>,
) -> Result<(), String> {
    wire.clear();
    if !tokens.first().is_some_and(is_generic_marker)
        && let Some(fields) = layout::of(rtype)
    {
        match layout::encode(fields, tokens, origin, wire) {
            Ok(()) => return fits(rtype, wire),
            Err(wrong) if layout::expected(rtype).is_some() => {
                return Err(explain(rtype, tokens.get(wrong.token), wrong.why));
            }
            Err(_) => wire.clear(), // `domain` has the words for it.
        }
    }
    scan(rtype, tokens, origin, wire)
}

/// As [`encode`], by `domain`; `wire` is empty.
fn scan(rtype: u16, tokens: &[Token<'_>], origin: &[u8], wire: &mut Vec<u8>) -> Result<(), String> {
    let generic = tokens.first().is_some_and(is_generic_marker);
    // `domain` takes plain seconds only; the four times of an SOA are written with units everywhere.
    let mut seconds = [const { String::new() }; 4];
    let mut plain;
    let tokens = if rtype == SOA && !generic && tokens.len() >= 7 {
        plain = tokens.to_vec();
        for (text, token) in seconds.iter_mut().zip(&plain[3..7]) {
            *text = ttl(token.text)
                .map_err(|expected| format!("SOA: found `{}`, {expected}", show(token)))?
                .to_string();
        }
        for (text, token) in seconds.iter().zip(&mut plain[3..7]) {
            token.text = text.as_bytes();
        }
        plain.as_slice()
    } else {
        tokens
    };
    let mut scanner = RdataScanner {
        tokens,
        next: 0,
        origin,
    };
    let scanned: Result<Data, Bad> = ZoneRecordData::scan(Rtype::from_int(rtype), &mut scanner);
    let data = scanned.map_err(|bad| scanner.explain(rtype, &bad))?;
    if let Some(token) = tokens.get(scanner.next) {
        return Err(explain(rtype, Some(token), ""));
    }
    let Ok(()) = data.compose_rdata(wire);
    fits(rtype, wire)?;
    if generic && !is_well_formed(rtype, wire) {
        return Err(format!(
            "{}: found generic data that is none of this type, expected the wire form of {}",
            mnemonic(rtype),
            expected(rtype),
        ));
    }
    Ok(())
}

fn fits(rtype: u16, wire: &[u8]) -> Result<(), String> {
    if wire.len() > usize::from(u16::MAX) {
        return Err(format!(
            "{}: found {} bytes of data, expected at most 65535",
            mnemonic(rtype),
            wire.len()
        ));
    }
    Ok(())
}

/// What is wrong with the data of a record at a token; `why` is empty if the data should end before it.
fn explain(rtype: u16, token: Option<&Token<'_>>, why: &str) -> String {
    let (mnemonic, expected) = (mnemonic(rtype), expected(rtype));
    match token.map(show) {
        None => format!("{mnemonic}: found the end of the record, expected {expected}"),
        Some(token) if why.is_empty() => {
            format!("{mnemonic}: found `{token}` behind the data, expected {expected}")
        }
        Some(token) => format!("{mnemonic}: found `{token}` ({why}), expected {expected}"),
    }
}

/// Whether `wire` is data of this type with no compressed name. Types not known here are always well formed.
fn is_well_formed(rtype: u16, wire: &[u8]) -> bool {
    if let Some(fields) = layout::alone(rtype) {
        return layout::to_text(fields, wire).is_some();
    }
    let Some(data) = parse(rtype, wire) else {
        return false;
    };
    let mut again = Vec::new();
    let Ok(()) = data.compose_rdata(&mut again);
    again == wire
}

fn parse(rtype: u16, wire: &[u8]) -> Option<AllRecordData<&[u8], ParsedName<&[u8]>>> {
    let mut parser = Parser::from_ref(wire);
    let data = AllRecordData::parse_rdata(Rtype::from_int(rtype), &mut parser).ok()??;
    (parser.remaining() == 0).then_some(data)
}

/// Record data in wire form, names uncompressed, as master-file text.
pub(super) fn to_text(rtype: u16, wire: &[u8]) -> String {
    use std::fmt::Write as _;
    if let Some(text) = layout::alone(rtype).and_then(|fields| layout::to_text(fields, wire)) {
        return text;
    }
    if let Some(data) = parse(rtype, wire)
        && !matches!(data, AllRecordData::Unknown(_))
    {
        return data.display_zonefile(DisplayKind::Simple).to_string();
    }
    let mut text = format!("\\# {}", wire.len());
    for (at, byte) in wire.iter().enumerate() {
        text.push_str(if at == 0 { " " } else { "" });
        let _ = write!(text, "{byte:02X}"); // A String takes everything.
    }
    text
}

type Data = ZoneRecordData<Vec<u8>, Name<Vec<u8>>>;

fn is_generic_marker(token: &Token<'_>) -> bool {
    token.text == b"\\#" && !token.quoted
}

pub(super) fn show(token: &Token<'_>) -> String {
    let text = String::from_utf8_lossy(token.text);
    if text.chars().count() > SHOWN {
        let start: String = text.chars().take(SHOWN).collect();
        return format!("{start}…");
    }
    text.into_owned()
}

/// How the data of a type is written, for messages.
fn expected(rtype: u16) -> &'static str {
    match rtype {
        1 => "one IPv4 address",
        28 => "one IPv6 address",
        2 | 5 | 12 | 39 => "one name",
        SOA => "PRIMARY MAILBOX SERIAL REFRESH RETRY EXPIRE MINIMUM",
        15 => "PREFERENCE NAME",
        16 => "texts of at most 255 bytes each",
        33 => "PRIORITY WEIGHT PORT NAME",
        257 => "FLAGS TAG \"VALUE\"",
        43 | 59 => "KEY-TAG ALGORITHM DIGEST-TYPE HEX",
        48 | 60 => "FLAGS PROTOCOL ALGORITHM BASE64",
        52 => "USAGE SELECTOR MATCHING HEX",
        64 | 65 => "PRIORITY NAME KEY=VALUE…",
        35 => "ORDER PREFERENCE FLAGS SERVICE REGEXP NAME",
        _ => layout::expected(rtype).unwrap_or("the data of this type"),
    }
}

/// Hands the tokens of one record's data to `domain`.
#[derive(Debug)]
struct RdataScanner<'t> {
    tokens: &'t [Token<'t>],
    /// The token read next.
    next: usize,
    origin: &'t [u8],
}

impl<'t> RdataScanner<'t> {
    fn token(&mut self) -> Result<Token<'t>, Bad> {
        let token = *self.tokens.get(self.next).ok_or(Bad::End)?;
        self.next += 1;
        Ok(token)
    }

    fn octets(&mut self) -> Result<Vec<u8>, Bad> {
        let token = self.token()?;
        Symbols(token.text).map(|symbol| Ok(symbol?.0)).collect()
    }

    fn explain(&self, rtype: u16, bad: &Bad) -> String {
        if self.next == 0 && !self.tokens.is_empty() && matches!(bad, Bad::Message(_)) {
            let mnemonic = mnemonic(rtype);
            return format!(
                "{mnemonic}: found data in a form not known here, expected \\# LENGTH HEX (RFC 3597)"
            );
        }
        match bad {
            Bad::Message(why) => {
                let at = self.next.checked_sub(1);
                explain(rtype, at.and_then(|at| self.tokens.get(at)), why)
            }
            Bad::End => explain(rtype, None, ""),
        }
    }
}

/// The bytes of a token as `domain`'s symbols; a byte above ASCII stands for itself.
fn symbols(token: Token<'_>) -> impl Iterator<Item = Result<Symbol, Bad>> + '_ {
    Symbols(token.text).map(|symbol| {
        Ok(match symbol? {
            (byte @ 0x20..=0x7E, true) => Symbol::SimpleEscape(byte),
            (byte @ ..=0x7F, false) => Symbol::Char(char::from(byte)),
            (byte, _) => Symbol::DecimalEscape(byte),
        })
    })
}

impl Scanner for RdataScanner<'_> {
    type Octets = Vec<u8>;
    type OctetsBuilder = Vec<u8>;
    type Name = Name<Vec<u8>>;
    type Error = Bad;

    fn has_space(&self) -> bool {
        self.tokens.get(self.next).is_some_and(|token| token.spaced)
    }

    fn continues(&mut self) -> bool {
        self.next < self.tokens.len()
    }

    fn scan_symbols<F>(&mut self, mut op: F) -> Result<(), Bad>
    where
        F: FnMut(Symbol) -> Result<(), Bad>,
    {
        symbols(self.token()?).try_for_each(|symbol| op(symbol?))
    }

    fn scan_entry_symbols<F>(&mut self, mut op: F) -> Result<(), Bad>
    where
        F: FnMut(EntrySymbol) -> Result<(), Bad>,
    {
        loop {
            symbols(self.token()?).try_for_each(|symbol| op(symbol?.into()))?;
            op(EntrySymbol::EndOfToken)?;
            if !self.continues() {
                return Ok(());
            }
        }
    }

    fn convert_token<C: ConvertSymbols<Symbol, Bad>>(
        &mut self,
        mut convert: C,
    ) -> Result<Vec<u8>, Bad> {
        let mut out = Vec::new();
        for symbol in symbols(self.token()?) {
            out.extend_from_slice(convert.process_symbol(symbol?)?.unwrap_or_default());
        }
        out.extend_from_slice(convert.process_tail()?.unwrap_or_default());
        Ok(out)
    }

    fn convert_entry<C: ConvertSymbols<EntrySymbol, Bad>>(
        &mut self,
        mut convert: C,
    ) -> Result<Vec<u8>, Bad> {
        let mut out = Vec::new();
        while self.continues() {
            for symbol in symbols(self.token()?) {
                out.extend_from_slice(convert.process_symbol(symbol?.into())?.unwrap_or_default());
            }
        }
        out.extend_from_slice(convert.process_tail()?.unwrap_or_default());
        Ok(out)
    }

    fn scan_octets(&mut self) -> Result<Vec<u8>, Bad> {
        self.octets()
    }

    fn scan_svcb_octets(&mut self) -> Result<Vec<u8>, Bad> {
        let mut out = self.octets()?;
        if self
            .tokens
            .get(self.next)
            .is_some_and(|token| token.quoted && !token.spaced)
        {
            out.extend(self.octets()?);
        }
        Ok(out)
    }

    fn scan_ascii_str<F, T>(&mut self, op: F) -> Result<T, Bad>
    where
        F: FnOnce(&str) -> Result<T, Bad>,
    {
        let octets = self.octets()?;
        match std::str::from_utf8(&octets) {
            Ok(text) if text.is_ascii() => op(text),
            _ => Err(Bad::Message("not ASCII")),
        }
    }

    fn scan_name(&mut self) -> Result<Name<Vec<u8>>, Bad> {
        let token = self.token()?;
        let mut wire = Vec::new();
        name::from_text(token.text, self.origin, &mut wire)?;
        Name::from_octets(wire).map_err(|_| Bad::Message("not a name"))
    }

    fn scan_charstr(&mut self) -> Result<CharStr<Vec<u8>>, Bad> {
        CharStr::from_octets(self.octets()?).map_err(|_| Bad::Message("more than 255 bytes"))
    }

    fn scan_string(&mut self) -> Result<Str<Vec<u8>>, Bad> {
        Str::from_utf8(self.octets()?).map_err(|_| Bad::Message("not UTF-8"))
    }

    fn scan_charstr_entry(&mut self) -> Result<Vec<u8>, Bad> {
        let mut out = Vec::new();
        loop {
            let octets = self.octets()?;
            out.push(u8::try_from(octets.len()).map_err(|_| Bad::Message("more than 255 bytes"))?);
            out.extend_from_slice(&octets);
            if !self.continues() {
                return Ok(out);
            }
        }
    }

    fn scan_opt_unknown_marker(&mut self) -> Result<bool, Bad> {
        let found = self.tokens.get(self.next).is_some_and(is_generic_marker);
        self.next += usize::from(found);
        Ok(found)
    }

    fn octets_builder(&mut self) -> Result<Vec<u8>, Bad> {
        Ok(Vec::new())
    }
}

/// Why data was not taken.
#[derive(Debug, thiserror::Error)]
enum Bad {
    #[error("{0}")]
    Message(&'static str),
    #[error("end of the record")]
    End,
}

impl ScannerError for Bad {
    fn custom(message: &'static str) -> Self {
        Self::Message(message)
    }

    fn end_of_entry() -> Self {
        Self::End
    }

    fn short_buf() -> Self {
        Self::Message("too long")
    }

    fn trailing_tokens() -> Self {
        Self::Message("more than expected")
    }
}

impl From<&'static str> for Bad {
    fn from(message: &'static str) -> Self {
        Self::Message(message)
    }
}

/// The largest TTL, seconds (RFC 2181 section 8).
pub(super) const TTL_MAX: u64 = 0x7FFF_FFFF;

const SOA: u16 = 6;
const OPT: u16 = 41;
const NXNAME: u16 = 128;

/// Characters of a token shown in a message.
const SHOWN: usize = 60;

#[cfg(test)]
mod tests {
    use super::super::entry::Entries;
    use super::*;
    use proptest::prelude::*;

    fn encoded(text: &str) -> Result<(u16, Vec<u8>), String> {
        let mut tokens = Vec::new();
        let _ = Entries::new(text.as_bytes()).next(&mut tokens);
        let rtype = rtype(tokens[0].text).expect("a type");
        let mut wire = vec![9];
        encode(rtype, &tokens[1..], b"\x04test\0", &mut wire)?;
        Ok((rtype, wire))
    }

    /// `text` is taken and printed as `expected`.
    #[track_caller]
    fn check(text: &str, expected: &str) {
        let (rtype, wire) = encoded(text).expect("good data");
        assert_eq!(to_text(rtype, &wire), expected);
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        assert_eq!(encoded(text).expect_err("bad data"), expected);
    }

    #[test]
    fn encode_then_print_gives_canonical_text() {
        check("A 192.0.2.1", "192.0.2.1");
        check("AAAA 2001:DB8::1", "2001:db8::1");
        check("MX 10 mail", "10 mail.test.");
        check("SRV 1 2 443 a.b.", "1 2 443 a.b.");
        check(
            "SOA ns root 1 1h 15m 1w 5m",
            "ns.test. root.test. 1 3600 900 604800 300",
        );
        check("TXT \"a b\" c\\\"d", "\"a b\" \"c\\\"d\"");
        check("CAA 0 issue \"ca.example\"", "0 issue \"ca.example\"");
        check("TYPE65280 \\# 3 AB cdEF", "\\# 3 ABCDEF");
        check("TYPE65280 \\# 0", "\\# 0");
        check("A \\# 4 C0000201", "192.0.2.1");
        check(
            "HTTPS 1 . alpn=\"h2,h3\" port=8443",
            "1 . alpn=h2,h3 port=8443",
        );
        check("DS 1 13 2 AB CD", "1 13 2 ABCD");
    }

    #[test]
    fn encode_says_what_was_found_and_expected() {
        refused(
            "A 192.0.2.256",
            "A: found `192.0.2.256` (expected IPv4 address), expected one IPv4 address",
        );
        refused(
            "A",
            "A: found the end of the record, expected one IPv4 address",
        );
        refused(
            "A 192.0.2.1 x",
            "A: found `x` behind the data, expected one IPv4 address",
        );
        refused(
            "MX mail",
            "MX: found `mail` (expected decimal number), expected PREFERENCE NAME",
        );
        refused(
            "MX 10",
            "MX: found the end of the record, expected PREFERENCE NAME",
        );
    }

    #[test]
    fn ttl_takes_seconds_and_units() {
        for (text, expected) in [
            ("0", 0),
            ("300", 300),
            ("1h30m", 5400),
            ("2W", 1_209_600),
            ("2147483647", 0x7FFF_FFFF),
        ] {
            assert_eq!(ttl(text.as_bytes()), Ok(expected));
        }
        for text in [
            "",
            "x",
            "1x",
            "h",
            "-1",
            "2147483648",
            "1h30",
            "99999999999999999999",
            "3551w",
        ] {
            assert!(ttl(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn types_domain_has_not_are_read_and_printed() {
        check("AFSDB 1 db", "1 db.test.");
        check("X25 311061700956", "\"311061700956\"");
        check("ISDN 150862028003217", "\"150862028003217\"");
        check(
            "ISDN 150862028003217 \"004\"",
            "\"150862028003217\" \"004\"",
        );
        check("RT 10 relay", "10 relay.test.");
        check("NSAP 0x47.0005.80.005a00", "0x47000580005A00");
        check("KEY 256 3 RSASHA256 AQAB", "256 3 8 AQAB");
        check("PX 10 a b", "10 a.test. b.test.");
        check(
            "GPOS -32.6882 116.8652 10.0",
            "\"-32.6882\" \"116.8652\" \"10.0\"",
        );
        check("KX 1 k", "1 k.test.");
        check("CERT PGP 0 0 AQ AB", "PGP 0 0 AQAB");
        check("CERT 9 1 RSASHA1 AQAB", "9 1 5 AQAB");
        check(
            "APL 1:192.168.32.0/21 !1:192.168.38.0/28 2:FF00:0:0:0:0:0:0:0/8",
            "1:192.168.32.0/21 !1:192.168.38.0/28 2:ff00::/8",
        );
        check("APL", "");
        check(
            "DHCID AAIB Y2/AuCccgoJbsaxcQc9TUapptP69lOjxfNuVAA2kjEA=",
            "AAIBY2/AuCccgoJbsaxcQc9TUapptP69lOjxfNuVAA2kjEA=",
        );
        check("SMIMEA 3 1 1 AB cd", "3 1 1 ABCD");
        check(
            "HIP 2 200100107B1A74DF365639CC39F1D578 AwEAAbdxyhNuSutc5EMzxTs9 rvs.example. b",
            "2 200100107B1A74DF365639CC39F1D578 AwEAAbdxyhNuSutc5EMzxTs9 rvs.example. b.test.",
        );
        check("HIP 2 2001 AwEA", "2 2001 AwEA");
        check("CSYNC 66 3 NS A AAAA TYPE1234 A", "66 3 A NS AAAA TYPE1234");
        check("CSYNC 66 3", "66 3");
        check("SPF \"v=spf1 -all\"", "\"v=spf1 -all\"");
        check("NID 10 14:4fff:ff20:EE64", "10 0014:4fff:ff20:ee64");
        check("L32 10 10.1.2.0", "10 10.1.2.0");
        check("L64 10 2001:DB8:1140:1000", "10 2001:0db8:1140:1000");
        check("LP 10 l64", "10 l64.test.");
        check("EUI48 00-00-5E-00-53-2a", "00-00-5e-00-53-2a");
        check("EUI64 00-00-5e-ef-10-00-00-2a", "00-00-5e-ef-10-00-00-2a");
        check("URI 10 1 \"ftp://a b/\"", "10 1 \"ftp://a b/\"");
        check("AMTRELAY 10 0 0 .", "10 0 0 .");
        check("AMTRELAY 10 1 2 2001:DB8::15", "10 1 2 2001:db8::15");
        check("AMTRELAY 10 0 3 relay", "10 0 3 relay.test.");
        check("DLV 1 8 2 AB", "1 8 2 AB");
        check("TYPE256 \\# 5 000A000161", "10 1 \"a\"");
    }

    #[test]
    fn locations_are_those_of_the_rfc() {
        check(
            "LOC 42 21 54 N 71 06 18 W -24m 30m",
            "42 21 54.000 N 71 6 18.000 W -24.00m 30m 10000m 10m",
        );
        check(
            "LOC 52 14 05 N 00 08 50 E 10m",
            "52 14 5.000 N 0 8 50.000 E 10.00m 1m 10000m 10m",
        );
        check(
            "LOC 32 7 19.1 S 116 2 25 E 10.5m 1.5m 0.5m 0",
            "32 7 19.100 S 116 2 25.000 E 10.50m 1m 0.50m 0m",
        );
    }

    #[test]
    fn wrong_data_of_types_domain_has_not_is_named() {
        refused(
            "KX k",
            "KX: found `k` (not a decimal number), expected PREFERENCE NAME",
        );
        refused(
            "KX 70000 k",
            "KX: found `70000` (too large), expected PREFERENCE NAME",
        );
        refused(
            "KX 1",
            "KX: found the end of the record, expected PREFERENCE NAME",
        );
        refused(
            "KX 1 k x",
            "KX: found `x` behind the data, expected PREFERENCE NAME",
        );
        for text in [
            "LOC 91 N 0 E 0m",
            "LOC 90 0 0.001 N 0 E 0m",
            "LOC 1 60 N 0 E 0m",
            "LOC 1 N 181 E 0m",
            "LOC 1 E 1 N 0m",
            "LOC 1 N 1 E -100001m",
            "LOC 1 N 1 E 42849673m",
            "LOC 1 N 1 E 0m 90000001000m",
            "LOC 1 N 1 E 0.001m",
            "LOC 1 N 1 E",
            "LOC 1 N 1 E 1 1 1 1 1",
            "LOC x N 1 E 0",
            "APL 1:192.0.2.0",
            "APL 1:192.0.2.0/33",
            "APL 2:192.0.2.0/24",
            "APL 3:0/0",
            "EUI48 00-00-5e-00-53",
            "EUI48 0-0-5e-00-53-2a",
            "NID 1 1:2:3",
            "NID 1 1:2:3:12345",
            "L32 1 1.2.3",
            "HIP 2 20 =",
            "HIP 2 2001",
            "NSAP 4700",
            "NSAP 0x4",
            "CERT PGP 0 0",
            "CERT x 0 0 AQAB",
            "DHCID !",
            "CSYNC 1 2 NOTYPE",
            "URI 1 2",
            "URI 1 2 \"\"",
            "AMTRELAY 1 2 0 .",
            "AMTRELAY 1 0 0 a",
            "AMTRELAY 1 0 4 a",
            "AMTRELAY 1 0 1 ::1",
            "TYPE29 \\# 2 0000",
            "TYPE18 \\# 3 0000C0",
        ] {
            assert!(encoded(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_tokens_of_any_type_are_taken_or_refused(
            rtype in prop_oneof![0u16..70, Just(257), Just(65280)],
            text in "[ -~]{0,60}",
        ) {
            let (mut tokens, mut wire) = (Vec::new(), Vec::new());
            if let Some(Ok(_)) = Entries::new(text.as_bytes()).next(&mut tokens)
                && encode(rtype, &tokens, b"\0", &mut wire).is_ok()
            {
                prop_assert!(wire.len() <= 65_535);
                let _ = to_text(rtype, &wire);
            }
        }

        /// What is read here without `domain` is what `domain` reads.
        #[test]
        fn common_types_are_as_domain_has_them(
            rtype in prop_oneof![
                Just(1_u16), Just(2), Just(5), Just(12), Just(15), Just(16), Just(28), Just(33), Just(39),
            ],
            words in proptest::collection::vec(
                prop_oneof![
                    "[0-9]{1,6}", "[a-z0-9._*@-]{1,20}", "\"[ -!#-~]{0,20}\"", "[0-9.]{7,12}", "[0-9a-fA-F:]{2,20}",
                    Just("192.0.2.1".to_owned()), Just("2001:db8::1".to_owned()), Just("10".to_owned()),
                    Just("a\\.b\\032c".to_owned()), Just("\\#".to_owned()), Just("A.Example.".to_owned()), Just("x".repeat(64)),
                ], 0..6),
        ) {
            let text = words.join(" ");
            let mut tokens = Vec::new();
            if let Some(Ok(_)) = Entries::new(text.as_bytes()).next(&mut tokens) {
                let (mut ours, mut theirs) = (Vec::new(), Vec::new());
                let origin = b"\x04test\0";
                let read = encode(rtype, &tokens, origin, &mut ours);
                prop_assert_eq!(&read, &scan(rtype, &tokens, origin, &mut theirs));
                if read.is_ok() {
                    prop_assert_eq!(ours, theirs);
                }
            }
        }

        /// Whatever prints is read again, to the same text.
        #[test]
        fn any_bytes_of_rare_types_are_printed_for_good(
            rtype in proptest::sample::select((0..=u16::MAX).filter(|rtype| layout::alone(*rtype).is_some()).collect::<Vec<u16>>()),
            wire in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..40),
                proptest::collection::vec(0_u8..5, 0..40),
                (proptest::array::uniform3(0_u8..10), proptest::array::uniform12(any::<u8>())).prop_map(|(sizes, rest)| {
                    [&[0][..], &sizes.map(|size| size << 4 | size), &[0x80], &rest[1..4], &[0x80], &rest[5..]].concat()
                }),
            ],
        ) {
            let text = to_text(rtype, &wire);
            let mut tokens = Vec::new();
            let mut again = Vec::new();
            let _ = Entries::new(text.as_bytes()).next(&mut tokens);
            match encode(rtype, &tokens, b"\0", &mut again) {
                Ok(()) => prop_assert_eq!(to_text(rtype, &again), text),
                // No data of this type.
                Err(_) => prop_assert!(text.starts_with("\\# "), "{text}"),
            }
        }
    }
}
