//! Options. Every problem is reported at once, each with what to do.

pub use crate::tls::Limits;
use crate::vips::Pools;
use chrono::TimeDelta;
use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::{Ipv4Net, Ipv6Net};
use std::{
    fmt,
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};
use thiserror::Error;
use tombolo_runtime::duration;

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "tombolo-controller", version, about = "Tombolo's global controller")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the controller.
    Serve(Box<ServeOptions>),
    /// Print the OpenAPI document of the REST API.
    Openapi,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// Options of `serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeOptions {
    /// Folder for the private PostgreSQL and the key file; made where it is not there.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Where to listen (HTTPS): for people, the command line and agents alike.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8443")]
    pub listen: SocketAddr,
    /// How agents and people reach this controller; the listening address unless given.
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
    /// A further DNS name or IP address for the self-signed certificate.
    #[arg(long, value_name = "NAME")]
    pub tls_name: Vec<String>,
    /// A server certificate of your own (PEM, leaf first, its authority last).
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// The pool of virtual IPv4 addresses. Fixed at the first start.
    #[arg(long, value_name = "CIDR", default_value = "240.0.0.0/4")]
    pub vip_pool: Ipv4Net,
    /// The pool of virtual IPv6 addresses. Fixed at the first start.
    #[arg(long, value_name = "CIDR", default_value = "fd74:6f6d:6265:6c6f::/64")]
    pub vip6_pool: Ipv6Net,
    /// A file with the URL of a PostgreSQL of your own; or give it in DATABASE_URL. Without: a private one in the data folder.
    #[arg(long, value_name = "FILE")]
    pub database_url_file: Option<PathBuf>,
    /// The key that seals the keys of the organizations' roots. Every replica needs the same one.
    #[arg(long, value_name = "FILE")]
    pub ca_key_file: Option<PathBuf>,
    /// Where to write the owner token of the first start (0600), in place of showing it on standard output.
    #[arg(long, value_name = "FILE")]
    pub owner_token_file: Option<PathBuf>,
    /// A file with the owner token of the first start, in place of one made up: `tmb_` and 32 random bytes as base64url. It is read
    /// then only. Replicas that share a database start with the same one, which lies where the operator put it.
    #[arg(long, value_name = "FILE", conflicts_with = "owner_token_file")]
    pub given_owner_token_file: Option<PathBuf>,
    /// Where to serve metrics and health (plain HTTP).
    #[arg(long, value_name = "IP:PORT")]
    pub admin: Option<SocketAddr>,
    /// Connections at a time, of agents and people together. Half of them only agents can take.
    #[arg(long, value_name = "COUNT", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(64..=1_000_000))]
    pub max_connections: u32,
    /// Connections at a time from one address (IPv6: one /64), agents not counted.
    #[arg(long, value_name = "COUNT", default_value_t = 256, value_parser = clap::value_parser!(u32).range(4..=1_000_000))]
    pub max_connections_per_source: u32,
    /// A connection without a request under way, or with an answer that is not taken, is closed after this long: 100ms to 1h.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = idle)]
    pub idle_timeout: Duration,
    /// Take loopback addresses of ingress gateways: for clusters that all run on one machine.
    #[arg(long)]
    pub allow_loopback_gateways: bool,
    /// Where clusters find the images of agent and gateways: REGISTRY/tombolo-agent:VERSION.
    #[arg(long, value_name = "REGISTRY", default_value = "localhost")]
    pub image_registry: String,
    /// Their version, where nobody asks for another.
    #[arg(long, value_name = "TAG", default_value = env!("CARGO_PKG_VERSION"))]
    pub image_version: String,
    /// When a root is rotated: how long the old one stays once no cluster signs under it. As long as a workload's certificate may live,
    /// and an hour: 1s to 90d.
    #[arg(long, value_name = "DURATION", default_value = "25h", value_parser = overlap)]
    pub root_overlap: TimeDelta,
    /// Where to write, once ready, how to reach this process (JSON).
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// How the log is written. Its level comes from TOMBOLO_LOG.
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,
}

