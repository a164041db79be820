//! How old a response is and how long it may be used (RFC 9111 sections 4.2 and 5.2, RFC 5861). Pure.

use http::{HeaderMap, StatusCode, header};

use super::control::{DELTA_MAX, Directives};
use super::date;

/// When a response was asked for and when its head came, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// The request left.
    pub asked: u64,
    /// The head came.
    pub came: u64,
}

/// The life of a stored response. All moments in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// When it was made, as far as can be told: its age is counted from here.
    pub born: u64,
    /// Fresh until then.
    pub fresh: u64,
    /// Served stale until then, while it is validated.
    pub revalidate: u64,
    /// Served stale until then, when the upstream fails.
    pub on_error: u64,
    /// Validated before every use.
    pub always: bool,
    /// Never served stale, whoever asks.
    pub strict: bool,
}

/// What an upstream's silence about freshness means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Freshness of responses that state none, seconds; 0: the heuristics of RFC 9111 section 4.2.2.
    pub ttl: u64,
    /// How long a response that does not say may be served stale when the upstream fails, seconds.
    pub on_error: u64,
}

/// How a stored response may be used for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// As it is.
    Fresh,
    /// As it is, though stale: the client said that it would do.
    Accepted,
    /// At once, while it is validated beside.
    WhileRevalidating,
    /// After validation.
    Validate,
}

impl Life {
    /// The life of a response with these header fields; `targeted` says that its directives are meant for caches
    /// like this one, so that `Expires` does not count.
    #[must_use]
    pub fn of(
        status: StatusCode,
        headers: &HeaderMap,
        directives: &Directives,
        targeted: bool,
        times: Times,
        defaults: Defaults,
    ) -> Self {
        let born = times.came.saturating_sub(initial_age(headers, times));
        let lifetime = lifetime(status, headers, directives, targeted, times, defaults);
        let fresh = born.saturating_add(lifetime * 1_000);
        let strict = directives.must_revalidate
            || directives.proxy_revalidate
            || directives.s_maxage.is_some()
            || directives.no_cache;
        let stale = |seconds: u64| {
            if strict {
                fresh
            } else {
                fresh.saturating_add(seconds.min(DELTA_MAX) * 1_000)
            }
        };
        Self {
            born,
            fresh,
            revalidate: stale(directives.stale_while_revalidate.unwrap_or(0)),
            on_error: stale(directives.stale_if_error.unwrap_or(defaults.on_error)),
            always: directives.no_cache,
            strict,
        }
    }

    /// Its age at `now`, seconds.
    #[must_use]
    pub fn age(&self, now: u64) -> u64 {
        now.saturating_sub(self.born) / 1_000
    }

    /// For how many seconds it is fresh yet; negative: for how long it has been stale.
    #[must_use]
    pub fn left(&self, now: u64) -> i64 {
        let seconds = |ms: u64| i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
        if now < self.fresh {
            seconds(self.fresh - now)
        } else {
            -seconds(now - self.fresh)
        }
    }

    /// Whether it may be used for a request with these directives, and how (section 4.2).
    #[must_use]
    pub fn usable(&self, request: &Directives, now: u64) -> Use {
        if self.always || request.no_cache {
            return Use::Validate;
        }
        if request
            .max_age
            .is_some_and(|max| self.age(now) >= max.max(1) && self.age(now) > max)
            || request.max_age == Some(0)
        {
            return Use::Validate;
        }
        let wanted = request.min_fresh.unwrap_or(0).saturating_mul(1_000);
        if now.saturating_add(wanted) < self.fresh {
            return Use::Fresh;
        }
        if self.strict || request.min_fresh.is_some() {
            return Use::Validate;
        }
        if let Some(stale) = request.max_stale
            && now.saturating_sub(self.fresh) / 1_000 <= stale
        {
            return Use::Accepted;
        }
        // A client that names an age wants no older one.
        if now < self.revalidate && request.max_age.is_none() {
            return Use::WhileRevalidating;
        }
        Use::Validate
    }

    /// Whether it may stand in for an upstream that fails (RFC 5861 section 4).
    #[must_use]
    pub fn stands_in(&self, now: u64) -> bool {
        now < self.on_error
    }

    /// From now on it has to be validated.
    #[must_use]
    pub fn stale(mut self, now: u64) -> Self {
        self.fresh = self.fresh.min(now);
        self.revalidate = self.revalidate.min(now);
        self.on_error = self.on_error.min(now);
        self
    }
}

