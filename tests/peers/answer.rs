//! A question asked by dig, and what dig printed taken apart.

use std::process::Command;

use super::harness::{run, tool};

/// An answer as dig printed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Response code: `NOERROR`, `NXDOMAIN`, `BADVERS` …
    pub(crate) status: String,
    /// Header flags: `qr`, `aa`, `tc` …
    pub(crate) flags: Vec<String>,
    /// The answer section, in order.
    pub(crate) answer: Vec<Record>,
    /// The authority section, in order.
    pub(crate) authority: Vec<Record>,
    /// The additional section without OPT, in order.
    pub(crate) additional: Vec<Record>,
    /// The text after `EDNS:`, when there is an OPT record.
    pub(crate) edns: Option<String>,
    /// All dig printed.
    pub(crate) text: String,
}

impl Answer {
    /// Whether a header flag is set.
    pub(crate) fn flag(&self, flag: &str) -> bool {
        self.flags.iter().any(|found| found == flag)
    }

    /// The answer section's data of one type, in order.
    pub(crate) fn data(&self, rtype: &str) -> Vec<&str> {
        self.answer
            .iter()
            .filter(|record| record.rtype == rtype)
            .map(|record| record.data.as_str())
            .collect()
    }

    /// Takes apart what dig or kdig printed about one message; `None` when there is no header in it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parsed = Self {
            text: text.to_owned(),
            ..Self::default()
        };
        let mut section = None;
        for line in text.lines() {
            let line = line.trim_end();
            if let Some((_, rest)) = line.split_once("status: ") {
                parsed.status = rest.split([',', ';']).next()?.to_owned();
            } else if let Some(rest) = line
                .strip_prefix(";; flags:")
                .or_else(|| line.strip_prefix(";; Flags:"))
            {
                let flags = rest.split(';').next()?;
                parsed.flags = flags.split_whitespace().map(str::to_owned).collect();
            } else if let Some((_, rest)) = line.split_once("; EDNS: ") {
                parsed.edns = Some(rest.to_owned());
            } else if line.starts_with(";; ") {
                section = ["ANSWER", "AUTHORITY", "ADDITIONAL"]
                    .into_iter()
                    .find(|name| line[3..].starts_with(&format!("{name} SECTION")));
            } else if !line.is_empty() && !line.starts_with(';') {
                let record = Record::parse(line)?;
                match section {
                    Some("ANSWER") => parsed.answer.push(record),
                    Some("AUTHORITY") => parsed.authority.push(record),
                    Some("ADDITIONAL") => parsed.additional.push(record),
                    _ => {}
                }
            }
        }
        (!parsed.status.is_empty()).then_some(parsed)
    }
}

/// One record as dig printed it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Record {
    /// Owner, absolute.
    pub(crate) name: String,
    /// Seconds.
    pub(crate) ttl: u32,
    /// Mnemonic.
    pub(crate) rtype: String,
    /// The rest of the line, blanks made one.
    pub(crate) data: String,
}

impl Record {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_whitespace();
        let name = fields.next()?.to_owned();
        let ttl = fields.next()?.parse().ok()?;
        let _class = fields.next()?;
        let rtype = fields.next()?.to_owned();
        let data = fields.collect::<Vec<_>>().join(" ");
        Some(Self {
            name,
            ttl,
            rtype,
            data,
        })
    }
}

/// Asks `127.0.0.1:port` with dig (one try, 5 s); panics when no answer came. `args` come last and so win.
#[track_caller]
pub(crate) fn dig(port: u16, args: &[&str]) -> Answer {
    let text = dig_text(port, args);
    Answer::parse(&text).unwrap_or_else(|| panic!("no answer to dig {args:?}:\n{text}"))
}

/// The same; `None` when no answer came.
pub(crate) fn try_dig(port: u16, args: &[&str]) -> Option<Answer> {
    Answer::parse(&dig_text(port, args))
}

fn dig_text(port: u16, args: &[&str]) -> String {
    let mut command = Command::new(tool("dig"));
    command
        .args(["-r", "@127.0.0.1", "-p", &port.to_string()])
        .args(["+tries=1", "+time=5", "+nocookie"])
        .args(args);
    run(&mut command).stdout
}
