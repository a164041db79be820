//! Response policy zones (draft-vixie-dnsop-dns-rpz): a master file whose owners are triggers and whose data are actions.
//!
//! QNAME triggers, with wildcards, and response addresses (`rpz-ip`). The others (`rpz-client-ip`, `rpz-nsip`, `rpz-nsdname`) are not
//! acted on: each gets a warning with its line.

use std::net::{IpAddr, Ipv6Addr};

use super::addresses::Growing as Addresses;
use super::rules::{Act, Builder};
use crate::dns::zone::path::Path;
use crate::dns::zone::{At, Sink};

/// Takes the records of a policy zone.
#[derive(Debug)]
pub(super) struct Triggers<'a> {
    apex: &'a [u8],
    apex_labels: usize,
    rules: &'a mut Builder,
    addresses: &'a mut Addresses,
}

impl<'a> Triggers<'a> {
    /// For the zone `apex` (wire form, lower case).
    pub(super) fn new(
        apex: &'a [u8],
        rules: &'a mut Builder,
        addresses: &'a mut Addresses,
    ) -> Self {
        Self {
            apex,
            apex_labels: Path::new(apex).labels(),
            rules,
            addresses,
        }
    }
}

impl Sink for Triggers<'_> {
    fn take(
        &mut self,
        owner: &[u8],
        rtype: u16,
        ttl: u32,
        data: &[u8],
        _: At,
    ) -> Result<Option<String>, String> {
        let path = Path::new(owner);
        let depth = path
            .labels()
            .checked_sub(self.apex_labels)
            .filter(|&depth| path.suffix(depth) == self.apex)
            .ok_or("found an owner outside the policy zone, expected one in it")?;
        if depth == 0 || matches!(rtype, RRSIG | NSEC | DNSKEY | NSEC3 | NSEC3PARAM) {
            return Ok(None);
        }
        let kind = &path.label(depth - 1)[1..];
        if kind == b"rpz-ip" {
            let (address, length) = network(&path, depth - 1)?;
            let added = match act(rtype, data, b"") {
                Some(act) => self.addresses.add(address, length, act),
                None => self.addresses.add_record(address, length, rtype, ttl, data),
            }?;
            return Ok((!added).then(|| AGAIN.to_owned()));
        }
        if matches!(kind, b"rpz-client-ip" | b"rpz-nsip" | b"rpz-nsdname") {
            let kind = String::from_utf8_lossy(kind);
            return Ok(Some(format!(
                "found the trigger {kind}, which is not acted on; expected names and rpz-ip"
            )));
        }
        let below = path.label(0) == b"\x01*";
        let mut name = path.prefix(depth)[if below { 2 } else { 0 }..].to_vec();
        name.push(0);
        let added = match (act(rtype, data, &name), rtype) {
            (Some(act), _) => self.rules.add(&name, below, act)?,
            (None, NS | SOA | DNAME) => {
                return Ok(Some(String::from(
                    "found NS, SOA or DNAME, which is not acted on; expected an action or data",
                )));
            }
            (None, _) => self.rules.add_record(&name, below, rtype, ttl, data)?,
        };
        Ok((!added).then(|| AGAIN.to_owned()))
    }

    fn broken(&mut self, _: u16) {}

    fn broken_file(&mut self) {}
}

/// The action that a CNAME stands for; `None`: it is data.
fn act(rtype: u16, data: &[u8], trigger: &[u8]) -> Option<Act> {
    if rtype != CNAME {
        return None;
    }
    match data.to_ascii_lowercase().as_slice() {
        b"\0" => Some(Act::NxDomain),
        b"\x01*\0" => Some(Act::NoData),
        b"\x0Crpz-passthru\0" => Some(Act::Pass),
        b"\x08rpz-drop\0" => Some(Act::Drop),
        b"\x0Crpz-tcp-only\0" => Some(Act::Truncate),
        // How the first policy zones said it.
        target if !trigger.is_empty() && target == trigger => Some(Act::Pass),
        _ => None,
    }
}

