//! The few records an operator gives recursion in files of their own: root hints and trust anchors, in the form of a
//! master file (comments, parentheses, optional TTL and class).

/// One record: its line, owner, type and the rest, as written.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct Line<'a> {
    pub(in super::super) number: usize,
    pub(in super::super) owner: &'a str,
    pub(in super::super) rtype: String,
    pub(in super::super) rdata: Vec<&'a str>,
}

/// What is wrong with such a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: found {found:?}, expected {expected}")]
pub struct Unreadable {
    /// From 1.
    pub line: usize,
    /// What stands there.
    pub found: String,
    /// What should.
    pub expected: &'static str,
}

impl Unreadable {
    pub(in super::super) fn new(line: usize, found: &str, expected: &'static str) -> Self {
        Self {
            line,
            found: found.to_owned(),
            expected,
        }
    }
}

/// Reads `text` as records.
///
/// # Errors
/// The first line that is none.
pub(in super::super) fn lines(text: &str) -> Result<Vec<Line<'_>>, Unreadable> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, Vec<&str>)> = None;
    for (at, line) in text.lines().enumerate() {
        let number = at + 1;
        let bare = line.split(';').next().unwrap_or_default();
        let (first, mut words) = open.take().unwrap_or((number, Vec::new()));
        let mut depth = usize::from(first != number);
        if depth == 0 && bare.starts_with([' ', '\t']) && !bare.trim().is_empty() {
            return Err(Unreadable::new(
                number,
                bare.trim(),
                "the owner's name first",
            ));
        }
        for word in bare.split_whitespace() {
            let inner = word.trim_matches(['(', ')']);
            depth += word.matches('(').count();
            depth = depth.saturating_sub(word.matches(')').count());
            if !inner.is_empty() {
                words.push(inner);
            }
        }
        if depth > 0 {
            open = Some((first, words));
        } else if !words.is_empty() {
            lines.push(record(first, &words)?);
        }
    }
    match open {
        Some((first, words)) => Err(Unreadable::new(
            first,
            &words.join(" "),
            "a closing parenthesis",
        )),
        None => Ok(lines),
    }
}

fn record<'a>(number: usize, words: &[&'a str]) -> Result<Line<'a>, Unreadable> {
    let mut rest = words.iter().skip(1).copied().peekable();
    // TTL and class, in any order.
    while rest
        .next_if(|word| word.eq_ignore_ascii_case("IN") || word.parse::<u32>().is_ok())
        .is_some()
    {}
    match (rest.next(), rest.peek()) {
        (Some(rtype), Some(_)) => Ok(Line {
            number,
            owner: words[0],
            rtype: rtype.to_ascii_uppercase(),
            rdata: rest.collect(),
        }),
        _ => Err(Unreadable::new(
            number,
            &words.join(" "),
            "owner, TTL, class, type and data",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_over_lines_without_ttl_class_and_comments() {
        let text = "; a comment\n. 3600000 IN NS a.root. ; one\nA.root. A 192.0.2.1\n\n. IN DNSKEY ( 257 3\n  8 AwEA\n  Aa== ) ; key\n";
        let lines = lines(text).unwrap();
        let seen: Vec<_> = lines
            .iter()
            .map(|line| (line.number, line.owner, &*line.rtype, line.rdata.join(" ")))
            .collect();
        assert_eq!(
            seen,
            [
                (2, ".", "NS", "a.root.".to_owned()),
                (3, "A.root.", "A", "192.0.2.1".to_owned()),
                (5, ".", "DNSKEY", "257 3 8 AwEA Aa==".to_owned()),
            ]
        );
    }

    #[test]
    fn line_that_is_no_record_is_named() {
        assert_eq!(lines("\n. IN NS\n").unwrap_err().line, 2);
        assert_eq!(lines(". DS ( 1 2\n").unwrap_err().line, 1);
        assert_eq!(lines("\n A 192.0.2.1\n").unwrap_err().line, 2);
    }
}
