//! The task that asks parents for the DS their zones wait for.
//!
//! A parent that is served here is looked up in its zone; any other is asked by the resolver, and its answer counts only
//! with AD: validated here, or by the upstream that is trusted with everything else. One question at a time, each zone at
//! most once in `dnssec.ask_parent`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Config;
use super::parent::{Look, Terms, Watch};
use crate::dns::keeper::{Keeper, Waiting};
use crate::dns::resolver::Resolver;
use crate::dns::transfer::message::Message;
use crate::dns::wire::Query;
use crate::metrics::Metrics;
use crate::metrics::dns::ParentLook;
use crate::time::Now;

/// Looks after zones that wait for their parents, until `stop`. Without a resolver only parents served here are seen.
///
/// # Errors
/// A panic while noting what was seen.
pub async fn run(
    keeper: Arc<Keeper>,
    resolver: Option<Resolver>,
    config: Config,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> Result<(), anyhow::Error> {
    if config.ask_parent.is_zero() {
        stop.cancelled().await;
        return Ok(());
    }
    let terms = Terms {
        every: config.ask_parent.as_secs(),
        propagation: config.parent_propagation.as_secs(),
    };
    let mut watches: HashMap<String, Watch> = HashMap::new();
    loop {
        let waiting = keeper.waiting();
        watches.retain(|name, watch| {
            let mut zones = waiting.iter();
            zones.any(|zone| zone.name == *name && zone.awaited == *watch.awaited())
        });
        let mut next: Option<u64> = None;
        for zone in waiting {
            let watch = watches
                .entry(zone.name.clone())
                .or_insert_with(|| Watch::new(zone.awaited.clone(), seconds()));
            if watch.next() <= seconds() {
                let seen = tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    seen = look(&keeper, resolver.as_ref(), &zone) => seen,
                };
                let believed = watch.take(seen.as_ref().ok(), seconds(), terms);
                let outcome = match &seen {
                    Ok(look) if watch.awaited().is_met(&look.ds) => ParentLook::AsAwaited,
                    Ok(_) => ParentLook::Other,
                    Err(Unseen::Unproven) => ParentLook::Unproven,
                    Err(Unseen::Failed) => ParentLook::Failed,
                };
                metrics.dns.parent_asked(outcome);
                let said = seen.map_or_else(|unseen| unseen.text().to_owned(), |l| l.to_string());
                keeper.parent_said(&zone, &said);
                if let Some(at) = believed {
                    let (keeper, zone) = (keeper.clone(), zone.clone());
                    tokio::task::spawn_blocking(move || keeper.parent_agrees(&zone, at)).await?;
                }
            }
            next = Some(next.map_or(watch.next(), |next| next.min(watch.next())));
        }
        let now = seconds();
        let wait = next.map_or(LOOK, |next| {
            Duration::from_secs(next.saturating_sub(now).max(1)).min(LOOK)
        });
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = keeper.waiting_changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Why there is nothing to believe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unseen {
    /// An answer without proof.
    Unproven,
    /// No answer.
    Failed,
}

impl Unseen {
    fn text(self) -> &'static str {
        match self {
            Self::Unproven => "its answer is not validated",
            Self::Failed => "it could not be asked",
        }
    }
}

async fn look(
    keeper: &Keeper,
    resolver: Option<&Resolver>,
    zone: &Waiting,
) -> Result<Look, Unseen> {
    if let Some(ds) = keeper.ds_of(&zone.apex) {
        return Ok(Look { ds, ttl: 0 });
    }
    let resolver = resolver.ok_or(Unseen::Failed)?;
    let packet = question(&zone.apex);
    let query = Query::parse(&packet).map_err(|_| Unseen::Failed)?;
    let mut out = Vec::new();
    let budget = resolver.budget();
    resolver
        .resolve(&query, usize::from(u16::MAX), &budget, &mut out)
        .await;
    read(&out, &zone.apex)
}

/// A question for the DS of a zone, with DO: whoever answers says by AD whether it is proven (RFC 6840 section 5.8).
fn question(apex: &[u8]) -> Vec<u8> {
    let mut packet = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    packet.extend_from_slice(apex);
    packet.extend(DS.to_be_bytes());
    packet.extend(CLASS_IN.to_be_bytes());
    packet.extend([0, 0, OPT, 0xFF, 0xFF, 0, 0, DO, 0, 0, 0]);
    packet
}

/// What the answer to [`question`] says: the DS records, or that there are none.
fn read(answer: &[u8], apex: &[u8]) -> Result<Look, Unseen> {
    let message = Message::parse(answer).ok_or(Unseen::Failed)?;
    if !matches!(message.rcode, NOERROR | NXDOMAIN) {
        return Err(Unseen::Failed);
    }
    if answer[3] & FLAG_AD == 0 {
        return Err(Unseen::Unproven);
    }
    let [answers, authorities, _] = &message.sections;
    // Behind an alias there are no DS of this zone.
    if answers.iter().any(|entry| entry.record.rtype == CNAME) {
        return Err(Unseen::Failed);
    }
    let records = answers.iter().map(|entry| &entry.record);
    let ds = records.filter(|record| record.rtype == DS && *record.owner == *apex);
    let ttls = answers.iter().chain(authorities);
    Ok(Look {
        ds: ds.map(|record| record.data.clone()).collect(),
        ttl: ttls.map(|entry| entry.record.ttl).max().unwrap_or(0).into(),
    })
}

fn seconds() -> u64 {
    Now::read().unix_ms / 1_000
}

/// The longest time between two looks at the clock.
const LOOK: Duration = Duration::from_secs(60);

const FLAG_AD: u8 = 0x20;
const NOERROR: u8 = 0;
const NXDOMAIN: u8 = 3;
const CNAME: u16 = 5;
const DS: u16 = 43;
const OPT: u8 = 41;
const DO: u8 = 0x80;
const CLASS_IN: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    const APEX: &[u8] = b"\x01a\x04test\0";

    /// An answer with these records (owner, type, data) in its answer section, TTL 60.
    fn answer(flags: u8, records: &[(&[u8], u16, &[u8])]) -> Vec<u8> {
        let mut bytes = question(APEX);
        bytes.truncate(12 + APEX.len() + 4);
        bytes[11] = 0;
        bytes[2] = 0x81;
        bytes[3] = flags;
        bytes[7] = records.len() as u8;
        for (owner, rtype, data) in records {
            bytes.extend_from_slice(owner);
            bytes.extend(rtype.to_be_bytes());
            bytes.extend([0, 1, 0, 0, 0, 60]);
            bytes.extend((data.len() as u16).to_be_bytes());
            bytes.extend_from_slice(data);
        }
        bytes
    }

    #[test]
    fn question_asks_for_ds_and_whether_it_is_proven() {
        let packet = question(APEX);
        let query = Query::parse(&packet).expect("a query");
        assert_eq!((query.name, query.qtype), (APEX, DS));
        assert!(query.dnssec_ok());
    }

    #[test]
    fn only_proven_answers_are_seen() {
        let ds: &[u8] = &[0, 7, 13, 2, 9];
        let records = [(APEX, DS, ds), (&b"\x01b\0"[..], DS, &[0, 8, 13, 2, 9])];
        let seen = read(&answer(FLAG_AD, &records), APEX);
        assert_eq!(
            seen,
            Ok(Look {
                ds: vec![ds.into()],
                ttl: 60
            })
        );
        assert_eq!(read(&answer(0, &records), APEX), Err(Unseen::Unproven));
        let none = Look {
            ds: Vec::new(),
            ttl: 0,
        };
        assert_eq!(read(&answer(FLAG_AD | NXDOMAIN, &[]), APEX), Ok(none));
        let servfail = answer(FLAG_AD | 2, &records);
        assert_eq!(read(&servfail, APEX), Err(Unseen::Failed));
        let alias = [(APEX, CNAME, &b"\x01b\0"[..])];
        assert_eq!(read(&answer(FLAG_AD, &alias), APEX), Err(Unseen::Failed));
        assert_eq!(read(&[], APEX), Err(Unseen::Failed));
    }
}
