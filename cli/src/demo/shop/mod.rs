//! The online shop of the demo: six small services, as an application that knows nothing of Tombolo. Each is this
//! same program under the service's own name (a hard link `…/bin/catalog`; in the image a symbolic one), so that a proxy that serves a whole
//! machine tells them apart by the executable's path, as it would any program.
//!
//! | service | port | does | calls |
//! |---|---|---|---|
//! | `shopping` | 8080 | the web page | all others |
//! | `users` | 8081 | who is shopping | - |
//! | `catalog` | 8082 | products, with pictures | - |
//! | `cart` | 8083 | what is in the cart | - |
//! | `order` | 8084 | orders | `payment` |
//! | `payment` | 8085 | takes the money | - |
//!
//! Everything is kept in memory. Configuration comes from the environment, as in the usual container:
//! `LISTEN` (IP:PORT; or `PORT` alone, on 127.0.0.1), `CLUSTER` (a name, shown on the page), `<SERVICE>_HOST` (where another
//! service is: `name:port`, or a name alone for its usual port), `RESOLVER` (IP:PORT of the DNS server for these names;
//! without it the system's), `READY_FILE`.

mod cart;
mod catalog;
mod client;
mod config;
mod http;
mod order;
mod page;
mod payment;
mod shopping;
#[cfg(test)]
mod tests;
mod users;

pub use config::{Config, ConfigError, Target};

use self::{client::Client, http::Call, http::Reply};
use anyhow::Context;
use serde_json::json;
use std::{
    ffi::OsStr,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};
use tokio::net::TcpListener;
use tombolo_runtime::{signal, telemetry};

/// A service of the shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The web page.
    Shopping,
    /// Who is shopping.
    Users,
    /// The products.
    Catalog,
    /// What is in the cart.
    Cart,
    /// The orders.
    Order,
    /// The payments.
    Payment,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Shopping, Self::Users, Self::Catalog, Self::Cart, Self::Order, Self::Payment];

    /// Its name: of the service, and of the executable.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shopping => "shopping",
            Self::Users => "users",
            Self::Catalog => "catalog",
            Self::Cart => "cart",
            Self::Order => "order",
            Self::Payment => "payment",
        }
    }

    /// The port it listens on where nothing else is said.
    #[must_use]
    pub const fn usual_port(self) -> u16 {
        match self {
            Self::Shopping => 8080,
            Self::Users => 8081,
            Self::Catalog => 8082,
            Self::Cart => 8083,
            Self::Order => 8084,
            Self::Payment => 8085,
        }
    }

    /// The services it calls.
    #[must_use]
    pub const fn calls(self) -> &'static [Self] {
        match self {
            Self::Shopping => &[Self::Users, Self::Catalog, Self::Cart, Self::Order],
            Self::Order => &[Self::Payment],
            _ => &[],
        }
    }

    /// The service whose name the program at `path` has.
    #[must_use]
    pub fn of_program(path: &Path) -> Option<Self> {
        let name = path.file_name().and_then(OsStr::to_str)?;
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }

    /// The service that this process is to be: by its executable, or (in the container image, where they are links) by the name it
    /// was called by.
    #[must_use]
    pub fn of_this_process() -> Option<Self> {
        let called = || std::env::args_os().next().map(PathBuf::from);
        Self::of_program(&std::env::current_exe().ok()?).or_else(|| Self::of_program(&called()?))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The whole program of a service: logs, configuration from the environment, and serving until SIGTERM or SIGINT.
#[must_use]
pub fn main(role: Role) -> ExitCode {
    if let Err(error) = telemetry::init(telemetry::LogFormat::Json) {
        // The logs themselves are what failed.
        eprintln!("{role}: {error}");
        return ExitCode::FAILURE;
    }
    let run = || -> anyhow::Result<()> {
        let config = Config::read(role, |name| std::env::var(name).ok())?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(serve(role, config))
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(service = role.as_str(), error = format!("{error:#}"), "the service can't run");
            ExitCode::FAILURE
        }
    }
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// The address can't be had, or the ready file can't be written.
pub async fn serve(role: Role, config: Config) -> anyhow::Result<()> {
    let mut signals = signal::Signals::install().context("listen for signals")?;
    let ready_file = config.ready_file.clone();
    let shop = Bound::bind(role, config).await?;
    if let Some(path) = ready_file {
        let fields = json!({ "service": role.as_str(), "http": shop.address().to_string() });
        tombolo_runtime::ready::write(&path, &fields).with_context(|| format!("write {}", path.display()))?;
    }
    let stop = async {
        signals.terminate().await;
    };
    shop.run(stop).await;
    Ok(())
}

/// A service with its socket bound.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    server: http::Server,
}

impl Bound {
    /// Binds the socket.
    ///
    /// # Errors
    /// The address can't be had.
    pub async fn bind(role: Role, config: Config) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("listen on {}; set LISTEN or PORT to a free one", config.listen))?;
        let address = listener.local_addr()?;
        let cluster = config.cluster.clone();
        let service = Service::new(role, config)?;
        Ok(Self { listener, address, server: http::Server::new(role, cluster, service) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, and what was asked until then.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        self.server.run(self.listener, stop).await;
    }
}

/// What a service does.
#[derive(Debug)]
enum Service {
    Shopping(shopping::Shopping),
    Users,
    Catalog,
    Cart(cart::Cart),
    Order(order::Order),
    Payment(payment::Payment),
}

impl Service {
    fn new(role: Role, config: Config) -> anyhow::Result<Self> {
        Ok(match role {
            Role::Shopping => Self::Shopping(shopping::Shopping::new(Client::new(&config)?, config)),
            Role::Users => Self::Users,
            Role::Catalog => Self::Catalog,
            Role::Cart => Self::Cart(cart::Cart::default()),
            Role::Order => Self::Order(order::Order::new(Client::new(&config)?)),
            Role::Payment => Self::Payment(payment::Payment::default()),
        })
    }

    async fn answer(&self, call: &Call) -> Reply {
        match self {
            Self::Shopping(shopping) => shopping.answer(call).await,
            Self::Users => users::answer(call),
            Self::Catalog => catalog::answer(call),
            Self::Cart(cart) => cart.answer(call),
            Self::Order(order) => order.answer(call).await,
            Self::Payment(payment) => payment.answer(call),
        }
    }
}
