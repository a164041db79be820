//! `content put` and `content delete`: published files, changed by the operator.
//!
//! A file comes over the control socket behind its verb, not as a path for the node to open: the node runs as another user, in a sandbox
//! that shows it no home directory, and it is not to read what only the operator may. It is written beside the published files and moved
//! to its name when all of it is there and durable ([`crate::content::intake`]), so what breaks off changes nothing.

use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;

use super::api;
use super::handles::{Handles, VerbError, no_object};
use crate::content::intake::{Intake, IntakeError};
use crate::content::object::Role;

/// Takes a file: one line of JSON, then its bytes.
///
/// # Errors
/// It can stand at no such path, it broke off, or it cannot be stored. What stood there stays.
pub(super) async fn put<B>(body: B, handles: &Handles) -> Result<api::Stored, VerbError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let mut come = Come {
        body,
        bytes: BytesMut::new(),
    };
    let verb = come.verb().await?;
    let path = verb.path.clone();
    let library = &handles.library;
    let before = library.get(&path);
    let new = before.is_none_or(|object| object.role() != Role::Origin);
    let (work, at) = (library.clone(), path.clone());
    let mut intake = run(handles, &path, move || {
        // What a crash left of others that came this way.
        if let Err(error) = work.sweep(Duration::MAX) {
            tracing::warn!(%error, "files that broke off not swept");
        }
        let intake = work.receive(&at, None, 0)?;
        intake.reserve(verb.size)?;
        Ok(intake)
    })
    .await?;
    while intake.length() < verb.size {
        let left = verb.size - intake.length();
        let part = come.part(left).await?;
        intake = run(handles, &path, move || write(intake, &part)).await?;
    }
    if come.more().await? {
        let size = verb.size;
        let message = format!("{path}: found more bytes, expected {size}");
        return Err(VerbError::Invalid(message));
    }
    run(handles, &path, move || intake.finish()).await?;
    let Some(object) = library.refresh(&path).await else {
        let reason = "it was stored and not published; the log says why";
        return Err(VerbError::Failed(format!("{path}: {reason}")));
    };
    tracing::info!(path, size = verb.size, "file put by the operator");
    Ok(api::Stored {
        new,
        object: handles.describe(&object),
    })
}

/// Removes a published file.
///
/// # Errors
/// None is published there, or it cannot be removed.
pub(super) async fn delete(
    verb: &api::ContentDelete,
    handles: &Handles,
) -> Result<api::Deleted, VerbError> {
    let path = &verb.path;
    let library = &handles.library;
    let before = library.get(path);
    if before.as_ref().is_some_and(|o| o.role() == Role::Mirror) {
        return Err(VerbError::Invalid(format!(
            "{path}: mirrored here, not published; expected a published file, or `content purge`"
        )));
    }
    let (work, at) = (library.clone(), path.clone());
    let gone = run(handles, path, move || work.take_away(&at)).await?;
    library.refresh(path).await;
    if !gone {
        return Err(no_object(path));
    }
    tracing::info!(path, "file deleted by the operator");
    Ok(api::Deleted {
        path: path.clone(),
        bytes: before.map(|object| object.manifest().layout.size),
    })
}

/// What comes over the socket.
struct Come<B> {
    body: B,
    bytes: BytesMut,
}

impl<B> Come<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    /// The line of JSON at the beginning.
    async fn verb(&mut self) -> Result<api::ContentPut, VerbError> {
        let end = loop {
            if let Some(end) = self.bytes.iter().position(|b| *b == b'\n') {
                break end;
            }
            if self.bytes.len() > LINE || !self.on().await? {
                let expected = format!("expected a line of JSON of at most {LINE} bytes first");
                return Err(VerbError::Invalid(expected));
            }
        };
        let line = self.bytes.split_to(end);
        self.bytes.advance(1);
        super::server::parse(&line)
    }

    /// What comes next: as much as is worth a write, at most `most` bytes.
    async fn part(&mut self, most: u64) -> Result<Bytes, VerbError> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        while self.bytes.len() < most.min(PART) {
            if !self.on().await? {
                let missing = most - self.bytes.len();
                let message = format!("the file broke off, {missing} bytes before its end");
                return Err(VerbError::Invalid(message));
            }
        }
        let part = self.bytes.len().min(most);
        Ok(self.bytes.split_to(part).freeze())
    }

    /// Whether anything comes after what was taken.
    async fn more(&mut self) -> Result<bool, VerbError> {
        Ok(!self.bytes.is_empty() || self.on().await?)
    }

    /// Waits for more; `false`: that was all.
    async fn on(&mut self) -> Result<bool, VerbError> {
        loop {
            let frame = tokio::time::timeout(SILENCE, self.body.frame()).await;
            let frame = frame.map_err(|_| {
                let message = format!("nothing came for {} s", SILENCE.as_secs());
                VerbError::Invalid(message)
            })?;
            match frame {
                None => return Ok(false),
                Some(Err(_)) => return Err(VerbError::Invalid("the file broke off".to_owned())),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if !bytes.is_empty() => {
                        self.bytes.extend_from_slice(&bytes);
                        return Ok(true);
                    }
                    _ => {}
                },
            }
        }
    }
}

fn write(mut intake: Intake, bytes: &[u8]) -> Result<Intake, IntakeError> {
    intake.write(bytes)?;
    Ok(intake)
}

/// Runs `work` where it may wait for the disk; its errors name `path`.
async fn run<T: Send + 'static>(
    handles: &Handles,
    path: &str,
    work: impl FnOnce() -> Result<T, IntakeError> + Send + 'static,
) -> Result<T, VerbError> {
    let done = handles.library.threads().run(work).await;
    let done = done.map_err(|error| VerbError::Failed(format!("{path}: {error}")))?;
    done.map_err(|error| match error {
        IntakeError::Place(_) => VerbError::Invalid(format!(
            "{path}: nothing can be published there; expected a path beneath the prefix of a [[publish]]"
        )),
        error => VerbError::Failed(format!("{path}: {error}")),
    })
}

/// Bytes of the line of JSON at most.
const LINE: usize = 64 << 10;

/// Bytes written at once.
const PART: usize = 1 << 20;

/// A file of which nothing comes for as long has broken off.
const SILENCE: Duration = Duration::from_secs(10);
