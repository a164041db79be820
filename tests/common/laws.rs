//! What holds for any bytes: of a message, of zone text, of an upstream's reply, of what other nodes publish. The fuzz targets aim at these functions,
//! and `cargo test` replays their seeds and mutates them.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use headwater::content::catalogue::{Catalogue, SignedCatalogue};
use headwater::content::manifest::{self, Manifest};
use headwater::content::name;
use headwater::content::sign::PublicKey;
use headwater::dns::ZoneConfig;
use headwater::dns::answer::{self, Action, View};
use headwater::dns::resolver::CacheConfig;
use headwater::dns::resolver::cache::{Cache, Cached, Partition};
use headwater::dns::wire::{self, Query, Rcode, Reject};
use headwater::dns::zone::{self, Zones};
use headwater::ftp::path::resolve;
use headwater::metrics::Metrics;
use headwater::peer::beacon::{self, Beacon};
use headwater::peer::exchange::{HaveAnswer, Known, OBJECTS};
use headwater::peer::heard::{Heard, News};
use headwater::peer::message::{Ask, CATALOGUES, Index};
use headwater::peer::secret::{Gate, Secret};
use headwater::peer::tracker::Others;
use headwater::time::Now;

/// A zone with something of everything a lookup meets.
pub(crate) const ZONE: &str = "\
$TTL 300
@ SOA ns host 1 3600 600 86400 60
@ NS ns
ns A 192.0.2.53
www A 192.0.2.1
www A 192.0.2.2
www AAAA 2001:db8::1
alias CNAME www
loop CNAME loop
out CNAME www.elsewhere.example.
dname DNAME sub.dname.other
sub NS ns.sub
ns.sub A 192.0.2.3
*.wild MX 10 www
many TXT \"a\"
";

const NOW: Now = Now {
    mono_ns: 1_000_000_000_000,
    unix_ms: 1_700_000_000_000,
};

/// Any bytes are no manifest, no catalogue and no index of another node, or are one whose every part is within its bounds and
/// that has these bytes alone; and nobody's signature is found behind them.
pub(crate) fn content(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::decode(bytes) {
        assert_eq!(manifest.encode(), bytes);
        assert_eq!(manifest.chunks.len(), manifest.layout.count() as usize);
        assert!(manifest::check_path(&manifest.path).is_ok());
    }
    if let Ok(catalogue) = Catalogue::decode(bytes) {
        assert_eq!(catalogue.encode(), bytes);
        let paths = catalogue.objects.iter().map(|object| &object.path);
        assert!(paths.clone().is_sorted());
        for path in paths {
            assert!(path.starts_with(&catalogue.prefix) && manifest::check_path(path).is_ok());
        }
    }
    let key = PublicKey([9; 32]);
    assert!(Manifest::verify(bytes, |found| found == key).is_err());
    assert!(SignedCatalogue::verify(bytes, key).is_err());
    if let Ok(index) = Index::parse(bytes, "/v/") {
        assert!(
            index
                .objects
                .iter()
                .all(|object| object.path.starts_with("/v/"))
        );
        assert!(index.catalogues.len() <= CATALOGUES);
    }
}

