//! The line of a key in a TOML file, since a merged tree of settings no longer knows it. Pure.

use toml::de::{DeTable, DeValue};

/// Where every key of one file stands.
#[derive(Debug)]
pub(super) struct Locator<'a> {
    text: &'a str,
    root: toml::Spanned<DeTable<'a>>,
}

/// A syntax error: line and what the parser said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) line: usize,
    pub(super) message: String,
}

impl<'a> Locator<'a> {
    /// Parses `text`.
    ///
    /// # Errors
    /// Every syntax error found.
    pub(super) fn new(text: &'a str) -> Result<Self, Vec<SyntaxError>> {
        let (root, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            return Ok(Self { text, root });
        }
        let mut errors: Vec<_> = errors
            .iter()
            .map(|e| SyntaxError {
                line: line(text, e.span().map_or(0, |s| s.start)),
                message: e.message().trim().replace('\n', "; "),
            })
            .collect();
        errors.dedup();
        Err(errors)
    }

    /// The line of the key at `path` (`zone[1].ttl`), or of its nearest ancestor that is written in the file.
    pub(super) fn line(&self, path: &str) -> Option<usize> {
        self.find(path).map(|(line, _)| line)
    }

    /// Whether the file itself sets the key at `path`.
    pub(super) fn sets(&self, path: &str) -> bool {
        self.find(path).is_some_and(|(_, whole)| whole)
    }

    /// The line of the longest part of `path` that the file has, and whether that is all of it.
    fn find(&self, path: &str) -> Option<(usize, bool)> {
        let mut whole = true;
        let mut table = Some(self.root.get_ref());
        let mut value: Option<&DeValue<'_>> = None;
        let mut at = None;
        for step in steps(path) {
            match step {
                Step::Key(key) => {
                    let Some((name, v)) = table.and_then(|t| t.get_key_value(key)) else {
                        whole = false;
                        break;
                    };
                    at = Some(name.span().start);
                    table = v.get_ref().as_table();
                    value = Some(v.get_ref());
                }
                Step::Index(index) => {
                    let Some(v) = value.and_then(DeValue::as_array).and_then(|a| a.get(index))
                    else {
                        whole = false;
                        break;
                    };
                    at = Some(v.span().start);
                    table = v.get_ref().as_table();
                    value = Some(v.get_ref());
                }
            }
        }
        at.map(|offset| (line(self.text, offset), whole))
    }
}

/// One step of a path through the tree of settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step<'a> {
    /// A key of a table.
    Key(&'a str),
    /// An element of an array.
    Index(usize),
}

/// The steps of a dotted path such as `zone[1].ttls."www/AAAA"`.
fn steps(path: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        if let Some(inner) = rest.strip_prefix('[') {
            let (index, after) = inner.split_once(']').unwrap_or((inner, ""));
            steps.push(Step::Index(index.parse().unwrap_or(usize::MAX)));
            rest = after;
        } else if let Some(inner) = rest.strip_prefix('"') {
            let (key, after) = inner.split_once('"').unwrap_or((inner, ""));
            steps.push(Step::Key(key));
            rest = after;
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            steps.push(Step::Key(&rest[..end]));
            rest = &rest[end..];
        }
    }
    steps
}

/// The 1-based line of a byte offset.
fn line(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    before.iter().filter(|&&b| b == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
[dns]
listen = [
  \"127.0.0.1:5300\",
  \"nonsense\",
]

[[zone]]
name = \"a.\"

[[zone]]
name = \"b.\"
ttls = { \"www/AAAA\" = \"5s\" }
";

    #[track_caller]
    fn check(path: &str, expected: Option<usize>) {
        let locator = Locator::new(TEXT).unwrap();
        assert_eq!(locator.line(path), expected, "{path}");
    }

    #[test]
    fn line_of_a_key_is_where_the_key_stands() {
        check("dns.listen", Some(2));
        check("dns.listen[1]", Some(4));
        check("zone[0].name", Some(8));
        check("zone[1].name", Some(11));
        check("zone[1].ttls.\"www/AAAA\"", Some(12));
    }

    #[test]
    fn line_of_an_absent_key_is_its_ancestors() {
        check("dns.workers", Some(1));
        check("zone[1].file", Some(10));
        check("http.listen", None);
    }

    #[test]
    fn syntax_error_names_its_line() {
        let errors = Locator::new("[dns]\nworkers = \n").unwrap_err();
        assert_eq!(errors[0].line, 2, "{errors:?}");
    }
}
