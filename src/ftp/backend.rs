//! The library as the storage of one FTP session.

use std::fmt;
use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use unftp_core::auth::UserDetail;
use unftp_core::storage::{self, Error, ErrorKind, Fileinfo, StorageBackend};

use super::path::resolve;
use super::users::User;
use crate::content::library::{Entry, Library};
use crate::content::object::{Object, ReadError};
use crate::content::tree::{Incoming, Node};
use crate::link::clients::Client;
use crate::metrics::Metrics;

impl UserDetail for User {}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// What one session sees of the library.
#[derive(Clone, Debug)]
pub(super) struct Backend {
    pub(super) library: Library,
    pub(super) metrics: Arc<Metrics>,
    pub(super) idle: Duration,
    pub(super) max: u64,
    /// Whose part of the link it has.
    pub(super) client: Arc<Client>,
    /// The control connection, not blocking: a client that is gone did not mean the end of its file.
    pub(super) control: Arc<TcpStream>,
}

impl storage::Metadata for Node {
    fn len(&self) -> u64 {
        self.size
    }

    fn is_dir(&self) -> bool {
        self.directory
    }

    fn is_file(&self) -> bool {
        !self.directory
    }

    fn is_symlink(&self) -> bool {
        false
    }

    fn modified(&self) -> storage::Result<SystemTime> {
        Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(self.modified))
    }

    fn gid(&self) -> u32 {
        0
    }

    fn uid(&self) -> u32 {
        0
    }
}

impl Backend {
    /// The URL path, if it may be looked at.
    fn path(&self, user: &User, path: &Path) -> storage::Result<String> {
        let path = path.to_str().and_then(|path| resolve(&user.home, path));
        path.ok_or_else(|| ErrorKind::FileNameNotAllowedError.into())
    }

    /// The URL path, if the user may change what stands there; never the home itself.
    fn path_to_write(&self, user: &User, path: &Path) -> storage::Result<String> {
        let path = self.path(user, path)?;
        let home = user.home.trim_end_matches('/');
        // The server below puts U+FFFD in place of what is no UTF-8, and so would take two files for one.
        if path.contains(char::REPLACEMENT_CHARACTER) {
            return Err(ErrorKind::FileNameNotAllowedError.into());
        }
        if !user.write || path == home || path == "/" || !self.library.is_published_place(&path) {
            return Err(ErrorKind::PermissionDenied.into());
        }
        Ok(path)
    }

    fn count<T>(&self, operation: &str, result: storage::Result<T>) -> storage::Result<T> {
        let outcome = if result.is_ok() { "ok" } else { "failed" };
        let operations = &self.metrics.ftp.operations;
        operations.with_label_values(&[operation, outcome]).inc();
        if let Err(error) = &result {
            tracing::debug!(operation, %error, "ftp operation failed");
        }
        result
    }

    fn limit(&self, limit: &str) {
        self.metrics.ftp.limits.with_label_values(&[limit]).inc();
    }

