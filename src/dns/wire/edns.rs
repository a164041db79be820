//! The OPT record (RFC 6891): what that of a query asks for, and what that of an answer carries.

use super::PAYLOAD;
use super::ede::Reason;

/// The EDNS part of a query (RFC 6891).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// The client's UDP payload size, bytes, as sent.
    pub payload: u16,
    /// EDNS version; only 0 is known.
    pub version: u8,
    /// The DO bit.
    pub dnssec_ok: bool,
    /// The options that change an answer; those of another version are not read.
    pub options: Options,
}

/// The options of a query that change its answer. Others are ignored (RFC 6891 section 6.1.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Bits `NSID_ASKED` to `MORE`.
    asked: u8,
    /// Bytes of the first COOKIE; 0: none.
    cookie_len: u8,
    /// Where it lies in the packet.
    cookie_at: u16,
}

/// A COOKIE option (RFC 7873).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie<'a> {
    /// The client's part.
    pub client: &'a [u8; CLIENT_COOKIE],
    /// What the client believes to be the server's part: empty, or 8 to 32 bytes.
    pub server: &'a [u8],
}

impl Options {
    /// Whether none came that changes an answer, and none was left out.
    #[inline]
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.asked == 0 && self.cookie_len == 0
    }

    /// NSID (RFC 5001): the server shall name itself.
    #[must_use]
    pub fn nsid(self) -> bool {
        self.asked & NSID_ASKED != 0
    }

    /// edns-tcp-keepalive (RFC 7828): the server shall say how long a connection may be idle.
    #[must_use]
    pub fn keepalive(self) -> bool {
        self.asked & KEEPALIVE_ASKED != 0
    }

    /// Padding (RFC 7830): the answer shall be padded where the transport is encrypted.
    #[must_use]
    pub fn padding(self) -> bool {
        self.asked & PADDED != 0
    }

    /// Whether there were more than were looked at.
    #[inline]
    #[must_use]
    pub fn more(self) -> bool {
        self.asked & MORE != 0
    }

    /// The COOKIE of the packet these were read from.
    #[must_use]
    pub fn cookie(self, packet: &[u8]) -> Option<Cookie<'_>> {
        let at = usize::from(self.cookie_at);
        let cookie = packet.get(at..at + usize::from(self.cookie_len))?;
        let (client, server) = cookie.split_first_chunk()?;
        Some(Cookie { client, server })
    }

    /// Reads the first `bound` options of `packet[at..end]`. Of several COOKIEs the first counts (RFC 7873
    /// section 5.2). `None`: one runs over, or a COOKIE has a length that none can have.
    pub(super) fn read(packet: &[u8], mut at: usize, end: usize, bound: usize) -> Option<Self> {
        let mut options = Self::default();
        let mut left = bound;
        while at != end {
            if left == 0 {
                options.asked |= MORE;
                break;
            }
            left -= 1;
            let &[c0, c1, l0, l1] = packet.get(at..at + 4)? else {
                return None;
            };
            let len = usize::from(u16::from_be_bytes([l0, l1]));
            at += 4;
            if at + len > end {
                return None;
            }
            match u16::from_be_bytes([c0, c1]) {
                NSID => options.asked |= NSID_ASKED,
                KEEPALIVE => options.asked |= KEEPALIVE_ASKED,
                PADDING => options.asked |= PADDED,
                COOKIE if options.cookie_len == 0 => {
                    if !matches!(len, 8 | 16..=40) {
                        return None;
                    }
                    // Both fit: at most 40 bytes, in a message of at most 65,535.
                    (options.cookie_at, options.cookie_len) = (at as u16, len as u8);
                }
                _ => {}
            }
            at += len;
        }
        Some(options)
    }
}

/// What the OPT of an answer carries whatever the answer is: made by the engine once per query, with
/// [`OptionsOut`]. Room for it is set aside before the first record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extra<'a> {
    /// Options in wire form, at most [`OPTIONS_OUT_MAX`] bytes.
    pub options: &'a [u8],
    /// The answer is padded to a multiple of this (RFC 8467); 0: not at all.
    pub block: u16,
}

/// Options for an answer, in wire form.
#[derive(Clone, Copy, Debug)]
pub struct OptionsOut {
    bytes: [u8; OPTIONS_OUT_MAX],
    len: usize,
}