/// Any bytes are no request, announcement or answer of another node, or one that stays within its bounds and reads the same when it is written
/// again; none proves a secret.
pub(crate) fn peer(bytes: &[u8]) {
    let (secret, from) = (Secret::new(b"ours"), IpAddr::from([192, 0, 2, 1]));
    assert!(Beacon::open(bytes, &secret).is_err());
    if let Some(beacon) = Beacon::decode(bytes) {
        assert_eq!(beacon.encode(), bytes);
        assert!(beacon.seal(&secret).len() <= beacon::SIZE);
        assert!(beacon.addresses.len() <= beacon::ADDRESSES && beacon.node.len() <= beacon::NAME);
        let mut heard = Heard::new(Some(secret.clone()), 7, 4, 10);
        let news = heard.take(&beacon.seal(&secret), from, NOW);
        if let Ok(News::Here { addresses, .. } | News::Left(addresses)) = news {
            let bad =
                |a: &SocketAddr| a.ip().is_unspecified() || a.ip().is_multicast() || a.port() == 0;
            assert!(!addresses.iter().any(bad), "{addresses:?}");
        }
        let again = heard.take(&beacon.seal(&secret), from, NOW);
        assert!(again.is_err(), "it counts once");
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let parse = |text: &str| match text.split_once('?') {
            Some((path, query)) => Ask::parse(path, Some(query)),
            None => Ask::parse(text, None),
        };
        if let Ok(ask) = parse(text) {
            assert_eq!(parse(&ask.to_string()), Ok(ask));
        }
        let gate = Gate::new(secret, 4);
        assert!(gate.admit("GET", "/", Some(text), NOW).is_err());
    }
    if let Ok(answer) = HaveAnswer::parse(bytes) {
        assert!(answer.objects.len() <= OBJECTS);
        for holding in &answer.objects {
            let mut known = Known::nothing(20);
            if known.apply(&holding.pages).is_ok() {
                assert!(known.have().held() <= 20);
            }
        }
    }
    if let Some(others) = Others::parse(bytes) {
        assert!(others.peers.len() <= 32);
    }
}

/// A path of an FTP client, whatever its bytes, is refused or leads to one place: beneath the user's home, where an object may stand, and in the
/// file system nowhere else. The first byte says which home.
pub(crate) fn ftp_path(bytes: &[u8]) {
    let Some((home, path)) = bytes.split_first() else {
        return;
    };
    let home = ["/", "/in/", "/h\u{e9}/\u{10FFE9}/"][usize::from(*home) % 3];
    // As the server below hands it on.
    let path = String::from_utf8_lossy(path);
    let Some(found) = resolve(home, &path) else {
        return;
    };
    let top = home.trim_end_matches('/');
    let inner = found.strip_prefix(top).expect("it is beneath the home");
    assert!(inner.is_empty() || inner.starts_with('/'), "{found:?}");
    if found != "/" {
        assert!(manifest::check_path(&found).is_ok(), "{found:?}");
    }
    let file = name::to_bytes(&found);
    assert_eq!(name::from_bytes(&file), found);
    assert!(!file.iter().any(u8::is_ascii_control), "{found:?}");
    let hidden = |n: &[u8]| n.starts_with(b".") && n != b".well-known";
    assert!(!file.split(|b| *b == b'/').any(hidden), "{found:?}");
    assert_eq!(resolve(home, inner).as_ref(), Some(&found));
}

/// Any packet is dropped, or gets an answer within the limit that repeats its id; only runts and responses get none.
pub(crate) fn message(packet: &[u8]) {
    static ZONES: OnceLock<Zones> = OnceLock::new();
    let zones = ZONES.get_or_init(|| {
        let loaded = zone::load_text(&config(), ZONE.as_bytes());
        let loaded = loaded.unwrap_or_else(|problems| panic!("{problems:?}"));
        Zones::new(vec![loaded.zone])
    });
    let mut out = [0; 1232];
    let len = match Query::parse(packet) {
        Err(Reject::Drop) => {
            assert!(packet.len() < wire::HEADER_LEN || packet[2] & 0x80 != 0);
            return;
        }
        Err(Reject::Error(rcode)) => wire::error(packet, rcode, None, &mut out),
        Err(Reject::CookieOnly(_)) => wire::error(packet, Rcode::FormErr, None, &mut out),
        Ok(query) => {
            assert!(query.name.len() <= wire::NAME_MAX);
            let view = View {
                zones,
                cache: None,
                policy: None,
                chain: answer::CHAIN_MAX,
            };
            let limit = wire::udp_limit(&query, 1232);
            match answer::answer(&query, view, NOW, 7, limit, &mut out) {
                Action::Respond { len, .. } => {
                    assert!(len <= limit);
                    len
                }
                Action::Recurse => panic!("there is no resolver"),
            }
        }
    };
    assert!(len >= wire::HEADER_LEN && out[..2] == packet[..2] && out[2] & 0x80 != 0);
}

