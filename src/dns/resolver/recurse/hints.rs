//! Root hints: where resolution begins when nothing is known.

use std::net::IpAddr;

use super::dname::Dname;
use super::judge::NameServer;
use super::records::{self, Unreadable};

/// Names and addresses of root servers.
#[derive(Clone, Debug)]
pub struct Hints(pub(super) Vec<NameServer>);

impl Hints {
    /// The root servers of the Internet.
    #[must_use]
    pub fn built_in() -> Self {
        let servers = hickory_proto::ROOTS.chunks(2).zip(b'a'..);
        let servers = servers.filter_map(|(addresses, letter)| {
            let name = format!("{}.root-servers.net.", char::from(letter));
            Some(NameServer {
                name: Dname::parse(&name)?,
                glue: addresses.to_vec(),
            })
        });
        Self(servers.collect())
    }

    /// Reads hints as a master file gives them: NS records of the root, A and AAAA records of their targets.
    ///
    /// # Errors
    /// The first line that is none of these, or that there is no server with an address.
    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        let mut servers: Vec<NameServer> = Vec::new();
        let mut addresses: Vec<(Dname, IpAddr)> = Vec::new();
        for line in records::lines(text)? {
            let wrong = |found: &str, expected| Unreadable::new(line.number, found, expected);
            let owner = Dname::parse(line.owner).ok_or_else(|| wrong(line.owner, NAME))?;
            let data = line.rdata.join(" ");
            match &*line.rtype {
                "NS" if owner.is_root() => servers.push(NameServer {
                    name: Dname::parse(&data).ok_or_else(|| wrong(&data, NAME))?,
                    glue: Vec::new(),
                }),
                "A" | "AAAA" => {
                    let address = data.parse().map_err(|_| wrong(&data, "an address"))?;
                    addresses.push((owner, address));
                }
                other => return Err(wrong(other, "an NS record of the root, A or AAAA")),
            }
        }
        for server in &mut servers {
            let own = addresses.iter().filter(|(name, _)| *name == server.name);
            server.glue = own.map(|&(_, address)| address).collect();
        }
        servers.retain(|server| !server.glue.is_empty());
        if servers.is_empty() {
            let last = text.lines().count().max(1);
            return Err(Unreadable::new(
                last,
                "",
                "a server of the root with an address",
            ));
        }
        Ok(Self(servers))
    }
}

const NAME: &str = "a domain name";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_hints_are_thirteen_servers_with_two_addresses_each() {
        let Hints(servers) = Hints::built_in();
        assert_eq!(servers.len(), 13);
        assert!(servers.iter().all(|server| server.glue.len() == 2));
        assert_eq!(
            servers[12].name,
            Dname::parse("m.root-servers.net.").unwrap()
        );
    }

    #[test]
    fn hints_are_servers_of_the_root_with_their_addresses() {
        let text =
            ". NS a.root.\n. NS b.root.\nA.ROOT. 60 IN A 192.0.2.1\na.root. AAAA 2001:db8::1\n";
        let Hints(servers) = Hints::parse(text).unwrap();
        assert_eq!(servers.len(), 1, "b has no address");
        assert_eq!(servers[0].glue.len(), 2);
    }

    #[test]
    fn hints_without_use_say_where_and_why() {
        assert_eq!(Hints::parse("").unwrap_err().line, 1);
        assert_eq!(
            Hints::parse(". NS a.\na. A 1.2.3\n").unwrap_err().found,
            "1.2.3"
        );
        assert_eq!(Hints::parse("\ncom. NS a.\n").unwrap_err().line, 2);
    }
}
