//! Finds the server's programs.

use super::Error;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The oldest major version whose SQL the migrations use (`NULLS NOT DISTINCT`).
const OLDEST: u32 = 15;

/// Where distributions put the programs, each major version in a folder of its own.
const FOLDERS: [(&str, &str); 2] = [("/usr/lib/postgresql", "bin"), ("/usr", "bin")];

/// The server's programs.
#[derive(Clone, Debug)]
pub(super) struct Binaries {
    /// The folder with `initdb` and `postgres`.
    pub(super) bin: PathBuf,
    /// The major version.
    pub(super) major: u32,
}

/// The given folder, or else the highest version that the distribution installed.
pub(super) fn find(bin: Option<PathBuf>) -> Result<Binaries, Error> {
    let bin = bin.or_else(installed).ok_or(Error::NotFound)?;
    let program = bin.join("postgres");
    let said = Command::new(&program).arg("--version").output().map_err(super::io_error("run", &program))?;
    let major = version(&String::from_utf8_lossy(&said.stdout)).ok_or(Error::NoVersion { program })?;
    if major < OLDEST {
        return Err(Error::TooOld { found: major, bin });
    }
    Ok(Binaries { bin, major })
}

fn installed() -> Option<PathBuf> {
    let complete = |bin: &Path| bin.join("initdb").exists() && bin.join("postgres").exists();
    let (versions, inside) = FOLDERS[0];
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(versions)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join(inside))))
        .filter(|(_, bin)| complete(bin))
        .collect();
    found.sort();
    let plain = Path::new(FOLDERS[1].0).join(FOLDERS[1].1);
    found.pop().map(|(_, bin)| bin).or_else(|| complete(&plain).then_some(plain))
}

/// The major version in `postgres (PostgreSQL) 15.18 (Debian …)`.
fn version(said: &str) -> Option<u32> {
    let number = said.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions() {
        assert_eq!(version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(version("postgres (PostgreSQL) 19devel\n"), Some(19));
        assert_eq!(version("nothing"), None);
    }
}
