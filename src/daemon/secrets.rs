//! What is kept in files beside the configuration, and read again at a reload: the secrets of cookies.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::dns;
use crate::dns::cookie::{Cookies, file};
use crate::dns::engine::Engine;

/// Where the secrets are, and who works with them.
#[derive(Debug)]
pub(super) struct Secrets {
    engine: Arc<Engine>,
    cookies: Option<CookieFile>,
}

#[derive(Debug)]
struct CookieFile {
    path: PathBuf,
    /// It is the node's own, and made if it is not there.
    own: bool,
}

impl Secrets {
    pub(super) fn new(config: &dns::Config, state: &Path, engine: Arc<Engine>) -> Self {
        let cookies = config.cookies.as_ref().map(|cookies| CookieFile {
            own: cookies.secret_file.is_none(),
            path: cookies
                .secret_file
                .clone()
                .unwrap_or_else(|| state.join("cookie.secret")),
        });
        Self { engine, cookies }
    }

    /// Reads them at the start. Without a state directory that can be written to, cookies are good until the node
    /// ends.
    ///
    /// # Errors
    /// What is wrong with a file that the operator named.
    pub(super) fn load(&self) -> Result<(), anyhow::Error> {
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
        match self.cookies.as_ref().map(CookieFile::read) {
            None => Vec::new(),
            Some(Ok(cookies)) => {
                self.engine.set_cookies(Some(cookies));
                Vec::new()
            }
            Some(Err(problem)) => vec![format!("dns.cookies.secret_file: {problem}")],
        }
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
