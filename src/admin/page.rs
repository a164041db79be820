//! The status page: one small table per topic, no script, nothing loaded from elsewhere. Pure.

use std::fmt::Write;

use super::api::{Object, Status};
use crate::config::units::{duration_text, size_text};
use crate::content::name;

/// The page as HTML.
#[must_use]
pub fn render(status: &Status, objects: &[Object]) -> String {
    let mut page = Page::new(status);
    if !status.problems.is_empty() {
        let problems = status.problems.iter().map(|p| vec![p.clone()]);
        page.table("Problems", &["what"], problems);
    }
    let listeners = status.listeners.iter();
    page.table(
        "Listeners",
        &["service", "address"],
        listeners.map(|l| vec![l.service.clone(), l.address.clone()]),
    );
    let zones = status.zones.iter();
    page.table(
        "Zones",
        &["zone", "serial", "records", "file"],
        zones.map(|z| {
            let serial = z.serial.map_or("not loaded".to_owned(), |s| s.to_string());
            vec![
                z.name.clone(),
                serial,
                z.records.to_string(),
                z.file.clone(),
            ]
        }),
    );
    let cache = status.cache.iter();
    page.table(
        "Resolver cache",
        &["entries", "bytes", "hits", "negative", "stale", "misses"],
        cache.map(|c| {
            vec![
                c.entries.to_string(),
                format!("{} of {}", size_text(c.bytes), size_text(c.capacity)),
                c.hits.to_string(),
                c.negative.to_string(),
                c.stale.to_string(),
                c.misses.to_string(),
            ]
        }),
    );
    let shown = objects.iter().take(OBJECTS_SHOWN);
    page.table(
        "Objects",
        &["path", "role", "size", "held"],
        shown.map(|o| {
            vec![
                name::shown(&o.path).into_owned(),
                role_text(o),
                size_text(o.size),
                held_text(o),
            ]
        }),
    );
    if let Some(more @ 1..) = objects.len().checked_sub(OBJECTS_SHOWN) {
        page.line(&format!("and {more} more: headwater content list"));
    }
    let mirrors = status.mirrors.iter();
    page.table(
        "Mirrors",
        &["prefix", "from", "objects", "filling", "problem"],
        mirrors.map(|m| {
            vec![
                m.prefix.clone(),
                m.from.clone(),
                m.objects.to_string(),
                m.filling.to_string(),
                m.problem.clone().unwrap_or_default(),
            ]
        }),
    );
    let links = status.links.iter();
    page.table(
        "Links",
        &["link", "sent", "received", "capacity", "load"],
        links.map(|l| {
            vec![
                l.name.clone(),
                format!("{:.0} MB", l.transmit_bytes / 1e6),
                format!("{:.0} MB", l.receive_bytes / 1e6),
                format!("{:.0} Mbit/s", l.capacity_bytes_per_second * 8.0 / 1e6),
                format!("{:.1} %", l.utilization * 100.0),
            ]
        }),
    );
    page.end()
}

/// Chunks held of an object, as people read it.
#[must_use]
pub fn held_text(object: &Object) -> String {
    if object.held == object.chunks {
        return "100 %".to_owned();
    }
    let percent = u64::from(object.held) * 100 / u64::from(object.chunks.max(1));
    format!("{percent} % ({}/{})", object.held, object.chunks)
}

/// The role of an object, as people read it.
#[must_use]
pub fn role_text(object: &Object) -> String {
    if object.serving {
        object.role.clone()
    } else {
        format!("{}, next version", object.role)
    }
}

struct Page(String);

impl Page {
    fn new(status: &Status) -> Self {
        let node = escape(&status.node);
        let uptime = duration_text(std::time::Duration::from_secs(status.uptime_seconds));
        let version = escape(&status.version);
        Self(format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{node}: headwater</title>\
             <meta name=\"viewport\" content=\"width=device-width\"><style>\
             body{{font:14px system-ui,sans-serif;margin:2em;color-scheme:light dark}}\
             table{{border-collapse:collapse}}td,th{{text-align:left;padding:.2em 1em .2em 0}}\
             td{{font-variant-numeric:tabular-nums}}</style></head><body>\n\
             <h1>{node}</h1><p>headwater {version}, up {uptime}</p>\n"
        ))
    }

    fn table(&mut self, title: &str, columns: &[&str], rows: impl Iterator<Item = Vec<String>>) {
        let mut rows = rows.peekable();
        if rows.peek().is_none() {
            return;
        }
        self.push(&format!("<h2>{title}</h2><table><tr>"));
        for column in columns {
            self.push(&format!("<th>{column}</th>"));
        }
        self.push("</tr>\n");
        for row in rows {
            self.push("<tr>");
            for cell in row {
                self.push(&format!("<td>{}</td>", escape(&cell)));
            }
            self.push("</tr>\n");
        }
        self.push("</table>\n");
    }

    fn line(&mut self, text: &str) {
        self.push(&format!("<p>{}</p>\n", escape(text)));
    }

    fn push(&mut self, html: &str) {
        self.0.push_str(html);
    }

    fn end(mut self) -> String {
        self.push("</body></html>\n");
        self.0
    }
}

/// Text that is safe between tags and in quoted attributes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' | '\'' => {
                let _ = write!(out, "&#{};", u32::from(c)); // writing to a String never fails
            }
            _ => out.push(c),
        }
    }
    out
}

/// Objects on the page; the command line lists all.
const OBJECTS_SHOWN: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_leaves_no_markup() {
        let escaped = escape("<a href=\"x\">&'");
        assert_eq!(escaped, "&lt;a href=&#34;x&#34;&gt;&amp;&#39;");
    }
}