    fn stalled(&self) -> Error {
        self.limit("idle");
        Error::new(
            ErrorKind::ConnectionClosed,
            io::Error::from(io::ErrorKind::TimedOut),
        )
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Library) -> io::Result<T> + Send + 'static,
    ) -> storage::Result<T> {
        let library = self.library.clone();
        let done = spawn_blocking(move || work(&library)).await;
        done.map_err(|_| Error::from(ErrorKind::LocalError))?
            .map_err(Error::from)
    }

    async fn open(&self, path: &str) -> storage::Result<Arc<Object>> {
        match self.library.find(path).await {
            Entry::Object(object) => Ok(object),
            _ => Err(ErrorKind::PermanentFileNotAvailable.into()),
        }
    }

    /// Verified bytes of an object, from `at` on.
    async fn part(&self, object: &Arc<Object>, at: u64) -> storage::Result<bytes::Bytes> {
        let layout = object.manifest().layout;
        let chunk = u64::from(layout.chunk);
        let index = u32::try_from(at / chunk).map_err(|_| ErrorKind::LocalError)?;
        let start = u32::try_from(at % chunk).map_err(|_| ErrorKind::LocalError)?;
        let within = start..layout.len(index).min(start.saturating_add(PART));
        loop {
            match object.read(index, within.clone()).await {
                Ok(bytes) => return Ok(bytes),
                Err(ReadError::Missing { .. }) => {
                    let wanted = timeout(self.idle, object.wanted(index));
                    wanted.await.map_err(|_| self.stalled())?;
                }
                Err(error) => return Err(Error::new(ErrorKind::LocalError, error)),
            }
        }
    }

    async fn send<W>(&self, path: &str, from: u64, output: &mut W) -> storage::Result<u64>
    where
        W: AsyncWrite + Unpin + Sync + Send + ?Sized,
    {
        let object = self.open(path).await?;
        let (size, mut at) = (object.manifest().layout.size, from);
        while at < size {
            let part = self.part(&object, at).await?;
            let sent = self.client.send(output, &part, self.idle).await;
            sent.map_err(|error| match error.kind() {
                io::ErrorKind::TimedOut => self.stalled(),
                _ => error.into(),
            })?;
            at += part.len() as u64;
            self.metrics.ftp.sent.inc_by(part.len() as u64);
        }
        Ok(size.saturating_sub(from))
    }

    async fn receive<R>(&self, path: String, from: u64, mut input: R) -> storage::Result<u64>
    where
        R: AsyncRead + Send + Sync + Unpin + 'static,
    {
        let too_large = || {
            self.limit("max");
            Error::from(ErrorKind::ExceededStorageAllocationError)
        };
        if from > self.max {
            return Err(too_large());
        }
        let at = path.clone();
        let begun = self.blocking(move |library| {
            let mut file = library.incoming(&at)?;
            if from > 0 {
                file.take_over(from)?;
            }
            Ok(file)
        });
        let mut file = begun.await?;
        let mut received = 0;
        let mut part = Vec::with_capacity(PART as usize);
        loop {
            part.clear();
            while part.len() < PART as usize {
                let read = timeout(self.idle, input.read_buf(&mut part));
                if read.await.map_err(|_| self.stalled())?? == 0 {
                    break;
                }
            }
            if part.is_empty() {
                break;
            }
            received += part.len() as u64;
            if from + received > self.max {
                return Err(too_large());
            }
            self.metrics.ftp.received.inc_by(part.len() as u64);
            (file, part) = self.blocking(move |_| write(file, part)).await?;
        }
        if matches!(self.control.peek(&mut [0]), Ok(0)) {
            return Err(Error::from(ErrorKind::ConnectionClosed));
        }
        self.blocking(move |_| file.commit()).await?;
        self.library.refresh(&path).await;
        Ok(received)
    }
}

fn write(mut file: Incoming, part: Vec<u8>) -> io::Result<(Incoming, Vec<u8>)> {
    file.write(&part)?;
    Ok((file, part))
}

#[async_trait]
impl StorageBackend<User> for Backend {
    type Metadata = Node;

    fn supported_features(&self) -> u32 {
        storage::FEATURE_RESTART
    }

    async fn metadata<P: AsRef<Path> + Send + fmt::Debug>(
        &self,
        user: &User,
        path: P,
    ) -> storage::Result<Node> {
        let path = self.path(user, path.as_ref())?;
        let node = self
            .blocking(move |library| Ok(library.node(&path)))
            .await?;
        node.ok_or_else(|| ErrorKind::PermanentFileNotAvailable.into())
    }

