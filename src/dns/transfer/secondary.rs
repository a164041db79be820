//! Asks the primaries of secondary zones: the SOA first, in a datagram if there is a version here; then, over one TCP
//! connection, differences or the whole zone. Most of the time nothing has changed, and no connection is made.
//!
//! The keeper says which zones are due; each is asked for by a task of its own, so many at once as are allowed.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::history::{is_newer, serial};
use super::incoming::{Came, Incoming, Refusal};
use super::message::{AXFR, Composer, IN, IXFR, Message, Question, SOA};
use super::notifier::random_id;
use super::secure::{Trust, Wire};
use super::{Config, Remote};
use crate::dns::keeper::Keeper;
use crate::dns::keeper::secondary::Due;
use crate::dns::tsig::Session;
use crate::dns::zone::Record;
use crate::metrics::Metrics;
use crate::metrics::transfer::{Direction, Ended, Kind};
use crate::time::Now;

/// Asks until `stop`.
///
/// # Errors
/// None; the signature is that of every long-lived task.
pub async fn run(
    keeper: Arc<Keeper>,
    config: Config,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> Result<(), anyhow::Error> {
    let permits = Arc::new(Semaphore::new(config.incoming));
    let trust = Arc::new(Trust::new(config.ca_file.clone()));
    let config = Arc::new(config);
    let tracker = TaskTracker::new();
    loop {
        let now = Now::read();
        let (due, next) = keeper.due(now);
        for due in due {
            let Ok(permit) = permits.clone().try_acquire_owned() else {
                // Asked for when one of those under way ends, which wakes this loop.
                metrics.transfer.limit_incoming.inc();
                keeper.postponed(&due);
                continue;
            };
            let (keeper, config, trust) = (keeper.clone(), config.clone(), trust.clone());
            let (metrics, stop) = (metrics.clone(), stop.clone());
            tracker.spawn(async move {
                let _permit = permit;
                metrics.transfer.incoming.inc();
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = ask(&keeper, due, &config, &trust, &metrics) => {}
                }
                metrics.transfer.incoming.dec();
            });
        }
        let wait = next.map_or(LONGEST, |at| {
            Duration::from_millis(at.saturating_sub(Now::read().unix_ms)).min(LONGEST)
        });
        let wait = if permits.available_permits() == 0 {
            LONGEST
        } else {
            wait.max(SHORTEST)
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = keeper.woken() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Asks one primary after the other until one gives an answer.
async fn ask(keeper: &Arc<Keeper>, due: Due, config: &Config, trust: &Trust, metrics: &Metrics) {
    let due = Arc::new(due);
    let mut problem = String::from("no primary is configured");
    for primary in &due.config.primaries {
        let asked = once(keeper, &due, primary, config, trust, metrics);
        let asked = timeout(config.time, asked).await;
        let asked = asked.unwrap_or_else(|_| Err(format!("found no end within {:?}", config.time)));
        match asked {
            Ok(()) => return,
            Err(found) => problem = format!("primary {primary}: {found}"),
        }
    }
    keeper.unanswered(&due, problem, Now::read());
}

/// Asks one primary.
async fn once(
    keeper: &Arc<Keeper>,
    due: &Arc<Due>,
    primary: &Remote,
    config: &Config,
    trust: &Trust,
    metrics: &Metrics,
) -> Result<(), String> {
    let have = due.have.as_ref().map(|zone| zone.serial());
    // Over TLS not even the question is to be read on the way.
    let clear = primary.tls.is_none();
    if clear && have.is_some() && probe(keeper, due, primary, config).await == have {
        keeper.confirmed(due, Now::read());
        return Ok(());
    }
    let mut link = Link::open(primary, config, trust).await?;
    let theirs = link.soa(keeper, due, primary).await?;
    if let Some(have) = have
        && !is_newer(theirs, have)
    {
        if theirs != have {
            return Err(format!("found serial {theirs}, older than {have} here"));
        }
        keeper.confirmed(due, Now::read());
        return Ok(());
    }
    if have.is_some() {
        let transferred = link.transfer(keeper, due, primary, have).await;
        match finish(keeper, due, primary, transferred, Kind::Ixfr, metrics).await {
            Ok(()) => return Ok(()),
            // The whole zone, then, over a connection that is in order.
            Err(problem) => {
                tracing::debug!(zone = %due.config.name, %problem, "no differences");
                link = Link::open(primary, config, trust).await?;
            }
        }
    }
    let transferred = link.transfer(keeper, due, primary, None).await;
    finish(keeper, due, primary, transferred, Kind::Axfr, metrics).await
}

/// The serial of a primary, asked for in one datagram. `None`: no answer came that is one; a connection tells more.
async fn probe(keeper: &Keeper, due: &Due, primary: &Remote, config: &Config) -> Option<u32> {
    let (id, mut session, request) = compose(keeper, due, primary, SOA, None).ok()?;
    let local: SocketAddr = if primary.address.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let asked = async {
        let socket = UdpSocket::bind(local).await.ok()?;
        socket.connect(primary.address).await.ok()?;
        socket.send(&request).await.ok()?;
        let mut buffer = [0; PROBE_ANSWER];
        let len = socket.recv(&mut buffer).await.ok()?;
        let mut answer = buffer[..len].to_vec();
        if let Some(session) = &mut session {
            let now = Now::read().unix_ms / 1_000;
            session.check(&mut answer, now).ok()?;
        }
        theirs(&Message::parse(&answer)?, id, due).ok()
    };
    timeout(PROBE.min(config.silence), asked).await.ok()?
}

/// The serial an answer of a primary tells.
fn theirs(message: &Message, id: u16, due: &Due) -> Result<u32, String> {
    if message.id != id || !message.response {
        return Err("found a message that is no answer".to_owned());
    }
    if message.rcode != 0 {
        return Err(Refusal::Rcode(message.rcode).to_string());
    }
    let [answer, ..] = &message.sections;
    let soa = answer
        .iter()
        .find(|entry| entry.record.rtype == SOA && *entry.record.owner == *due.apex);
    let soa = soa.ok_or("found no SOA in the answer, expected the zone's")?;
    Ok(serial(&soa.record))
}

/// A question about the zone: its id, what its answer is signed with, and its octets.
fn compose(
    keeper: &Keeper,
    due: &Due,
    primary: &Remote,
    qtype: u16,
    soa: Option<Record>,
) -> Result<(u16, Option<Session>, Vec<u8>), String> {
    let id = random_id();
    let question = Question {
        name: due.apex.as_ref().into(),
        qtype,
        qclass: IN,
    };
    let mut message = Composer::new(id, 0, Some(&question), usize::from(u16::MAX));
    if let Some(soa) = soa {
        let _ = message.push(1, &soa.owner, soa.rtype, soa.ttl, &soa.data); // It fits: nothing else is there.
    }
    let mut message = message.finish();
    let session = match &primary.key {
        None => None,
        Some(name) => {
            let key = keeper.keys().get(name).cloned();
            let key = key.ok_or_else(|| format!("found no key {name}"))?;
            let now = Now::read().unix_ms / 1_000;
            Some(Session::request(&key, &mut message, now))
        }
    };
    Ok((id, session, message))
}

/// Puts what came in service.
async fn finish(
    keeper: &Arc<Keeper>,
    due: &Arc<Due>,
    primary: &Remote,
    transferred: Result<Came, String>,
    asked: Kind,
    metrics: &Metrics,
) -> Result<(), String> {
    let kind = match &transferred {
        Ok(Came::Whole(..)) => Kind::Axfr,
        Ok(Came::Steps(_)) => Kind::Ixfr,
        _ => asked,
    };
    let installed = match transferred {
        Ok(came) => {
            let (keeper, due, from) = (keeper.clone(), due.clone(), primary.address.to_string());
            let work = move || keeper.install(&due, came, &from, Now::read());
            let done = tokio::task::spawn_blocking(work).await;
            done.unwrap_or_else(|error| Err(error.to_string()))
        }
        Err(problem) => Err(problem),
    };
    let ended = if installed.is_ok() {
        Ended::Done
    } else {
        Ended::Broken
    };
    metrics.transfer.ended(Direction::In, kind, ended);
    installed
}

/// A connection to a primary.
struct Link {
    stream: Box<dyn Wire>,
    silence: Duration,
    /// Bytes that may still come.
    left: u64,
}

impl Link {
    async fn open(primary: &Remote, config: &Config, trust: &Trust) -> Result<Self, String> {
        let silence = config.silence;
        let stream = match timeout(silence, TcpStream::connect(primary.address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err(format!("found no connection within {silence:?}")),
        };
        // One small message at a time.
        let _ = stream.set_nodelay(true);
        let stream = match &primary.tls {
            None => Box::new(stream),
            Some(name) => match timeout(silence, trust.connect(stream, name.clone())).await {
                Ok(shaken) => shaken?,
                Err(_) => return Err(format!("found no TLS handshake within {silence:?}")),
            },
        };
        Ok(Self {
            stream,
            silence,
            left: config.size,
        })
    }

    /// The serial of the primary.
    async fn soa(&mut self, keeper: &Keeper, due: &Due, primary: &Remote) -> Result<u32, String> {
        let (id, mut session) = self.request(keeper, due, primary, SOA, None).await?;
        let message = self.receive(&mut session).await?;
        theirs(&message, id, due)
    }

    /// Differences from serial `have`, or the whole zone.
    async fn transfer(
        &mut self,
        keeper: &Keeper,
        due: &Due,
        primary: &Remote,
        have: Option<u32>,
    ) -> Result<Came, String> {
        let qtype = if have.is_some() { IXFR } else { AXFR };
        let soa = due.have.as_ref().filter(|_| have.is_some());
        let soa = soa.and_then(|zone| zone.soa());
        let (id, mut session) = self.request(keeper, due, primary, qtype, soa).await?;
        let mut incoming = Incoming::new(&due.apex, id, have);
        loop {
            let message = self.receive(&mut session).await?;
            let came = incoming.take(message).map_err(|e| e.to_string())?;
            if let Some(came) = came {
                if session.as_ref().is_some_and(|s| !s.is_settled()) {
                    return Err("found a last message without a signature".to_owned());
                }
                return Ok(came);
            }
        }
    }

    async fn request(
        &mut self,
        keeper: &Keeper,
        due: &Due,
        primary: &Remote,
        qtype: u16,
        soa: Option<Record>,
    ) -> Result<(u16, Option<Session>), String> {
        let (id, session, message) = compose(keeper, due, primary, qtype, soa)?;
        let len = u16::try_from(message.len()).map_err(|_| "a request too long".to_owned())?;
        let framed = [&len.to_be_bytes()[..], &message].concat();
        match timeout(self.silence, self.stream.write_all(&framed)).await {
            Ok(Ok(())) => Ok((id, session)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("found a primary that does not read".to_owned()),
        }
    }

    async fn receive(&mut self, session: &mut Option<Session>) -> Result<Message, String> {
        let read = async {
            let len = self.stream.read_u16().await?;
            let mut message = vec![0; usize::from(len)];
            self.stream.read_exact(&mut message).await?;
            Ok::<_, std::io::Error>(message)
        };
        let mut message = match timeout(self.silence, read).await {
            Ok(Ok(message)) => message,
            Ok(Err(error)) => return Err(format!("the connection ended: {error}")),
            Err(_) => return Err(format!("found no message within {:?}", self.silence)),
        };
        let len = message.len() as u64;
        self.left = self
            .left
            .checked_sub(len)
            .ok_or("found more than dns.transfer.size bytes")?;
        if let Some(session) = session {
            let now = Now::read().unix_ms / 1_000;
            session.check(&mut message, now).map_err(|failure| {
                let code = Message::parse(&message).map_or(0, |m| m.rcode);
                match code {
                    0 => failure.to_string(),
                    code => Refusal::Rcode(code).to_string(),
                }
            })?;
        }
        Message::parse(&message).ok_or_else(|| "found a malformed message".to_owned())
    }
}

/// The loop looks at the zones at least this often.
const LONGEST: Duration = Duration::from_secs(60);

/// And not more often than this without being woken.
const SHORTEST: Duration = Duration::from_millis(20);

/// So long is an answer to a datagram waited for before a connection is tried.
const PROBE: Duration = Duration::from_secs(2);

/// Octets of such an answer that are read: without EDNS there are no more.
const PROBE_ANSWER: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::ZoneConfig;
    use crate::dns::transfer::message::FLAG_AA;

    #[tokio::test]
    async fn zone_that_has_not_changed_is_confirmed_without_a_connection() {
        let folder = tempfile::tempdir().expect("a folder");
        // Nobody listens on its TCP port.
        let primary = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let address = primary.local_addr().expect("an address");
        let config = ZoneConfig {
            name: "test.".to_owned(),
            file: folder.path().join("copy"),
            primaries: vec![Remote {
                address,
                tls: None,
                key: None,
            }],
            ..ZoneConfig::default()
        };
        let metrics = Arc::new(Metrics::new());
        let keeper = Arc::new(Keeper::new(vec![config], Arc::clone(&metrics)));
        let record = |rtype, data: &[u8]| Record {
            owner: (*b"\x04test\0").into(),
            rtype,
            ttl: 60,
            data: data.into(),
        };
        let soa = |serial: u32| {
            let numbers = [serial, 3_600, 600, 86_400, 60]
                .map(u32::to_be_bytes)
                .concat();
            record(SOA, &[&[0, 0], &numbers[..]].concat())
        };
        let _ = keeper.reload(None);
        let (due, _) = keeper.due(Now::read());
        let came = Came::Whole(soa(7), vec![record(2, b"\x02ns\0")]);
        let installed = keeper.install(&due[0], came, "test", Now::read());
        installed.expect("a good zone");
        keeper.ask(b"\x04test\0", Now::read());
        let stop = CancellationToken::new();
        let running = run(keeper.clone(), Config::default(), metrics, stop.clone());
        let running = tokio::spawn(running);
        let answer = async |serial| {
            let mut buffer = [0; 512];
            let (len, from) = primary.recv_from(&mut buffer).await.expect("a question");
            let asked = Message::parse(&buffer[..len]).expect("a good message");
            let flags = 0x8000 | FLAG_AA;
            let mut answer = Composer::new(asked.id, flags, asked.question.as_ref(), 512);
            let soa: Record = soa(serial);
            assert!(answer.push(0, &soa.owner, soa.rtype, soa.ttl, &soa.data));
            let sent = primary.send_to(&answer.finish(), from).await;
            sent.expect("it can be sent to");
        };
        let state = || keeper.zones().remove(0);
        let until = async |what: &str, is: &dyn Fn() -> bool| {
            let polled = async {
                while !is() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            let polled = timeout(Duration::from_secs(20), polled).await;
            polled.unwrap_or_else(|_| panic!("{what}: {:?}", state()));
        };
        answer(7).await;
        let soon = Now::read().unix_ms + 60_000;
        until("confirmed", &|| state().refresh_unix_ms > Some(soon)).await;
        assert!(state().problems.is_empty());
        // A newer one is asked for over a connection.
        keeper.ask(b"\x04test\0", Now::read());
        answer(8).await;
        until("not transferred", &|| !state().problems.is_empty()).await;
        assert!(state().problems[0].contains("refused"), "{:?}", state());
        assert_eq!(state().serial, Some(7));
        stop.cancel();
        running.await.expect("no panic").expect("no error");
    }
}
