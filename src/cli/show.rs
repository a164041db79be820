//! Answers of the control socket as people read them: aligned columns. Pure.

use std::time::Duration;

use crate::admin::api::{
    Cache, CacheEntry, CacheLoaded, Dumped, Object, Prefetched, Purged, Reloaded, Status, Stored,
    Verified, Zone, ZoneChanged, ZoneKey,
};
use crate::admin::page::{held_text, role_text};
use crate::config::units::{duration_text, size_text};

pub(super) fn status(status: &Status) -> String {
    let mut text = columns(&[
        vec!["node".to_owned(), status.node.clone()],
        vec![
            "version".to_owned(),
            format!("{}, process {}", status.version, status.pid),
        ],
        vec![
            "uptime".to_owned(),
            duration_text(Duration::from_secs(status.uptime_seconds)),
        ],
        vec!["key".to_owned(), status.key.clone()],
        vec!["state".to_owned(), status.state.clone()],
        vec!["ready".to_owned(), yes_no(status.ready).to_owned()],
    ]);
    if !status.problems.is_empty() {
        text.push_str("\nproblems\n");
        for problem in &status.problems {
            text.push_str(&format!("  {problem}\n"));
        }
    }
    let listeners = status.listeners.iter();
    let listeners = listeners.map(|l| vec![l.service.clone(), l.address.clone()]);
    text.push_str(&titled("listeners", &[], listeners.collect()));
    if !status.zones.is_empty() {
        text.push('\n');
        text.push_str(&zones(&status.zones));
    }
    if let Some(cache) = &status.cache {
        text.push_str("\nresolver cache\n");
        text.push_str(&indented(&self::cache(cache)));
    }
    let upstreams = status.upstreams.iter().map(|u| {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let round_trip = u.round_trip_ms.map(|millis| format!("{millis:.1} ms"));
        vec![
            u.zone.clone(),
            u.upstream.clone(),
            u.state.clone(),
            or_dash(&round_trip),
            or_dash(&u.connection),
            or_dash(&u.problem),
        ]
    });
    let heads = [
        "for",
        "upstream",
        "state",
        "round trip",
        "connection",
        "problem",
    ];
    text.push_str(&titled("upstreams", &heads, upstreams.collect()));
    let anchors = status.trust_anchors.iter().map(|key| {
        vec![
            key.zone.clone(),
            key.tag.to_string(),
            key.state.clone(),
            utc(key.since * 1_000),
            utc(key.next * 1_000),
        ]
    });
    let heads = ["trust anchor", "key", "state", "since", "next look"];
    text.push_str(&titled("trust anchors", &heads, anchors.collect()));
    let content = &status.content;
    text.push_str(&titled(
        "content",
        &[],
        vec![
            vec![
                "objects".to_owned(),
                format!("{}, {} of them whole", content.objects, content.complete),
            ],
            vec!["bytes".to_owned(), size_text(content.bytes)],
            vec![
                "store".to_owned(),
                format!(
                    "{} of {}",
                    size_text(content.store_used),
                    size_text(content.store_size)
                ),
            ],
        ],
    ));
    let mirrors = status.mirrors.iter().map(|m| {
        vec![
            m.prefix.clone(),
            m.from.clone(),
            m.objects.to_string(),
            m.filling.to_string(),
            m.key.clone().unwrap_or_else(|| "-".to_owned()),
            m.problem.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    });
    let heads = [
        "mirror",
        "from",
        "objects",
        "filling",
        "key of the origin",
        "problem",
    ];
    text.push_str(&titled("mirrors", &heads, mirrors.collect()));
    let links = status.links.iter().map(|l| {
        vec![
            l.name.clone(),
            size_text(l.transmit_bytes as u64),
            size_text(l.receive_bytes as u64),
            format!("{:.0} Mbit/s", l.capacity_bytes_per_second * 8.0 / 1e6),
            format!("{:.1} %", l.utilization * 100.0),
        ]
    });
    let heads = ["link", "sent", "received", "capacity", "load"];
    text.push_str(&titled("links", &heads, links.collect()));
    text
}

pub(super) fn cache(cache: &Cache) -> String {
    let answered = cache.hits + cache.negative + cache.stale;
    let asked = answered + cache.misses;
    let ratio = match asked {
        0 => "-".to_owned(),
        _ => format!("{} %", answered * 100 / asked),
    };
    columns(&[
        vec!["entries".to_owned(), cache.entries.to_string()],
        vec![
            "bytes".to_owned(),
            format!(
                "{} of {}",
                size_text(cache.bytes),
                size_text(cache.capacity)
            ),
        ],
        vec!["hits".to_owned(), cache.hits.to_string()],
        vec!["negative".to_owned(), cache.negative.to_string()],
        vec!["stale".to_owned(), cache.stale.to_string()],
        vec!["misses".to_owned(), cache.misses.to_string()],
        vec!["hit ratio".to_owned(), ratio],
    ])
}

pub(super) fn dumped(dumped: &Dumped) -> String {
    format!(
        "{} answers written to {}\n",
        dumped.entries,
        dumped.file.display()
    )
}

pub(super) fn cache_loaded(loaded: &CacheLoaded) -> String {
    let mut text = format!(
        "{} answers taken over, {} left out, {} refused\n",
        loaded.entries, loaded.skipped, loaded.refused
    );
    for problem in &loaded.problems {
        text.push_str(&format!("  {problem}\n"));
    }
    text
}

pub(super) fn cache_entries(entries: &[CacheEntry]) -> String {
    if entries.is_empty() {
        return "not cached\n".to_owned();
    }
    let mut text = String::new();
    for entry in entries {
        let life = match entry.ttl {
            ttl @ 0.. => format!("fresh for {ttl}s"),
            ttl => format!("expired {}s ago", -ttl),
        };
        let (name, rtype, rcode, bytes) = (&entry.name, &entry.rtype, &entry.rcode, entry.bytes);
        text.push_str(&format!("{name} {rtype}: {rcode}, {life}, {bytes} bytes\n"));
        for record in &entry.records {
            text.push_str(&format!("  {record}\n"));
        }
    }
    text
}

pub(super) fn zones(zones: &[Zone]) -> String {
    let mut rows = vec![
        [
            "zone",
            "role",
            "serial",
            "records",
            "next refresh",
            "signed until",
            "file",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    rows.extend(zones.iter().map(|z| {
        vec![
            z.name.clone(),
            role(z),
            z.serial.map_or("-".to_owned(), |s| s.to_string()),
            z.records.to_string(),
            z.refresh_unix_ms.map_or("-".to_owned(), utc),
            z.signed_until
                .map_or("-".to_owned(), |until| utc(until * 1_000)),
            z.file.clone(),
        ]
    }));
    let mut text = columns(&rows);
    text.push_str(&zone_problems(zones));
    text
}

/// Where a zone comes from, and its part in catalogs.
fn role(zone: &Zone) -> String {
    let role = &zone.role;
    match (&zone.catalog, zone.members) {
        (Some(catalog), _) => format!("{role} (member of {catalog})"),
        (None, Some(1)) => format!("{role} (1 member)"),
        (None, Some(members)) => format!("{role} ({members} members)"),
        (None, None) => role.clone(),
    }
}

/// The DS records as lines for the parent's zone, what else there is to say as comments between them.
pub(super) fn keys(keys: &[ZoneKey]) -> String {
    let mut text = String::new();
    for key in keys {
        let until = key.until.map_or(String::new(), |until| {
            format!(" until {}", utc(until * 1_000))
        });
        let seen = if key.seen {
            "; DS seen at the parent"
        } else {
            ""
        };
        text.push_str(&format!(
            "; key {} ({}): {}{until}{seen}\n",
            key.tag, key.algorithm, key.doing
        ));
        if let Some(ds) = &key.ds {
            text.push_str(&format!("{ds}\n"));
        }
    }
    text
}

pub(super) fn zone_changed(changed: &ZoneChanged) -> String {
    let (zone, serial) = (&changed.zone, changed.serial);
    if changed.changed {
        format!("zone {zone} changed: serial {serial}\n")
    } else {
        format!("zone {zone} unchanged: serial {serial}\n")
    }
}

/// A time as people read it, to the second.
fn utc(unix_ms: u64) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(unix_ms);
    httpdate::fmt_http_date(at)
}

pub(super) fn reloaded(reloaded: &Reloaded) -> String {
    let mut text = zones(&reloaded.zones);
    for problem in &reloaded.problems {
        text.push_str(&format!("configuration: {problem}\n"));
    }
    for section in &reloaded.restart {
        text.push_str(&format!(
            "[{section}] changed: takes effect after a restart\n"
        ));
    }
    text
}

pub(super) fn objects(objects: &[Object]) -> String {
    let heads = ["path", "role", "size", "held", "rate", "left"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    let fills = objects.iter().any(|o| o.rate.is_some());
    rows.extend(objects.iter().map(|o| {
        let rate = o
            .rate
            .map_or("-".to_owned(), |r| format!("{}/s", size_text(r)));
        let left = o.seconds_left.map(Duration::from_secs);
        vec![
            o.path.clone(),
            role_text(o),
            size_text(o.size),
            held_text(o),
            rate,
            left.map_or("-".to_owned(), duration_text),
        ]
    }));
    if !fills {
        rows.iter_mut().for_each(|row| row.truncate(4));
    }
    columns(&rows)
}

pub(super) fn object(object: &Object) -> String {
    let rows = [
        ("path", object.path.clone()),
        ("role", object.role.clone()),
        (
            "size",
            format!("{} ({} bytes)", size_text(object.size), object.size),
        ),
        ("held", held_text(object)),
        (
            "chunks",
            format!(
                "{} of {}",
                object.chunks,
                size_text(u64::from(object.chunk))
            ),
        ),
        ("media type", object.media_type.clone()),
        ("modified", format!("{} (Unix)", object.modified)),
        ("etag", object.etag.clone()),
        ("manifest", object.manifest.clone()),
        (
            "signed by",
            object.signed_by.clone().unwrap_or_else(|| "-".to_owned()),
        ),
        ("sha256", object.sha256.clone()),
    ];
    columns(&rows.map(|(name, value)| vec![name.to_owned(), value]))
}

pub(super) fn stored(stored: &Stored) -> String {
    let what = if stored.new { "published" } else { "replaced" };
    let object = &stored.object;
    format!(
        "{} {what}, {}, sha256 {}\n",
        object.path,
        size_text(object.size),
        object.sha256
    )
}

pub(super) fn prefetched(state: &Prefetched) -> String {
    let mut text = format!(
        "{} of {} objects whole, {} of {}\n",
        state.whole,
        state.objects,
        size_text(state.held),
        size_text(state.bytes)
    );
    if let Some(problem) = &state.problem {
        text.push_str(&format!("  {problem}\n"));
    }
    text
}

pub(super) fn purged(purged: &Purged) -> String {
    let (objects, bytes) = (purged.objects, size_text(purged.bytes));
    format!("{objects} objects dropped, {bytes}\n")
}

pub(super) fn verified(verified: &[Verified]) -> String {
    let mut rows = vec![["path", "good", "bad"].map(str::to_owned).to_vec()];
    rows.extend(
        verified
            .iter()
            .map(|v| vec![v.path.clone(), v.good.to_string(), v.bad.to_string()]),
    );
    columns(&rows)
}

fn zone_problems(zones: &[Zone]) -> String {
    let mut text = String::new();
    for zone in zones {
        for problem in &zone.problems {
            text.push_str(&format!("  {}: {problem}\n", zone.name));
        }
        for warning in &zone.warnings {
            text.push_str(&format!("  {}: warning: {warning}\n", zone.name));
        }
        if let Some(awaited) = &zone.waits_for {
            text.push_str(&format!("  {}: waits for {awaited}\n", zone.name));
        }
    }
    text
}

/// A table beneath a title; nothing when it has no rows.
fn titled(title: &str, heads: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut all = Vec::new();
    if heads.is_empty() {
        return format!("\n{title}\n{}", indented(&columns(&rows)));
    }
    all.push(heads.iter().map(|h| (*h).to_owned()).collect());
    all.extend(rows);
    format!("\n{}", columns(&all))
}

/// Rows with every column as wide as its widest cell.
fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a", "bb", ""], ["ccc", "d", "e"]].map(|r| r.map(str::to_owned).to_vec());
        assert_eq!(columns(&rows), "a    bb\nccc  d   e\n");
    }

    #[test]
    fn zone_that_failed_shows_file_and_line() {
        let zone = Zone {
            role: "primary".to_owned(),
            refresh_unix_ms: None,
            expires_unix_ms: None,
            name: "cdn.test.".to_owned(),
            file: "cdn.test.zone".to_owned(),
            serial: None,
            records: 0,
            loaded_unix_ms: None,
            problems: vec!["cdn.test.zone:3: found x".to_owned()],
            warnings: Vec::new(),
            signed_until: None,
            waits_for: None,
            catalog: None,
            members: None,
        };
        let text = zones(&[zone]);
        assert!(
            text.contains("  cdn.test.: cdn.test.zone:3: found x\n"),
            "{text}"
        );
    }
}
