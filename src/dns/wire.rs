//! DNS messages on the wire: a borrowed, checked view of a query, and error answers.

/// Response codes used here (RFC 1035, RFC 6891).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Rcode {
    /// No error.
    NoError = 0,
    /// Malformed query.
    FormErr = 1,
    /// Failure here or upstream.
    ServFail = 2,
    /// The name does not exist.
    NxDomain = 3,
    /// Operation not served.
    NotImp = 4,
    /// Not for this client.
    Refused = 5,
    /// EDNS version not known.
    BadVers = 16,
}

/// The EDNS part of a query (RFC 6891).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// The client's UDP payload size, bytes, as sent.
    pub payload: u16,
    /// EDNS version; only 0 is known.
    pub version: u8,
    /// The DO bit.
    pub dnssec_ok: bool,
}

/// A standard query with one question, borrowed from the packet it came in.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The whole packet.
    pub packet: &'a [u8],
    /// Query id.
    pub id: u16,
    /// RD.
    pub recursion_desired: bool,
    /// CD.
    pub checking_disabled: bool,
    /// The question's name in wire form, case as asked, at most 255 bytes, never compressed.
    pub name: &'a [u8],
    /// QTYPE.
    pub qtype: u16,
    /// QCLASS.
    pub qclass: u16,
    /// The OPT record, if one came.
    pub edns: Option<Edns>,
}

/// Why a packet is not a [`Query`], and what the client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// A response, or too short for a header: no answer.
    Drop,
    /// An answer with this code (see [`error`]).
    Error(Rcode),
}

impl<'a> Query<'a> {
    /// Reads a packet. QDCOUNT other than 1, names that loop or run over, more than one OPT: FORMERR;
    /// an opcode other than QUERY: NOTIMP; EDNS version above 0: BADVERS.
    ///
    /// # Errors
    /// See [`Reject`].
    pub fn parse(packet: &'a [u8]) -> Result<Self, Reject> {
        let _ = packet;
        unimplemented!("filled in by dns/wire")
    }

    /// Name, type and class as sent: what an answer repeats.
    #[must_use]
    pub fn question(&self) -> &'a [u8] {
        &self.packet[12..12 + self.name.len() + 4]
    }
}

/// Writes an answer that is only a code: header, the question if it can be read, OPT if the query had one.
/// Returns its length. Works on any packet of at least a header.
#[must_use]
pub fn error(packet: &[u8], rcode: Rcode, out: &mut [u8]) -> usize {
    let _ = (packet, rcode, out);
    unimplemented!("filled in by dns/wire")
}
