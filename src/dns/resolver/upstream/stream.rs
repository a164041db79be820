//! TCP or TLS to one server: one connection, used by all who ask, many queries at once, closed when nobody does.
//!
//! A connection is a task. Those who ask hand it their queries; it gives each an id of its own (two may have come with
//! the same) and takes the answers in any order (RFC 7766, RFC 7858).

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use foldhash::fast::RandomState;
use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::dice::Dice;
use super::query::{Sent, Signs};

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

/// What one connection may carry.
#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    /// Queries in flight; as many more may wait to be sent.
    pub(super) queries: usize,
    /// Replies that came while queries waited for their turn.
    pub(super) waited: IntCounter,
}

/// How long a connection is kept, and for how much.
#[derive(Clone, Debug)]
pub(super) struct Manners {
    /// Without a question; the server may want less (RFC 7828).
    pub(super) idle: Duration,
    /// With questions and no word from the server: then it is taken for broken.
    pub(super) silence: Duration,
    /// What it may carry.
    pub(super) pipeline: Pipeline,
}

/// Why a connection has ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("nobody asked")]
    Idle,
    #[error("silence")]
    Silent,
    #[error("closed by the server")]
    Closed,
    #[error("what came is no reply")]
    Garbage,
    #[error("{0}")]
    Broken(#[source] io::Error),
}

impl Line {
    /// Hands `sent` over. `Err`: there is no connection (any more).
    pub(super) async fn ask(&self, sent: Sent) -> Result<io::Result<Vec<u8>>, Sent> {
        match self.jobs() {
            Some(jobs) => ask(&jobs, sent).await,
            None => Err(sent),
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
    pub(super) fn open<S>(&self, stream: S, manners: Manners) -> impl Future<Output = End> + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (sender, receiver) = mpsc::channel(manners.pipeline.queries);
        *self.jobs.lock().expect("nothing panics while it is held") = Some(sender);
        carry(stream, receiver, manners)
    }
}

/// Hands `sent` to the connection that takes `jobs`, and waits for the reply. `Err`: it has ended before.
pub(super) async fn ask(jobs: &mpsc::Sender<Job>, sent: Sent) -> Result<io::Result<Vec<u8>>, Sent> {
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

/// Carries queries and answers until the peer closes, says something that makes no sense, or nobody has asked for a while.
pub(super) async fn carry<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    mut jobs: mpsc::Receiver<Job>,
    manners: Manners,
) -> End {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut pending: HashMap<u16, Job, RandomState> = HashMap::default();
    let mut dice = Dice::new();
    let mut heard = Vec::new();
    let mut say = Vec::new();
    let mut idle = manners.idle;
    // When the peer said something last, or was asked after it had answered everything.
    let mut since = Instant::now();
    let end = loop {
        let room = pending.len() < manners.pipeline.queries;
        let patience = if pending.is_empty() {
            idle
        } else {
            manners.silence
        };
        tokio::select! {
            job = jobs.recv(), if room => {
                let Some(first) = job else { break End::Idle };
                say.clear();
                pending.retain(|_, job| !job.reply.is_closed());
                if pending.is_empty() {
                    since = Instant::now();
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
                    let room = pending.len() < manners.pipeline.queries;
                    next = if room { jobs.try_recv().ok() } else { None };
                }
                let written = async {
                    writer.write_all(&say).await?;
                    // TLS keeps octets to itself until it is told.
                    writer.flush().await
                };
                match tokio::time::timeout_at(since + manners.silence, written).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => break End::Broken(error),
                    Err(_) => break End::Silent,
                }
            }
            read = tokio::time::timeout_at(since + patience, reader.read_buf(&mut heard)) => {
                match read {
                    Ok(Ok(0)) => break End::Closed,
                    Ok(Ok(_)) => since = Instant::now(),
                    Ok(Err(error)) => break End::Broken(error),
                    Err(_) if pending.is_empty() => break End::Idle,
                    Err(_) => break End::Silent,
                }
                if !room && !jobs.is_empty() {
                    manners.pipeline.waited.inc();
                }
                match take(&mut heard, &mut pending) {
                    Some(Some(wanted)) => idle = manners.idle.min(wanted),
                    Some(None) => {}
                    None => break End::Garbage,
                }
            }
        }
    };
    jobs.close();
    // Dropped, the jobs that are left tell those who wait.
    drop(pending);
    // Says goodbye, if that can be said at once; who is gone does not hear it.
    let _ = tokio::time::timeout(GOODBYE, writer.shutdown()).await;
    end
}

/// Hands out the whole messages of `heard`; how long the peer lets the connection be idle, if one says so. `None`: it answers
/// what it was not asked.
fn take(
    heard: &mut Vec<u8>,
    pending: &mut HashMap<u16, Job, RandomState>,
) -> Option<Option<Duration>> {
    let mut at = 0;
    let mut idle = None;
    while let Some(length) = heard.get(at..at + 2) {
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let Some(message) = heard.get(at + 2..at + 2 + length) else {
            break;
        };
        let &[i1, i2] = message.first_chunk()?;
        // Who asked may have given up since.
        if let Some(job) = pending.remove(&u16::from_be_bytes([i1, i2])) {
            job.sent.check(message).ok()?;
            idle = Signs::read(message)
                .and_then(|signs| signs.keepalive)
                .or(idle);
            let _ = job.reply.send(Ok(message.to_vec()));
        }
        at += 2 + length;
    }
    heard.drain(..at);
    Some(idle)
}

/// For the last words of a connection.
const GOODBYE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use tokio::task::yield_now;

    use super::super::query::{Edns, Question};
    use super::*;

    /// The query of the peer's next message.
    async fn read(peer: &mut tokio::io::DuplexStream) -> Vec<u8> {
        let length = peer.read_u16().await.unwrap();
        let mut query = vec![0; length.into()];
        peer.read_exact(&mut query).await.unwrap();
        query
    }

    #[tokio::test]
    async fn query_beyond_those_in_flight_waits_and_is_counted() {
        let waited = IntCounter::new("waited", "waited").unwrap();
        let (stream, mut peer) = tokio::io::duplex(4_096);
        let line = Line::default();
        let pipeline = Pipeline {
            queries: 1,
            waited: waited.clone(),
        };
        let manners = Manners {
            idle: Duration::from_secs(10),
            silence: Duration::from_secs(10),
            pipeline,
        };
        let carry = line.open(stream, manners);
        let sent = || {
            let question = Question {
                name: b"\x03www\x07example\0",
                qtype: 1,
                zone: b"\0",
                recursion_desired: true,
                checking_disabled: false,
                dnssec_ok: false,
            };
            Sent::new(&question, 0, None, Edns::Absent)
        };
        let asks = async {
            let answered = tokio::join!(line.ask(sent()), line.ask(sent()));
            assert!(matches!(answered, (Ok(Ok(_)), Ok(Ok(_)))));
        };
        let answers = async {
            for waiting in [true, false] {
                let mut reply = read(&mut peer).await;
                // All that is ready has its turn, the other query too.
                for _ in 0..20 {
                    yield_now().await;
                }
                let mut more = [0];
                let early = tokio::time::timeout(Duration::ZERO, peer.read(&mut more)).await;
                assert!(early.is_err(), "one at a time");
                assert_eq!(waited.get(), u64::from(!waiting));
                reply[2] |= 0x80;
                let length = u16::try_from(reply.len()).unwrap();
                peer.write_u16(length).await.unwrap();
                peer.write_all(&reply).await.unwrap();
            }
            drop(peer);
        };
        tokio::join!(asks, answers, carry);
        assert_eq!(waited.get(), 1);
    }
}
