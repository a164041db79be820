//! Opening a path beneath a directory and never outside it, whatever symbolic links say.
//!
//! The kernel does it (`openat2` with `RESOLVE_BENEATH`) where it may. Some sandboxes forbid that call, among them that
//! of systemd's `RestrictSUIDSGID`: then the path is walked here, one component at a time, each opened without
//! following a link, so that no change of the tree meanwhile leads outside.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Opens `path` beneath `root`. Symbolic links are followed as long as they stay beneath it.
///
/// # Errors
/// What the kernel said; `EXDEV`: it leads outside.
pub(super) fn open(root: &OwnedFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        Err(Errno::NOSYS | Errno::PERM) => walk(root, path, flags),
        opened => Ok(opened?),
    }
}

/// What [`open`] does, without `openat2`.
fn walk(root: &OwnedFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let mut left = VecDeque::new();
    push(&mut left, path)?;
    // The directories from `root` (not among them) to where the walk stands.
    let mut stack: Vec<OwnedFd> = Vec::new();
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == ".." {
            stack.pop().ok_or(Errno::XDEV)?;
            continue;
        }
        let dir: BorrowedFd<'_> = stack.last().unwrap_or(root).as_fd();
        let step = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, name.as_os_str(), step, Mode::empty())?;
        let mode = rustix::fs::fstat(&fd)?.st_mode;
        if FileType::from_raw_mode(mode) == FileType::Symlink {
            links += 1;
            if links > LINKS {
                return Err(Errno::LOOP.into());
            }
            let target = rustix::fs::readlinkat(dir, name.as_os_str(), Vec::new())?;
            let target = OsString::from_vec(target.into_bytes());
            push(&mut left, Path::new(&target))?;
        } else if left.is_empty() {
            // Without following: what has become a link since then is an error, not a way out.
            let last = flags | OFlags::NOFOLLOW;
            return Ok(rustix::fs::openat(
                dir,
                name.as_os_str(),
                last,
                Mode::empty(),
            )?);
        } else {
            stack.push(fd);
        }
    }
    let dir = stack.last().unwrap_or(root);
    Ok(rustix::fs::openat(dir, ".", flags, Mode::empty())?)
}

/// Puts the components of `path` before those that are `left`.
fn push(left: &mut VecDeque<OsString>, path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() {
        return Err(Errno::NOENT.into());
    }
    // `components` drops a final slash, which says that a directory is meant.
    if path.as_os_str().as_bytes().ends_with(b"/") {
        left.push_front(OsStr::new(".").to_owned());
    }
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => left.push_front(name.to_owned()),
            Component::ParentDir => left.push_front(OsStr::new("..").to_owned()),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return Err(Errno::XDEV.into()),
        }
    }
    Ok(())
}

/// Symbolic links in one path, as the kernel has it.
const LINKS: usize = 40;

#[cfg(test)]
mod tests {
    use std::fs::{File, create_dir_all, write};
    use std::os::unix::fs::symlink;

    use super::*;
    use std::io::Read;

    /// Both ways open `path` with the same result: the text of the file, or the error.
    #[track_caller]
    fn check(path: &str, expected: Result<&str, Errno>) {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        create_dir_all(at("root/a/b")).unwrap();
        write(at("secret"), "secret").unwrap();
        write(at("root/file"), "file").unwrap();
        write(at("root/a/b/deep"), "deep").unwrap();
        for (target, name) in [
            ("file", "link"),
            ("a/b", "dir"),
            ("../../file", "a/b/up"),
            ("../secret", "out"),
            ("/etc/passwd", "absolute"),
            ("..", "parent"),
            ("circle", "circle"),
            ("link", "chain"),
        ] {
            symlink(target, at("root").join(name)).unwrap();
        }
        let root: OwnedFd = File::open(at("root")).unwrap().into();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        for (way, opened) in [
            ("open", open(&root, Path::new(path), flags)),
            ("walk", walk(&root, Path::new(path), flags)),
        ] {
            let found = opened.map(|fd| {
                let mut text = String::new();
                File::from(fd).read_to_string(&mut text).unwrap();
                text
            });
            let found = found.map_err(|e| e.raw_os_error());
            let expected = expected.map(str::to_owned);
            let expected = expected.map_err(|e| Some(e.raw_os_error()));
            assert_eq!(found, expected, "{way} {path}");
        }
    }

    #[test]
    fn path_beneath_is_opened() {
        check("file", Ok("file"));
        check("a/b/deep", Ok("deep"));
        check("a/../file", Ok("file"));
        check("missing", Err(Errno::NOENT));
        check("a/missing/deep", Err(Errno::NOENT));
        check("file/deep", Err(Errno::NOTDIR));
    }

    #[test]
    fn link_that_stays_beneath_is_followed() {
        check("link", Ok("file"));
        check("chain", Ok("file"));
        check("dir/deep", Ok("deep"));
        check("a/b/up", Ok("file"));
        check("dir/up", Ok("file"));
    }

    #[test]
    fn way_out_is_no_way() {
        check("../secret", Err(Errno::XDEV));
        check("a/../../secret", Err(Errno::XDEV));
        check("out", Err(Errno::XDEV));
        check("absolute", Err(Errno::XDEV));
        check("parent/secret", Err(Errno::XDEV));
        check("/etc/passwd", Err(Errno::XDEV));
        check("circle", Err(Errno::LOOP));
    }

    #[test]
    fn root_itself_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let root: OwnedFd = File::open(dir.path()).unwrap().into();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        walk(&root, Path::new("."), flags).unwrap();
        open(&root, Path::new("."), flags).unwrap();
    }
}
