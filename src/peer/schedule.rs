//! Which chunk to fetch next, from whom. Pure.
