//! The daemon: build, bind, load, run, drain.
