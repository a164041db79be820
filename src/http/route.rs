//! Method and target to route. Pure.
