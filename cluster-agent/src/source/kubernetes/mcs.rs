//! Which version of the Multi-Cluster Services API (KEP-1645) the server has, and its ServiceExports for as long as it has one.
//!
//! Its custom resources may come and go, and be of another version: the server is asked every few seconds. That it has none is
//! believed when it said so several times, for a server that starts may not know its own custom resources yet.

use super::{
    convert,
    known::{Told, What},
    watch::followed,
};
use crate::source::ObjectKind;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use kube::{
    Api, Client,
    core::{ApiResource, GroupVersionKind},
    runtime::watcher,
};
use std::{collections::VecDeque, time::Duration};
use tokio::time::{Instant, sleep_until, timeout};
use tombolo_runtime::telemetry::chain;
use tombolo_wire::message::Problem;

/// The API group.
pub(crate) const GROUP: &str = "multicluster.x-k8s.io";
/// How often the server is asked, and how long it may take.
const ASK: Duration = Duration::from_secs(3);
/// How often it must have said that it has none, where it had one before.
const SURE: u32 = 3;

/// A version of the Multi-Cluster Services API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum McsVersion {
    /// `v1beta1`.
    V1Beta1,
    /// `v1alpha1`.
    V1Alpha1,
}

impl McsVersion {
    /// The newest first.
    const ALL: [Self; 2] = [Self::V1Beta1, Self::V1Alpha1];

    /// As the API has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1Beta1 => "v1beta1",
            Self::V1Alpha1 => "v1alpha1",
        }
    }

    /// A kind of this version.
    #[must_use]
    pub fn resource(self, kind: &str) -> ApiResource {
        ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, self.as_str(), kind))
    }
}

/// What the server has of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mcs {
    Served(McsVersion),
    /// Nothing.
    Absent,
    /// Only versions that this program does not know, or not both kinds.
    Other(String),
}

impl Mcs {
    pub(super) fn problem(&self) -> Option<Problem> {
        let message = match self {
            Self::Served(_) => return None,
            Self::Absent => "the cluster does not have it, so no service is exported or imported by it; install its custom \
                             resources, or run the agent with --mcs off"
                .to_owned(),
            Self::Other(found) => {
                format!("the cluster has {found}; ServiceExport and ServiceImport of v1beta1 or v1alpha1 are needed")
            }
        };
        Some(Problem { subject: format!("API {GROUP}"), message })
    }
}

/// Tells which version there is, and follows the ServiceExports in it.
pub(super) fn exports(client: Client, config: watcher::Config) -> BoxStream<'static, Told> {
    let following = Following {
        client,
        config,
        found: None,
        inner: None,
        doubts: 0,
        ask_at: Instant::now(),
        queue: VecDeque::new(),
    };
    stream::unfold(following, |mut following| async move { Some((following.next().await, following)) })
        .boxed()
}

struct Following {
    client: Client,
    config: watcher::Config,
    found: Option<Mcs>,
    inner: Option<BoxStream<'static, Told>>,
    /// How often in a row the server said that it has not what it had.
    doubts: u32,
    ask_at: Instant,
    queue: VecDeque<What>,
}

