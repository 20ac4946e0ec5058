//! The steps of the demo, each as a user would do it.

use super::{
    layout::{CATALOG, DOMAIN, Layout, ORGANIZATION, services},
    manifests,
    process::{self, Fleet},
    shop::Role,
};
use crate::{
    client::Client,
    config::Context,
    org::text,
    output::{Mood, Output},
};
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use std::{
    future::Future,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// A running demo.
pub(crate) struct Demo {
    /// The API, as the organization's admin.
    pub(crate) client: Client,
    /// The organization's context.
    pub(crate) context: Context,
}

/// How the page says that cluster-2 served the catalog.
pub(crate) const FROM_CLUSTER_2: &str = r#"id="catalog" data-cluster="cluster-2""#;

/// How long anything may take to come true.
const PATIENCE: Duration = Duration::from_secs(30);

fn program(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe().context("find this program")?;
    let path = here.parent().unwrap_or_else(|| Path::new(".")).join(name);
    if !path.is_file() {
        bail!("{} is missing: build all programs (cargo build --workspace --bins)", path.display());
    }
    Ok(path)
}

fn args<const N: usize>(list: [&str; N]) -> Vec<String> {
    list.map(str::to_owned).to_vec()
}

/// Waits until a question has an answer.
///
/// # Errors
/// It had none within the time, or the question failed.
pub(crate) async fn until<T, F: Future<Output = Result<Option<T>>>>(
    what: &str,
    ask: impl Fn() -> F,
) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask().await;
        match answer {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) if Instant::now() > deadline => bail!("{what}: not within {PATIENCE:?}"),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("{what}: not within {PATIENCE:?}")));
            }
            _ => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Step 1: the controller on its own private PostgreSQL.
pub(crate) async fn controller(layout: &Layout, fleet: &mut Fleet, out: &Output) -> Result<Demo> {
    out.line("1/5 controller, on a private PostgreSQL of its own");
    let (ready, owner) = (layout.path("controller.json"), layout.path("owner-token"));
    let mut options =
        args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--allow-loopback-gateways"]);
    for (option, path) in [
        ("--data", layout.path("controller")),
        ("--owner-token-file", owner.clone()),
        ("--ready-file", ready.clone()),
    ] {
        options.extend([option.to_owned(), path.display().to_string()]);
    }
    fleet.start("controller", &program("tombolo-controller")?, &options, &[])?;
    let state = fleet.ready("controller", &ready).await?;
    let server = format!("https://{}", text(&state, "api"));
    let mut context = Context {
        server: server.clone(),
        ca_fingerprint: text(&state, "ca_fingerprint"),
        organization: None,
        token: crate::config::token(&owner)?,
    };
    let owner = Client::new(&context)?;
    owner
        .create("/api/v1/organizations", &json!({ "name": ORGANIZATION }))
        .await
        .context("make the organization")?;
    let path = format!("/api/v1/organizations/{ORGANIZATION}/tokens");
    let made =
        owner.create(&path, &json!({ "name": "admin", "role": "admin" })).await.context("make its token")?;
    context.organization = Some(ORGANIZATION.parse()?);
    context.token = text(&made, "token");
    crate::output::secret_file(&layout.path("token"), &context.token)?;
    out.line(&format!("    API at {server}, organization {ORGANIZATION}"));
    Ok(Demo { client: Client::new(&context)?, context })
}

