//! What is kept in files beside the configuration, and read again at a reload: the secrets of cookies, and
//! certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::config::Settings;
use crate::dns::cookie::{Cookies, file};
use crate::dns::engine::Engine;
use crate::ftp::UsersFile;
use crate::metrics::Metrics;
use crate::peer::secret::Secret;
use crate::peer::swarm::{Swarm, SwarmConfig};
use crate::tls::{self, Certificates};

/// Where the secrets are, and who works with them.
#[derive(Debug)]
pub(super) struct Secrets {
    engine: Arc<Engine>,
    cookies: Option<CookieFile>,
    certificates: Arc<Certificates>,
    tls: Option<tls::Files>,
    users: Option<Arc<UsersFile>>,
}

#[derive(Debug)]
struct CookieFile {
    path: PathBuf,
    /// It is the node's own, and made if it is not there.
    own: bool,
}

/// The swarm of this node. Its secret is read once, at the start: a node never runs open where one is configured.
///
/// # Errors
/// The file of the secret cannot be read, or is too short.
pub(super) fn swarm(settings: &Settings, metrics: Arc<Metrics>) -> Result<Swarm, anyhow::Error> {
    let file = settings.swarm_secret.as_deref();
    let config = SwarmConfig {
        secret: file.map(swarm_secret).transpose()?,
        ..settings.swarm.clone()
    };
    let mut run = [0; 8];
    getrandom(&mut run, GetRandomFlags::empty()).context("no random number to be had")?;
    Ok(Swarm::new(config, u64::from_le_bytes(run), metrics))
}

fn swarm_secret(file: &Path) -> Result<Secret, anyhow::Error> {
    let what = || format!("peers.secret_file: {}", file.display());
    let bytes = std::fs::read(file).with_context(what)?;
    let secret = bytes.trim_ascii();
    let found = secret.len();
    if found < SECRET_MIN {
        anyhow::bail!(
            "{}: found {found} bytes, expected at least {SECRET_MIN}",
            what()
        );
    }
    Ok(Secret::new(secret))
}

/// Bytes of the secret of a swarm at least.
const SECRET_MIN: usize = 16;

impl Secrets {
    pub(super) fn new(
        settings: &Settings,
        users: Option<Arc<UsersFile>>,
        engine: Arc<Engine>,
        certificates: Arc<Certificates>,
    ) -> Self {
        let cookies = settings.dns.cookies.as_ref().map(|cookies| CookieFile {
            own: cookies.secret_file.is_none(),
            path: cookies
                .secret_file
                .clone()
                .unwrap_or_else(|| settings.state.join("cookie.secret")),
        });
        Self {
            engine,
            cookies,
            certificates,
            tls: settings.tls.clone(),
            users,
        }
    }

    /// Reads them at the start. Without a state directory that can be written to, cookies are good until the node
    /// ends.
    ///
    /// # Errors
    /// What is wrong with a file that the operator named.
    pub(super) fn load(&self) -> Result<(), anyhow::Error> {
        if let Some(files) = &self.tls {
            self.certificates
                .set(files.read().map_err(anyhow::Error::msg)?);
        }
        let Some(file) = &self.cookies else {
            return Ok(());
        };
        let cookies = match file.read() {
            Ok(cookies) => cookies,
            Err(problem) if file.own => {
                tracing::warn!(%problem, "cookies will be forgotten at a restart");
                Cookies::new(file::dice()?)
            }
            Err(problem) => anyhow::bail!("dns.cookies.secret_file: {problem}"),
        };
        self.engine.set_cookies(Some(cookies));
        Ok(())
    }

    /// Reads them again; what is bad is said, and the old one stays.
    pub(super) fn reload(&self) -> Vec<String> {
        let mut problems = Vec::new();
        match self.cookies.as_ref().map(CookieFile::read) {
            None => {}
            Some(Ok(cookies)) => self.engine.set_cookies(Some(cookies)),
            Some(Err(problem)) => problems.push(format!("dns.cookies.secret_file: {problem}")),
        }
        match self.tls.as_ref().map(tls::Files::read) {
            None => {}
            Some(Ok(certificate)) => self.certificates.set(certificate),
            Some(Err(problem)) => problems.push(problem),
        }
        if let Some(Err(problem)) = self.users.as_ref().map(|users| users.read()) {
            problems.push(problem);
        }
        problems
    }
}

impl CookieFile {
    fn read(&self) -> Result<Cookies, String> {
        if self.own {
            file::read_or_make(&self.path)
        } else {
            file::read(&self.path)
        }
    }
}
