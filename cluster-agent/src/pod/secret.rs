//! The state of the cluster's agent, as a Secret that all replicas have mounted.

use crate::{
    private,
    state::{DataDir, StateError},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
    core::PartialObjectMeta,
};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};
use tombolo_model::NamespaceName;
use tombolo_mtls::certificate_info;
use tombolo_runtime::telemetry::chain;

/// The one Secret that the agent may write.
const NAME: &str = "tombolo-state";
const MANAGER: &str = "tombolo-agent";
const STATE: &str = "state.json";
const CURRENT: &str = "intermediate.pem";
/// The SHA-256 of the token that it joined with: that one is not tried again.
pub(super) const TOKEN: &str = "token.sha256";
/// The annotation of the agent's pods that changes when the Secret did: kubelet looks at a pod that changed at once, and so at
/// its mounts; else it does once in a minute or two.
const NEWS: &str = "tombolo.io/state-kept";
/// The agent's pods.
const PODS: &str = "app.kubernetes.io/name=tombolo-agent";
/// How often they are told. Kubelet may hear of the pod before it hears of the Secret, and then of the pod again.
const TIMES: u8 = 3;
/// How long after one time it is the next one's.
const BETWEEN: Duration = Duration::from_secs(2);
/// How long kubelet may take to bring to the mounts what was written. What is not there then was taken out again by somebody.
const FOLLOWS: Duration = Duration::from_secs(180);
/// All that is kept. The membership comes last: without it nothing is joined.
const FILES: [&str; 4] = [CURRENT, "intermediate-next.pem", TOKEN, STATE];

/// What is kept, by file. Keys are in it, so it is never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Kept(BTreeMap<&'static str, Vec<u8>>);

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What became of looking at the mounted Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Took {
    /// There was nothing newer.
    Nothing,
    /// Something of the same membership.
    State,
    /// Another membership, or the first one.
    Membership,
}

impl Kept {
    /// As the Secret is mounted. The kubelet changes all of it at once, behind a link.
    pub(crate) fn mounted(dir: &Path) -> io::Result<Self> {
        let versioned = fs::canonicalize(dir.join("..data")).unwrap_or_else(|_| dir.to_owned());
        Self::read(|name| match fs::read(versioned.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        })
    }

    /// As it is in the data directory.
    pub(crate) fn here(data: &DataDir) -> io::Result<Self> {
        Self::read(|name| private::read_secret(&data.file(name)))
    }

    fn read(file: impl Fn(&str) -> io::Result<Option<Vec<u8>>>) -> io::Result<Self> {
        let mut all = BTreeMap::new();
        for name in FILES {
            // A key that was taken away may stay as an empty one.
            if let Some(content) = file(name)?.filter(|content| !content.is_empty()) {
                all.insert(name, content);
            }
        }
        Ok(Self(all))
    }

    /// The mark of the token that it joined with.
    pub(super) fn token(&self) -> Option<String> {
        String::from_utf8(self.0.get(TOKEN)?.clone()).ok()
    }

    /// When its intermediate was made; none where it is not whole.
    fn made(&self) -> Option<SystemTime> {
        let (_, current) = (self.0.get(STATE)?, self.0.get(CURRENT)?);
        let text = std::str::from_utf8(current).ok()?;
        let at = text.find("-----BEGIN CERTIFICATE")?;
        certificate_info(&text[at..]).ok().map(|info| info.validity.not_before)
    }
}

/// Takes over what is mounted, where it is later than what is here. A replica that writes is ahead of its mount, so it
/// takes only what another one made later.
pub(crate) fn take_over(mounted: &Kept, data: &DataDir, writes: bool) -> Result<Took, StateError> {
    let io = |source| StateError::Io { action: "read", path: data.file(CURRENT), source };
    let here = Kept::here(data).map_err(io)?;
    let later = match (mounted.made(), here.made()) {
        (None, _) => return Ok(Took::Nothing),
        (Some(_), None) => true,
        (Some(theirs), Some(ours)) => theirs > ours,
    };
    let same = mounted.made() == here.made() && !writes;
    if !(later || same) || *mounted == here {
        return Ok(Took::Nothing);
    }
    for name in FILES {
        match mounted.0.get(name) {
            Some(content) if here.0.get(name) != Some(content) => data.write(name, content)?,
            Some(_) => {}
            None => data.remove(name)?,
        }
    }
    let member = |kept: &Kept| serde_json::from_slice::<Value>(kept.0.get(STATE)?).ok();
    let another = member(mounted) != member(&here);
    Ok(if another { Took::Membership } else { Took::State })
}