fn overlap(text: &str) -> Result<TimeDelta, String> {
    let most = Duration::from_secs(90 * 24 * 3600);
    let overlap = between(text, Duration::from_secs(1)..=most, "give 1s to 90d")?;
    TimeDelta::from_std(overlap).map_err(|error| error.to_string())
}

/// A duration within these bounds, which `remedy` names.
fn between(text: &str, bounds: RangeInclusive<Duration>, remedy: &str) -> Result<Duration, String> {
    let duration = duration::parse(text).map_err(|error| error.to_string())?;
    if bounds.contains(&duration) { Ok(duration) } else { Err(remedy.to_owned()) }
}

fn idle(text: &str) -> Result<Duration, String> {
    between(text, Duration::from_millis(100)..=Duration::from_secs(3600), "give 100ms to 1h")
}

/// What the environment says.
#[derive(Clone, Default)]
pub struct Environment {
    /// `DATABASE_URL`: a PostgreSQL of the operator's.
    pub database_url: Option<String>,
    /// `TOMBOLO_PG_BIN`: the folder with the programs of PostgreSQL.
    pub pg_bin: Option<PathBuf>,
}

impl Environment {
    /// Of this process.
    #[must_use]
    pub fn read() -> Self {
        Self {
            database_url: std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty()),
            pg_bin: std::env::var_os("TOMBOLO_PG_BIN").filter(|bin| !bin.is_empty()).map(PathBuf::from),
        }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.database_url.as_ref().map(|_| "(hidden)");
        f.debug_struct("Environment").field("database_url", &url).field("pg_bin", &self.pg_bin).finish()
    }
}

/// The database.
#[derive(Clone)]
pub enum Database {
    /// A private one; its programs are in this folder, or found.
    Private(Option<PathBuf>),
    /// The operator's, by URL.
    Url(String),
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Private(bin) => f.debug_tuple("Private").field(bin).finish(),
            // it may hold a password
            Self::Url(_) => f.write_str("Url(hidden)"),
        }
    }
}

/// The server certificate.
#[derive(Clone, Debug)]
pub enum Tls {
    /// Of our own authority, for these names beside the obvious ones.
    Own(Vec<String>),
    /// The operator's: chain and key.
    Files(PathBuf, PathBuf),
}

/// What the controller runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data folder.
    pub data: PathBuf,
    /// Where to listen.
    pub listen: SocketAddr,
    /// How others reach it, without a slash at the end.
    pub public_url: Option<String>,
    /// The server certificate.
    pub tls: Tls,
    /// The pools of virtual addresses.
    pub(crate) pools: Pools,
    /// The database.
    pub database: Database,
    /// The key file.
    pub ca_key_file: PathBuf,
    /// Where the first owner token goes; else it is shown.
    pub owner_token_file: Option<PathBuf>,
    /// Where the first owner token is, where it is not made up.
    pub given_owner_token_file: Option<PathBuf>,
    /// The admin port.
    pub admin: Option<SocketAddr>,
    /// How many connections there may be.
    pub limits: Limits,
    /// How long the old root of a rotation stays once no cluster signs under it.
    pub root_overlap: TimeDelta,
    /// Whether an ingress gateway may be at a loopback address.
    pub allow_loopback_gateways: bool,
    /// Where clusters find the images.
    pub image_registry: String,
    /// Their version.
    pub image_version: String,
}

/// What is wrong with the options: all of it.
#[derive(Debug, Error)]
#[error("the options cannot be used:{}", lines(.problems))]
pub struct ConfigError {
    /// A sentence each.
    pub problems: Vec<String>,
}

fn lines(problems: &[String]) -> String {
    problems.iter().map(|problem| format!("\n  - {problem}")).collect()
}

