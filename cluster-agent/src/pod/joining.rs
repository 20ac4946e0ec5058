//! Joining without hands: by the replica that may write, with the token that lies in a file, once per token.

use super::{
    Config, Join,
    secret::{Kept, StateSecret, TOKEN, Took, take_over},
};
use crate::{
    join::{JoinConfig, JoinError, join, mark},
    lease::Standings,
    locality,
    state::{DataDir, StateError},
};
use std::{
    collections::BTreeSet,
    fs, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::sleep;
use tombolo_runtime::telemetry::chain;
use tombolo_wire::message::Problem;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long after a controller that could not be asked it is asked again.
const AGAIN: Duration = Duration::from_secs(3);
/// A token is far shorter, in bytes.
const LONGEST: usize = 4096;

/// Before this replica knows where it belongs.
#[derive(Debug)]
pub(super) struct Joining {
    config: Config,
    data: DataDir,
    secret: StateSecret,
    standings: Standings,
    /// Tokens that the controller refused.
    refused: BTreeSet<String>,
}

/// Why it has not joined.
enum Not {
    /// It is another replica's to do, or a person's.
    Waiting(String),
    /// It failed, and may succeed later.
    Failed(String),
}

impl Joining {
    /// Nothing is tried yet. `data` is the directory in which the agent will run.
    ///
    /// # Errors
    /// Where that can't be made.
    pub(super) fn new(
        config: Config,
        data: &Path,
        secret: StateSecret,
        standings: Standings,
    ) -> Result<Self, StateError> {
        let data = DataDir::create(data)?;
        Ok(Self { config, data, secret, standings, refused: BTreeSet::new() })
    }

    /// Waits until there is a membership: kept by another replica, or joined now. Tells `say` why there is none.
    /// Cancel-safe, but for a token that is being used.
    pub(super) async fn joined(&mut self, mut say: impl FnMut(&str)) {
        let mut said = String::new();
        loop {
            self.take_over();
            if self.data.joined().is_ok() {
                return;
            }
            let (why, pause) = match self.attempt().await {
                Ok(()) => return,
                Err(Not::Waiting(why)) => (why, LOOK),
                Err(Not::Failed(why)) => (why, AGAIN),
            };
            if why != said {
                tracing::info!(reason = why, "this cluster has not joined yet");
                say(&why);
                said = why;
            }
            sleep(pause).await;
        }
    }

    pub(super) const fn data(&self) -> &DataDir {
        &self.data
    }

    fn take_over(&self) -> Took {
        let writes = self.standings.own().writes();
        let mounted = Kept::mounted(self.secret.dir());
        let taken = mounted
            .map_err(|error| chain(&error))
            .and_then(|mounted| take_over(&mounted, &self.data, writes).map_err(|error| chain(&error)));
        taken.unwrap_or_else(|error| {
            tracing::warn!(error, "the kept state can't be read; it is looked at again");
            Took::Nothing
        })
    }

    async fn attempt(&mut self) -> Result<(), Not> {
        let waiting = |why: &str| Not::Waiting(why.to_owned());
        let Some(with) = self.config.join.clone() else {
            return Err(waiting("there is no state, and no way to join was given; give --join-token-file"));
        };
        if !self.standings.own().writes() {
            return Err(waiting(
                "another replica joins the cluster, and keeps what it gets in the Secret tombolo-state",
            ));
        }
        let Some(token) = token(&with.token_file).map_err(Not::Waiting)? else {
            return Err(Not::Waiting(format!(
                "there is no token in {}; make one (`tombolo cluster token {}`) and apply the Secret tombolo-join that it prints",
                with.token_file.display(),
                with.cluster
            )));
        };
        self.join(&with, &token).await
    }

    /// Joins with this token, unless it was tried, and keeps what came of it.
    async fn join(&mut self, with: &Join, token: &str) -> Result<(), Not> {
        let mark = mark(token);
        if self.refused.contains(&mark) {
            return Err(Not::Waiting(
                "the controller refused the token; apply a Secret tombolo-join with a new one".to_owned(),
            ));
        }
        let config = JoinConfig {
            controller: with.controller.clone(),
            ca_fingerprint: with.ca_fingerprint.clone(),
            cluster: with.cluster.clone(),
            data: self.data.path().to_owned(),
            locality: with.locality.clone(),
            nodes: locality::of_nodes(self.secret.client()).await,
        };
        match join(&config, token).await {
            Ok(membership) => {
                tracing::info!(cluster.name = %membership.cluster, organization.name = %membership.organization, "joined");
            }
            Err(error) => {
                let why = chain(&error);
                // A controller that can't answer now has not refused the token.
                let is_final = match &error {
                    JoinError::Refused(problem) => {
                        (400..500).contains(&problem.status) && !matches!(problem.status, 408 | 425 | 429)
                    }
                    JoinError::Token | JoinError::OtherCluster { .. } => true,
                    _ => false,
                };
                if is_final {
                    self.refused.insert(mark);
                    return Err(Not::Waiting(why));
                }
                return Err(Not::Failed(why));
            }
        }
        if let Err(error) = self.data.write(TOKEN, mark.as_bytes()) {
            tracing::warn!(error = chain(&error), "which token was used can't be kept");
        }
        // It is tried again while the agent runs.
        if let Err(error) = self.secret.write(&self.data).await {
            tracing::warn!(error, "the agent's state can't be kept in the Secret; it is tried again");
        }
        Ok(())
    }

    /// From now on: follows the Secret, writes it, and joins again where a new token comes.
    #[must_use]
    pub(super) fn follow(self) -> Following {
        Following { joining: self, problem: Arc::default() }
    }
}

/// While the agent runs.
#[derive(Debug)]
pub struct Following {
    joining: Joining,
    problem: Arc<Mutex<Option<Problem>>>,
}

impl Following {
    /// What is wrong, for the status.
    #[must_use]
    pub fn problem(&self) -> Arc<Mutex<Option<Problem>>> {
        Arc::clone(&self.problem)
    }

    /// Ends when the cluster belongs elsewhere than it did: the agent has to start anew.
    pub async fn run(mut self) {
        loop {
            sleep(LOOK).await;
            let before = self.joining.data.membership().ok().flatten();
            self.joining.take_over();
            let mut problem = None;
            if self.joining.standings.own().writes() {
                let kept = match self.again().await {
                    Ok(()) => self.joining.secret.write(&self.joining.data).await,
                    Err(error) => Err(error),
                };
                problem =
                    kept.err().map(|message| Problem { subject: "the agent's state".to_owned(), message });
            }
            *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
            if self.joining.data.membership().ok().flatten() != before {
                tracing::info!("the cluster's membership is another one; the agent starts anew");
                return;
            }
        }
    }

    /// Joins again where there is a token that is none of those it knows.
    async fn again(&mut self) -> Result<(), String> {
        let Some(with) = self.joining.config.join.clone() else { return Ok(()) };
        let Ok(Some(token)) = token(&with.token_file) else { return Ok(()) };
        let mark = mark(&token);
        let used = Kept::here(&self.joining.data).map_err(|error| chain(&error))?.token();
        if used.as_deref() == Some(mark.as_str()) || self.joining.refused.contains(&mark) {
            return Ok(());
        }
        tracing::info!("there is a new token; the cluster joins again");
        match self.joining.join(&with, &token).await {
            Ok(()) => Ok(()),
            Err(Not::Waiting(why) | Not::Failed(why)) => {
                Err(format!("the cluster could not join again with the token in tombolo-join: {why}"))
            }
        }
    }
}

/// The token in this file; none where there is none yet.
fn token(path: &Path) -> Result<Option<String>, String> {
    match fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) if text.len() > LONGEST => Err(format!("{} is too long for a token", path.display())),
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("the token {} can't be read: {error}", path.display())),
    }
}