/// Any text is a zone or has at least one problem; the zone's own text is a zone with as many records.
pub(crate) fn zone_text(text: &[u8]) {
    // It would read whatever files there are.
    if text
        .to_ascii_uppercase()
        .windows(8)
        .any(|w| w == b"$INCLUDE")
    {
        return;
    }
    match zone::load_text(&config(), text) {
        Err(problems) => assert!(!problems.is_empty()),
        Ok(loaded) => {
            let again = loaded.zone.to_text();
            let again = zone::load_text(&config(), again.as_bytes());
            let again = again.unwrap_or_else(|problems| panic!("{problems:?}"));
            assert_eq!(again.zone.records(), loaded.zone.records());
        }
    }
}

/// Any reply to its own question is refused, or answers it within the limit.
pub(crate) fn reply(message: &[u8]) {
    static CACHE: OnceLock<Cache> = OnceLock::new();
    let cache = CACHE.get_or_init(|| {
        let config = CacheConfig {
            size: 1 << 20,
            min_ttl: Duration::ZERO,
            max_ttl: Duration::from_secs(86_400),
            negative_max_ttl: Duration::from_secs(3_600),
            stale: Duration::ZERO,
            stale_wait: Duration::from_secs(1),
            stale_ttl: Duration::from_secs(30),
            failure_ttl: (Duration::from_secs(1), Duration::from_secs(300)),
            entry: 16 << 10,
            records: 100,
            ..CacheConfig::default()
        };
        Cache::new(config, Arc::new(Metrics::new()))
    });
    let Some(question) = message.get(wire::HEADER_LEN..) else {
        return;
    };
    let Some(len) = wire::name_len(question).filter(|len| question.len() >= len + 4) else {
        return;
    };
    let mut packet = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    packet.extend_from_slice(&question[..len + 4]);
    let Ok(query) = Query::parse(&packet) else {
        return;
    };
    if !cache.store(&query, Partition(0), message, NOW) {
        return;
    }
    let mut out = [0; 512];
    match cache.answer(&query, Partition(0), NOW, 512, &mut out) {
        Cached::Fresh { len, .. } | Cached::Stale { len } => {
            assert!((wire::HEADER_LEN..=512).contains(&len));
            assert_eq!(out[..2], packet[..2]);
        }
        Cached::Miss => {}
    }
}

fn config() -> ZoneConfig {
    ZoneConfig {
        name: "example.test.".to_owned(),
        ttl: 300,
        ..ZoneConfig::default()
    }
}

/// Any two fields are directives; a second one never allows more, and what is kept is never what was forbidden.
pub(crate) fn cache_control(bytes: &[u8]) {
    use headwater::http::proxy::freshness::{Defaults, Life, Times, Use};
    use headwater::http::proxy::{control, storable, vary};
    use http::{HeaderMap, HeaderValue, Method, StatusCode};

    let (first, second) = bytes.split_at(bytes.len() / 2);
    let mut headers = HeaderMap::new();
    let mut before: Option<control::Directives> = None;
    for field in [first, second] {
        let Ok(field) = HeaderValue::from_bytes(field) else {
            return;
        };
        let fields = [
            "cache-control",
            "cdn-cache-control",
            "age",
            "date",
            "expires",
            "vary",
        ];
        for name in fields {
            headers.append(name, field.clone());
        }
        let found = control::parse(&headers);
        if let Some(before) = before.replace(found.clone()) {
            assert!(found.no_store >= before.no_store && found.private >= before.private);
            assert!(before.max_age.is_none_or(|age| found.max_age <= Some(age)));
        }
        let (said, targeted) = control::of_response(&headers);
        let ok = StatusCode::OK;
        let times = Times {
            asked: NOW.unix_ms,
            came: NOW.unix_ms,
        };
        let defaults = Defaults {
            ttl: 0,
            on_error: 0,
        };
        let life = Life::of(ok, &headers, &said, targeted, times, defaults);
        let later = NOW.unix_ms + 1_000 * (control::DELTA_MAX + 1);
        let none = control::Directives::default();
        assert_ne!(life.usable(&none, later), Use::Fresh);
        let kept = storable::may_store(&Method::GET, &headers, &none, ok, &headers, &said);
        assert!(!kept || !said.private && (!said.no_store || said.must_understand));
        if let Some(key) = vary::key(&headers, &headers) {
            assert!(vary::matches(&key, None, &headers));
        }
    }
}

