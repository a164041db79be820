//! What nodes that fill the same objects tell each other: which chunks each holds, and which are on their way to it.
//!
//! `GET have?of=ID-TAGS,ID-TAGS` asks a node about at most [`OBJECTS`] versions. A bitmap is cut into pages (see
//! [`page_size`]); `TAGS` are the tags of the pages as the asker knows them, so an answer holds only the pages that
//! changed, and nothing of the asker has to be remembered. What does not fit [`ANSWER_PAGES`] comes with the next answer.
//! The answer is JSON ([`HaveAnswer`]). Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::content::chunk::Digest;
use crate::content::have::Have;

/// Versions asked about at once.
pub const OBJECTS: usize = 16;

/// Bytes of an answer at most.
pub const ANSWER_SIZE: u64 = 4 << 20;

/// Chunks said to be on their way to a node, of one version.
pub const COMING: usize = 1_024;

/// One version that is asked about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HaveAsk {
    /// Its manifest's digest.
    pub id: Digest,
    /// The tags of the pages the asker knows; empty: it knows none.
    pub tags: Vec<u32>,
}

/// What a node says of the versions asked about. Those it does not know are left out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HaveAnswer {
    /// Drawn by the node at its start, so that who asks itself notices.
    pub node: u64,
    /// What it holds.
    pub objects: Vec<Holding>,
}

/// What a node holds of one version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Holding {
    /// Its manifest's digest.
    pub manifest: Digest,
    /// Whether the node publishes it itself.
    pub published: bool,
    /// Pages that differ from those the asker knows: number, and bytes in hexadecimal.
    pub pages: Vec<(u32, String)>,
    /// Chunks on their way to it.
    pub coming: Vec<u32>,
}

/// A node's bitmap of one version, as another knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    have: Have,
    tags: Vec<u32>,
}

/// Why an answer cannot be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bitmap: found {found}, expected {expected}")]
pub struct ExchangeError {
    found: String,
    expected: &'static str,
}

impl HaveAsk {
    /// Reads the value of `of`; `None` if it is not one.
    #[must_use]
    pub fn parse_all(text: &str) -> Option<Vec<Self>> {
        let asks: Option<Vec<Self>> = text.split(',').map(Self::parse).collect();
        asks.filter(|asks| asks.len() <= OBJECTS)
    }

    fn parse(text: &str) -> Option<Self> {
        let (id, tags) = text.split_once('-').unwrap_or((text, ""));
        if tags.len() % 8 != 0 || tags.len() / 8 > PAGES as usize {
            return None;
        }
        let lower = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        if !tags.as_bytes().iter().all(lower) || text.ends_with('-') {
            return None;
        }
        let tags = (0..tags.len() / 8).map(|at| u32::from_str_radix(&tags[at * 8..][..8], 16));
        Some(Self {
            id: id.parse().ok()?,
            tags: tags.collect::<Result<_, _>>().ok()?,
        })
    }
}

impl fmt::Display for HaveAsk {
    /// The form that is read by [`HaveAsk::parse_all`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.id)?;
        for (place, tag) in self.tags.iter().enumerate() {
            let dash = if place == 0 { "-" } else { "" };
            write!(f, "{dash}{tag:08x}")?;
        }
        Ok(())
    }
}

impl Holding {
    /// What is to be said of `have` to a node that knows pages with these `tags`, in at most `room` hexadecimal digits,
    /// which are taken off it.
    #[must_use]
    pub fn since(
        manifest: Digest,
        published: bool,
        have: &Have,
        tags: &[u32],
        coming: Vec<u32>,
        room: &mut usize,
    ) -> Self {
        let bytes = have.encode();
        let size = page_size(have.count()) as usize / 8;
        let mut pages = Vec::new();
        for (number, page) in (0u32..).zip(bytes.chunks(size)) {
            let known = tags.get(number as usize).copied().unwrap_or(EMPTY);
            if tag(page) == known {
                continue;
            }
            let Some(left) = room.checked_sub(page.len() * 2) else {
                break;
            };
            *room = left;
            pages.push((number, hex(page)));
        }
        Self {
            manifest,
            published,
            pages,
            coming,
        }
    }
}

