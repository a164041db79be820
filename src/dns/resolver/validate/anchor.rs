//! Trust anchors: the keys that are believed without proof, and the names that need none.

use super::super::recurse::dname::Dname;
use super::super::recurse::records::{self, Unreadable};

/// Where trust begins.
#[derive(Clone, Debug, Default)]
pub struct Anchors {
    anchors: Vec<Anchor>,
    negative: Vec<Dname>,
}

/// The keys of one zone, as DS or DNSKEY RDATA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Anchor {
    pub(in super::super) zone: Dname,
    pub(in super::super) ds: Vec<Box<[u8]>>,
    pub(in super::super) keys: Vec<Box<[u8]>>,
}

impl Anchors {
    /// The root's key signing keys of 2017 (tag 20326) and 2024 (tag 38696), by their digests as IANA publishes them.
    ///
    /// # Panics
    /// Never: a test reads what is built in.
    #[must_use]
    pub fn built_in() -> Self {
        Self::parse(ROOT).expect("a test reads it")
    }

    /// Reads DS and DNSKEY records in the form of a master file.
    ///
    /// # Errors
    /// The first line that is neither, or that there is none.
    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        let mut anchors: Vec<Anchor> = Vec::new();
        for line in records::lines(text)? {
            let wrong = |found: &str, expected| Unreadable::new(line.number, found, expected);
            let zone =
                Dname::parse(line.owner).ok_or_else(|| wrong(line.owner, "a domain name"))?;
            let is_ds = line.rtype == "DS";
            if !is_ds && line.rtype != "DNSKEY" {
                return Err(wrong(&line.rtype, "DS or DNSKEY"));
            }
            let [first, second, third, rest @ ..] = &line.rdata[..] else {
                return Err(wrong(&line.rdata.join(" "), "three numbers and the data"));
            };
            let octet = |word: &str| {
                word.parse::<u8>()
                    .map_err(|_| wrong(word, "a number to 255"))
            };
            let number: u16 = first
                .parse()
                .map_err(|_| wrong(first, "a number to 65535"))?;
            let mut rdata = number.to_be_bytes().to_vec();
            rdata.extend([octet(second)?, octet(third)?]);
            let data = rest.concat();
            let (bytes, expected) = if is_ds {
                (hex(&data), "a digest in hexadecimal")
            } else {
                (base64(&data), "a key in base64")
            };
            let bytes = bytes.filter(|bytes| !bytes.is_empty());
            rdata.extend(bytes.ok_or_else(|| wrong(&data, expected))?);
            let known = anchors.iter().position(|anchor| anchor.zone == zone);
            let at = known.unwrap_or_else(|| {
                anchors.push(Anchor {
                    zone,
                    ds: Vec::new(),
                    keys: Vec::new(),
                });
                anchors.len() - 1
            });
            let anchor = &mut anchors[at];
            if is_ds {
                anchor.ds.push(rdata.into());
            } else {
                anchor.keys.push(rdata.into());
            }
        }
        if anchors.is_empty() {
            let last = text.lines().count().max(1);
            return Err(Unreadable::new(last, "", "a DS or DNSKEY record"));
        }
        Ok(Self {
            anchors,
            negative: Vec::new(),
        })
    }

    /// These, but nothing beneath `names` (text) is validated (RFC 7646). What is no domain name is passed over.
    #[must_use]
    pub fn without(mut self, names: &[String]) -> Self {
        self.negative = names.iter().filter_map(|name| Dname::parse(name)).collect();
        self
    }

    /// Those of all zones.
    pub(super) fn all(&self) -> &[Anchor] {
        &self.anchors
    }

    /// Others instead of them; the names that need none stay.
    pub(in super::super) fn replaced(&self, anchors: Vec<Anchor>) -> Self {
        Self {
            anchors,
            negative: self.negative.clone(),
        }
    }

    /// The anchor that data at `name` must lead up to; `None`: it need not be signed.
    pub(in super::super) fn of(&self, name: &Dname) -> Option<&Anchor> {
        let anchor = self
            .anchors
            .iter()
            .filter(|anchor| name.is_beneath(&anchor.zone))
            .max_by_key(|anchor| anchor.zone.labels())?;
        let spared = self
            .negative
            .iter()
            .any(|negative| name.is_beneath(negative) && negative.is_beneath(&anchor.zone));
        (!spared).then_some(anchor)
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    let whole = pairs.remainder().is_empty();
    whole.then(|| pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}

pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    domain::utils::base64::decode(text).ok()
}

const ROOT: &str = "
. DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D
. DS 38696 8 2 683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16
";

