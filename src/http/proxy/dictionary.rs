//! Dictionaries of structured fields (RFC 9651 section 3.2), as far as directives need them. Pure.
//!
//! Strict: one fault and there is no dictionary, as the RFC wants it.

/// A member's value. Parameters are checked and dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A whole number.
    Integer(i64),
    /// A flag; a member without a value is true.
    Boolean(bool),
    /// A string, unescaped.
    Text(String),
    /// Anything else that is well-formed.
    Other,
}

/// The members in order, the last of one name counting; `None` if the field is malformed.
#[must_use]
pub fn parse(field: &[u8]) -> Option<Vec<(String, Value)>> {
    let mut reader = Reader(field.trim_ascii());
    let mut members: Vec<(String, Value)> = Vec::new();
    while !reader.0.is_empty() {
        let key = reader.key()?;
        let value = if reader.take(b'=') {
            reader.value()?
        } else {
            Value::Boolean(true)
        };
        reader.parameters()?;
        members.retain(|(name, _)| *name != key);
        members.push((key, value));
        reader.space();
        if reader.0.is_empty() {
            break;
        }
        if !reader.take(b',') {
            return None;
        }
        reader.space();
        if reader.0.is_empty() {
            return None;
        }
    }
    Some(members)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, byte: u8) -> bool {
        let taken = self.0.first() == Some(&byte);
        if taken {
            self.0 = &self.0[1..];
        }
        taken
    }

    fn space(&mut self) {
        while let [b' ' | b'\t', rest @ ..] = self.0 {
            self.0 = rest;
        }
    }

    fn run(&mut self, good: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.0.iter().position(|b| !good(*b));
        let (run, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        self.0 = rest;
        run
    }

    fn key(&mut self) -> Option<String> {
        let first = *self.0.first()?;
        if !first.is_ascii_lowercase() && first != b'*' {
            return None;
        }
        let key = self.run(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.' | b'*')
        });
        String::from_utf8(key.to_vec()).ok()
    }

    fn value(&mut self) -> Option<Value> {
        if !self.take(b'(') {
            return self.item();
        }
        loop {
            while self.take(b' ') {}
            if self.take(b')') {
                return Some(Value::Other);
            }
            self.item()?;
            self.parameters()?;
            if !matches!(self.0.first(), Some(b' ' | b')')) {
                return None;
            }
        }
    }

    fn item(&mut self) -> Option<Value> {
        match *self.0.first()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.text(),
            b'?' => {
                let value = match self.0.get(1)? {
                    b'0' => false,
                    b'1' => true,
                    _ => return None,
                };
                self.0 = &self.0[2..];
                Some(Value::Boolean(value))
            }
            b':' => {
                self.0 = &self.0[1..];
                self.run(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
                self.take(b':').then_some(Value::Other)
            }
            first if first.is_ascii_alphabetic() || first == b'*' => {
                self.run(|b| super::control::is_token(b) || matches!(b, b':' | b'/'));
                Some(Value::Other)
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Value> {
        let negative = self.take(b'-');
        let digits = self.run(|b| b.is_ascii_digit());
        if self.take(b'.') {
            let fraction = self.run(|b| b.is_ascii_digit());
            let good = (1..=12).contains(&digits.len()) && (1..=3).contains(&fraction.len());
            return good.then_some(Value::Other);
        }
        if !(1..=15).contains(&digits.len()) {
            return None;
        }
        let number: i64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
        Some(Value::Integer(if negative { -number } else { number }))
    }

    fn text(&mut self) -> Option<Value> {
        self.take(b'"');
        let mut out = String::new();
        loop {
            let (first, rest) = self.0.split_first()?;
            self.0 = rest;
            match first {
                b'"' => return Some(Value::Text(out)),
                b'\\' => {
                    let (escaped, rest) = self.0.split_first()?;
                    self.0 = rest;
                    if !matches!(escaped, b'"' | b'\\') {
                        return None;
                    }
                    out.push(char::from(*escaped));
                }
                0x20..=0x7e => out.push(char::from(*first)),
                _ => return None,
            }
        }
    }

    fn parameters(&mut self) -> Option<()> {
        while self.take(b';') {
            while self.take(b' ') {}
            self.key()?;
            if self.take(b'=') {
                self.item()?;
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn members_of_every_type_are_read() {
        let text =
            br#"max-age=60;x=?1, private, no="a\"b", t=tok/en, d=-1.5, b=:aGk=:, l=("a" 1), f=?0"#;
        let members = parse(text).unwrap();
        assert_eq!(members.len(), 8);
        assert_eq!(members[0], ("max-age".into(), Value::Integer(60)));
        assert_eq!(members[1], ("private".into(), Value::Boolean(true)));
        assert_eq!(members[2], ("no".into(), Value::Text("a\"b".into())));
        assert_eq!(members[7], ("f".into(), Value::Boolean(false)));
    }

    #[test]
    fn malformed_dictionary_is_none() {
        for bad in [
            "A=1",
            "a=",
            "a=1,",
            "a 1",
            "a=&",
            "&&&",
            "a=\"x",
            "a=1.",
            "a=?2",
            "a=(1",
            "a=:x",
            "a =1",
            "a= 1",
            "a=1234567890123456",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(parse(b" "), Some(Vec::new()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&text);
        }

        #[test]
        fn integers_round_trip(n in -999_999_999_999_999i64..=999_999_999_999_999) {
            let members = parse(format!("a={n}").as_bytes()).unwrap();
            prop_assert_eq!(&members[0].1, &Value::Integer(n));
        }
    }
}
