//! Which objects of a mirrored prefix are wanted: patterns of paths to include and to exclude. Pure.
//!
//! Patterns are those of shells: `*` and `?` stay within one segment, `**` does not, `[a-z]` and `{iso,img}` choose.
//! They are of the path beneath the prefix; one without a `/` is of the last segment at any depth, one that ends in `/`
//! of everything beneath. An object is wanted if there is nothing to include or one of those patterns fits, and none of
//! the excluding ones does. Patterns become one automaton, so a path costs the same however many there are.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Patterns to include and exclude.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    include: Patterns,
    exclude: Patterns,
}

#[derive(Clone, Debug, Default)]
struct Patterns {
    texts: Vec<String>,
    set: GlobSet,
}

impl Filter {
    /// Compiles patterns.
    ///
    /// # Errors
    /// What was found and what was expected.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, String> {
        Ok(Self {
            include: Patterns::new(include)?,
            exclude: Patterns::new(exclude)?,
        })
    }

    /// Whether the object at `path` beneath `prefix` is wanted.
    #[must_use]
    pub fn takes(&self, prefix: &str, path: &str) -> bool {
        let inner = path.strip_prefix(prefix).unwrap_or(path);
        (self.include.texts.is_empty() || self.include.set.is_match(inner))
            && !self.exclude.set.is_match(inner)
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.include.texts == other.include.texts && self.exclude.texts == other.exclude.texts
    }
}

impl Eq for Filter {}

impl Patterns {
    fn new(texts: &[String]) -> Result<Self, String> {
        if texts.len() > PATTERNS {
            let found = texts.len();
            return Err(format!(
                "found {found} patterns, expected at most {PATTERNS}"
            ));
        }
        let mut set = GlobSetBuilder::new();
        for text in texts {
            let wrong = |what: &str| format!("found {text:?}: {what}, expected {EXPECTED}");
            if text.is_empty() || text.len() > LENGTH {
                return Err(wrong("empty, or longer than 256 bytes"));
            }
            let anchored = text.strip_prefix('/');
            let mut pattern = match anchored {
                Some(inner) => inner.to_owned(),
                None if text.trim_end_matches('/').contains('/') => text.clone(),
                None => format!("**/{text}"),
            };
            if pattern.ends_with('/') {
                pattern.push_str("**");
            }
            let glob = GlobBuilder::new(&pattern).literal_separator(true).build();
            set.add(glob.map_err(|e| wrong(&e.kind().to_string()))?);
        }
        Ok(Self {
            texts: texts.to_vec(),
            set: set.build().map_err(|e| format!("patterns: {e}"))?,
        })
    }
}

/// What a pattern is.
const EXPECTED: &str = "a pattern such as \"*.iso\" or \"releases/**\"";

/// Patterns of one list at most.
const PATTERNS: usize = 256;

/// Bytes of one pattern at most.
const LENGTH: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(include: &[&str], exclude: &[&str], taken: &[&str], left: &[&str]) {
        let texts = |list: &[&str]| -> Vec<String> { list.iter().map(|t| (*t).into()).collect() };
        let filter = Filter::new(&texts(include), &texts(exclude)).expect("good patterns");
        for path in taken {
            assert!(filter.takes("/v/", path), "{path} is not taken");
        }
        for path in left {
            assert!(!filter.takes("/v/", path), "{path} is taken");
        }
    }

    #[test]
    fn nothing_written_takes_everything() {
        check(&[], &[], &["/v/a", "/v/b/c.iso"], &[]);
    }

    #[test]
    fn pattern_without_a_slash_is_of_the_name_at_any_depth() {
        check(
            &["*.iso"],
            &[],
            &["/v/a.iso", "/v/b/c/a.iso"],
            &["/v/a.img", "/v/a.iso/x"],
        );
    }

    #[test]
    fn pattern_with_a_slash_is_of_the_path_beneath_the_prefix() {
        check(
            &["b/*.iso"],
            &[],
            &["/v/b/a.iso"],
            &["/v/a.iso", "/v/b/c/a.iso", "/v/x/b/a.iso"],
        );
        check(&["/*.iso"], &[], &["/v/a.iso"], &["/v/b/a.iso"]);
        check(&["b/**/x"], &[], &["/v/b/x", "/v/b/c/d/x"], &["/v/x"]);
    }

    #[test]
    fn pattern_with_a_final_slash_is_of_everything_beneath() {
        check(
            &[],
            &["tmp/"],
            &["/v/a", "/v/tmp"],
            &["/v/tmp/a", "/v/b/tmp/c/d"],
        );
        check(&["/b/"], &[], &["/v/b/a", "/v/b/c/d"], &["/v/x/b/a"]);
    }

    #[test]
    fn exclude_wins_over_include() {
        check(
            &["*.iso"],
            &["beta*"],
            &["/v/a.iso"],
            &["/v/beta.iso", "/v/x/beta2.iso"],
        );
    }

    #[test]
    fn pattern_that_is_none_says_what_is_wrong() {
        for text in ["", "[a", "{a", "a".repeat(257).as_str()] {
            let found = Filter::new(&[text.to_owned()], &[]).unwrap_err();
            assert!(found.contains("expected a pattern"), "{found}");
        }
        let many = vec!["a".to_owned(); 257];
        assert!(Filter::new(&[], &many).unwrap_err().contains("257"));
    }
}
