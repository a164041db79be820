//! `$GENERATE`: one line that stands for a record per number, as BIND reads it.
//!
//! `$` is the number, `${OFFSET,WIDTH,BASE}` the number plus OFFSET with at least WIDTH digits, in base `d`, `o`, `x`, `X`, or as
//! the nibbles of a reverse name (`n`, `N`; WIDTH counts their dots too). `$$` and `\$` are a dollar.

use std::fmt::Write as _;

use super::entry::Token;

/// The numbers of a line, in their order.
pub(super) fn numbers(text: &[u8]) -> Result<impl Iterator<Item = u32>, &'static str> {
    const EXPECTED: &str = "expected START-STOP or START-STOP/STEP";
    let text = std::str::from_utf8(text).map_err(|_| EXPECTED)?;
    let (range, step) = text.split_once('/').unwrap_or((text, "1"));
    let (start, stop) = range.split_once('-').ok_or(EXPECTED)?;
    let [start, stop, step] = [start, stop, step].map(number);
    let (start, stop, step) = (
        start.ok_or(EXPECTED)?,
        stop.ok_or(EXPECTED)?,
        step.ok_or(EXPECTED)?,
    );
    if step == 0 || stop < start {
        return Err("expected a step of at least 1, and a STOP not below START");
    }
    if (stop - start) / step >= RECORDS_MAX {
        return Err("expected at most 1048576 records");
    }
    Ok((start..=stop).step_by(step as usize))
}

/// Digits only, at most 2^31 - 1.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let value: u32 = digits.then(|| text.parse().ok()).flatten()?;
    (value <= i32::MAX as u32).then_some(value)
}

/// Writes the record of one number: the tokens behind the range, each with the number put in. Data that is one token in
/// quotes is written without them: whatever it has in it then becomes several.
///
/// # Errors
/// What is wrong with a token.
pub(super) fn line(tokens: &[Token<'_>], value: u32, out: &mut Vec<u8>) -> Result<(), String> {
    let whole = tokens.len() - 1; // Where such data stands: it is not the owner.
    let alone = tokens[..whole].iter().all(|token| !token.quoted);
    for (at, token) in tokens.iter().enumerate() {
        if token.spaced && at > 0 {
            out.push(b' ');
        }
        let quote = token.quoted && !(at == whole && at > 1 && alone && starts_data(tokens));
        out.extend(quote.then_some(b'"'));
        substitute(token.text, value, out)?;
        out.extend(quote.then_some(b'"'));
    }
    Ok(())
}

/// Whether the last token is all of the data: owner, TTL and class in any order, type and one more.
fn starts_data(tokens: &[Token<'_>]) -> bool {
    let prefix = tokens[1..]
        .iter()
        .take_while(|token| {
            token.text.first().is_some_and(u8::is_ascii_digit) || super::read::is_class(token.text)
        })
        .count();
    tokens.len() == prefix + 3
}

fn substitute(text: &[u8], value: u32, out: &mut Vec<u8>) -> Result<(), String> {
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'\\' => {
                out.push(byte);
                if let Some((&next, after)) = rest.split_first() {
                    out.push(next);
                    rest = after;
                }
            }
            b'$' if rest.first() == Some(&b'$') => {
                // As a dollar that begins a line would be a directive, and names write it so.
                out.extend(b"\\$");
                rest = &rest[1..];
            }
            b'$' => {
                let mut form = Form::default();
                if let Some(inside) = rest.strip_prefix(b"{") {
                    let end = inside.iter().position(|&byte| byte == b'}');
                    let end = end.ok_or("found `${`, expected a closing brace behind it")?;
                    form = Form::read(&inside[..end]).ok_or_else(|| {
                        format!(
                            "found `${{{}}}`, expected ${{OFFSET}}, ${{OFFSET,WIDTH}} or ${{OFFSET,WIDTH,BASE}} with base d, o, x, X, n or N and a width of at most {WIDTH_MAX}",
                            String::from_utf8_lossy(&inside[..end])
                        )
                    })?;
                    rest = &inside[end + 1..];
                }
                let number = i64::from(value) + i64::from(form.offset);
                let number = u32::try_from(number).map_err(|_| {
                    format!("found {number} with the offset, expected no less than 0")
                })?;
                out.extend_from_slice(form.write(number).as_bytes());
            }
            _ => out.push(byte),
        }
    }
    Ok(())
}

