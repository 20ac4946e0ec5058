//! The compiler, from outside.

mod common;
mod examples;
mod properties;
