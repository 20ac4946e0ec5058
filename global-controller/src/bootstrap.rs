//! The first start: the installation's authority, its pools, and the token of its owner.

use crate::{
    app,
    ca::{Purpose, Vault},
    config::Config,
    store::{Store, installation::InstallationRow},
    vips::Pools,
};
use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use sha2::{Digest as _, Sha256};
use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{Duration, SystemTime},
};
use tombolo_mtls::{Secret, ServerAuthority, Validity};
use uuid::Uuid;

/// How long the authority of the controller's HTTPS is good for.
const AUTHORITY_LIFE: Duration = Duration::from_secs(3650 * 24 * 3600);

/// Certificates begin a little earlier, for clients whose clock is behind.
const SKEW: Duration = Duration::from_secs(3600);

/// What belongs to the installation.
#[derive(Debug)]
pub(crate) struct Installation {
    /// The authority of the controller's HTTPS.
    pub(crate) authority: ServerAuthority,
    /// Opens the organizations' keys.
    pub(crate) vault: Vault,
    /// The owner's token, where this start was the first and no file was asked for: to be shown once.
    pub(crate) owner_token: Option<Secret>,
}

/// Reads the installation; makes it where this is the first start. Of replicas that start together one makes it.
pub(crate) async fn installation(
    store: &Store,
    config: &Config,
    now: SystemTime,
) -> anyhow::Result<Installation> {
    let mut owner_token = None;
    let stored = match store.installation().await.context("read the installation")? {
        Some(stored) => stored,
        None => {
            owner_token = make(store, config, now).await.context("make the installation")?;
            store
                .installation()
                .await
                .context("read the installation")?
                .context("the installation was not stored")?
        }
    };
    let vault = Vault::from_file(&config.ca_key_file, false)?;
    let key = vault.open(Purpose::Tls(stored.id), &stored.tls_ca_key)?;
    let authority =
        ServerAuthority::from_pem(&stored.tls_ca, &key).context("read the controller's authority")?;
    check_pools(&stored, &config.pools)?;
    Ok(Installation { authority, vault, owner_token })
}

async fn make(store: &Store, config: &Config, now: SystemTime) -> anyhow::Result<Option<Secret>> {
    let vault = Vault::from_file(&config.ca_key_file, true)?;
    let id = Uuid::now_v7();
    let authority =
        ServerAuthority::create(Validity { not_before: now - SKEW, not_after: now + AUTHORITY_LIFE })?;
    let (vip_pool, vip6_pool) = config.pools.texts();
    let row = InstallationRow {
        id,
        vip_pool,
        vip6_pool,
        tls_ca: authority.cert_pem().to_owned(),
        tls_ca_key: vault.seal(Purpose::Tls(id), &authority.key_pem())?,
    };
    let token = match &config.given_owner_token_file {
        Some(path) => given_token(path)?,
        None => owner_token()?,
    };
    let at = DateTime::<Utc>::from(now);
    let mut tx = store.begin().await?;
    if !tx.insert_installation(&row, at).await? {
        return Ok(None);
    }
    tx.insert_owner_token(&Sha256::digest(token.as_bytes()).into(), at).await?;
    // before the commit: a token that nobody can read would lock everybody out
    if let Some(path) = &config.owner_token_file {
        write_token(path, &token).with_context(|| format!("write the owner token to {}", path.display()))?;
    }
    tx.commit().await?;
    let is_shown = config.owner_token_file.is_none() && config.given_owner_token_file.is_none();
    Ok(Some(token).filter(|_| is_shown))
}

/// One that the operator made and keeps.
fn given_token(path: &Path) -> anyhow::Result<Secret> {
    let read = || format!("read the owner token of the first start in {}", path.display());
    let text = fs::read_to_string(path).with_context(read)?;
    match app::caller::Secret::read(app::caller::Secret::API, text.trim()) {
        Some(token) => Ok(Secret::new(token.reveal().to_owned())),
        None => bail!(
            "the owner token in {} is none: it is `tmb_` and 32 random bytes as base64url without padding",
            path.display()
        ),
    }
}

/// 256 random bits.
fn owner_token() -> anyhow::Result<Secret> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system gives no randomness"))?;
    Ok(Secret::new(format!("tmb_{}", URL_SAFE_NO_PAD.encode(bytes))))
}

fn write_token(path: &Path, token: &Secret) -> std::io::Result<()> {
    // an old file may be readable by others
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(format!("{}\n", token.as_str()).as_bytes())?;
    file.sync_all()
}

/// The pools never change: every name keeps its address.
fn check_pools(stored: &InstallationRow, pools: &Pools) -> anyhow::Result<()> {
    let (v4, v6) = pools.texts();
    if (&stored.vip_pool, &stored.vip6_pool) != (&v4, &v6) {
        bail!(
            "this installation was made with --vip-pool {} --vip6-pool {}, and its names keep their addresses for life; \
             start it with those",
            stored.vip_pool,
            stored.vip6_pool
        );
    }
    Ok(())
}