/// Step 2: two clusters, each onboarded with a one-time token.
pub(crate) async fn clusters(demo: &Demo, layout: &Layout, fleet: &mut Fleet, out: &Output) -> Result<()> {
    out.line("2/5 cluster-1 and cluster-2: agent, DNS, egress and ingress gateway, sidecar");
    for cluster in 1..=2 {
        let name = format!("cluster-{cluster}");
        let dir = layout.cluster_dir(cluster);
        std::fs::create_dir(&dir)?;
        std::fs::create_dir(dir.join("manifests"))?;
        let region = if cluster == 1 { "eu-central" } else { "us-east" };
        let body = json!({ "name": name, "locality": { "region": region } });
        demo.client.create(&demo.client.in_org("/clusters")?, &body).await?;
        let path = demo.client.in_org(&format!("/clusters/{name}/onboarding-tokens"))?;
        let token = demo.client.create(&path, &json!({})).await?;
        let mut join = args(["join", "--cluster", &name, "--region", region, "--token-file", "-"]);
        join.extend(args([
            "--controller",
            &demo.context.server,
            "--ca-fingerprint",
            &demo.context.ca_fingerprint,
        ]));
        join.extend(args(["--data", &dir.join("agent").display().to_string()]));
        process::run(&program("tombolo-agent")?, &join, Some(&text(&token, "token")))
            .await
            .context("join")?;
        agent(layout, fleet, cluster).await?;
        for role in ["egress", "ingress", "sidecar"] {
            gateway(layout, fleet, cluster, role).await?;
        }
        out.line(&format!("    {name} joined, machine {}", layout.machine(cluster)));
    }
    Ok(())
}

async fn agent(layout: &Layout, fleet: &mut Fleet, cluster: u8) -> Result<()> {
    let dir = layout.cluster_dir(cluster);
    let in_dir = |name: &str| dir.join(name).display().to_string();
    let mut options = args(["run", "--admin", "127.0.0.1:0"]);
    options.extend(args(["--data", &in_dir("agent"), "--manifests", &in_dir("manifests")]));
    options.extend(args(["--explicit-prefix", &layout.prefix(cluster)]));
    options.extend(args([
        "--gateway-socket",
        &in_dir("gateways.sock"),
        "--ready-file",
        &in_dir("agent.json"),
    ]));
    let name = format!("cluster-{cluster}-agent");
    fleet.start(&name, &program("tombolo-agent")?, &options, &[])?;
    fleet.ready(&name, &dir.join("agent.json")).await?;
    let mut options = args(["dns", "--dns-forward", "refuse", "--dns", &layout.dns(cluster).to_string()]);
    options.extend(args(["--data", &in_dir("agent"), "--ready-file", &in_dir("dns.json")]));
    let name = format!("cluster-{cluster}-dns");
    fleet.start(&name, &program("tombolo-agent")?, &options, &[])?;
    fleet.ready(&name, &dir.join("dns.json")).await.map(drop)
}

async fn gateway(layout: &Layout, fleet: &mut Fleet, cluster: u8, role: &str) -> Result<()> {
    let dir = layout.cluster_dir(cluster);
    let in_dir = |name: &str| dir.join(name).display().to_string();
    let machine = layout.machine(cluster);
    let ready = format!("{role}.json");
    let mut options = args(["run", "--role", role, "--admin", "127.0.0.1:0", "--instance", role]);
    options.extend(args([
        "--agent-socket",
        &in_dir("gateways.sock"),
        "--access-log",
        &in_dir(&format!("{role}-access.log")),
    ]));
    options.extend(args(["--cache", &in_dir(&format!("{role}.cache")), "--ready-file", &in_dir(&ready)]));
    match role {
        "ingress" => {
            let address = layout.ingress(cluster).to_string();
            options.extend(args(["--tunnel", &address, "--advertise", &address]));
        }
        "sidecar" => {
            let address = machine.to_string();
            options.extend(args([
                "--tunnel",
                &format!("{address}:0"),
                "--capture",
                "explicit",
                "--serve",
                &address,
            ]));
        }
        _ => options.extend(args(["--tunnel", &format!("{machine}:0")])),
    }
    let name = format!("cluster-{cluster}-{role}");
    fleet.start(&name, &program("tombolo-gateway")?, &options, &[])?;
    fleet.ready(&name, &dir.join(ready)).await.map(drop)
}