impl Following {
    async fn next(&mut self) -> Told {
        loop {
            if let Some(what) = self.queue.pop_front() {
                return Told { kind: Some(ObjectKind::ServiceExport), what };
            }
            let inner = async {
                match &mut self.inner {
                    Some(inner) => inner.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                told = inner => match told {
                    Some(told) => return told,
                    None => self.inner = None,
                },
                () = sleep_until(self.ask_at) => {
                    let answer = discover(&self.client).await;
                    self.take(answer);
                    self.ask_at = Instant::now() + ASK;
                }
            }
        }
    }

    fn take(&mut self, answer: Result<Mcs, What>) {
        let found = match answer {
            Ok(found) => found,
            // What is known stays; where nothing is, the rest does not wait for it.
            Err(what) => {
                if self.found.is_none() {
                    self.queue.push_back(what);
                }
                return;
            }
        };
        if self.found.as_ref() == Some(&found) {
            self.doubts = 0;
            return;
        }
        if self.inner.is_some() && !matches!(found, Mcs::Served(_)) {
            self.doubts += 1;
            if self.doubts < SURE {
                return;
            }
        }
        self.doubts = 0;
        self.queue.push_back(What::Mcs(found.clone()));
        self.inner = match &found {
            Mcs::Served(version) => {
                let api = Api::all_with(self.client.clone(), &version.resource("ServiceExport"));
                Some(followed(api, ObjectKind::ServiceExport, self.config.clone(), convert::export))
            }
            // There are none, and that is known.
            Mcs::Absent | Mcs::Other(_) => {
                self.queue.extend([What::Begin, What::Complete]);
                None
            }
        };
        self.found = Some(found);
    }
}

/// What the server says that it has.
async fn discover(client: &Client) -> Result<Mcs, What> {
    let ask = async {
        let groups = client.list_api_groups().await?;
        let Some(group) = groups.groups.into_iter().find(|group| group.name == GROUP) else {
            return Ok(Mcs::Absent);
        };
        let served: Vec<String> = group.versions.into_iter().map(|version| version.version).collect();
        for version in McsVersion::ALL {
            if !served.iter().any(|served| served == version.as_str()) {
                continue;
            }
            let kinds = client.list_api_group_resources(&format!("{GROUP}/{}", version.as_str())).await?;
            let has = |kind: &str| kinds.resources.iter().any(|resource| resource.kind == kind);
            if has("ServiceExport") && has("ServiceImport") {
                return Ok(Mcs::Served(version));
            }
        }
        Ok(Mcs::Other(served.join(", ")))
    };
    match timeout(ASK, ask).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(kube::Error::Api(status))) => {
            Err(What::Refused { code: status.code, message: status.message.clone() })
        }
        Ok(Err(error)) => Err(What::Silent(chain(&error))),
        Err(_) => Err(What::Silent(format!("no answer within {} s", ASK.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn following() -> Following {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = Client::try_from(config).unwrap();
        let (config, queue) = (watcher::Config::default(), VecDeque::new());
        Following { client, config, found: None, inner: None, doubts: 0, ask_at: Instant::now(), queue }
    }

    fn said(following: &mut Following) -> Vec<String> {
        following.queue.drain(..).map(|what| format!("{what:?}")).collect()
    }

    #[tokio::test]
    async fn comes_and_goes() {
        let mut this = following();
        this.take(Ok(Mcs::Absent));
        assert_eq!(said(&mut this), ["Mcs(Absent)", "Begin", "Complete"]);
        this.take(Ok(Mcs::Absent));
        assert!(said(&mut this).is_empty() && this.inner.is_none());
        this.take(Ok(Mcs::Served(McsVersion::V1Alpha1)));
        assert_eq!(said(&mut this), ["Mcs(Served(V1Alpha1))"]);
        assert!(this.inner.is_some());
        this.take(Ok(Mcs::Served(McsVersion::V1Beta1)));
        assert_eq!(said(&mut this), ["Mcs(Served(V1Beta1))"]);
    }

    /// A server that starts, or that does not answer, takes nothing away.
    #[tokio::test]
    async fn one_word_is_not_enough() {
        let mut this = following();
        this.take(Err(What::Silent("away".into())));
        assert_eq!(said(&mut this).len(), 1, "nobody waits for it");
        this.take(Ok(Mcs::Served(McsVersion::V1Beta1)));
        said(&mut this);
        for _ in 0..2 {
            this.take(Ok(Mcs::Absent));
            this.take(Ok(Mcs::Absent));
            this.take(Err(What::Silent("away".into())));
            assert!(said(&mut this).is_empty() && this.inner.is_some());
            this.take(Ok(Mcs::Served(McsVersion::V1Beta1)));
        }
        for _ in 0..3 {
            this.take(Ok(Mcs::Absent));
        }
        assert_eq!(said(&mut this), ["Mcs(Absent)", "Begin", "Complete"]);
        assert!(this.inner.is_none());
    }
}
