//! A directory's listing, for people (HTML) and for programs (JSON, the fields nginx gives its own). Pure.

use std::borrow::Cow;
use std::fmt::Write as _;

use http::{HeaderMap, header};
use serde::Serialize;

use super::fresh::http_date;
use super::rules::encode;
use crate::content::library::Listed;
use crate::content::name;

/// Whether the client would rather have JSON than HTML (RFC 9110 section 12.5.1).
#[must_use]
pub fn wants_json(headers: &HeaderMap) -> bool {
    let (mut json, mut html) = (Weight::default(), Weight::default());
    for field in headers.get_all(header::ACCEPT) {
        for range in field.to_str().unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let weight = parts
                .find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok())
                .unwrap_or(1.0);
            json.note(kind, "application", "json", weight);
            html.note(kind, "text", "html", weight);
        }
    }
    json.value > html.value
}

/// The weight of a media type, by the range that names it most exactly.
#[derive(Default)]
struct Weight {
    exact: u8,
    value: f32,
}

impl Weight {
    fn note(&mut self, range: &str, kind: &str, sub: &str, weight: f32) {
        let (range_kind, range_sub) = range.split_once('/').unwrap_or((range, ""));
        let exact = if range_kind.eq_ignore_ascii_case(kind) && range_sub.eq_ignore_ascii_case(sub)
        {
            3
        } else if range_kind.eq_ignore_ascii_case(kind) && range_sub == "*" {
            2
        } else if range == "*/*" {
            1
        } else {
            return;
        };
        if exact > self.exact {
            *self = Self {
                exact,
                value: weight,
            };
        }
    }
}

/// As a page.
#[must_use]
pub fn html(path: &str, items: &[Listed], more: bool) -> String {
    let title = escape(&name::shown(path));
    let mut html = format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<h1>{title}</h1>\n"
    );
    if path != "/" {
        html.push_str("<p><a href=\"../\">../</a></p>\n");
    }
    html.push_str("<ul>\n");
    for item in items {
        // "./" keeps a name such as "a:b" from reading as another scheme.
        let _ = write!(
            html,
            "<li><a href=\"./{}\">{}</a>",
            encode(&item.name),
            escape(&name::shown(&item.name))
        );
        if let Some(file) = item.file {
            let at = http_date(file.modified);
            let _ = write!(html, " <small>{} bytes, {at}</small>", file.size);
        }
        html.push('\n');
    }
    html.push_str("</ul>\n");
    if more {
        let _ = writeln!(html, "<p>{} names, and there are more", items.len());
    }
    html
}

/// One name, as nginx's `autoindex_format json` has it.
#[derive(Serialize)]
struct Item<'a> {
    name: Cow<'a, str>,
    /// What leads there, if the name does not: JSON has no bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtime: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
}

/// As JSON: an array of objects.
#[must_use]
pub fn json(items: &[Listed]) -> String {
    let items = items.iter().map(|item| Item {
        name: name::shown(item.name.trim_end_matches('/')),
        url: (name::shown(&item.name) != item.name).then(|| encode(&item.name)),
        kind: if item.file.is_some() {
            "file"
        } else {
            "directory"
        },
        mtime: item.file.map(|file| http_date(file.modified)),
        size: item.file.map(|file| file.size),
    });
    serde_json::to_string(&items.collect::<Vec<_>>()).unwrap_or_default()
}

/// Escapes text for HTML and XML.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::library::ListedFile;

    #[track_caller]
    fn check(accept: &str, json: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        assert_eq!(wants_json(&headers), json, "{accept}");
    }

    #[test]
    fn json_is_given_to_whom_it_is_dearer() {
        assert!(!wants_json(&HeaderMap::new()));
        check("*/*", false);
        check("application/json", true);
        check("Application/JSON;q=0.5", true);
        check("text/html, application/json;q=0.9, */*;q=0.1", false);
        check("application/json, text/html;q=0.9", true);
        check("application/json;q=0, */*", false);
        check("application/*, */*;q=0.1", true);
        check("text/html,application/xhtml+xml,*/*;q=0.8", false);
        check("application/json;q=x, text/html", false);
    }

    #[test]
    fn name_in_a_listing_can_neither_end_its_link_nor_its_text() {
        assert_eq!(
            escape("<a href='x'>\"&"),
            "&lt;a href=&#39;x&#39;&gt;&quot;&amp;"
        );
        let file = Some(ListedFile {
            size: 7,
            modified: 0,
        });
        let odd = Listed {
            name: "a\"b\u{1}".into(),
            file,
        };
        let inner = Listed {
            name: "inner/".into(),
            file: None,
        };
        assert_eq!(
            json(&[odd, inner]),
            r#"[{"name":"a\"b\u0001","type":"file","mtime":"Thu, 01 Jan 1970 00:00:00 GMT","size":7},{"name":"inner","type":"directory"}]"#
        );
    }
}
