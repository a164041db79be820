//! Record types that recursion or validation treat in a way of their own.

pub(in super::super) const A: u16 = 1;
pub(in super::super) const NS: u16 = 2;
pub(in super::super) const CNAME: u16 = 5;
pub(in super::super) const SOA: u16 = 6;
pub(in super::super) const AAAA: u16 = 28;
pub(in super::super) const DNAME: u16 = 39;
pub(in super::super) const OPT: u16 = 41;
pub(in super::super) const DS: u16 = 43;
pub(in super::super) const RRSIG: u16 = 46;
pub(in super::super) const NSEC: u16 = 47;
pub(in super::super) const DNSKEY: u16 = 48;
pub(in super::super) const NSEC3: u16 = 50;
pub(in super::super) const ANY: u16 = 255;
