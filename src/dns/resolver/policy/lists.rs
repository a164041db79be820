//! Lists of names as people exchange them, and hosts files: text in, rules out.

use std::net::IpAddr;

use super::rules::{Act, Builder};
use crate::dns::zone::Problem;
use crate::dns::zone::name::from_text;

/// Notes with their lines, the first hundred.
#[derive(Debug, Default)]
pub(super) struct Notes {
    kept: Vec<Problem>,
    count: usize,
}

impl Notes {
    pub(super) fn add(&mut self, file: &str, line: usize, message: String) {
        self.count += 1;
        if self.kept.len() < NOTES_MAX {
            self.kept.push(Problem {
                file: file.to_owned(),
                line,
                message,
            });
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// What was noted, and how much more there is.
    pub(super) fn finish(mut self, file: &str) -> Vec<Problem> {
        let more = self.count - self.kept.len();
        if more > 0 {
            self.kept.push(Problem {
                file: file.to_owned(),
                line: 0,
                message: format!("{more} more like these"),
            });
        }
        self.kept
    }
}

/// Reads a list: one name a line, which stands for itself and all names beneath it; `*.name` for those beneath it
/// only; or lines of a hosts file, whose names stand for themselves. `#` begins a comment.
///
/// A line that is none of these is noted and left out: such lists come from elsewhere and are rarely without a slip.
///
/// # Errors
/// There are too many rules, or more bad lines than rules: that is no list of names.
pub(super) fn names(
    file: &str,
    text: &[u8],
    act: Act,
    builder: &mut Builder,
) -> Result<Notes, Problem> {
    let mut notes = Notes::default();
    let fail = |line, message| Problem {
        file: file.to_owned(),
        line,
        message,
    };
    for (line, words) in lines(text) {
        let (exact, names) = match (address(words.first()), words.as_slice()) {
            (Some(_), [_, names @ ..]) if !names.is_empty() => (true, names),
            (None, [name]) => (false, std::slice::from_ref(name)),
            (Some(_), _) => {
                notes.add(
                    file,
                    line,
                    String::from("expected a name behind the address"),
                );
                continue;
            }
            (None, _) => {
                let found = show(words[0]);
                notes.add(
                    file,
                    line,
                    format!("found `{found}` and more, expected one name, or an address and names"),
                );
                continue;
            }
        };
        for &word in names {
            if exact && !word.contains(&b'.') {
                continue; // `localhost` and its like at the head of a hosts file.
            }
            let (name, below_only) = match word.strip_prefix(b"*.") {
                Some(name) if !exact => (name, true),
                _ => (word, false),
            };
            let wire = match wire(name) {
                Ok(wire) => wire,
                Err(problem) => {
                    notes.add(file, line, format!("`{}`: {problem}", show(word)));
                    continue;
                }
            };
            let added = if exact || below_only {
                builder.add(&wire, below_only, act).map(drop)
            } else {
                builder.add_tree(&wire, act)
            };
            added.map_err(|message| fail(line, message))?;
        }
    }
    if notes.len() > builder.len() {
        let (bad, good) = (notes.len(), builder.len());
        let mut first = notes.finish(file).swap_remove(0);
        first.message = format!(
            "{}; {bad} lines like this and {good} rules, expected a list of names",
            first.message
        );
        return Err(first);
    }
    Ok(notes)
}

/// Reads a hosts file: addresses for names, and for each address the first of its names (PTR).
///
/// # Errors
/// Every bad line.
pub(super) fn hosts(
    file: &str,
    text: &[u8],
    ttl: u32,
    builder: &mut Builder,
) -> Result<(), Vec<Problem>> {
    let mut notes = Notes::default();
    for (line, words) in lines(text) {
        let Some(address) = address(words.first()) else {
            let found = show(words[0]);
            notes.add(
                file,
                line,
                format!("found `{found}`, expected an IP address"),
            );
            continue;
        };
        if words.len() == 1 {
            notes.add(
                file,
                line,
                String::from("expected a name behind the address"),
            );
        }
        for (index, &word) in words[1..].iter().enumerate() {
            let name = match wire(word) {
                Ok(name) => name,
                Err(problem) => {
                    notes.add(file, line, format!("`{}`: {problem}", show(word)));
                    continue;
                }
            };
            let mut put = |owner: &[u8], rtype, data: &[u8]| {
                if let Err(message) = builder.add_record(owner, false, rtype, ttl, data) {
                    notes.add(file, line, message);
                }
            };
            match address {
                IpAddr::V4(address) => put(&name, A, &address.octets()),
                IpAddr::V6(address) => put(&name, AAAA, &address.octets()),
            }
            if index == 0 {
                put(&reverse(address), PTR, &name);
            }
        }
    }
    if notes.len() > 0 {
        return Err(notes.finish(file));
    }
    Ok(())
}

/// The lines that say something, from 1, cut into words.
fn lines(text: &[u8]) -> impl Iterator<Item = (usize, Vec<&[u8]>)> {
    text.split(|&byte| byte == b'\n')
        .zip(1..)
        .filter_map(|(line, number)| {
            let end = line.iter().position(|&byte| byte == b'#');
            let words: Vec<_> = line[..end.unwrap_or(line.len())]
                .split(u8::is_ascii_whitespace)
                .filter(|word| !word.is_empty())
                .collect();
            (!words.is_empty()).then_some((number, words))
        })
}

fn address(word: Option<&&[u8]>) -> Option<IpAddr> {
    std::str::from_utf8(word?).ok()?.parse().ok()
}

/// A name as people write it, with or without a final dot, in wire form and lower case.
fn wire(word: &[u8]) -> Result<Vec<u8>, &'static str> {
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !word.iter().all(good) {
        return Err("expected a name of letters, digits, hyphens and dots");
    }
    let mut wire = Vec::new();
    from_text(word, b"\0", &mut wire)?;
    wire.make_ascii_lowercase();
    Ok(wire)
}

/// The name beneath `in-addr.arpa` or `ip6.arpa` that stands for an address.
pub(super) fn reverse(address: IpAddr) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut label = |text: &str| {
        wire.push(text.len() as u8); // At most seven bytes.
        wire.extend_from_slice(text.as_bytes());
    };
    match address {
        IpAddr::V4(address) => {
            for octet in address.octets().iter().rev() {
                label(&octet.to_string());
            }
            label("in-addr");
        }
        IpAddr::V6(address) => {
            for octet in address.octets().iter().rev() {
                label(&format!("{:x}", octet & 15));
                label(&format!("{:x}", octet >> 4));
            }
            label("ip6");
        }
    }
    label("arpa");
    wire.push(0);
    wire
}

