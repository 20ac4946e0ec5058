//! A controller to call, with its database and a clock that the test moves.

use crate::{
    app::{
        Deps,
        caller::{Role, Secret},
    },
    ca::Vault,
    http::{problem::Problem, router},
    metrics::{Agents, Reconciled},
    publish::View,
    reconcile::{Commits, Driver, Liveness},
    store::{Store, token::TokenRow},
    vips::Pools,
};
use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    http::{HeaderMap, Request, StatusCode},
};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::{net::SocketAddr, str::FromStr as _, sync::Arc};
use tokio::{sync::OnceCell, task::JoinHandle};
use tombolo_model::id::TokenId;
use tombolo_runtime::{
    clock::{Clock, ManualClock},
    drain::{self, Drain},
    metrics::Metrics,
    places::{Places, Shares},
    task,
};
use tombolo_testkit::{clock, postgres::Database};
use tower::ServiceExt as _;
use uuid::Uuid;

/// Few.
const FOLLOWERS: Shares = Shares { all: 4, each: 3 };

/// A controller.
pub(crate) struct Controller {
    pub(crate) router: Router,
    pub(crate) deps: Arc<Deps>,
    pub(crate) clock: ManualClock,
    /// The installation owner's token.
    pub(crate) owner: String,
    pub(crate) database: Database,
    pub(crate) drain: Drain,
    _files: tempfile::TempDir,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answered {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
    /// The answer, which must be of this status.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        if self.text.is_empty() { Value::Null } else { self.json() }
    }
    /// The problem, which must be of this status and type.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, kind: &str) -> Problem {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem: Problem = serde_json::from_str(&self.text).unwrap();
        assert_eq!((problem.kind.as_str(), problem.status), (format!("/problems/{kind}").as_str(), status));
        problem
    }
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A request under way.
pub(crate) struct Call<'a> {
    controller: &'a Controller,
    request: axum::http::request::Builder,
    body: Body,
}

impl Call<'_> {
    pub(crate) fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }
    /// From another address than requests come from otherwise.
    pub(crate) fn at(mut self, address: &str) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        self.request = self.request.extension(ConnectInfo(address));
        self
    }
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }
    pub(crate) fn json(self, body: &Value) -> Self {
        self.text(&body.to_string())
    }
    pub(crate) fn text(mut self, body: &str) -> Self {
        self.body = Body::from(body.to_owned());
        self.header("content-type", "application/json")
    }
    pub(crate) async fn send(self) -> Answered {
        let request = self.request.body(self.body).unwrap();
        let response = self.controller.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answered { status: parts.status, headers: parts.headers, text }
    }
}

impl Controller {
    pub(crate) async fn start() -> Self {
        // the schema is made once, and copied
        static TEMPLATE: OnceCell<Database> = OnceCell::const_new();
        let template = TEMPLATE.get_or_init(async || {
            let database = tokio::task::spawn_blocking(Database::create).await.unwrap();
            open(&database).await.pool().close().await;
            database
        });
        let template = template.await;
        let database = tokio::task::spawn_blocking(|| template.copy()).await.unwrap();
        let store = open(&database).await;
        let files = tempfile::tempdir().unwrap();
        let clock = clock::manual();
        let (drain, watch) = drain::channel();
        let deps = Arc::new(Deps {
            store,
            ca: Vault::from_file(&files.path().join("ca.key"), true).unwrap(),
            clock: Arc::new(clock.clone()),
            view: View::new(),
            public_url: "https://controller.example.com:8443".to_owned(),
            ca_fingerprint: format!("sha256:{}", "ab".repeat(32)),
            image_registry: "registry.example.com/tombolo".to_owned(),
            image_version: env!("CARGO_PKG_VERSION").to_owned(),
            vip_pools: ("241.0.0.0/8".to_owned(), "fd00:1::/64".to_owned()),
            root_overlap: chrono::TimeDelta::hours(25),
            followers: Places::new(FOLLOWERS),
            stop: watch,
        });
        let owner = Secret::generate(Secret::API);
        let mut tx = deps.store.begin().await.unwrap();
        let row = TokenRow {
            id: TokenId::new(Uuid::now_v7()),
            org: None,
            name: "owner".to_owned(),
            role: Role::Owner,
            created_at: deps.now(),
            created_by: "test".to_owned(),
            expires_at: None,
            revoked_at: None,
            last_used_at: None,
        };
        tx.insert_api_token(&row, &owner.hash()).await.unwrap();
        tx.commit().await.unwrap();
        let router = router(Arc::clone(&deps));
        Self { router, deps, clock, owner: owner.reveal().to_owned(), database, drain, _files: files }
    }

