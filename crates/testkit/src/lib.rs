//! Builders and fakes for tests; a dev-dependency only. Everything here panics with what went wrong instead of returning it: a test has no other
//! use for an error. A missing prerequisite (root, PostgreSQL, `ip`) fails the test and says what to install; it never skips.

pub mod agent;
pub mod build;
pub mod ca;
pub mod clock;
mod keeper;
pub mod netlab;
pub mod postgres;
pub mod process;
pub mod wait;