/// Its age as it came, milliseconds (section 4.2.3).
fn initial_age(headers: &HeaderMap, times: Times) -> u64 {
    let made = date::field(headers, &header::DATE).flatten();
    let apparent = made.map_or(0, |made| {
        times.came.saturating_sub(made * 1_000) / 1_000 * 1_000
    });
    let delay = times.came.saturating_sub(times.asked);
    let corrected = stated_age(headers) * 1_000 + delay;
    apparent.max(corrected)
}

/// The `Age` field, seconds: of a list the first; what is no number does not count (section 5.1).
fn stated_age(headers: &HeaderMap) -> u64 {
    let Some(field) = headers.get(header::AGE) else {
        return 0;
    };
    let first = field.as_bytes().split(|b| *b == b',').next().unwrap_or(&[]);
    first
        .trim_ascii()
        .iter()
        .try_fold(0u64, |sum, b| {
            b.is_ascii_digit()
                .then(|| (sum * 10 + u64::from(b - b'0')).min(DELTA_MAX))
        })
        .unwrap_or(0)
}

/// How long it is fresh from its making, seconds (section 4.2.1).
fn lifetime(
    status: StatusCode,
    headers: &HeaderMap,
    directives: &Directives,
    targeted: bool,
    times: Times,
    defaults: Defaults,
) -> u64 {
    if let Some(seconds) = directives.s_maxage.or(directives.max_age) {
        return seconds;
    }
    let made = date::field(headers, &header::DATE)
        .flatten()
        .unwrap_or(times.came / 1_000);
    if !targeted && let Some(expires) = date::field(headers, &header::EXPIRES) {
        return expires
            .map_or(0, |at| at.saturating_sub(made))
            .min(DELTA_MAX);
    }
    if defaults.ttl > 0 && has_default(status) {
        return defaults.ttl;
    }
    if !is_heuristic(status) && !directives.public {
        return 0;
    }
    match date::field(headers, &header::LAST_MODIFIED) {
        Some(Some(modified)) => (made.saturating_sub(modified) / 10).min(HEURISTIC_MAX),
        _ => 0,
    }
}

/// Whether a response of this status may be fresh without saying so (RFC 9110 section 15.1).
#[must_use]
pub fn is_heuristic(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501
    )
}

/// Whether the configured freshness applies: an error is not kept for it.
fn has_default(status: StatusCode) -> bool {
    is_heuristic(status) && status.as_u16() < 400
}

/// No guess goes beyond a day.
const HEURISTIC_MAX: u64 = 86_400;

#[cfg(test)]
mod tests {
    use super::super::control;
    use super::*;
    use crate::http::fresh::http_date;
    use proptest::prelude::*;

    const CAME: u64 = 1_700_000_000;
    const NO_DEFAULTS: Defaults = Defaults {
        ttl: 0,
        on_error: 0,
    };

