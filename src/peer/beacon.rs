//! What a node says to all on its network: who it is, and where it serves HTTP.
//!
//! One datagram, numbers in network order:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `HWB1` |
//! | 1 | kind: 0 here, 1 here and who else is, 2 leaving |
//! | 8, 8, 8 | run, number, milliseconds since 1970: as in a signed request (`secret`) |
//! | 2 | seconds it counts |
//! | 1, n | length and letters of the node's name |
//! | 1 | count of addresses; each is 4 or 16 bytes after a byte 4 or 6, and a port of 2 bytes |
//! | 32 | keyed digest of all that, by the secret of the swarm |
//!
//! An unspecified address stands for the one the datagram comes from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use blake3::Hash;

use super::secret::Secret;

/// Bytes of a beacon at most.
pub const SIZE: usize = 512;

/// Addresses in a beacon at most.
pub const ADDRESSES: usize = 8;

/// Letters of a node's name at most.
pub const NAME: usize = 64;

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beacon {
    /// What for.
    pub kind: Kind,
    /// The number by which the node knows itself, drawn at its start.
    pub run: u64,
    /// Goes up with each beacon of the run.
    pub number: u64,
    /// When it was sent.
    pub unix_ms: u64,
    /// For so many seconds it counts.
    pub life: u16,
    /// The node's name; at most [`NAME`] letters, digits, `-`, `.` and `_`.
    pub node: String,
    /// Where it serves HTTP; at most [`ADDRESSES`].
    pub addresses: Vec<SocketAddr>,
}

/// What a beacon is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The node is here.
    Here,
    /// The node is here, and does not know yet who else is.
    Asking,
    /// The node is going.
    Leaving,
}

/// Why a datagram is not a beacon for this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BeaconError {
    /// It is no beacon at all.
    #[error("no beacon")]
    Malformed,
    /// Whoever made it has another secret.
    #[error("another secret's beacon")]
    Stranger,
}

impl Beacon {
    /// The datagram: [`Beacon::encode`] and its proof.
    #[must_use]
    pub fn seal(&self, secret: &Secret) -> Vec<u8> {
        let mut bytes = self.encode();
        let proof = secret.digest(PURPOSE, &[&bytes]);
        bytes.extend_from_slice(proof.as_bytes());
        bytes
    }

    /// Reads a datagram. Compares in constant time, and reads nothing before the proof is right.
    ///
    /// # Errors
    /// See [`BeaconError`].
    pub fn open(bytes: &[u8], secret: &Secret) -> Result<Self, BeaconError> {
        if bytes.len() > SIZE || !bytes.starts_with(MAGIC) {
            return Err(BeaconError::Malformed);
        }
        let (body, proof) = bytes
            .split_last_chunk::<32>()
            .ok_or(BeaconError::Malformed)?;
        if secret.digest(PURPOSE, &[body]) != Hash::from_bytes(*proof) {
            return Err(BeaconError::Stranger);
        }
        Self::decode(body).ok_or(BeaconError::Malformed)
    }

    /// The datagram without its proof. Of a name or a list that is too long the beginning is taken.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SIZE);
        bytes.extend_from_slice(MAGIC);
        bytes.push(match self.kind {
            Kind::Here => 0,
            Kind::Asking => 1,
            Kind::Leaving => 2,
        });
        for number in [self.run, self.number, self.unix_ms] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.life.to_be_bytes());
        let name = &self.node.as_bytes()[..self.node.len().min(NAME)];
        bytes.push(u8::try_from(name.len()).unwrap_or(0));
        bytes.extend_from_slice(name);
        let addresses = &self.addresses[..self.addresses.len().min(ADDRESSES)];
        bytes.push(u8::try_from(addresses.len()).unwrap_or(0));
        for address in addresses {
            match address.ip() {
                IpAddr::V4(ip) => {
                    bytes.push(4);
                    bytes.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    bytes.push(6);
                    bytes.extend_from_slice(&ip.octets());
                }
            }
            bytes.extend_from_slice(&address.port().to_be_bytes());
        }
        bytes
    }

    /// Reads what [`Beacon::encode`] wrote, and nothing else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = Rest(bytes.strip_prefix(MAGIC)?);
        let kind = match rest.byte()? {
            0 => Kind::Here,
            1 => Kind::Asking,
            2 => Kind::Leaving,
            _ => return None,
        };
        let run = u64::from_be_bytes(rest.array()?);
        let number = u64::from_be_bytes(rest.array()?);
        let unix_ms = u64::from_be_bytes(rest.array()?);
        let life = u16::from_be_bytes(rest.array()?);
        let name = usize::from(rest.byte()?);
        let name = std::str::from_utf8(rest.take(name)?).ok()?;
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if name.len() > NAME || !name.chars().all(good) {
            return None;
        }
        let count = usize::from(rest.byte()?);
        if count > ADDRESSES {
            return None;
        }
        let addresses: Option<Vec<SocketAddr>> = (0..count).map(|_| rest.address()).collect();
        let addresses = addresses?;
        rest.0.is_empty().then(|| Self {
            kind,
            run,
            number,
            unix_ms,
            life,
            node: name.to_owned(),
            addresses,
        })
    }
}

