//! One request to one node: index, manifest or chunk, with time and size bounds.