/// Step 3: the shop, split over both clusters, its catalog not yet found.
pub(crate) async fn shop(demo: &Demo, layout: &Layout, fleet: &mut Fleet, out: &Output) -> Result<()> {
    out.line("3/5 an online shop of six services: catalog in cluster-2, all others in cluster-1");
    let this = std::env::current_exe().context("find this program")?;
    for (service, cluster) in services() {
        let executable = layout.executable(service);
        // Two names of one file; a copy where the folder is on another disk.
        if std::fs::hard_link(&this, &executable).is_err() {
            std::fs::copy(&this, &executable).with_context(|| format!("make {}", executable.display()))?;
        }
        start_service(layout, fleet, service, cluster, "catalog:8082")?;
    }
    for cluster in 1..=2 {
        let folder = layout.cluster_dir(cluster).join("manifests");
        std::fs::write(folder.join("shop.yaml"), manifests::cluster(layout, cluster))
            .context("write the manifests")?;
    }
    answers(&layout.page()).await?;
    for cluster in 1..=2 {
        let name = format!("cluster-{cluster}");
        let path = demo.client.in_org(&format!("/clusters/{name}/status"))?;
        until(&format!("{name} is connected with its gateways"), || async {
            let status = demo.client.get(&path).await?.body;
            let gateways = status["gateways"].as_array().map_or(0, Vec::len);
            Ok((status["state"] == "connected" && gateways >= 3).then_some(()))
        })
        .await?;
    }
    out.line(&format!("    the shop answers at {}; it does not find its catalog yet", layout.page()));
    Ok(())
}

fn start_service(
    layout: &Layout,
    fleet: &mut Fleet,
    service: Role,
    cluster: u8,
    catalog: &str,
) -> Result<()> {
    let at = |service: Role| layout.listens(service, 1).to_string();
    let env = [
        ("LISTEN", layout.listens(service, cluster).to_string()),
        ("CLUSTER", format!("cluster-{cluster}")),
        ("RESOLVER", layout.dns(cluster).to_string()),
        ("CATALOG_HOST", catalog.to_owned()),
        ("CART_HOST", at(Role::Cart)),
        ("ORDER_HOST", at(Role::Order)),
        ("PAYMENT_HOST", at(Role::Payment)),
        ("USERS_HOST", at(Role::Users)),
    ];
    fleet.start(service.as_str(), &layout.executable(service), &[], &env)
}

/// The body of a page, once it answers.
pub(crate) async fn answers(url: &str) -> Result<String> {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
    until(url, || async {
        let answer = http.get(url).send().await?.error_for_status()?;
        Ok(Some(answer.text().await?))
    })
    .await
}

/// Step 4: one global namespace over both clusters, and one changed environment variable.
pub(crate) async fn global_namespace(
    demo: &Demo,
    layout: &Layout,
    fleet: &mut Fleet,
    out: &Output,
) -> Result<()> {
    out.line(&format!(
        "4/5 global namespace {DOMAIN} over both clusters; shopping gets CATALOG_HOST={CATALOG}"
    ));
    let rules = json!([{ "cluster": { "labels": {} }, "namespace": { "name": "default" } }]);
    let body = json!({ "name": ORGANIZATION, "domain": DOMAIN, "rules": rules });
    demo.client.create(&demo.client.in_org("/global-namespaces")?, &body).await?;
    fleet.end("shopping").await;
    start_service(layout, fleet, Role::Shopping, 1, CATALOG)?;
    let path = demo.client.in_org(&format!("/services/catalog.{DOMAIN}"))?;
    until("the catalog has a ready endpoint", || async {
        let service = demo.client.find(&path).await?;
        Ok(service.and_then(|s| ready(&s.body).then_some(())))
    })
    .await?;
    until("the page shows the catalog", || async {
        let page = answers(&layout.page()).await?;
        Ok(page.contains(FROM_CLUSTER_2).then_some(()))
    })
    .await?;
    out.line(&out.paint(Mood::Good, "    the page shows its products, served by cluster-2"));
    Ok(())
}

fn ready(service: &Value) -> bool {
    service["targets"].as_array().into_iter().flatten().any(|t| t["ready"].as_u64().unwrap_or(0) > 0)
}