/// The network that the first `labels` labels write backwards: length, then the address, `zz` for `::`.
fn network(path: &Path, labels: usize) -> Result<(Ipv6Addr, u8), String> {
    let word = |index: usize| String::from_utf8_lossy(&path.label(index)[1..]).into_owned();
    let text: Vec<String> = (0..labels).map(word).collect();
    let bad = || {
        format!(
            "found `{}.rpz-ip`, expected a length and an address backwards, such as 24.0.2.0.192.rpz-ip",
            text.join(".")
        )
    };
    let (length, rest) = text.split_first().ok_or_else(bad)?;
    let length: u8 = length.parse().map_err(|_| bad())?;
    let parts: Vec<&str> = rest.iter().rev().map(String::as_str).collect();
    let is_v4 = parts.len() == 4 && !parts.contains(&"zz");
    let written = if is_v4 {
        parts.join(".")
    } else {
        let joined = parts.join(":");
        match joined.as_str() {
            "zz" => String::from("::"),
            text if text.starts_with("zz:") => text.replacen("zz", ":", 1),
            text if text.ends_with(":zz") => text.replacen("zz", ":", 1),
            text => text.replacen("zz", "", 1),
        }
    };
    let (address, length) = match written.parse().map_err(|_| bad())? {
        IpAddr::V4(address) if (1..=32).contains(&length) => {
            (address.to_ipv6_mapped(), length + 96)
        }
        IpAddr::V6(address) if (1..=128).contains(&length) => (address, length),
        _ => return Err(bad()),
    };
    let mask = u128::MAX << (128 - u32::from(length));
    if address.to_bits() & !mask != 0 {
        return Err(format!("{}: bits are set behind the length", bad()));
    }
    Ok((address, length))
}

const AGAIN: &str = "found another action for this trigger, which is left out; the first holds";

const NS: u16 = 2;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const DNAME: u16 = 39;
const RRSIG: u16 = 46;
const NSEC: u16 = 47;
const DNSKEY: u16 = 48;
const NSEC3: u16 = 50;
const NSEC3PARAM: u16 = 51;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::zone::read_records;

    const ZONE: &str = "\
$TTL 60
@ SOA ns host 1 2 3 4 5
@ NS ns
bad.example CNAME .
*.bad.example CNAME .
empty.example CNAME *.
good.bad.example CNAME rpz-passthru.
old.bad.example CNAME old.bad.example.
silent.example CNAME rpz-drop.
slow.example CNAME rpz-tcp-only.
walled.example A 192.0.2.80
walled.example TXT \"why\"
24.0.2.0.192.rpz-ip CNAME .
128.1.zz.db8.2001.rpz-ip CNAME .
32.1.0.0.127.rpz-client-ip CNAME .
";

    #[test]
    fn zone_gives_actions_by_name_and_address_and_warns_of_the_rest() {
        let (mut rules, mut addresses) = (Builder::new(100), Addresses::new(100));
        let apex = b"\x03rpz\x04test\0";
        let mut triggers = Triggers::new(apex, &mut rules, &mut addresses);
        let (errors, warnings) = read_records("z", ZONE.as_bytes(), apex, 60, &mut triggers);
        assert_eq!(errors, []);
        assert_eq!(warnings.len(), 1);
        assert_eq!((warnings[0].file.as_str(), warnings[0].line), ("z", 15));
        assert!(
            warnings[0].message.contains("rpz-client-ip"),
            "{warnings:?}"
        );
        let (rules, addresses) = (rules.finish(), addresses.finish());
        let act = |name: &[u8]| rules.find(&Path::new(name)).map(|found| found.act);
        assert_eq!(act(b"\x03bad\x07example\0"), Some(Act::NxDomain));
        assert_eq!(act(b"\x01x\x03bad\x07example\0"), Some(Act::NxDomain));
        assert_eq!(act(b"\x05empty\x07example\0"), Some(Act::NoData));
        assert_eq!(act(b"\x01x\x05empty\x07example\0"), None);
        assert_eq!(act(b"\x04good\x03bad\x07example\0"), Some(Act::Pass));
        assert_eq!(act(b"\x03old\x03bad\x07example\0"), Some(Act::Pass));
        assert_eq!(act(b"\x06silent\x07example\0"), Some(Act::Drop));
        assert_eq!(act(b"\x04slow\x07example\0"), Some(Act::Truncate));
        assert!(matches!(
            act(b"\x06walled\x07example\0"),
            Some(Act::Records(_))
        ));
        let of = |address: &str| addresses.find(address.parse().unwrap());
        assert_eq!(of("192.0.2.9"), Some(Act::NxDomain));
        assert_eq!(of("192.0.3.9"), None);
        assert_eq!(of("2001:db8::1"), Some(Act::NxDomain));
        assert_eq!(of("2001:db8::2"), None);
    }

    #[test]
    fn network_that_is_none_is_an_error() {
        for owner in [
            "33.1.0.0.127",
            "24.1.2.0.192",
            "x",
            "24.0.2.192",
            "128.1.db8.2001",
        ] {
            let mut wire = Vec::new();
            crate::dns::zone::name::from_text(owner.as_bytes(), b"\0", &mut wire).unwrap();
            let path = Path::new(&wire);
            assert!(network(&path, path.labels()).is_err(), "{owner}");
        }
    }
}