impl Config {
    /// Checks the options, and reads the file with the database's URL.
    ///
    /// # Errors
    /// A [`ConfigError`] with every problem.
    pub fn new(options: ServeOptions, environment: Environment) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let pools = Pools::new(options.vip_pool, options.vip6_pool)
            .map_err(|error| problems.push(error.to_string()))
            .ok();
        let public_url = options.public_url.map(|url| url.trim_end_matches('/').to_owned());
        if let Some(url) = &public_url
            && host_of(url).is_none()
        {
            problems.push(format!(
                "--public-url {url} is not https://HOST[:PORT]; the controller speaks HTTPS only"
            ));
        }
        let url = match (&options.database_url_file, environment.database_url) {
            (Some(file), _) => match std::fs::read_to_string(file) {
                Ok(text) => Some(text.trim().to_owned()),
                Err(error) => {
                    problems.push(format!("--database-url-file {} cannot be read: {error}", file.display()));
                    None
                }
            },
            (None, url) => url,
        };
        if url
            .as_ref()
            .is_some_and(|url| !url.starts_with("postgres://") && !url.starts_with("postgresql://"))
        {
            problems.push("the database's URL does not begin with postgres://".to_owned());
        }
        let ca_key_file = match (&options.ca_key_file, &url) {
            (Some(file), _) => file.clone(),
            (None, None) => options.data.join("ca.key"),
            (None, Some(_)) => {
                problems.push(
                    "with a database of your own, give --ca-key-file: every replica needs the same one, so it cannot be made \
                     in each one's data folder"
                        .to_owned(),
                );
                PathBuf::new()
            }
        };
        let tls = match (options.tls_cert, options.tls_key) {
            (Some(chain), Some(key)) => Tls::Files(chain, key),
            _ => Tls::Own(options.tls_name),
        };
        match pools {
            Some(pools) if problems.is_empty() => Ok(Self {
                data: options.data,
                listen: options.listen,
                public_url,
                tls,
                pools,
                database: url.map_or(Database::Private(environment.pg_bin), Database::Url),
                ca_key_file,
                owner_token_file: options.owner_token_file,
                given_owner_token_file: options.given_owner_token_file,
                admin: options.admin,
                limits: Limits {
                    connections: options.max_connections as usize,
                    per_source: options.max_connections_per_source as usize,
                    idle: options.idle_timeout,
                },
                root_overlap: options.root_overlap,
                allow_loopback_gateways: options.allow_loopback_gateways,
                image_registry: options.image_registry.trim_end_matches('/').to_owned(),
                image_version: options.image_version,
            }),
            _ => Err(ConfigError { problems }),
        }
    }

    /// A configuration for tests: loopback, any port, everything in one folder.
    #[must_use]
    pub fn for_tests(data: &Path, database: Database) -> Self {
        let options = ServeOptions {
            data: data.to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            public_url: None,
            tls_name: Vec::new(),
            tls_cert: None,
            tls_key: None,
            vip_pool: Ipv4Net::new_assert([240, 0, 0, 0].into(), 4),
            vip6_pool: Ipv6Net::new_assert([0xfd74, 0x6f6d, 0x6265, 0x6c6f, 0, 0, 0, 0].into(), 64),
            database_url_file: None,
            ca_key_file: Some(data.join("ca.key")),
            owner_token_file: Some(data.join("owner-token")),
            given_owner_token_file: None,
            admin: None,
            max_connections: 8192,
            max_connections_per_source: 256,
            idle_timeout: Duration::from_secs(30),
            root_overlap: TimeDelta::hours(25),
            allow_loopback_gateways: true,
            image_registry: "localhost".to_owned(),
            image_version: env!("CARGO_PKG_VERSION").to_owned(),
            ready_file: None,
            log_format: LogFormat::Text,
        };
        match Self::new(options, Environment::default()) {
            Ok(config) => Self { database, ..config },
            Err(error) => unreachable!("the options of tests are good: {error}"),
        }
    }
}

/// The host in `https://HOST[:PORT]`, without brackets.
pub(crate) fn host_of(url: &str) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    let bare = uri.path().trim_end_matches('/').is_empty() && uri.query().is_none();
    (uri.scheme_str() == Some("https") && bare)
        .then(|| uri.host().map(|host| host.trim_start_matches('[').trim_end_matches(']').to_owned()))?
}

#[cfg(test)]
mod tests;