    /// Lets a reconciler run until it is stopped.
    pub(crate) async fn reconcile(&self) -> Reconciler {
        let metrics = Metrics::new("controller");
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let driver = Driver {
            commits: Commits::default(),
            store: self.deps.store.clone(),
            view: self.deps.view.clone(),
            liveness: Liveness::new(Uuid::now_v7(), Arc::clone(&clock), Agents::new(&metrics).lag_seconds),
            pools: Pools::new("240.0.0.0/4".parse().unwrap(), "fd74:6f6d:6265:6c6f::/64".parse().unwrap())
                .unwrap(),
            clock,
            metrics: Reconciled::new(&metrics),
        };
        driver.first().await.unwrap();
        let (drain, watch) = drain::channel();
        Reconciler { drain, task: task::spawn("reconcile", driver.run(watch)) }
    }

    /// A request to `/api/v1<path>`.
    pub(crate) fn call(&self, method: &str, path: &str) -> Call<'_> {
        let request = Request::builder().method(method).uri(format!("/api/v1{path}"));
        Call { controller: self, request, body: Body::empty() }
    }
    pub(crate) async fn get(&self, token: &str, path: &str) -> Answered {
        self.call("GET", path).token(token).send().await
    }
    pub(crate) async fn post(&self, token: &str, path: &str, body: &Value) -> Answered {
        self.call("POST", path).token(token).json(body).send().await
    }

    /// A new organization, and an admin's token of it.
    pub(crate) async fn organization(&self, name: &str) -> String {
        self.post(&self.owner, "/organizations", &json!({ "name": name })).await.expect(201);
        self.token(name, "admin", "admin").await
    }
    /// A new token of an organization.
    pub(crate) async fn token(&self, org: &str, name: &str, role: &str) -> String {
        let body = json!({ "name": name, "role": role });
        let made = self.post(&self.owner, &format!("/organizations/{org}/tokens"), &body).await.expect(201);
        made["token"].as_str().unwrap().to_owned()
    }
    /// A new cluster.
    pub(crate) async fn cluster(&self, token: &str, org: &str, name: &str) -> Value {
        let path = format!("/organizations/{org}/clusters");
        self.post(token, &path, &json!({ "name": name })).await.expect(201)
    }
    /// A new global namespace over the namespace `default` of all clusters.
    pub(crate) async fn gns(&self, token: &str, org: &str, name: &str, domain: &str) -> Value {
        let path = format!("/organizations/{org}/global-namespaces");
        self.post(token, &path, &gns(name, domain)).await.expect(201)
    }
}

async fn open(database: &Database) -> Store {
    let options = sqlx::postgres::PgConnectOptions::from_str(database.url()).unwrap();
    Store::open(options, 8).await.unwrap()
}

/// A running reconciler.
pub(crate) struct Reconciler {
    drain: Drain,
    task: JoinHandle<()>,
}

impl Reconciler {
    pub(crate) async fn stop(self) {
        self.drain.start();
        self.task.await.unwrap();
    }
}

/// A body for a new global namespace.
pub(crate) fn gns(name: &str, domain: &str) -> Value {
    let rule = json!({ "cluster": { "labels": {} }, "namespace": { "name": "default" } });
    json!({ "name": name, "domain": domain, "rules": [rule] })
}
