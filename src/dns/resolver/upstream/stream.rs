//! TCP to one server: one connection, used by all who ask, many queries at once, closed when nobody does.
//!
//! A connection is a task. Those who ask hand it their queries; it gives each an id of its own (two may have come with
//! the same) and takes the answers in any order (RFC 7766).

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

/// What one connection may carry.
#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    /// Queries in flight; as many more may wait to be sent.
    pub(super) queries: usize,
    /// Replies that came while queries waited for their turn.
    pub(super) waited: IntCounter,
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
    pub(super) fn open<S>(&self, stream: S, pipeline: Pipeline) -> impl Future<Output = ()> + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (sender, receiver) = mpsc::channel(pipeline.queries);
        *self.jobs.lock().expect("nothing panics while it is held") = Some(sender);
        run(stream, receiver, pipeline)
    }
}

/// Carries queries and answers until the peer closes, says something that makes no sense, or nobody has asked for a while.
async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    mut jobs: mpsc::Receiver<Job>,
    pipeline: Pipeline,
) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut pending: HashMap<u16, Job, RandomState> = HashMap::default();
    let mut dice = Dice::new();
    let mut heard = Vec::new();
    let mut say = Vec::new();
    // By when the peer must have said something, or somebody asked.
    let mut patience = Instant::now() + IDLE;
    loop {
        let room = pending.len() < pipeline.queries;
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
                    next = if pending.len() < pipeline.queries { jobs.try_recv().ok() } else { None };
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
                if !room && !jobs.is_empty() {
                    pipeline.waited.inc();
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

/// A connection without a word is closed after this.
const IDLE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use tokio::task::yield_now;

    use super::super::query::Question;
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
        let carry = line.open(stream, pipeline);
        let sent = || {
            let question = Question {
                name: b"\x03www\x07example\0",
                qtype: 1,
                zone: b"\0",
                recursion_desired: true,
                checking_disabled: false,
                dnssec_ok: false,
            };
            Sent::new(&question, 0, None, None)
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