impl HaveAnswer {
    /// Reads an answer.
    ///
    /// # Errors
    /// What was found and what was expected.
    pub fn parse(body: &[u8]) -> Result<Self, ExchangeError> {
        let answer: Self = serde_json::from_slice(body)
            .map_err(|e| error(e, "JSON of a node's number and what it holds"))?;
        if answer.objects.len() > OBJECTS {
            return Err(error(answer.objects.len(), "at most 16 objects"));
        }
        Ok(answer)
    }
}

impl Known {
    /// Of a node of which nothing is known yet: no chunk.
    #[must_use]
    pub fn nothing(count: u32) -> Self {
        Self {
            have: Have::empty(count),
            tags: Vec::new(),
        }
    }

    /// The bitmap.
    #[must_use]
    pub fn have(&self) -> &Have {
        &self.have
    }

    /// What is to be asked with.
    #[must_use]
    pub fn tags(&self) -> &[u32] {
        &self.tags
    }

    /// The node does not have this chunk after all; the next answer brings the page anew.
    pub fn remove(&mut self, index: u32) {
        self.have.remove(index);
    }

    /// Takes over the pages of an answer. Whether anything changed.
    ///
    /// # Errors
    /// A page that does not exist or is of another length.
    pub fn apply(&mut self, pages: &[(u32, String)]) -> Result<bool, ExchangeError> {
        if pages.is_empty() {
            return Ok(false);
        }
        let count = self.have.count();
        let size = page_size(count) as usize / 8;
        let mut bytes = self.have.encode();
        let all = bytes.len().div_ceil(size);
        self.tags.resize(all, EMPTY);
        for (number, text) in pages {
            let at = (*number as usize).checked_mul(size);
            let page = at
                .and_then(|at| bytes.get_mut(at..))
                .filter(|rest| !rest.is_empty())
                .ok_or_else(|| error(number, "the number of a page"))?;
            let end = page.len().min(size);
            let page = &mut page[..end];
            let read = unhex(text).filter(|read| read.len() == page.len());
            page.copy_from_slice(&read.ok_or_else(|| error(text.len(), "the digits of a page"))?);
            self.tags[*number as usize] = tag(page);
        }
        self.have = Have::decode(&bytes, count)
            .ok_or_else(|| error("bits", "none beyond the last chunk"))?;
        Ok(true)
    }
}

/// Chunks of a page of the bitmap of `count` chunks: 4,096, or more where that would make more than 64 pages.
#[must_use]
pub fn page_size(count: u32) -> u32 {
    count.div_ceil(PAGES).next_multiple_of(64).max(PAGE)
}

/// A page's tag: 32 bits of its digest. Of two versions of one page with equal tags the older one is believed until it
/// changes again, which costs a request in vain.
fn tag(page: &[u8]) -> u32 {
    if page.iter().all(|byte| *byte == 0) {
        return EMPTY;
    }
    let mut tag = [0; 4];
    tag.copy_from_slice(&blake3::hash(page).as_bytes()[..4]);
    u32::from_le_bytes(tag)
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes all that is written");
    }
    text
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let pair = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? * 16 + digit(*low)?).ok();
    rest.is_empty().then(|| pairs.iter().map(pair).collect())?
}

fn error(found: impl fmt::Display, expected: &'static str) -> ExchangeError {
    let mut found = found.to_string();
    if let Some((cut, _)) = found.char_indices().nth(100) {
        found.truncate(cut);
    }
    ExchangeError { found, expected }
}

/// Pages of a bitmap at most.
const PAGES: u32 = 64;

/// Chunks of a page at least.
const PAGE: u32 = 4_096;

/// The tag of a page without a chunk.
const EMPTY: u32 = 0;

