//! The controller's API, and who joins it.

use super::SOON;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::{
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};
use tombolo_mtls::{parse_pin, pinned_client_config};
use tombolo_testkit::process::binary;

/// The controller's API, with a token.
#[derive(Clone)]
pub struct Api {
    http: reqwest::Client,
    /// Its URL.
    pub url: String,
    /// The fingerprint of its CA.
    pub fingerprint: String,
    token: String,
}

impl Api {
    /// An organization's admin, made by the owner.
    pub async fn found(url: String, fingerprint: String, owner: &str) -> Self {
        let tls = pinned_client_config(parse_pin(&fingerprint).unwrap(), None, &[b"h2"]);
        let http = reqwest::Client::builder().tls_backend_preconfigured((*tls).clone()).build().unwrap();
        let mut api = Self { http, url, fingerprint, token: owner.to_owned() };
        api.post("/organizations", json!({ "name": "acme" })).await;
        let made = api.post("/organizations/acme/tokens", json!({ "name": "t", "role": "admin" })).await;
        made["token"].as_str().unwrap().clone_into(&mut api.token);
        api
    }

    /// The same, with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// What a path gives.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.http.get(format!("{}/api/v1{path}", self.url)).bearer_auth(&self.token).send();
        answer.await.unwrap().json().await.unwrap()
    }

    /// Makes something.
    ///
    /// # Errors
    /// What the controller, or the way to it, says.
    pub async fn try_post(&self, path: &str, body: &Value) -> Result<Value, String> {
        let request = self.http.post(format!("{}/api/v1{path}", self.url)).bearer_auth(&self.token);
        let answer = request.json(body).send().await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body: Value = answer.json().await.map_err(|error| error.to_string())?;
        if status == StatusCode::CREATED { Ok(body) } else { Err(format!("{status}: {body}")) }
    }

    /// Any request, and what came of it: status, entity tag, body.
    ///
    /// # Errors
    /// When there is no answer within `patience`, or none that is whole.
    pub async fn exchange(
        &self,
        method: Method,
        path: &str,
        change: Option<(&str, &Value)>,
        patience: Duration,
    ) -> Result<(StatusCode, Option<String>, Value), String> {
        let url = format!("{}/api/v1{path}", self.url);
        let mut request = self.http.request(method, url).bearer_auth(&self.token).timeout(patience);
        if let Some((version, body)) = change {
            request = request.header("if-match", version).json(body);
        }
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let tag = answer.headers().get("etag").and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        let status = answer.status();
        let body = answer.json().await.map_err(|error| error.to_string())?;
        Ok((status, tag, body))
    }

    /// Makes something; it must go well.
    pub async fn post(&self, path: &str, body: Value) -> Value {
        self.try_post(path, &body).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// A page that a gateway's admin port serves.
    pub async fn page(&self, url: String) -> Value {
        self.http.get(url).send().await.unwrap().json().await.unwrap()
    }

    /// A one-time token.
    pub async fn join_token(&self, cluster: &str) -> String {
        self.try_join_token(cluster).await.unwrap()
    }

    /// A one-time token.
    ///
    /// # Errors
    /// As [`Api::try_post`].
    pub async fn try_join_token(&self, cluster: &str) -> Result<String, String> {
        let path = format!("/organizations/acme/clusters/{cluster}/onboarding-tokens");
        Ok(self.try_post(&path, &json!({})).await?["token"].as_str().unwrap().to_owned())
    }

    /// Removes something, whatever it is like.
    ///
    /// # Errors
    /// What the controller, or the way to it, says.
    pub async fn remove(&self, path: &str) -> Result<(), String> {
        let request = self.http.delete(format!("{}/api/v1{path}", self.url)).bearer_auth(&self.token);
        let answer = request.header("if-match", "*").send().await.map_err(|error| error.to_string())?;
        let status = answer.status();
        if status == StatusCode::NO_CONTENT {
            return Ok(());
        }
        Err(format!("{status}: {}", answer.text().await.unwrap_or_default()))
    }
}

/// Joins as a user does: the true agent, the token on its stdin.
pub async fn join(api: &Api, cluster: &str, data: &Path, token: &str) -> Output {
    use tokio::io::AsyncWriteExt as _;
    let mut command = tokio::process::Command::new(binary("tombolo-agent"));
    command.args(["join", "--cluster", cluster, "--token-file", "-", "--controller", &api.url]);
    command.args(["--ca-fingerprint", &api.fingerprint]).arg("--data").arg(data);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(token.as_bytes()).await.unwrap();
    tokio::time::timeout(SOON, child.wait_with_output()).await.expect("join ends").unwrap()
}