/// The Secret, for the replica that writes it.
#[derive(Clone)]
pub(super) struct StateSecret {
    client: Client,
    namespace: NamespaceName,
    dir: PathBuf,
    written: Option<(Kept, Instant)>,
    news: News,
}

/// How often the pods are still to be told, and when they were last.
#[derive(Clone, Copy, Debug, Default)]
struct News {
    owed: u8,
    told: Option<Instant>,
}

impl News {
    /// Whether it is time.
    fn take(&mut self, now: Instant) -> bool {
        let is_due = self.owed > 0 && self.told.is_none_or(|told| now.duration_since(told) >= BETWEEN);
        if is_due {
            self.owed -= 1;
            self.told = Some(now);
        }
        is_due
    }
}

impl fmt::Debug for StateSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateSecret").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl StateSecret {
    /// The Secret of this namespace, mounted at `dir`.
    #[must_use]
    pub(super) fn new(client: Client, namespace: NamespaceName, dir: PathBuf) -> Self {
        Self { client, namespace, dir, written: None, news: News::default() }
    }

    /// The API server that has it.
    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    /// Where it is mounted.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes what is in the data directory, unless that is written, and makes the mounts follow. Where they do not, it is
    /// written again: somebody emptied the Secret, or deleted it. Nothing is written before something is joined. To be
    /// called again and again.
    ///
    /// # Errors
    /// Why not, for people; to be tried again.
    pub(super) async fn write(&mut self, data: &DataDir) -> Result<(), String> {
        self.write_at(data, Instant::now()).await
    }

    async fn write_at(&mut self, data: &DataDir, now: Instant) -> Result<(), String> {
        self.put(data, now).await?;
        if self.news.take(now)
            && let Err(error) = self.touch_pods().await
        {
            let message = "the other replicas can't be told that the agent's state is another one; kubelet tells them in a minute or two";
            tracing::warn!(error = chain(&error), "{message}");
        }
        Ok(())
    }

    /// Changes the annotation of all of the agent's pods.
    async fn touch_pods(&self) -> Result<(), kube::Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), self.namespace.as_str());
        // any value that is none of before
        let news = crate::report::new_epoch(&mut rand::rng());
        let news = json!({ "metadata": { "annotations": { NEWS: news } } });
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        for pod in api.list_metadata(&ListParams::default().labels(PODS)).await? {
            let patched: Result<PartialObjectMeta<Pod>, _> =
                api.patch_metadata(&pod.name_any(), &params, &Patch::Merge(&news)).await;
            match patched {
                Ok(_) => {}
                // it ended meanwhile
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn put(&mut self, data: &DataDir, now: Instant) -> Result<(), String> {
        let here = Kept::here(data).map_err(|error| chain(&error))?;
        let is_mounted = || Kept::mounted(&self.dir).is_ok_and(|mounted| mounted == here);
        let is_on_its_way = || {
            let written = self.written.as_ref().filter(|(written, _)| *written == here);
            written.is_some_and(|(_, at)| now.duration_since(*at) < FOLLOWS)
        };
        if here.made().is_none() || is_on_its_way() || is_mounted() {
            return Ok(());
        }
        let value =
            |name: &&str| here.0.get(*name).map_or(Value::Null, |content| json!(STANDARD.encode(content)));
        let content: Map<String, Value> =
            FILES.iter().map(|name| ((*name).to_owned(), value(name))).collect();
        let api: Api<Secret> = Api::namespaced(self.client.clone(), self.namespace.as_str());
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        // Named by its keys: what else is in the Secret stays. The answer has the Secret in it, which is not looked at.
        let written = api.patch(NAME, &params, &Patch::Merge(json!({ "data": content }))).await;
        written.map_err(|error| match error {
            kube::Error::Api(status) if status.code == 404 => {
                format!(
                    "there is no Secret {}/{NAME}; apply the agent's manifest, which has it",
                    self.namespace
                )
            }
            kube::Error::Api(status) if status.code == 403 => {
                format!("{}; let the agent's role patch the Secret {NAME}", status.message)
            }
            error => chain(&error),
        })?;
        tracing::info!(secret.name = NAME, "the agent's state is kept");
        self.written = Some((here, now));
        self.news = News { owed: TIMES, told: None };
        Ok(())
    }
}

#[cfg(test)]
mod tests;
