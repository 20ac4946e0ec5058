//! One gateway process, put together: bind first, then run.
//!
//! Two runtimes: connections and tunnels on one, what comes from people and from the agent on the other, so that a
//! scrape, a dump or a large table takes no time from the bytes.

use crate::{
    accesslog::{AccessLog, Target},
    admin,
    capture::{self, Mode, Problems},
    config::Config,
    control::{self, Settings},
    inbound,
    metrics::Metrics,
    state::Shared,
};
use std::{io, net::SocketAddr, path::PathBuf, pin::pin, sync::Arc, time::Duration};
use tokio::{net::TcpListener, runtime::Handle, time::timeout};
use tombolo_runtime::{
    clock::Clock,
    drain::{self, Drain, Drained},
    task,
};

/// How long connections that were cut may take to end.
const AFTER_CUT: Duration = Duration::from_secs(1);
/// How long the last lines of the access log may take.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Why a gateway can't start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// An address can't be bound.
    #[error("can't bind {address} for {what}; free it, or choose another address")]
    Bind {
        /// What for.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The access log can't be opened.
    #[error("can't open the access log {path}")]
    AccessLog {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The agent can't be asked.
    #[error(transparent)]
    Agent(#[from] control::AccessError),
    /// The other runtime is gone.
    #[error("the runtime for the control part has ended")]
    Runtime,
}

/// A gateway that is bound and runs.
#[derive(Debug)]
pub struct Bound {
    /// Where tunnels are taken.
    pub tunnel: SocketAddr,
    /// The admin port.
    pub admin: Option<SocketAddr>,
    /// Where redirected connections are taken.
    pub outbound: Vec<SocketAddr>,
    /// Where redirected incoming connections are taken.
    pub inbound: Vec<SocketAddr>,
    /// What its parts share.
    pub shared: Arc<Shared>,
    control: Option<Arc<control::Handle>>,
    capture: capture::Handle,
    drain: Drain,
}

/// Binds and starts a gateway. To be called on the runtime of the data path; `control` is the other one (the same in
/// tests).
///
/// # Errors
/// [`BuildError`]. In capture mode `explicit` an address that can't be bound is a problem to be told, no error.
pub async fn build(config: Config, clock: Arc<dyn Clock>, control: Handle) -> Result<Bound, BuildError> {
    let log = match &config.access_log {
        None => AccessLog::disabled(),
        Some(path) => AccessLog::open(Target::of(path))
            .map_err(|source| BuildError::AccessLog { path: path.clone(), source })?,
    };
    let (drain, watch) = drain::channel();
    let bind = |what, address| move |source| BuildError::Bind { what, address, source };

    let listener = TcpListener::bind(config.tunnel).await.map_err(bind("tunnels", config.tunnel))?;
    let tunnel = listener.local_addr().map_err(bind("tunnels", config.tunnel))?;
    let admin = match config.admin {
        None => None,
        Some(address) => Some(
            control
                .spawn(admin::bind(address))
                .await
                .map_err(|_| BuildError::Runtime)?
                .map_err(bind("the admin port", address))?,
        ),
    };
    let admin_address = admin.as_ref().map(|(_, address)| *address);
    let settings = Settings::of(&config, tunnel, admin_address);
    let mode = Mode::of(&config);

    let shared = Shared::new(config, Metrics::new(), log, clock);
    shared.set_tunnel(tunnel);
    let problems = Problems::new();
    let capture = capture::start(shared.clone(), mode, problems.clone(), watch.clone()).await.map_err(
        bind("redirected connections", SocketAddr::from(([127, 0, 0, 1], shared.config.outbound_port))),
    )?;
    task::spawn("tunnels", inbound::serve(listener, shared.clone(), watch));

    let data = Handle::current();
    let entered = control.enter();
    let control = settings.map(|settings| {
        let problems = problems.clone();
        control::start(&shared, settings, data, move || problems.report()).map(Arc::new)
    });
    let control = control.transpose()?;
    if let (Some((listener, _)), Some(control)) = (admin, &control) {
        admin::start(listener, shared.clone(), control, problems, drain.watch());
    }
    drop(entered);
    Ok(Bound {
        tunnel,
        admin: admin_address,
        outbound: capture.outbound().to_vec(),
        inbound: capture.inbound().to_vec(),
        shared,
        control,
        capture,
        drain,
    })
}

impl Bound {
    /// Waits until there is a table and a certificate for every identity it asks for, and the names' addresses are
    /// bound. Cancel-safe.
    pub async fn ready(&self) {
        if let Some(control) = &self.control {
            control.ready().await;
        }
        self.capture.followed(&self.shared).await;
    }

    /// The control part; none where no agent is configured.
    #[must_use]
    pub fn control(&self) -> Option<&Arc<control::Handle>> {
        self.control.as_ref()
    }

    /// Takes no more connections and waits for those that are open, until the deadline; then ends them. In the last part of that time
    /// those that are quiet end in order, as they come to be. The control part goes on meanwhile: certificates and rights change while
    /// connections drain, too.
    pub async fn drain(self, deadline: Duration) -> Drained {
        self.drain.start();
        // the drain's own deadline is past ours: connections are first told why they end
        let mut draining = pin!(self.drain.clone().drain(deadline + AFTER_CUT));
        let goodbye = self.shared.config.timing.goodbye.min(deadline / 2);
        let in_time = async {
            if let Ok(drained) = timeout(deadline - goodbye, &mut draining).await {
                return Some(drained);
            }
            self.shared.conns.end_quiet();
            timeout(goodbye, &mut draining).await.ok()
        };
        let drained = match in_time.await {
            Some(drained) => drained,
            None => {
                self.shared.stop();
                self.drain.clone().drain(AFTER_CUT).await
            }
        };
        self.shared.stop();
        let log = self.shared.log.clone();
        let flushed = tokio::task::spawn_blocking(move || log.flush(LAST_LINES)).await;
        if !matches!(flushed, Ok(true)) {
            tracing::warn!("the last lines of the access log are lost");
        }
        drained
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conns::Kind;
    use tokio::time::Instant;
    use tombolo_model::GatewayRole;
    use tombolo_runtime::clock::SystemClock;

    #[tokio::test(start_paused = true)]
    async fn before_the_rest_is_cut_what_is_quiet_may_end() {
        let config = Config::new(GatewayRole::Egress, "test", SocketAddr::from(([127, 0, 0, 1], 0)));
        let (deadline, goodbye) = (config.timing.drain, config.timing.goodbye);
        let bound = build(config, Arc::new(SystemClock), Handle::current()).await.unwrap();
        let connection = |number| {
            let ticket = bound.shared.conns.admit(Kind::Connection, number).unwrap();
            (ticket, bound.drain.watch(), Instant::now())
        };
        let (quiet, busy) = (connection(1), connection(2));
        let quiet = task::spawn("quiet", async move {
            let (ticket, _watch, begin) = quiet;
            ticket.told().await;
            begin.elapsed()
        });
        let busy = task::spawn("busy", async move {
            let (ticket, _watch, begin) = busy;
            ticket.ended().await;
            begin.elapsed()
        });
        bound.drain(deadline).await;
        let second = Duration::from_secs(1);
        let [told, cut] = [quiet.await.unwrap(), busy.await.unwrap()];
        assert!(told >= deadline - goodbye && told < deadline - goodbye + second, "{told:?}");
        assert!(cut >= deadline && cut < deadline + second, "{cut:?}");
    }
}
