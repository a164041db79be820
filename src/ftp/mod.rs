//! FTP (RFC 959, TLS by RFC 4217) over what this node publishes and mirrors: `libunftp` speaks, [`backend`] is its
//! storage, and a file that was put is an object like any other before its client hears that it is.
//!
//! From ground to roof: [`path`] (a client's paths to URL paths), [`guard`] (wrong passwords counted), [`users`] (the users
//! file), `backend`, `server`. Each session has a thread and a small runtime of its own: what a client left half done,
//! such as a data connection that never shakes hands, ends with its session, and none of it takes a thread of others.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

pub mod path;

pub mod guard;

pub mod users;

mod backend;

mod server;

pub use self::server::Server;

/// Settings of the FTP server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where control connections are taken; empty: nowhere.
    pub listen: Vec<SocketAddr>,
    /// The users file.
    pub users_file: PathBuf,
    /// No login and no transfer without TLS.
    pub tls_required: bool,
    /// Ports of data connections.
    pub passive_ports: RangeInclusive<u16>,
    /// The address clients are told for data connections; `None`: that of their control connection.
    pub passive_address: Option<Ipv4Addr>,
    /// Sessions at once.
    pub sessions: usize,
    /// Sessions of one address at once.
    pub sessions_per_address: usize,
    /// Data connections of one session at once.
    pub connections_per_session: usize,
    /// When a session must be logged in.
    pub login_time: Duration,
    /// Wrong passwords in a row from one client network.
    pub login_failures: u32,
    /// How long that network is then refused.
    pub login_lockout: Duration,
    /// Client networks remembered for that.
    pub login_networks: usize,
    /// How long a session may be without a command, and a transfer without a byte.
    pub idle: Duration,
    /// How long a session may last.
    pub session_time: Duration,
    /// Bytes of a file at most.
    pub max: u64,
}

/// The users in force, and the file they come from.
#[derive(Debug)]
pub struct UsersFile {
    path: PathBuf,
    users: ArcSwap<users::Users>,
}

impl UsersFile {
    fn open(path: PathBuf) -> Result<Self, String> {
        let file = Self {
            path,
            users: ArcSwap::default(),
        };
        file.read()?;
        Ok(file)
    }

    /// Reads the file again. Blocking.
    ///
    /// # Errors
    /// What is wrong with it; the users stay as they were.
    pub fn read(&self) -> Result<(), String> {
        let at = |why: String| format!("ftp.users_file: {}: {why}", self.path.display());
        let text = std::fs::read_to_string(&self.path).map_err(|e| at(e.to_string()))?;
        let users = users::Users::parse(&text).map_err(at)?;
        self.users.store(Arc::new(users));
        Ok(())
    }
}
