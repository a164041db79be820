//! Names of files as text: UTF-8 as it is, any other byte as a private character. Pure.
//!
//! A URL can carry any byte in a path, and so can a file's name; manifests, catalogues and JSON carry text. So each byte of a name
//! that is no part of UTF-8 becomes a character of its own, U+10FF80 for 0x80 to U+10FFFF for 0xFF: the last 128 of those that no
//! standard gives a meaning. The bytes of a name that has such a character already are taken one by one in the same way. So each name has
//! one text, and two names never have the same. What has none of these characters, which is nearly all there is, is itself.

use std::borrow::Cow;

/// The text of a name, or of a path.
#[must_use]
pub fn from_bytes(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes)
        && !text.contains(stands_for_a_byte)
    {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len() * 2);
    for part in bytes.utf8_chunks() {
        for c in part.valid().chars() {
            if stands_for_a_byte(c) {
                text.extend(c.encode_utf8(&mut [0; 4]).bytes().map(character));
            } else {
                text.push(c);
            }
        }
        text.extend(part.invalid().iter().copied().map(character));
    }
    Cow::Owned(text)
}

/// The name, or path, that `text` stands for.
#[must_use]
pub fn to_bytes(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(stands_for_a_byte) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match byte(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Cow::Owned(bytes)
}

/// Whether `text` is what [`from_bytes`] makes of a name: of the texts that stand for the same bytes, one is.
#[must_use]
pub fn is_canonical(text: &str) -> bool {
    !text.contains(stands_for_a_byte) || from_bytes(&to_bytes(text)) == text
}

/// `text` for people: U+FFFD where it is no UTF-8.
#[must_use]
pub fn shown(text: &str) -> Cow<'_, str> {
    if !text.contains(stands_for_a_byte) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(String::from_utf8_lossy(&to_bytes(text)).into_owned())
}

/// The character that stands for a byte; `byte` is 0x80 or more, as all bytes that are no UTF-8 by themselves.
fn character(byte: u8) -> char {
    char::from_u32(BASE + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn byte(c: char) -> Option<u8> {
    let byte = u32::from(c).checked_sub(BASE)?;
    u8::try_from(byte).ok().filter(|byte| *byte >= 0x80)
}

fn stands_for_a_byte(c: char) -> bool {
    byte(c).is_some()
}

/// To which the byte is added.
const BASE: u32 = 0x10_FF00;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], text: &str) {
        assert_eq!(from_bytes(bytes), text);
        assert_eq!(to_bytes(text), bytes);
        assert!(is_canonical(text));
    }

    #[test]
    fn utf_8_is_itself() {
        check(b"/a/b", "/a/b");
        check(
            "/é/\u{10FF7F}/\u{FFFD}".as_bytes(),
            "/é/\u{10FF7F}/\u{FFFD}",
        );
    }

    #[test]
    fn other_bytes_are_characters_of_their_own() {
        check(b"/\xff", "/\u{10FFFF}");
        check(b"caf\xe9.txt", "caf\u{10FFE9}.txt");
        // Cut off, overlong, a surrogate.
        check(b"\xe2\x82", "\u{10FFE2}\u{10FF82}");
        check(b"\xc0\xae", "\u{10FFC0}\u{10FFAE}");
        check(b"\xed\xa0\x80", "\u{10FFED}\u{10FFA0}\u{10FF80}");
    }

    #[test]
    fn name_that_has_such_a_character_is_told_from_the_byte() {
        check(
            "\u{10FFE9}".as_bytes(),
            "\u{10FFF4}\u{10FF8F}\u{10FFBF}\u{10FFA9}",
        );
    }

    #[test]
    fn text_that_stands_for_what_another_does_is_not_canonical() {
        assert!(!is_canonical("/\u{10FFC3}\u{10FFA9}")); // "é"
        assert!(!is_canonical(
            "/\u{10FFF4}\u{10FF8F}\u{10FFBF}b\u{10FFC3}\u{10FFA9}"
        ));
        assert!(is_canonical("/\u{10FFC3}a\u{10FFA9}"));
    }

    #[test]
    fn people_see_that_something_is_there() {
        assert_eq!(shown("caf\u{10FFE9}"), "caf\u{FFFD}");
        assert_eq!(shown("café"), "café");
    }

    fn names() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            any::<u8>().prop_map(|byte| vec![byte]),
            any::<char>().prop_map(|c| c.to_string().into_bytes()),
            (0x80..=0xFFu8).prop_map(|byte| character(byte).to_string().into_bytes()),
        ];
        proptest::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn each_name_has_one_text_and_each_text_one_name(name in names(), other in names()) {
            let text = from_bytes(&name);
            prop_assert_eq!(to_bytes(&text), name.as_slice());
            prop_assert!(is_canonical(&text));
            prop_assert_eq!(from_bytes(&other) == text, other == name);
        }

        #[test]
        fn text_is_canonical_exactly_if_its_name_gives_it_back(name in names()) {
            // Read as a text itself, characters that stand for bytes and all.
            if let Ok(text) = std::str::from_utf8(&name) {
                let back = to_bytes(text).into_owned();
                prop_assert_eq!(is_canonical(text), from_bytes(&back) == text);
            }
        }

        #[test]
        fn text_of_a_path_is_the_texts_of_its_names(names in proptest::collection::vec(names(), 1..4)) {
            let path = names.join(&b'/');
            let texts: Vec<_> = names.iter().map(|name| from_bytes(name)).collect();
            prop_assert_eq!(from_bytes(&path), texts.join("/"));
        }
    }
}