    fn life(fields: &[(&'static str, String)], defaults: Defaults) -> Life {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let (directives, targeted) = control::of_response(&headers);
        let times = Times {
            asked: CAME * 1_000,
            came: CAME * 1_000,
        };
        Life::of(
            StatusCode::OK,
            &headers,
            &directives,
            targeted,
            times,
            defaults,
        )
    }

    /// Seconds it is fresh as it comes.
    #[track_caller]
    fn check(fields: &[(&'static str, &str)], expected: i64) {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| {
                // A date is written as its distance from now.
                let date = value.strip_prefix('@').map(|by| {
                    let by: i64 = by.parse().unwrap();
                    http_date(CAME.saturating_add_signed(by))
                });
                (*name, date.unwrap_or_else(|| (*value).to_owned()))
            })
            .collect();
        let life = life(&fields, NO_DEFAULTS);
        assert_eq!(life.left(CAME * 1_000), expected, "{fields:?}");
    }

    #[test]
    fn lifetime_follows_the_strongest_statement() {
        check(&[("cache-control", "max-age=60")], 60);
        check(&[("cache-control", "max-age=60, s-maxage=10")], 10);
        check(&[("cache-control", "max-age=60"), ("expires", "@5")], 60);
        check(&[("expires", "@5"), ("date", "@0")], 5);
        check(&[("expires", "@300"), ("date", "@400")], 0);
        check(
            &[
                ("cdn-cache-control", "max-age=9"),
                ("cache-control", "max-age=1"),
            ],
            9,
        );
        check(&[("cdn-cache-control", "foo"), ("expires", "@50")], 0);
        check(&[("expires", "0")], 0);
        check(&[], 0);
    }

    #[test]
    fn age_shortens_what_is_left() {
        check(&[("cache-control", "max-age=60"), ("age", "50")], 10);
        check(&[("cache-control", "max-age=60"), ("date", "@-20")], 40);
        check(
            &[("cache-control", "max-age=60"), ("age", "7200, 0")],
            -7140,
        );
        check(&[("cache-control", "max-age=60"), ("age", "0, 7200")], 60);
        check(&[("cache-control", "max-age=60"), ("age", "7200.0")], 60);
        check(&[("cache-control", "max-age=60"), ("age", "-5")], 60);
    }

    #[test]
    fn heuristic_is_a_tenth_of_its_age_and_at_most_a_day() {
        check(&[("last-modified", "@-1000"), ("date", "@0")], 100);
        check(&[("last-modified", "@-100000000"), ("date", "@0")], 86_400);
        check(&[("last-modified", "@50"), ("date", "@0")], 0);
    }

    #[test]
    fn configured_freshness_counts_only_where_none_is_stated() {
        let defaults = Defaults {
            ttl: 30,
            on_error: 0,
        };
        let at = CAME * 1_000;
        assert_eq!(life(&[], defaults).left(at), 30);
        let stated = [("cache-control", "max-age=0".to_owned())];
        assert_eq!(life(&stated, defaults).left(at), 0);
    }

    #[test]
    fn windows_of_rfc_5861_begin_where_freshness_ends() {
        let fields = [(
            "cache-control",
            "max-age=1, stale-while-revalidate=4, stale-if-error=9".to_owned(),
        )];
        let life = life(&fields, NO_DEFAULTS);
        let at = |seconds: u64| (CAME + seconds) * 1_000;
        let none = Directives::default();
        assert_eq!(life.usable(&none, at(0)), Use::Fresh);
        assert_eq!(life.usable(&none, at(1)), Use::WhileRevalidating);
        assert_eq!(life.usable(&none, at(5)), Use::Validate);
        assert!(life.stands_in(at(9)) && !life.stands_in(at(10)));
    }

    #[test]
    fn strict_response_is_never_served_stale() {
        for strict in [
            "must-revalidate",
            "proxy-revalidate",
            "s-maxage=1",
            "no-cache",
        ] {
            let text = format!("max-age=1, stale-while-revalidate=60, stale-if-error=60, {strict}");
            let life = life(&[("cache-control", text)], NO_DEFAULTS);
            let later = (CAME + 2) * 1_000;
            let patient = Directives {
                max_stale: Some(u64::MAX),
                ..Directives::default()
            };
            assert_eq!(life.usable(&patient, later), Use::Validate, "{strict}");
            assert!(!life.stands_in(later), "{strict}");
        }
    }

    #[test]
    fn client_can_ask_for_less_or_more() {
        let life = life(
            &[
                ("cache-control", "max-age=100".to_owned()),
                ("age", "50".to_owned()),
            ],
            NO_DEFAULTS,
        );
        let now = CAME * 1_000;
        let with = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("cache-control", text.parse().unwrap());
            control::of_request(&headers)
        };
        assert_eq!(life.usable(&with("max-age=0"), now), Use::Validate);
        assert_eq!(life.usable(&with("max-age=49"), now), Use::Validate);
        assert_eq!(life.usable(&with("max-age=60"), now), Use::Fresh);
        assert_eq!(life.usable(&with("min-fresh=60"), now), Use::Validate);
        assert_eq!(life.usable(&with("no-cache"), now), Use::Validate);
        let later = now + 100_000;
        assert_eq!(life.usable(&with("max-stale=100"), later), Use::Accepted);
        assert_eq!(life.usable(&with("max-stale=10"), later), Use::Validate);
    }

    proptest! {
        #[test]
        fn response_never_gets_fresher(
            max_age in 0u64..1_000_000, age in 0u64..1_000_000, date in -1_000i64..1_000,
            delay in 0u64..10_000, a in 0u64..2_000_000, b in 0u64..2_000_000,
        ) {
            let mut headers = HeaderMap::new();
            headers.insert("age", age.into());
            let date = http_date(CAME.saturating_add_signed(date));
            headers.insert("date", date.parse().unwrap());
            let directives = Directives { max_age: Some(max_age), ..Directives::default() };
            let times = Times { asked: CAME * 1_000 - delay, came: CAME * 1_000 };
            let life = Life::of(StatusCode::OK, &headers, &directives, false, times, NO_DEFAULTS);
            prop_assert!(life.age(times.came) >= age);
            let (first, second) = (times.came + a.min(b), times.came + a.max(b));
            prop_assert!(life.left(second) <= life.left(first));
            if life.usable(&Directives::default(), second) == Use::Fresh {
                prop_assert_eq!(life.usable(&Directives::default(), first), Use::Fresh);
                prop_assert!(life.age(second) <= max_age);
            }
        }
    }
}