fn show(word: &[u8]) -> String {
    let shown = &word[..word.len().min(SHOWN)];
    String::from_utf8_lossy(shown).into_owned()
}

/// Notes kept of one file.
const NOTES_MAX: usize = 100;

/// Bytes of a word in a message.
const SHOWN: usize = 60;

const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::zone::path::Path;

    #[track_caller]
    fn check(text: &str, blocked: &[&str], free: &[&str], notes: usize) {
        let mut builder = Builder::new(100);
        let noted = names("list", text.as_bytes(), Act::NxDomain, &mut builder).unwrap();
        let rules = builder.finish();
        let is = |name: &&str| rules.find(&Path::new(&wire(name.as_bytes()).unwrap()));
        for name in blocked {
            assert!(is(name).is_some(), "{name}");
        }
        for name in free {
            assert!(is(name).is_none(), "{name}");
        }
        assert_eq!(noted.len(), notes);
    }

    #[test]
    fn list_of_names_covers_what_is_beneath_them_and_hosts_do_not() {
        check(
            "# ads\nads.example\r\n*.only.example # beneath\n\n0.0.0.0 host.example localhost\n",
            &[
                "ads.example",
                "x.ADS.example",
                "a.only.example",
                "host.example",
            ],
            &["only.example", "x.host.example", "localhost", "example"],
            0,
        );
    }

    #[test]
    fn list_with_a_slip_is_taken_without_it() {
        check(
            "a.example\n||b.example^\nc.example d.example\ne..example\nf.example\ng.example\n",
            &["a.example", "f.example"],
            &["b.example", "c.example"],
            3,
        );
    }

    #[test]
    fn text_that_is_no_list_is_an_error_with_its_line() {
        let mut builder = Builder::new(100);
        let text = b"\n<html> <body>\n<h1>Not found</h1>\n";
        let error = names("list", text, Act::NxDomain, &mut builder).unwrap_err();
        assert_eq!(error.line, 2);
        assert!(error.message.contains("expected a list"), "{error}");
    }

    #[test]
    fn hosts_give_addresses_and_one_pointer() {
        let mut builder = Builder::new(100);
        hosts(
            "h",
            b"192.0.2.7 printer.lan copy.lan\n2001:db8::7 printer.lan\n",
            60,
            &mut builder,
        )
        .unwrap();
        let rules = builder.finish();
        let types = |name: &[u8]| match rules.find(&Path::new(name)).map(|m| m.act) {
            Some(Act::Records(index)) => rules.sets(index).iter().map(|set| set.rtype).collect(),
            _ => Vec::new(),
        };
        assert_eq!(types(b"\x07printer\x03lan\0"), [A, AAAA]);
        assert_eq!(types(b"\x04copy\x03lan\0"), [A]);
        let pointer = reverse("192.0.2.7".parse().unwrap());
        assert_eq!(types(&pointer), [PTR]);
        assert_eq!(pointer, b"\x017\x012\x010\x03192\x07in-addr\x04arpa\0");
        let bad = hosts("h", b"printer.lan 192.0.2.7\n", 60, &mut Builder::new(9)).unwrap_err();
        assert_eq!(
            bad[0].to_string(),
            "h:1: found `printer.lan`, expected an IP address"
        );
    }
}