/// What has not been read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn address(&mut self) -> Option<SocketAddr> {
        let ip: IpAddr = match self.byte()? {
            4 => Ipv4Addr::from(self.array::<4>()?).into(),
            6 => Ipv6Addr::from(self.array::<16>()?).into(),
            _ => return None,
        };
        Some(SocketAddr::new(ip, u16::from_be_bytes(self.array()?)))
    }
}

const MAGIC: &[u8] = b"HWB1";

/// Keeps these proofs apart from those of requests.
const PURPOSE: &str = "beacon";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn beacon(node: &str, addresses: &[&str]) -> Beacon {
        Beacon {
            kind: Kind::Asking,
            run: 7,
            number: 9,
            unix_ms: 1_700_000_000_000,
            life: 90,
            node: node.to_owned(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn beacon_of_another_secret_or_with_a_bit_changed_is_a_strangers() {
        let (ours, other) = (Secret::new(b"ours"), Secret::new(b"other"));
        let said = beacon("a", &["192.0.2.1:80"]);
        let bytes = said.seal(&ours);
        assert_eq!(Beacon::open(&bytes, &ours), Ok(said));
        assert_eq!(Beacon::open(&bytes, &other), Err(BeaconError::Stranger));
        for at in MAGIC.len()..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let found = Beacon::open(&changed, &ours);
            assert_eq!(found, Err(BeaconError::Stranger), "byte {at}");
        }
    }

    #[test]
    fn largest_beacon_fits_and_longer_lists_are_cut() {
        let secret = Secret::new(b"ours");
        let said = beacon(&"n".repeat(99), &["[2001:db8::1]:80"; 20]);
        let bytes = said.seal(&secret);
        assert!(bytes.len() <= SIZE, "{}", bytes.len());
        let found = Beacon::open(&bytes, &secret).unwrap();
        assert_eq!((found.node.len(), found.addresses.len()), (NAME, ADDRESSES));
    }

    #[test]
    fn datagram_of_another_shape_is_no_beacon() {
        let secret = Secret::new(b"ours");
        let sealed = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let proof = secret.digest(PURPOSE, &[&bytes]);
            bytes.extend_from_slice(proof.as_bytes());
            Beacon::open(&bytes, &secret)
        };
        let good = beacon("a", &["192.0.2.1:80"]).encode();
        assert!(sealed(&good).is_ok());
        let mut name = good.clone();
        name[32] = b' ';
        let longer = [good.as_slice(), &[0]].concat();
        let many = [&good[..33], &[9]].concat();
        for bad in [&good[..good.len() - 1], &name, &longer, &many, MAGIC, b""] {
            assert_eq!(sealed(bad), Err(BeaconError::Malformed), "{bad:?}");
        }
        assert_eq!(Beacon::open(b"HWB1", &secret), Err(BeaconError::Malformed));
        let long = [MAGIC, &[0; SIZE]].concat();
        assert_eq!(Beacon::open(&long, &secret), Err(BeaconError::Malformed));
    }

    proptest! {
        #[test]
        fn beacon_written_and_read_again_is_equal(
            kind in prop_oneof![Just(Kind::Here), Just(Kind::Asking), Just(Kind::Leaving)],
            numbers: [u64; 3],
            life: u16,
            node in "[a-z0-9._-]{0,64}",
            addresses in prop::collection::vec(any::<(IpAddr, u16)>(), 0..=ADDRESSES),
        ) {
            let said = Beacon {
                kind,
                run: numbers[0],
                number: numbers[1],
                unix_ms: numbers[2],
                life,
                node,
                addresses: addresses.into_iter().map(SocketAddr::from).collect(),
            };
            prop_assert_eq!(Beacon::decode(&said.encode()), Some(said));
        }

        #[test]
        fn arbitrary_bytes_are_no_beacon_or_the_only_form_of_one(bytes: Vec<u8>) {
            let bytes = [MAGIC, &bytes].concat();
            if let Some(beacon) = Beacon::decode(&bytes) {
                prop_assert_eq!(beacon.encode(), bytes);
            }
        }
    }
}