/// Any `Range` field, and an `If-Range` behind a zero byte, is a plan within the object whose parts are in order, apart, and as
/// many as may be; and what a range names when it is alone is in the plan.
pub(crate) fn http_range(bytes: &[u8]) {
    use headwater::http::fresh::Validators;
    use headwater::http::range::{Plan, plan};
    use http::{HeaderMap, HeaderValue, Method, header};

    let mut parts = bytes.splitn(2, |b| *b == 0);
    let mut headers = HeaderMap::new();
    for name in [header::RANGE, header::IF_RANGE] {
        let Some(field) = parts.next() else {
            break;
        };
        let Ok(field) = HeaderValue::from_bytes(field) else {
            return;
        };
        headers.insert(name, field);
    }
    let validators = Validators {
        etag: "\"v\"",
        modified: 784_111_777,
    };
    assert_eq!(
        plan(&Method::HEAD, &headers, &validators, 100, 16),
        Plan::Full
    );
    for len in [0, 1, 1_000, u64::MAX] {
        for most in [1, 16] {
            let found = plan(&Method::GET, &headers, &validators, len, most);
            if let Plan::Partial(ranges) = &found {
                assert!((1..=most).contains(&ranges.len()));
                assert!(ranges.iter().all(|r| r.start < r.end && r.end <= len));
                assert!(ranges.windows(2).all(|w| w[0].end < w[1].start));
            }
            // More ranges may be left out than ranges may be, never the other way.
            let fewer = plan(&Method::GET, &headers, &validators, len, most - 1);
            assert!(fewer == found || fewer == Plan::Full);
        }
    }
    let mut whole = headers.clone();
    whole.remove(header::IF_RANGE);
    let bare = plan(&Method::GET, &whole, &validators, 1_000, 16);
    let found = plan(&Method::GET, &headers, &validators, 1_000, 16);
    assert!(found == bare || found == Plan::Full);
}

/// What is read as a plain head is one to the parser of the server too, with the same target and fields, passes the screen, and
/// has a path that is its own normal form.
pub(crate) fn http_plain(bytes: &[u8]) {
    use headwater::http::{plain, route, screen};

    let Some(plain) = plain::read(bytes, 20) else {
        return;
    };
    let mut fields = [httparse::EMPTY_HEADER; 20];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request.parse(bytes);
    assert_eq!(parsed, Ok(httparse::Status::Complete(plain.len)));
    assert_eq!((request.method, request.version), (Some("GET"), Some(1)));
    assert_eq!(request.path, Some(plain.target));
    let uri: http::Uri = plain.target.parse().expect("a target is a URI");
    assert_eq!(uri.path(), plain.path);
    let target = uri.path_and_query().map(|target| target.as_str());
    assert_eq!(target, Some(plain.target));
    assert_eq!(route::normalise(plain.path).as_deref(), Ok(plain.path));
    let own = plain.fields();
    assert_eq!(own.len(), request.headers.len());
    for field in request.headers.iter() {
        let same = |value: &http::HeaderValue| value.as_bytes() == field.value;
        assert!(own.get_all(field.name).iter().any(same));
    }
    let first = |name: &str| own.get(name).map(http::HeaderValue::as_bytes);
    assert_eq!(own.get_all("host").iter().count(), 1);
    assert_eq!(first("host"), Some(plain.host));
    assert_eq!(first("referer"), plain.referer);
    assert_eq!(first("user-agent"), plain.agent);
    let caching = ["cache-control", "pragma", "via"].map(|name| own.contains_key(name));
    assert_eq!(plain.caching, caching.contains(&true));
    let mut screen = screen::Screen::default();
    assert_eq!(screen.look(&mut bytes[..plain.len].to_vec()), Ok(()));
    assert!(!screen.leaves_bytes());
}
