//! Where the controller is and with which token to speak: options, environment, then the file `tombolo login` wrote.

use crate::{args::Global, problem::CliError};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Read as _},
    path::{Path, PathBuf},
};
use tombolo_model::OrgName;

/// The configuration file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The context in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// What `login` remembered.
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

/// A server and how to speak to it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// The controller's address.
    pub server: String,
    /// Its CA: `sha256:<hex>`, or `system`.
    pub ca_fingerprint: String,
    /// The organization, where the token has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<OrgName>,
    /// The secret.
    pub token: String,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("server", &self.server)
            .field("token", &"<secret>")
            .finish_non_exhaustive()
    }
}

/// Where the file is.
///
/// # Errors
/// No home folder is known.
pub fn path(global: &Global) -> Result<PathBuf> {
    if let Some(path) = &global.config {
        return Ok(path.clone());
    }
    if let Some(base) = std::env::var_os("XDG_CONFIG_HOME").filter(|v| !v.is_empty()) {
        return Ok(PathBuf::from(base).join("tombolo/config.yaml"));
    }
    let home = std::env::var_os("HOME")
        .ok_or_else(|| CliError::Usage("HOME is not set; name the configuration with --config".into()))?;
    Ok(PathBuf::from(home).join(".config/tombolo/config.yaml"))
}

/// Reads the file; a missing one is empty.
///
/// # Errors
/// It can't be read or understood.
pub fn read(path: &Path) -> Result<File> {
    match std::fs::read_to_string(path) {
        Ok(text) => serde_saphyr::from_str(&text).with_context(|| format!("read {}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(File::default()),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// Writes the file, whole or not at all; only its owner can read it.
///
/// # Errors
/// The disk says no.
pub fn write(path: &Path, file: &File) -> Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let text = serde_saphyr::to_string(file).context("write the configuration")?;
    let new = path.with_extension("new");
    let _ = std::fs::remove_file(&new);
    crate::output::secret_file(&new, text.trim_end())?;
    std::fs::rename(&new, path).with_context(|| format!("write {}", path.display()))
}

/// The token in a file, or on standard input for `-`; typed on a terminal, it is not shown there.
///
/// # Errors
/// It can't be read, or is empty.
pub fn token(path: &Path) -> Result<String> {
    let mut text = String::new();
    let typed = path == Path::new("-") && std::io::stdin().is_terminal();
    if typed {
        text = rpassword::prompt_password("API token (it is not shown): ").context("read the token")?;
    } else if path == Path::new("-") {
        std::io::stdin()
            .take(4096)
            .read_to_string(&mut text)
            .context("read the token from standard input")?;
    } else {
        let file =
            std::fs::File::open(path).with_context(|| format!("read the token in {}", path.display()))?;
        file.take(4096).read_to_string(&mut text).with_context(|| format!("read {}", path.display()))?;
    }
    let token = text.trim();
    if token.is_empty() {
        return Err(CliError::Usage(format!("{} holds no token", path.display())).into());
    }
    Ok(token.to_owned())
}

/// What to use for this call.
///
/// # Errors
/// Something is missing; the error says which option gives it.
pub fn resolve(global: &Global) -> Result<Context> {
    let token = global.token_file.as_deref().map(token).transpose()?;
    with_token(global, token)
}

/// What to use for this call, with this token rather than the stored one.
///
/// # Errors
/// As [`resolve`].
pub fn with_token(global: &Global, token: Option<String>) -> Result<Context> {
    // What is given in full needs no file, be it unreadable.
    let given = global.server.is_some() && global.ca_fingerprint.is_some() && token.is_some();
    let file = match path(global).and_then(|path| read(&path)) {
        Err(_) if given => File::default(),
        file => file?,
    };
    let stored = file.current.as_ref().and_then(|name| file.contexts.get(name));
    let missing =
        |what: &str| CliError::Usage(format!("no {what} is known; give it, or run `tombolo login` first"));
    let server = global.server.clone().or_else(|| stored.map(|c| c.server.clone()));
    let server = server.ok_or_else(|| missing("server (--server)"))?;
    // What was stored goes with its own server only: a token must not wander to another.
    let stored = stored.filter(|c| c.server == server);
    let fingerprint = global.ca_fingerprint.clone().or_else(|| stored.map(|c| c.ca_fingerprint.clone()));
    // the stored organization is the stored token's; another token says itself which it is of
    let organization = stored.filter(|_| token.is_none()).and_then(|c| c.organization.clone());
    let token = token.or_else(|| stored.map(|c| c.token.clone()));
    Ok(Context {
        server,
        ca_fingerprint: fingerprint.ok_or_else(|| missing("CA fingerprint (--ca-fingerprint)"))?,
        organization: global.organization.clone().or(organization),
        token: token.ok_or_else(|| missing("token (--token-file)"))?,
    })
}