/// How a number is written.
#[derive(Clone, Copy, Debug)]
struct Form {
    offset: i32,
    width: usize,
    base: u8,
}

impl Default for Form {
    fn default() -> Self {
        Self {
            offset: 0,
            width: 0,
            base: b'd',
        }
    }
}

impl Form {
    fn read(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut parts = text.split(',');
        let offset = parts.next()?.parse().ok()?;
        let width = parts.next().map_or(Some(0), number)? as usize;
        let base = parts.next().unwrap_or("d");
        let good = width <= WIDTH_MAX && parts.next().is_none();
        match base.as_bytes() {
            &[base @ (b'd' | b'o' | b'x' | b'X' | b'n' | b'N')] if good => Some(Self {
                offset,
                width,
                base,
            }),
            _ => None,
        }
    }

    fn write(self, number: u32) -> String {
        let width = self.width;
        match self.base {
            b'o' => format!("{number:0width$o}"),
            b'x' => format!("{number:0width$x}"),
            b'X' => format!("{number:0width$X}"),
            b'n' | b'N' => {
                let (mut left, mut width, mut text) = (number, width, String::new());
                loop {
                    let nibble = left & 15;
                    // A String takes everything.
                    let _ = match self.base {
                        b'n' => write!(text, "{nibble:x}"),
                        _ => write!(text, "{nibble:X}"),
                    };
                    left >>= 4;
                    width = width.saturating_sub(1);
                    if width == 0 && left == 0 {
                        return text;
                    }
                    text.push('.');
                    width = width.saturating_sub(1);
                    if width == 0 && left == 0 {
                        return text;
                    }
                }
            }
            _ => format!("{number:0width$}"),
        }
    }
}

/// Records of one line.
const RECORDS_MAX: u32 = 1 << 20;

/// No number, and no name, has more digits.
const WIDTH_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::super::entry::Entries;
    use super::*;

    /// The records of `text`, or the first problem.
    fn generated(text: &str) -> Result<Vec<String>, String> {
        let mut tokens = Vec::new();
        let _ = Entries::new(text.as_bytes()).next(&mut tokens);
        let records = numbers(tokens[0].text)?.map(|value| {
            let mut out = Vec::new();
            line(&tokens[1..], value, &mut out)?;
            Ok(String::from_utf8(out).expect("ASCII in, ASCII out"))
        });
        records.collect()
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let records = generated(text).expect("a good line");
        assert_eq!(records, expected);
    }

    #[test]
    fn numbers_stand_for_dollars() {
        check(
            "1-3 a$ A 192.0.2.$",
            &["a1 A 192.0.2.1", "a2 A 192.0.2.2", "a3 A 192.0.2.3"],
        );
        check(
            "0-9/4 $.a CNAME b",
            &["0.a CNAME b", "4.a CNAME b", "8.a CNAME b"],
        );
        check("7-7 a PTR $$.\\$.$", &["a PTR \\$.\\$.7"]);
    }

    #[test]
    fn modifiers_add_pad_and_change_the_base() {
        check("9-9 a${1} CNAME b${-9}", &["a10 CNAME b0"]);
        check(
            "26-26 ${0,4,d} CNAME ${0,4,x}.${0,1,X}.${0,3,o}",
            &["0026 CNAME 001a.1A.032"],
        );
        check(
            "26-26 ${0,3,n} CNAME ${0,0,N}.${0,6,n}",
            &["a.1 CNAME A.1.a.1.0."],
        );
    }

    #[test]
    fn data_that_is_one_quoted_token_is_several() {
        check("1-1 a 60 IN MX \"10 m$\"", &["a 60 IN MX 10 m1"]);
        check("1-1 a TXT \"x $\" \"y\"", &["a TXT \"x 1\" \"y\""]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("1 a A x", "START-STOP"),
            ("3-1 a A x", "not below"),
            ("1-3/0 a A x", "at least 1"),
            ("0-2147483648 a A x", "START-STOP"),
            ("0-1048576 a A x", "1048576 records"),
            ("1-2 a${-2} A x", "no less than 0"),
            ("1-2 a${0 A x", "closing brace"),
            ("1-2 a${0,300} A x", "at most 255"),
            ("1-2 a${0,1,z} A x", "with base"),
            ("1-2 a${} A x", "OFFSET"),
        ] {
            let problem = generated(text).expect_err(text);
            assert!(problem.contains(expected), "{text}: {problem}");
        }
    }
}
