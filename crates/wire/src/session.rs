//! Feed sessions, sans-I/O.
