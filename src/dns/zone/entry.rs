//! Master-file text cut into entries and tokens (RFC 1035 section 5.1): comments, quotes, parentheses, lines.

/// Cuts the text of one file; borrowed, one pass.
#[derive(Debug)]
pub(super) struct Entries<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
}

/// One entry: what stands on a line, or on several inside parentheses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// 1-based line of the first token.
    pub(super) line: usize,
    /// The line starts with white space: the owner is that of the entry before.
    pub(super) indented: bool,
}

/// One token, escapes as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    /// Its bytes, without quotes.
    pub(super) text: &'a [u8],
    /// It stood in quotes.
    pub(super) quoted: bool,
    /// Something separates it from the token before (SVCB has `key="value"`).
    pub(super) spaced: bool,
}

/// What is wrong with an entry, and the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadEntry {
    pub(super) line: usize,
    pub(super) message: &'static str,
}

impl<'a> Entries<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            at: 0,
            line: 1,
        }
    }

    /// Puts the tokens of the next entry that has any into `tokens`. After an error the next call goes on behind
    /// the line that is wrong.
    pub(super) fn next(&mut self, tokens: &mut Vec<Token<'a>>) -> Option<Result<Entry, BadEntry>> {
        tokens.clear();
        let mut entry = Entry {
            line: self.line,
            indented: self.at_space(),
        };
        let mut open: Option<usize> = None; // Line of the open parenthesis; they nest, so count too.
        let mut depth = 0_usize;
        let mut spaced = true;
        loop {
            let Some(&byte) = self.text.get(self.at) else {
                if let Some(line) = open {
                    self.at = self.text.len();
                    let message = "found the end of the file, expected a closing parenthesis";
                    return Some(Err(BadEntry { line, message }));
                }
                return (!tokens.is_empty()).then_some(Ok(entry));
            };
            match byte {
                b'\n' => {
                    self.at += 1;
                    self.line += 1;
                    spaced = true;
                    if depth == 0 {
                        if !tokens.is_empty() {
                            return Some(Ok(entry));
                        }
                        entry.indented = self.at_space();
                    }
                }
                b' ' | b'\t' | b'\r' => {
                    self.at += 1;
                    spaced = true;
                }
                b';' => self.skip_line(),
                b'(' => {
                    self.at += 1;
                    depth += 1;
                    open.get_or_insert(self.line);
                    spaced = true;
                }
                b')' => {
                    if depth == 0 {
                        return Some(Err(self.bad(
                            "found a closing parenthesis, expected an opening one before it",
                        )));
                    }
                    self.at += 1;
                    depth -= 1;
                    if depth == 0 {
                        open = None;
                    }
                    spaced = true;
                }
                _ => {
                    if tokens.is_empty() {
                        entry.line = self.line;
                    }
                    match self.token(byte == b'"') {
                        Ok(text) => tokens.push(Token {
                            text,
                            quoted: byte == b'"',
                            spaced,
                        }),
                        Err(message) => return Some(Err(self.bad(message))),
                    }
                    spaced = false;
                }
            }
        }
    }

    fn at_space(&self) -> bool {
        matches!(self.text.get(self.at), Some(b' ' | b'\t'))
    }

    fn token(&mut self, quoted: bool) -> Result<&'a [u8], &'static str> {
        if quoted {
            self.at += 1;
        }
        let start = self.at;
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b'\\'
                    if self
                        .text
                        .get(self.at + 1)
                        .is_some_and(|&next| next != b'\n') =>
                {
                    self.at += 1
                }
                b'\n' => break,
                b'"' if quoted => {
                    self.at += 1;
                    return Ok(&self.text[start..self.at - 1]);
                }
                b' ' | b'\t' | b'\r' | b';' | b'(' | b')' | b'"' if !quoted => break,
                _ => {}
            }
            self.at += 1;
        }
        if quoted {
            return Err("found the end of the line inside quotes, expected a closing quote");
        }
        Ok(&self.text[start..self.at])
    }

    fn skip_line(&mut self) {
        while self.text.get(self.at).is_some_and(|&byte| byte != b'\n') {
            self.at += 1;
        }
    }

    fn bad(&mut self, message: &'static str) -> BadEntry {
        let line = self.line;
        self.skip_line();
        if self.at < self.text.len() {
            self.at += 1;
            self.line += 1;
        }
        BadEntry { line, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Each entry as `LINE[>]token|token`, `>` for an indented one, `"` around quoted tokens, `+` before one that
    /// follows without a space; errors as `LINE!`.
    fn render(text: &[u8]) -> Vec<String> {
        let mut entries = Entries::new(text);
        let mut tokens = Vec::new();
        let mut seen = Vec::new();
        while let Some(entry) = entries.next(&mut tokens) {
            seen.push(match entry {
                Err(bad) => format!("{}!", bad.line),
                Ok(entry) => {
                    let list: Vec<String> = tokens
                        .iter()
                        .map(|token| {
                            let quote = if token.quoted { "\"" } else { "" };
                            let joined = if token.spaced { "" } else { "+" };
                            format!(
                                "{joined}{quote}{}{quote}",
                                String::from_utf8_lossy(token.text)
                            )
                        })
                        .collect();
                    let indented = if entry.indented { ">" } else { "" };
                    format!("{}{indented}{}", entry.line, list.join("|"))
                }
            });
        }
        seen
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        assert_eq!(render(text.as_bytes()), expected);
    }

    #[test]
    fn entries_split_at_lines_comments_and_parentheses() {
        check("a b ; c\r\n\n; d\n  e\n", &["1a|b", "4>e"]);
        check("a ( b ; x\n c\n ) d\ne", &["1a|b|c|d", "4e"]);
        check("\n\n ( a\n)\n", &["3>a"]);
    }

    #[test]
    fn entries_keep_quotes_and_escapes_as_one_token() {
        check("a \"b c;(\" d\\ e \\; x", &["1a|\"b c;(\"|d\\ e|\\;|x"]);
        check("k=\"v w\" l", &["1k=|+\"v w\"|l"]);
        check("a \"q\\\"r\"", &["1a|\"q\\\"r\""]);
    }

    #[test]
    fn entries_report_the_line_and_go_on() {
        check("a \"b\nc\n", &["1!", "2c"]);
        check("a )\nb\n", &["1!", "2b"]);
        check("a\nb ( c\nd\n", &["1a", "2!"]);
    }

    proptest! {
        #[test]
        fn any_text_ends_and_lines_rise(text in proptest::collection::vec(
            prop_oneof![Just(b'\n'), Just(b'('), Just(b')'), Just(b'"'), Just(b'\\'), Just(b';'), Just(b' '), any::<u8>()], 0..200,
        )) {
            prop_assert!(render(&text).len() <= text.len());
        }
    }
}
