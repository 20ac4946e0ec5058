//! The last good state on disk. Written whole beside the old one and renamed over it, so that a reader finds
//! either the one or the other; its digest tells when the disk lies.

use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};
use thiserror::Error;
use tombolo_model::{
    Generation,
    snapshot::{Resource, Resources},
};
use tombolo_wire::{digest::Sum, message::Digest};

/// The layout of the file; another one is not read.
const FORMAT: u32 = 1;

#[derive(Serialize)]
struct Written<'a, R: Resource> {
    format: u32,
    generation: Generation,
    digest: Digest,
    seal: Digest,
    #[serde(bound = "R: Resource")]
    resources: &'a Resources<R>,
}

#[derive(Deserialize)]
#[serde(bound = "R: Resource")]
struct Read<R> {
    format: u32,
    generation: Generation,
    digest: Digest,
    /// Over digest and generation: a wrong number would be taken for a state that nobody has, or a newer one than there is. None in what
    /// an older version wrote.
    #[serde(default)]
    seal: Option<Digest>,
    resources: Resources<R>,
}

/// Why a state could not be kept, or a kept one not be used.
#[derive(Debug, Error)]
pub enum CacheError {
    /// The file system says no.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Not a state as this build writes it.
    #[error("{} is not a kept state; it is ignored, and replaced at the next change", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// Another layout, or a digest that the content does not have.
    #[error("{} {what}; it is ignored, and replaced at the next change", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
}

/// Reads the kept state; nothing where none was ever kept.
///
/// # Errors
/// [`CacheError`]; go on without.
pub fn load<R: Resource>(path: &Path) -> Result<Option<(Generation, Resources<R>)>, CacheError> {
    let io = |source| CacheError::Io { action: "read", path: path.to_owned(), source };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(io)?,
    };
    read(path, BufReader::new(file)).map(Some)
}

/// Reads a kept state from anywhere; `path` is for what is said of it.
///
/// # Errors
/// [`CacheError`]; go on without.
pub fn read<R: Resource>(path: &Path, from: impl io::Read) -> Result<(Generation, Resources<R>), CacheError> {
    let io = |source| CacheError::Io { action: "read", path: path.to_owned(), source };
    let read: Read<R> = serde_json::from_reader(from).map_err(|source| {
        if source.is_io() { io(source.into()) } else { CacheError::Damaged { path: path.to_owned(), source } }
    })?;
    let wrong = |what| CacheError::Wrong { path: path.to_owned(), what };
    if read.format != FORMAT {
        return Err(wrong("was written by another version"));
    }
    if Sum::of_all(&read.resources).digest() != read.digest {
        return Err(wrong("does not have its digest"));
    }
    if read.seal.is_some_and(|seal| seal != read.digest.at(read.generation)) {
        return Err(wrong("is of another generation than it says"));
    }
    if read.resources.iter().any(|(key, value)| value.key() != *key) {
        return Err(wrong("has a resource under another's key"));
    }
    Ok((read.generation, read.resources))
}

/// Writes a state as [`read`] reads it.
///
/// # Errors
/// What the other end says.
pub fn write<R: Resource>(
    mut out: impl Write,
    generation: Generation,
    resources: &Resources<R>,
) -> io::Result<()> {
    let digest = Sum::of_all(resources).digest();
    let seal = digest.at(generation);
    serde_json::to_writer(&mut out, &Written { format: FORMAT, generation, digest, seal, resources })?;
    out.flush()
}

/// Keeps a state. Blocks; the directory must be there.
///
/// # Errors
/// [`CacheError::Io`]; the state kept before is still there then.
pub fn store<R: Resource>(
    path: &Path,
    generation: Generation,
    resources: &Resources<R>,
) -> Result<(), CacheError> {
    let beside = path.with_extension("new");
    let io = |action| move |source| CacheError::Io { action, path: path.to_owned(), source };
    let whole = || -> io::Result<()> {
        let mut out = BufWriter::new(private(&beside)?);
        write(&mut out, generation, resources)?;
        out.get_ref().sync_data()
    };
    whole().map_err(io("write")).inspect_err(|_| drop(fs::remove_file(&beside)))?;
    fs::rename(&beside, path).map_err(io("replace"))?;
    // The name itself must reach the disk too.
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("sync the folder of"))?;
    }
    Ok(())
}

/// A file that was not there: what is left of a write that was cut short goes, and nobody else's is written to, nor
/// what a link of that name leads to.
fn private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}