    async fn list<P: AsRef<Path> + Send + fmt::Debug>(
        &self,
        user: &User,
        path: P,
    ) -> storage::Result<Vec<Fileinfo<PathBuf, Node>>> {
        let path = self.path(user, path.as_ref())?;
        let nodes = self
            .blocking(move |library| library.nodes(&path, LISTED))
            .await;
        let nodes = nodes.and_then(|nodes| {
            nodes.ok_or_else(|| Error::from(ErrorKind::PermanentDirectoryNotAvailable))
        });
        let nodes = self.count("list", nodes)?;
        let infos = nodes
            .into_iter()
            .filter(|(name, _)| !name.chars().any(char::is_control));
        Ok(infos
            .map(|(name, metadata)| Fileinfo {
                path: PathBuf::from(name),
                metadata,
            })
            .collect())
    }

    async fn get_into<'a, P, W: ?Sized>(
        &self,
        user: &User,
        path: P,
        start_pos: u64,
        output: &'a mut W,
    ) -> storage::Result<u64>
    where
        W: AsyncWrite + Unpin + Sync + Send,
        P: AsRef<Path> + Send + fmt::Debug,
    {
        let path = self.path(user, path.as_ref())?;
        let sent = self.send(&path, start_pos, output).await;
        self.count("get", sent)
    }

    async fn get<P: AsRef<Path> + Send + fmt::Debug>(
        &self,
        _user: &User,
        _path: P,
        _start_pos: u64,
    ) -> storage::Result<Box<dyn AsyncRead + Send + Sync + Unpin>> {
        // Only for digests (SITE MD5), which are off.
        Err(ErrorKind::CommandNotImplemented.into())
    }

    async fn put<P, R>(
        &self,
        user: &User,
        input: R,
        path: P,
        start_pos: u64,
    ) -> storage::Result<u64>
    where
        P: AsRef<Path> + Send + fmt::Debug,
        R: AsyncRead + Send + Sync + Unpin + 'static,
    {
        let path = self.path_to_write(user, path.as_ref())?;
        let received = self.receive(path, start_pos, input).await;
        self.count("put", received)
    }

    async fn del<P: AsRef<Path> + Send + fmt::Debug>(
        &self,
        user: &User,
        path: P,
    ) -> storage::Result<()> {
        let path = self.path_to_write(user, path.as_ref())?;
        let at = path.clone();
        let removed = self
            .blocking(move |library| library.remove(&at, false))
            .await;
        self.library.refresh(&path).await;
        self.count("delete", removed)
    }

    async fn mkd<P: AsRef<Path> + Send + fmt::Debug>(
        &self,
        user: &User,
        path: P,
    ) -> storage::Result<()> {
        let path = self.path_to_write(user, path.as_ref())?;
        let made = self
            .blocking(move |library| library.make_directory(&path))
            .await;
        self.count("make_directory", made)
    }

    async fn rename<P: AsRef<Path> + Send + fmt::Debug>(
        &self,
        user: &User,
        from: P,
        to: P,
    ) -> storage::Result<()> {
        let from = self.path_to_write(user, from.as_ref())?;
        let to = self.path_to_write(user, to.as_ref())?;
        let (old, new) = (from.clone(), to.clone());
        let renamed = self
            .blocking(move |library| library.rename(&old, &new))
            .await;
        self.library.refresh(&to).await;
        self.library.refresh(&from).await;
        self.count("rename", renamed)
    }

    async fn rmd<P: AsRef<Path> + Send + fmt::Debug>(
        &self,
        user: &User,
        path: P,
    ) -> storage::Result<()> {
        let path = self.path_to_write(user, path.as_ref())?;
        let removed = self
            .blocking(move |library| library.remove(&path, true))
            .await;
        self.count("remove_directory", removed)
    }

    async fn cwd<P: AsRef<Path> + Send + fmt::Debug>(
        &self,
        user: &User,
        path: P,
    ) -> storage::Result<()> {
        let path = self.path(user, path.as_ref())?;
        let node = self
            .blocking(move |library| Ok(library.node(&path)))
            .await?;
        match node {
            Some(node) if node.directory => Ok(()),
            _ => Err(ErrorKind::PermanentDirectoryNotAvailable.into()),
        }
    }
}

/// Bytes read or written at once.
const PART: u32 = 256 << 10;

/// Names in a listing at most.
const LISTED: usize = 10_000;
