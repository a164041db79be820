//! One request for one object.
