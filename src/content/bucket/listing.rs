//! What a bucket lists: keys to paths, and what changed since it was listed before. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::super::manifest::check_path;

/// What tells one version of an object in a bucket from another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tag {
    /// The server's entity tag, if it gives one: of a multipart upload it is no digest of the bytes, but it changes with them.
    pub etag: Option<String>,
    /// Bytes.
    pub size: u64,
    /// Last modification, Unix milliseconds; an answer has whole seconds, a listing more.
    pub modified_ms: i64,
}

impl Tag {
    /// Whether the server's answer `other` is of this version. Where there are no entity tags, size and time must do, the time in
    /// whole seconds: an answer says no more.
    #[must_use]
    pub fn is_of(&self, other: &Self) -> bool {
        let secs = |tag: &Self| tag.modified_ms.div_euclid(1_000);
        self.is_by(other, secs(self) == secs(other))
    }

    /// Whether a listing that says `listed` means this version, whose time is of an earlier listing. An object that was put again
    /// with the same bytes has the same entity tag and need not be read again. Some servers list none: then what was put twice
    /// in one second is told apart by the milliseconds.
    #[must_use]
    pub fn is_listed(&self, listed: &Self) -> bool {
        self.is_by(listed, self.modified_ms == listed.modified_ms)
    }

    fn is_by(&self, other: &Self, same_time: bool) -> bool {
        let same = match (&self.etag, &other.etag) {
            (Some(one), Some(another)) => one == another,
            _ => same_time,
        };
        same && self.size == other.size
    }
}

/// One object as the bucket lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// URL path.
    pub path: String,
    /// Key in the bucket.
    pub key: String,
    /// Its version.
    pub tag: Tag,
}

/// A whole listing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Listing {
    /// Its objects.
    pub items: Vec<Item>,
    /// Keys that no URL path can stand for.
    pub skipped: usize,
    /// There are more than may be taken.
    pub over: bool,
}

/// What is to be done after a listing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Change {
    /// Objects that are new or have another version, the smallest first.
    pub read: Vec<Item>,
    /// Paths that are gone.
    pub gone: Vec<String>,
}

/// The URL path of a key beneath `beneath`, at `prefix`; `None`: none can stand for it. Names that begin with a dot are
/// not published, as in a directory, but for `.well-known`.
#[must_use]
pub fn path_of(key: &str, beneath: &str, prefix: &str) -> Option<String> {
    let inner = key.strip_prefix(beneath)?;
    let published = |name: &str| !name.starts_with('.') || name == ".well-known";
    if !inner.split('/').all(published) {
        return None;
    }
    let path = format!("{prefix}{inner}");
    check_path(&path).ok().map(|()| path)
}

/// What changed from what is `known` to what is listed. What was left out of a listing that is over its bound is not gone.
#[must_use]
pub fn compare(listing: Listing, known: &BTreeMap<String, Tag>) -> Change {
    let listed: BTreeSet<&str> = listing.items.iter().map(|i| i.path.as_str()).collect();
    let gone = match listing.over {
        true => Vec::new(),
        false => known
            .keys()
            .filter(|path| !listed.contains(path.as_str()))
            .cloned()
            .collect(),
    };
    let mut read = listing.items;
    read.retain(|item| {
        known
            .get(&item.path)
            .is_none_or(|tag| !tag.is_listed(&item.tag))
    });
    read.sort_by(|a, b| (a.tag.size, &a.path).cmp(&(b.tag.size, &b.path)));
    Change { read, gone }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(etag: Option<&str>, size: u64, modified_ms: i64) -> Tag {
        Tag {
            etag: etag.map(str::to_owned),
            size,
            modified_ms,
        }
    }

    fn item(path: &str, tag: Tag) -> Item {
        Item {
            path: path.into(),
            key: path.trim_start_matches('/').into(),
            tag,
        }
    }

    #[track_caller]
    fn check_path_of(key: &str, expected: Option<&str>) {
        let found = path_of(key, "models/", "/m/");
        assert_eq!(found.as_deref(), expected, "{key}");
    }

    #[test]
    fn path_of_keys_beneath_the_prefix_is_theirs() {
        check_path_of("models/a.bin", Some("/m/a.bin"));
        check_path_of("models/ä b/c%20.bin", Some("/m/ä b/c%20.bin"));
        check_path_of("models/.well-known/x", Some("/m/.well-known/x"));
    }

    #[test]
    fn path_of_keys_no_url_can_stand_for_is_none() {
        for key in [
            "other/a",
            "models/",
            "models/d/",
            "models//a",
            "models/a//b",
            "models/../a",
            "models/.git/x",
            "models/.hidden",
        ] {
            check_path_of(key, None);
        }
        check_path_of(&format!("models/{}", "x".repeat(256)), None);
    }

    #[test]
    fn tag_of_the_same_bytes_put_again_is_of_one_version() {
        let first = tag(Some("\"a\""), 3, 1);
        for is in [Tag::is_of, Tag::is_listed] {
            assert!(is(&first, &tag(Some("\"a\""), 3, 2)));
            assert!(!is(&first, &tag(Some("\"b\""), 3, 1)));
            assert!(!is(&first, &tag(Some("\"a\""), 4, 1)));
            assert!(is(&tag(None, 3, 1), &tag(None, 3, 1)));
            assert!(!is(&tag(None, 3, 1_999), &tag(None, 3, 2_000)));
        }
    }

    #[test]
    fn tag_without_entity_tag_goes_by_seconds_of_an_answer_and_milliseconds_of_a_listing() {
        let (known, again) = (tag(Some("1"), 3, 1_200), tag(None, 3, 1_700));
        assert!(known.is_of(&tag(None, 3, 1_000)));
        assert!(!known.is_listed(&again), "put twice in one second");
        assert!(known.is_listed(&tag(None, 3, 1_200)));
    }

    #[test]
    fn compare_reads_what_changed_smallest_first_and_names_what_is_gone() {
        let known = BTreeMap::from([
            ("/same".to_owned(), tag(Some("1"), 5, 0)),
            ("/changed".to_owned(), tag(Some("2"), 5, 0)),
            ("/gone".to_owned(), tag(Some("3"), 5, 0)),
        ]);
        let items = vec![
            item("/same", tag(Some("1"), 5, 9)),
            item("/changed", tag(Some("4"), 7, 9)),
            item("/new", tag(Some("5"), 6, 9)),
        ];
        let listing = Listing {
            items,
            ..Listing::default()
        };
        let over = Listing {
            over: true,
            ..listing.clone()
        };
        let change = compare(listing, &known);
        let read: Vec<_> = change.read.iter().map(|item| item.path.as_str()).collect();
        assert_eq!(read, ["/new", "/changed"]);
        assert_eq!(change.gone, ["/gone"]);
        assert_eq!(compare(over, &known).gone, Vec::<String>::new());
    }
}
