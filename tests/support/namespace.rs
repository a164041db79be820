//! Network namespaces: a place for the node and a place for its Internet, joined by one wire, with no way out.
//!
//! A namespace lives as long as its handle and the processes started within. It takes root (CAP_SYS_ADMIN, CAP_NET_ADMIN);
//! where it cannot be had, that is a failure which says so.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace.
#[derive(Debug)]
pub(crate) struct Namespace {
    handle: File,
}

impl Namespace {
    /// An empty one, with its loopback interface up.
    pub(crate) fn new() -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap_or_else(|error| {
                panic!("no network namespace can be made ({error}): run as root")
            });
            File::open("/proc/thread-self/ns/net").expect("/proc is mounted")
        });
        let handle = made.join().expect("a network namespace is needed");
        let space = Self { handle };
        space.ip("link set lo up");
        space
    }

    /// Runs `body` on a thread in this namespace: its sockets, and processes it starts, are there.
    pub(crate) fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let ran = thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                body()
            });
            inside.join()
        });
        ran.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Moves the calling thread here, for good.
    pub(crate) fn enter(&self) {
        setns(&self.handle, CloneFlags::CLONE_NEWNET)
            .unwrap_or_else(|error| panic!("a network namespace cannot be entered: {error}"));
    }

    /// The same namespace once more.
    pub(crate) fn another(&self) -> Self {
        let handle = self.handle.try_clone().expect("a file can be shared");
        Self { handle }
    }

    /// Runs `ip` with these words here.
    fn ip(&self, words: &str) {
        let output = self.run(|| {
            Command::new("ip")
                .args(words.split(' '))
                .output()
                .unwrap_or_else(|error| {
                    panic!("`ip` does not start ({error}): apt-get install iproute2")
                })
        });
        assert!(
            output.status.success(),
            "ip {words}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn path(&self) -> String {
        format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.handle.as_raw_fd()
        )
    }
}

/// A namespace for the node, at 203.0.113.1, and one for everything else, where every address of 198.18.0.0/15 may be bound.
pub(crate) fn pair() -> (Namespace, Namespace) {
    let (node, internet) = (Namespace::new(), Namespace::new());
    node.ip(&format!(
        "link add wire type veth peer name wire netns {}",
        internet.path()
    ));
    node.ip("addr add 203.0.113.1/30 dev wire");
    node.ip("link set wire up");
    internet.ip("addr add 203.0.113.2/30 dev wire");
    internet.ip("link set wire up");
    internet.ip("route add local 198.18.0.0/15 dev lo");
    node.ip("route add default via 203.0.113.2");
    (node, internet)
}
