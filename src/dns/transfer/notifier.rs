//! NOTIFY to other servers when a zone has changed (RFC 1996): one datagram, sent again until it is answered.
//!
//! The keeper says which zones changed; a newer change of a zone ends the tries for the one before it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::message::{Composer, FLAG_AA, IN, Message, NOTIFY, Question, SOA};
use super::{NOTIFY_WAITS, Remote};
use crate::dns::keeper::Keeper;
use crate::dns::tsig::Session;
use crate::dns::wire::UDP_PLAIN;
use crate::dns::zone::Zone;
use crate::metrics::Metrics;
use crate::time::Now;

/// Tells other servers until `stop`; at most `at_once` NOTIFY messages are under way.
///
/// # Errors
/// None; the signature is that of every long-lived task.
pub async fn run(
    keeper: Arc<Keeper>,
    at_once: usize,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> Result<(), anyhow::Error> {
    let permits = Arc::new(Semaphore::new(at_once.min(Semaphore::MAX_PERMITS)));
    let tracker = TaskTracker::new();
    loop {
        let changed = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = keeper.changed() => changed,
        };
        for apex in changed {
            let Some((Some(zone), config)) = keeper.find(&apex) else {
                continue;
            };
            for remote in &config.notify {
                let (keeper, metrics, permits) = (keeper.clone(), metrics.clone(), permits.clone());
                let (zone, remote, stop) = (zone.clone(), remote.clone(), stop.clone());
                tracker.spawn(async move {
                    let permit = permits.try_acquire();
                    if permit.is_err() {
                        metrics.transfer.limit_notifies.inc();
                    }
                    let _permit = match permit {
                        Ok(permit) => Ok(permit),
                        Err(_) => permits.acquire().await,
                    };
                    let outcome = tokio::select! {
                        () = stop.cancelled() => return,
                        outcome = tell(&keeper, &zone, &remote) => outcome,
                    };
                    if let Some(outcome) = outcome {
                        metrics.transfer.notice(outcome);
                        let (zone, serial) = (zone.name(), zone.serial());
                        tracing::debug!(zone, serial, to = %remote.address, outcome, "notified");
                    }
                });
            }
        }
    }
}

/// Sends a NOTIFY until it is answered; how that ended. `None`: the zone has changed again.
async fn tell(keeper: &Keeper, zone: &Zone, remote: &Remote) -> Option<&'static str> {
    let local: SocketAddr = if remote.address.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    for wait in NOTIFY_WAITS {
        let current = keeper.find(zone.apex())?.0?;
        if current.serial() != zone.serial() {
            return None;
        }
        let sent = async {
            let socket = UdpSocket::bind(local).await.ok()?;
            socket.connect(remote.address).await.ok()?;
            let (message, session, id) = compose(keeper, zone, remote)?;
            socket.send(&message).await.ok()?;
            answer(&socket, session, id).await
        };
        match tokio::time::timeout(wait, sent).await {
            Ok(Some(outcome)) => return Some(outcome),
            // What the kernel refuses at once is tried again, too: the other side may be starting.
            Ok(None) => tokio::time::sleep(wait).await,
            Err(_) => {}
        }
    }
    Some("silent")
}

fn compose(
    keeper: &Keeper,
    zone: &Zone,
    remote: &Remote,
) -> Option<(Vec<u8>, Option<Session>, u16)> {
    let id = random_id();
    let question = Question {
        name: zone.apex().into(),
        qtype: SOA,
        qclass: IN,
    };
    let limit = usize::from(UDP_PLAIN);
    let mut message = Composer::new(
        id,
        u16::from(NOTIFY) << 11 | FLAG_AA,
        Some(&question),
        limit,
    );
    let soa = zone.soa()?;
    // A hint only (RFC 1996 section 3.7); it may be too long for a datagram.
    let _ = message.push(0, &soa.owner, soa.rtype, soa.ttl, &soa.data);
    let mut message = message.finish();
    let session = match &remote.key {
        None => None,
        Some(key) => {
            let key = keeper.keys().get(key)?.clone();
            let now = Now::read().unix_ms / 1_000;
            Some(Session::request(&key, &mut message, now))
        }
    };
    Some((message, session, id))
}

/// Waits for an answer that is one.
async fn answer(socket: &UdpSocket, session: Option<Session>, id: u16) -> Option<&'static str> {
    let mut buffer = [0; 1232];
    loop {
        let len = socket.recv(&mut buffer).await.ok()?;
        let mut bytes = buffer[..len].to_vec();
        if let Some(session) = &session {
            let now = Now::read().unix_ms / 1_000;
            if session.clone().check(&mut bytes, now).is_err() {
                // A server that does not believe the signature cannot sign its refusal.
                match Message::parse(&bytes) {
                    Some(m) if m.id == id && m.response && m.rcode != 0 => return Some("refused"),
                    _ => continue,
                }
            }
        }
        match Message::parse(&bytes) {
            Some(m) if m.id == id && m.response && m.opcode == NOTIFY => {
                return Some(if m.rcode == 0 { "answered" } else { "refused" });
            }
            _ => {}
        }
    }
}

/// An id nobody can guess.
pub(in crate::dns) fn random_id() -> u16 {
    let mut bytes = [0; 2];
    // Only a kernel without entropy at boot fails; the address and port are checked as well.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u16::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::dns::ZoneConfig;

    #[tokio::test]
    async fn messages_beyond_those_at_once_wait_and_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("example.zone");
        let text = "@ 60 SOA ns host 1 60 60 60 60\n@ 60 NS ns\nns 60 A 192.0.2.1\n";
        std::fs::write(&file, text).unwrap();
        let mut silent = Vec::new();
        for _ in 0..3 {
            silent.push(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        }
        let notify = silent.iter().map(|socket| Remote {
            address: socket.local_addr().unwrap(),
            tls: None,
            key: None,
        });
        let metrics = Arc::new(Metrics::new());
        let config = ZoneConfig {
            name: "example.".to_owned(),
            file,
            ttl: 60,
            notify: notify.collect(),
            ..ZoneConfig::default()
        };
        let keeper = Arc::new(Keeper::new(vec![config], Arc::clone(&metrics)));
        assert!(keeper.reload(None).is_some());
        let stop = CancellationToken::new();
        let running = tokio::spawn(run(keeper, 2, Arc::clone(&metrics), stop.clone()));
        let counted = async {
            while metrics.transfer.limit_notifies.get() == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let counted = tokio::time::timeout(Duration::from_secs(10), counted).await;
        counted.expect("the third waits");
        assert_eq!(metrics.transfer.limit_notifies.get(), 1);
        stop.cancel();
        running.await.unwrap().unwrap();
    }
}
