//! Paths as FTP clients name them, to URL paths beneath a user's home.

use crate::content::name;

/// The URL path of what a client calls `path` (from its root, which is `home`); without a final `/`, but for the root
/// of all. `None`: no name that could be published.
///
/// FTP has names in UTF-8 (RFC 2640), so a byte that is none goes over it as [`name`] has it, both ways.
///
/// `home` begins and ends with `/`. `..` goes up, and at the top stays there, as in a file system.
#[must_use]
pub fn resolve(home: &str, path: &str) -> Option<String> {
    if path.len() > LENGTH_MAX {
        return None;
    }
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            _ if name::to_bytes(name).len() > NAME_MAX || name.chars().any(char::is_control) => {
                return None;
            }
            _ if name.starts_with('.') && name != ".well-known" => return None,
            _ => names.push(name),
        }
    }
    let all = format!("{home}{}", names.join("/"));
    if !name::is_canonical(&all) {
        return None;
    }
    match all.trim_end_matches('/') {
        "" => Some("/".to_owned()),
        all => Some(all.to_owned()),
    }
}

/// Bytes of a path, and of a name in it.
const LENGTH_MAX: usize = 3_072;
const NAME_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(home: &str, path: &str, expected: Option<&str>) {
        assert_eq!(resolve(home, path).as_deref(), expected);
    }

    #[test]
    fn path_is_beneath_home() {
        check("/in/", "/a/b.bin", Some("/in/a/b.bin"));
        check("/in/", "a//./b", Some("/in/a/b"));
        check("/in/", "/", Some("/in"));
        check("/", "/", Some("/"));
        check("/", "", Some("/"));
        check("/in/", "/.well-known/x", Some("/in/.well-known/x"));
    }

    #[test]
    fn name_has_bytes_as_text() {
        check("/", "/caf\u{10FFE9}", Some("/caf\u{10FFE9}"));
        check("/", "/\u{10FFC3}\u{10FFA9}", None);
        check(
            "/",
            &"\u{10FFFF}".repeat(255),
            Some(&format!("/{}", "\u{10FFFF}".repeat(255))),
        );
        check("/", &"\u{10FFFF}".repeat(256), None);
    }

    #[test]
    fn way_up_ends_at_home() {
        check("/in/", "/../../etc/passwd", Some("/in/etc/passwd"));
        check("/in/", "a/../../../b", Some("/in/b"));
    }

    #[test]
    fn name_that_is_not_published_is_none() {
        check("/", "/.headwater-uploads/x", None);
        check("/", "/a/.htaccess", None);
        check("/", "/a\0b", None);
        check("/", "/a\r\nb", None);
        check("/", &"x".repeat(256), None);
    }

    proptest! {
        #[test]
        fn resolved_path_is_clean_and_beneath_home(path in "[a./\\\\\u{0}é]{0,40}") {
            if let Some(found) = resolve("/home/x/", &path) {
                prop_assert!(found == "/home/x" || found.starts_with("/home/x/"));
                prop_assert!(crate::content::manifest::check_path(&found).is_ok());
                prop_assert!(found.split('/').all(|n| n != ".." && n != "."));
            }
        }
    }
}
