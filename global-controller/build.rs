//! The migrations are part of the program: a new one builds it anew.

use std::io::Write as _;

fn main() -> std::io::Result<()> {
    writeln!(std::io::stdout(), "cargo::rerun-if-changed=../migrations")
}
