//! Settings: layers (built-in defaults, file, environment, command line), then the topics' own types.
//!
//! From ground to roof: [`units`] (durations, sizes, rates), `locate` (lines of keys), `suggest` (nearest key),
//! `read` (typed reading that notes every fault), `convert` (keys to the topics' types, cross-checks), [`load`]
//! (the layers). Nobody below the roof sees a key or an `Option` of one.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::content::bucket::BucketConfig;
use crate::content::{PublishConfig, StoreConfig};
use crate::peer::MirrorConfig;
use crate::peer::swarm::SwarmConfig;
use crate::{dns, ftp, http, link, tls, trace};

pub use self::load::{LoadError, Source};
pub use self::read::{Place, Problem};

pub mod units;

mod locate;

mod suggest;

mod read;

mod convert;

pub mod load;

/// All settings of one daemon.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node's name.
    pub node: String,
    /// The directory of everything the node keeps.
    pub state: PathBuf,
    /// The DNS front.
    pub dns: dns::Config,
    /// Certificate and key of the encrypted listeners.
    pub tls: Option<tls::Files>,
    /// Own zones.
    pub zones: Vec<dns::ZoneConfig>,
    /// How zones are signed.
    pub dnssec: dns::dnssec::Config,
    /// Keys of signed messages.
    pub tsig: dns::tsig::Keys,
    /// The resolver; `None`: off.
    pub resolver: Option<dns::resolver::Config>,
    /// What the resolver answers itself, or not as asked.
    pub policy: dns::resolver::policy::Config,
    /// The HTTP server.
    pub http: http::Config,
    /// The FTP server.
    pub ftp: ftp::Config,
    /// Threads of the HTTP runtime; 0: one per core.
    pub http_workers: usize,
    /// What this node is the origin of.
    pub publish: Vec<PublishConfig>,
    /// What of it is in buckets.
    pub buckets: Vec<BucketConfig>,
    /// What this node mirrors.
    pub mirrors: Vec<MirrorConfig>,
    /// What nodes do among themselves; its secret is read by the daemon.
    pub swarm: SwarmConfig,
    /// The file of the secret that nodes share; `None`: none.
    pub swarm_secret: Option<PathBuf>,
    /// The store.
    pub store: StoreConfig,
    /// The network interfaces.
    pub link: link::Config,
    /// Where metrics, health and the status page are served; `None`: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Connections to `metrics_listen` at once.
    pub metrics_connections: usize,
    /// The control socket.
    pub admin_socket: PathBuf,
    /// Connections to the control socket at once.
    pub admin_connections: usize,
    /// The log.
    pub log: trace::Config,
    /// The query log; `None`: off.
    pub query_log: Option<dns::log::Config>,
    /// Legal but unwise.
    pub warnings: Vec<Problem>,
    /// Every key that exists, for the test of the reference configuration.
    pub keys: Vec<String>,
}
