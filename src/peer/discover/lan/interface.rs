//! The network interfaces of this machine, as the kernel shows them in files. Read so, it takes no socket of a kind a
//! service is not let have.

use std::fs;
use std::net::Ipv6Addr;
use std::path::Path;

/// An interface on which nodes may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) loopback: bool,
    /// Its IPv6 addresses that mean something beyond it.
    pub(super) global: Vec<Ipv6Addr>,
}

/// Those with these names; none: all that are up and take multicast, except loopback, at most [`MOST`] in the order of
/// names. Blocking. What cannot be read is not there.
pub(super) fn list(names: &[String]) -> Vec<Interface> {
    let root = Path::new("/sys/class/net");
    let mut found: Vec<String> = if names.is_empty() {
        let entries = fs::read_dir(root).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    } else {
        names.to_vec()
    };
    found.sort();
    found.dedup();
    let addresses = fs::read_to_string("/proc/self/net/if_inet6").unwrap_or_default();
    let read = |name: String| {
        let text = |file: &str| fs::read_to_string(root.join(&name).join(file)).ok();
        let flags = text("flags")?;
        let flags = u32::from_str_radix(flags.trim().strip_prefix("0x")?, 16).ok()?;
        let takes = flags & MULTICAST != 0 && flags & LOOPBACK == 0;
        if flags & UP == 0 || names.is_empty() && !takes {
            return None;
        }
        Some(Interface {
            index: text("ifindex")?.trim().parse().ok()?,
            loopback: flags & LOOPBACK != 0,
            global: global(&addresses, &name),
            name,
        })
    };
    found.into_iter().filter_map(read).take(MOST).collect()
}

/// The addresses of this interface in `if_inet6` that are of global scope, kept for good and known to be nobody else's.
fn global(addresses: &str, name: &str) -> Vec<Ipv6Addr> {
    let one = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let address = u128::from_str_radix(words.next()?, 16).ok()?;
        let scope = words.nth(2)?;
        let flags = u32::from_str_radix(words.next()?, 16).ok()?;
        let usable = scope == "00" && flags & (TEMPORARY | DEPRECATED | TENTATIVE) == 0;
        (usable && words.next() == Some(name)).then(|| Ipv6Addr::from(address))
    };
    addresses.lines().filter_map(one).take(4).collect()
}

/// Interfaces at most.
const MOST: usize = 16;

/// Flags of an interface.
const UP: u32 = 0x1;
const LOOPBACK: u32 = 0x8;
const MULTICAST: u32 = 0x1000;

/// Flags of an address.
const TEMPORARY: u32 = 0x01;
const DEPRECATED: u32 = 0x20;
const TENTATIVE: u32 = 0x40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_global_scope_of_the_interface_are_taken() {
        let text = "\
00000000000000000000000000000001 01 80 10 80       lo
20010db8000000000000000000000001 02 40 00 80     eth0
20010db8000000000000000000000002 02 40 00 01     eth0
20010db8000000000000000000000003 02 40 00 c0     eth0
fe80000000000000025056fffec00001 02 40 20 80     eth0
20010db8000000000000000000000004 03 40 00 80     eth1
nonsense
";
        let expected: Vec<Ipv6Addr> = vec!["2001:db8::1".parse().unwrap()];
        assert_eq!(global(text, "eth0"), expected);
        assert!(global(text, "lo").is_empty());
    }

    #[test]
    fn interface_that_is_named_is_found_and_loopback_unnamed_is_not() {
        let lo = list(&["lo".to_owned()]);
        assert!(
            lo.iter()
                .all(|i| i.name == "lo" && i.loopback && i.index > 0)
        );
        assert!(list(&[]).iter().all(|i| !i.loopback));
        assert!(list(&["no-such-interface".to_owned()]).is_empty());
    }
}