impl OptionsOut {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bytes: [0; OPTIONS_OUT_MAX],
            len: 0,
        }
    }

    /// Adds the server's identifier, of which at most [`NSID_MAX`] bytes.
    pub fn nsid(&mut self, identifier: &[u8]) {
        self.add(NSID, &[&identifier[..identifier.len().min(NSID_MAX)]]);
    }

    /// Adds a COOKIE of both parts.
    pub fn cookie(&mut self, client: &[u8; CLIENT_COOKIE], server: &[u8; SERVER_COOKIE]) {
        self.add(COOKIE, &[client, server]);
    }

    /// Adds how long an idle connection is kept, in units of 100 ms.
    pub fn keepalive(&mut self, timeout: u16) {
        self.add(KEEPALIVE, &[&timeout.to_be_bytes()]);
    }

    /// The options added.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn add(&mut self, code: u16, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        // Each kind comes at most once, so there is room.
        let head = u32::from(code) << 16 | len as u32; // At most `NSID_MAX`.
        let head = head.to_be_bytes();
        for part in [&head[..]].iter().chain(parts) {
            let end = self.len + part.len();
            self.bytes[self.len..end].copy_from_slice(part);
            self.len = end;
        }
    }
}

impl Default for OptionsOut {
    fn default() -> Self {
        Self::new()
    }
}

/// The OPT of an answer.
#[derive(Clone, Copy, Debug)]
pub(in crate::dns) struct Opt<'a> {
    pub(in crate::dns) dnssec_ok: bool,
    pub(in crate::dns) extra: Extra<'a>,
    pub(in crate::dns) reasons: [Option<Reason>; REASONS_MAX],
}

impl Opt<'_> {
    /// Bytes it takes, padding not counted.
    #[inline]
    pub(in crate::dns) fn len(&self) -> usize {
        let reasons: usize = self.reasons.iter().flatten().map(|r| r.len()).sum();
        OPT_LEN + self.extra.options.len() + reasons
    }

    /// Writes it at `at`, where there is room for [`len`](Self::len) bytes, and pads, at most up to `limit`. `extended`: the
    /// upper bits of the response code. Returns where it ends.
    #[inline]
    pub(in crate::dns) fn write(
        &self,
        extended: u8,
        out: &mut [u8],
        at: usize,
        limit: usize,
    ) -> usize {
        let size = PAYLOAD.to_be_bytes();
        let flags = if self.dnssec_ok { EDNS_DO } else { 0 };
        let head = [0, 0, 41, size[0], size[1], extended, 0, flags, 0, 0, 0];
        out[at..at + OPT_LEN].copy_from_slice(&head);
        if self.extra == Extra::default() && self.reasons[0].is_none() {
            return at + OPT_LEN;
        }
        self.write_options(out, at, limit)
    }

    fn write_options(&self, out: &mut [u8], at: usize, limit: usize) -> usize {
        let start = at + OPT_LEN;
        let mut end = start + self.extra.options.len();
        out[start..end].copy_from_slice(self.extra.options);
        for reason in self.reasons.iter().flatten() {
            let len = reason.len();
            let option = &mut out[end..end + len];
            option[..2].copy_from_slice(&EDE.to_be_bytes());
            option[2..4].copy_from_slice(&((len - 4) as u16).to_be_bytes()); // A short text.
            option[4..6].copy_from_slice(&(reason.code as u16).to_be_bytes());
            option[6..].copy_from_slice(reason.text.as_bytes());
            end += len;
        }
        let block = usize::from(self.extra.block);
        let limit = limit.min(out.len());
        if block > 0 && end + 4 <= limit {
            let padded = (end + 4).next_multiple_of(block).min(limit);
            let len = (padded - end - 4) as u16; // Below `block`.
            out[end..end + 2].copy_from_slice(&PADDING.to_be_bytes());
            out[end + 2..end + 4].copy_from_slice(&len.to_be_bytes());
            out[end + 4..padded].fill(0);
            end = padded;
        }
        let len = ((end - start) as u16).to_be_bytes(); // Within a message.
        out[start - 2..start].copy_from_slice(&len);
        end
    }
}

/// The block that answers over encrypted transports are padded to (RFC 8467 section 4.1).
pub const BLOCK: u16 = 468;

/// The longest identifier given as NSID, bytes.
pub const NSID_MAX: usize = 64;

/// Bytes of a client's cookie, and of the cookies made here (RFC 9018).
pub const CLIENT_COOKIE: usize = 8;
/// See [`CLIENT_COOKIE`].
pub const SERVER_COOKIE: usize = 16;

/// The most that [`OptionsOut`] takes, bytes.
pub const OPTIONS_OUT_MAX: usize = (4 + NSID_MAX) + (4 + CLIENT_COOKIE + SERVER_COOKIE) + (4 + 2);

/// Reasons in one answer.
pub(super) const REASONS_MAX: usize = 2;

/// An OPT without options, bytes.
pub(super) const OPT_LEN: usize = 11;

pub(super) const EDNS_DO: u8 = 0x80;

const NSID: u16 = 3;
const COOKIE: u16 = 10;
const KEEPALIVE: u16 = 11;
const PADDING: u16 = 12;
pub(in crate::dns) const EDE: u16 = 15;

const NSID_ASKED: u8 = 1;
const KEEPALIVE_ASKED: u8 = 2;
const PADDED: u8 = 4;
const MORE: u8 = 8;
