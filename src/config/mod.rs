//! Settings: layers (embedded defaults, file, environment, command line), then the topics' own types.
