//! Verified chunks as a response body.
