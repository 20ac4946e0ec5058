//! A bearer token that lies in a file, and is replaced there before it expires.

use std::{io, path::PathBuf};
use tokio::io::AsyncReadExt as _;

/// A token of a service account is about a kilobyte.
const LONGEST: u64 = 64 << 10;

/// Where the token is. It is read for each request: requests are few, the file is in memory, and a token that was
/// replaced is used from then on.
#[derive(Clone, Debug)]
pub struct TokenFile(PathBuf);

impl TokenFile {
    /// The token in this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    #[must_use]
    pub const fn path(&self) -> &PathBuf {
        &self.0
    }

    pub(crate) async fn read(&self) -> io::Result<String> {
        let mut text = String::new();
        tokio::fs::File::open(&self.0).await?.take(LONGEST).read_to_string(&mut text).await?;
        match text.trim() {
            "" => Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty")),
            token => Ok(token.to_owned()),
        }
    }
}