/// Digits of pages in one answer: what is left of [`ANSWER_SIZE`] is for everything else.
pub const ANSWER_PAGES: usize = 3 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: Digest = Digest([7; 32]);

    fn say(have: &Have, tags: &[u32], mut room: usize) -> Vec<(u32, String)> {
        Holding::since(ID, false, have, tags, Vec::new(), &mut room).pages
    }

    #[test]
    fn page_that_did_not_change_is_not_sent_again() {
        let mut have = Have::empty(20_000);
        let mut known = Known::nothing(20_000);
        for index in [1, 9_000] {
            have.insert(index);
            let pages = say(&have, known.tags(), usize::MAX);
            assert_eq!(pages.len(), 1, "only the page with chunk {index}");
            assert!(known.apply(&pages).unwrap());
            assert_eq!(*known.have(), have);
        }
        assert_eq!(say(&have, known.tags(), usize::MAX), []);
    }

    #[test]
    fn bitmap_too_large_for_one_answer_comes_in_several() {
        let have = Have::full(300_000);
        let mut known = Known::nothing(300_000);
        let mut answers = 0;
        while *known.have() != have {
            let pages = say(&have, known.tags(), 20_000);
            assert!(pages.iter().map(|(_, text)| text.len()).sum::<usize>() <= 20_000);
            assert!(known.apply(&pages).unwrap(), "each answer brings something");
            answers += 1;
        }
        assert!((4..12).contains(&answers), "{answers}");
    }

    #[test]
    fn page_of_another_shape_is_refused() {
        let page = |number: u32, text: &str| vec![(number, text.to_owned())];
        for bad in [
            page(1, "00"),
            page(0, ""),
            page(0, "0"),
            page(0, "zz"),
            page(0, "0000"),
            page(0, "f0"),
            page(u32::MAX, "00"),
        ] {
            assert!(Known::nothing(4).apply(&bad).is_err(), "{bad:?}");
        }
        assert!(Known::nothing(4).apply(&page(0, "0f")).unwrap());
    }

    #[test]
    fn ask_of_another_shape_is_refused() {
        let id = "ab".repeat(32);
        assert!(HaveAsk::parse_all(&id).is_some());
        let too_many = vec![id.as_str(); OBJECTS + 1].join(",");
        let too_long = format!("{id}-{}", "0".repeat(8 * 65));
        for bad in [
            "",
            "ab",
            &format!("{id}-"),
            &format!("{id}-1234567"),
            &format!("{id}-1234567G"),
            &format!("{id},"),
            &format!("{id}-+1234567"),
            &too_many,
            &too_long,
        ] {
            assert_eq!(HaveAsk::parse_all(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn ask_written_and_read_again_is_equal(
            asks in prop::collection::vec((any::<[u8; 32]>(), prop::collection::vec(any::<u32>(), 0..65)), 1..17)
        ) {
            let asks: Vec<HaveAsk> = asks.into_iter()
                .map(|(id, tags)| HaveAsk { id: Digest(id), tags })
                .collect();
            let text: Vec<String> = asks.iter().map(ToString::to_string).collect();
            prop_assert_eq!(HaveAsk::parse_all(&text.join(",")), Some(asks));
        }

        #[test]
        fn bitmap_said_in_steps_is_known(
            count in 0u32..20_000,
            steps in prop::collection::vec(prop::collection::vec((any::<u32>(), any::<bool>()), 0..20), 1..5),
        ) {
            let (mut have, mut known) = (Have::empty(count), Known::nothing(count));
            for step in steps {
                for (index, held) in step {
                    let index = index.checked_rem(count).unwrap_or(0);
                    if held { have.insert(index) } else { have.remove(index) }
                }
                known.apply(&say(&have, known.tags(), usize::MAX)).unwrap();
                prop_assert_eq!(known.have(), &have);
            }
        }

        #[test]
        fn answer_of_arbitrary_bytes_never_panics(bytes: Vec<u8>) {
            drop(HaveAnswer::parse(&bytes));
        }
    }
}
