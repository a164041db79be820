//! What part of an object a request gets (RFC 9110 section 14). Pure.