#[cfg(test)]
mod tests {
    use super::super::crypto::Dnskey;
    use super::*;

    fn name(text: &str) -> Dname {
        Dname::parse(text).unwrap()
    }

    #[test]
    fn built_in_anchors_are_both_keys_of_the_root() {
        let anchors = Anchors::built_in();
        let root = anchors.of(&name("www.example.")).unwrap();
        assert!(root.zone.is_root());
        let tags: Vec<u16> = root
            .ds
            .iter()
            .map(|ds| u16::from_be_bytes([ds[0], ds[1]]))
            .collect();
        assert_eq!(tags, [20326, 38696]);
    }

    /// The keys as they are published, against the digests built in.
    #[test]
    fn built_in_digests_are_those_of_the_published_keys() {
        let text = ". 172800 IN DNSKEY 257 3 8 (
            AwEAAaz/tAm8yTn4Mfeh5eyI96WSVexTBAvkMgJzkKTOiW1vkIbzxeF3+/4RgWOq7HrxRixHlFlExOLAJr5emLvN7SWXgnLh4+B5xQlNVz8Og8kv
            ArMtNROxVQuCaSnIDdD5LKyWbRd2n9WGe2R8PzgCmr3EgVLrjyBxWezF0jLHwVN8efS3rCj/EWgvIWgb9tarpVUDK/b58Da+sqqls3eNbuv7pr+e
            oZG+SrDK6nWeL3c6H5Apxz7LjVc1uTIdsIXxuOLYA4/ilBmSVIzuDWfdRUfhHdY6+cn8HFRm+2hM8AnXGXws9555KrUB5qihylGa8subX2Nn6UwN
            R1AkUTV74bU= ) ; tag 20326
            \n. 172800 IN DNSKEY 257 3 8 (
            AwEAAa96jeuknZlaeSrvyAJj6ZHv28hhOKkx3rLGXVaC6rXTsDc449/cidltpkyGwCJNnOAlFNKF2jBosZBU5eeHspaQWOmOElZsjICMQMC3aeHb
            GiShvZsx4wMYSjH8e7Vrhbu6irwCzVBApESjbUdpWWmEnhathWu1jo+siFUiRAAxm9qyJNg/wOZqqzL/dL/q8PkcRU5oUKEpUge71M3ej2/7CPqp
            dVwuMoTvoB+ZOT4YeGyxMvHmbrxlFzGOHOijtzN+u1TQNatX2XBuzZNQ1K+s2CXkPIZo7s6JgZyvaBevYtxPvYLw4z9mR7K2vaF18UYH9Z9GNUUe
            ayffKC73PYc= ) ; tag 38696\n";
        let published = Anchors::parse(text).unwrap();
        let digests = &Anchors::built_in().anchors[0].ds;
        for (place, rdata) in published.anchors[0].keys.iter().enumerate() {
            let key = Dnskey::read(rdata).unwrap();
            assert_eq!(key.tag(), [20326, 38696][place]);
            assert!(key.matches(b"\0", &digests[place]));
            assert!(!key.matches(b"\0", &digests[1 - place]));
        }
        assert_eq!(published.anchors[0].keys.len(), 2);
    }

    #[test]
    fn anchor_is_the_closest_unless_a_negative_one_is_beneath_it() {
        let text = ". DS 1 8 2 AB\nisland.example. DS 2 8 2 CD\n";
        let negative = [
            String::from("example."),
            String::from("dark.island.example."),
        ];
        let anchors = Anchors::parse(text).unwrap().without(&negative);
        let zone = |text: &str| anchors.of(&name(text)).map(|a| a.zone.to_string());
        assert_eq!(zone("test."), Some(String::from(".")));
        assert_eq!(zone("www.example."), None);
        let island = Some(String::from("island.example."));
        assert_eq!(zone("www.island.example."), island);
        assert_eq!(zone("www.dark.island.example."), None);
    }

    #[test]
    fn anchor_that_cannot_be_read_is_named() {
        for (text, line, found) in [
            ("", 1, ""),
            ("\n. NS a.\n", 2, "NS"),
            (". DS 1 8 2 ABC\n", 1, "ABC"),
            (". DS 1 8 2 XY\n", 1, "XY"),
            (". DS 70000 8 2 AB\n", 1, "70000"),
            (". DNSKEY 257 3 8 !!!\n", 1, "!!!"),
        ] {
            let error = Anchors::parse(text).unwrap_err();
            assert_eq!((error.line, &*error.found), (line, found), "{text:?}");
        }
    }
}
