//! Lists of address prefixes (RFC 3123).

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{family, number, take};

/// Appends one item, as in `!1:192.0.2.0/24`.
pub(super) fn encode(text: &str, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let (negated, text) = match text.strip_prefix('!') {
        Some(text) => (0x80, text),
        None => (0, text),
    };
    let (kind, text) = text.split_once(':').ok_or("no colon")?;
    let (address, prefix) = text.rsplit_once('/').ok_or("no slash")?;
    let address: IpAddr = address.parse().map_err(|_| "not an address")?;
    if number::<u16>(kind.as_bytes())? != family(address) {
        return Err("an address of another family");
    }
    let prefix: u8 = number(prefix.as_bytes())?;
    let bytes = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    if usize::from(prefix) > bytes.len() * 8 {
        return Err("a prefix longer than the address");
    }
    let len = bytes
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1);
    out.extend(family(address).to_be_bytes());
    out.extend([prefix, negated | len as u8]); // At most 16.
    out.extend(&bytes[..len]);
    Ok(())
}

/// All items up to the end.
pub(super) fn print(rest: &mut &[u8], out: &mut String) -> Option<()> {
    let mut space = "";
    while !rest.is_empty() {
        let kind = u16::from_be_bytes(take(rest)?);
        let [prefix, flags] = take(rest)?;
        let (bytes, after) = rest.split_at_checked(usize::from(flags & 0x7F))?;
        *rest = after;
        let (longest, address) = match kind {
            1 => (4, IpAddr::V4(Ipv4Addr::from(padded(bytes)?))),
            2 => (16, IpAddr::V6(Ipv6Addr::from(padded(bytes)?))),
            _ => return None,
        };
        // No zeros at the end (RFC 3123 section 4).
        if usize::from(prefix) > longest * 8 || bytes.last() == Some(&0) {
            return None;
        }
        let mark = if flags & 0x80 == 0 { "" } else { "!" };
        let _ = write!(out, "{space}{mark}{kind}:{address}/{prefix}"); // A String takes everything.
        space = " ";
    }
    Some(())
}

fn padded<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let mut all = [0; N];
    all.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(all)
}
