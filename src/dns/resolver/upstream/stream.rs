//! TCP to one server: one connection, used by all who ask, many queries at once, closed when nobody does.
//!
//! A connection is a task. Those who ask hand it their queries; it gives each an id of its own (two may have come with
//! the same) and takes the answers in any order (RFC 7766).

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::dice::Dice;
use super::query::Sent;

/// The way to a server's connection, if there is one.
#[derive(Debug, Default)]
pub(super) struct Line {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
}

/// One query to be sent.
pub(super) struct Job {
    sent: Sent,
    reply: oneshot::Sender<io::Result<Vec<u8>>>,
}

impl Line {
    /// Hands `sent` over. `Err`: there is no connection (any more).
    pub(super) async fn ask(&self, sent: Sent) -> Result<io::Result<Vec<u8>>, Sent> {
        let Some(jobs) = self.jobs() else {
            return Err(sent);
        };
        let (reply, answer) = oneshot::channel();
        match jobs.send(Job { sent, reply }).await {
            Ok(()) => {
                // A connection that ends says nothing more.
                let closed = || Err(io::ErrorKind::ConnectionReset.into());
                Ok(answer.await.unwrap_or_else(|_| closed()))
            }
            Err(mpsc::error::SendError(job)) => Err(job.sent),
        }
    }

    /// Whether there is a connection.
    pub(super) fn is_open(&self) -> bool {
        self.jobs().is_some()
    }

    fn jobs(&self) -> Option<mpsc::Sender<Job>> {
        self.jobs
            .lock()
            .expect("nothing panics while it is held")
            .clone()
            .filter(|jobs| !jobs.is_closed())
    }

    /// Makes `stream` the connection; the future carries its queries and ends with it.
    pub(super) fn open<S>(&self, stream: S) -> impl Future<Output = ()> + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (sender, receiver) = mpsc::channel(QUEUE);
        *self.jobs.lock().expect("nothing panics while it is held") = Some(sender);
        run(stream, receiver)
    }
}

/// Carries queries and answers until the peer closes, says something that makes no sense, or nobody has asked for a while.
async fn run<S: AsyncRead + AsyncWrite + Unpin>(stream: S, mut jobs: mpsc::Receiver<Job>) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut pending: HashMap<u16, Job, RandomState> = HashMap::default();
    let mut dice = Dice::new();
    let mut heard = Vec::new();
    let mut say = Vec::new();
    // By when the peer must have said something, or somebody asked.
    let mut patience = Instant::now() + IDLE;
    loop {
        let room = pending.len() < PIPELINE;
        tokio::select! {
            job = jobs.recv(), if room => {
                let Some(first) = job else { return };
                say.clear();
                pending.retain(|_, job| !job.reply.is_closed());
                if pending.is_empty() {
                    patience = Instant::now() + IDLE;
                }
                let mut next = Some(first);
                // What else is there goes with it.
                while let Some(mut job) = next {
                    let mut id = dice.u16();
                    while pending.contains_key(&id) {
                        id = dice.u16();
                    }
                    job.sent.set_id(id);
                    // A query has some hundred octets.
                    say.extend((job.sent.bytes().len() as u16).to_be_bytes());
                    say.extend(job.sent.bytes());
                    pending.insert(id, job);
                    next = if pending.len() < PIPELINE { jobs.try_recv().ok() } else { None };
                }
                match tokio::time::timeout_at(patience, writer.write_all(&say)).await {
                    Ok(Ok(())) => {}
                    _ => break,
                }
            }
            read = tokio::time::timeout_at(patience, reader.read_buf(&mut heard)) => {
                match read {
                    Ok(Ok(n)) if n > 0 => patience = Instant::now() + IDLE,
                    _ => break,
                }
                if take(&mut heard, &mut pending).is_none() {
                    break;
                }
            }
        }
    }
    jobs.close();
    // Dropped, the jobs that are left tell those who wait.
}

/// Hands out the whole messages of `heard`. `None`: the peer answers what it was not asked.
fn take(heard: &mut Vec<u8>, pending: &mut HashMap<u16, Job, RandomState>) -> Option<()> {
    let mut at = 0;
    while let Some(length) = heard.get(at..at + 2) {
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let Some(message) = heard.get(at + 2..at + 2 + length) else {
            break;
        };
        let &[i1, i2] = message.first_chunk()?;
        // Who asked may have given up since.
        if let Some(job) = pending.remove(&u16::from_be_bytes([i1, i2])) {
            job.sent.check(message).ok()?;
            let _ = job.reply.send(Ok(message.to_vec()));
        }
        at += 2 + length;
    }
    heard.drain(..at);
    Some(())
}

/// Queries in flight on one connection, and those that wait to be sent.
const PIPELINE: usize = 200;
const QUEUE: usize = 200;

/// A connection without a word is closed after this.
const IDLE: Duration = Duration::from_secs(10);
