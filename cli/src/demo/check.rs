//! The demo, looked at from outside: only what a user could see counts.

use super::{
    layout::{CATALOG, DOMAIN, Layout},
    lines::{Line, lines},
    manifests,
    names::{self, Over},
    process,
    shop::Role,
    steps::{self, Demo, until},
    table,
};
use crate::output::{Mood, Output};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use std::{net::IpAddr, path::Path, time::Duration};

fn passed(out: &Output, what: &str) {
    out.line(&out.paint(Mood::Good, &format!("    ✓ {what}")));
}

/// Before the global namespace: the page works, but for the catalog.
pub(crate) async fn before(layout: &Layout, out: &Output) -> Result<()> {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
    // The cart takes a product that nobody has a price for yet, and an order is paid.
    form(&http, layout, "cart", "product=yoga-mat").await?;
    let order = format!("http://{}/orders/ada", layout.listens(Role::Order, 1));
    let wanted = json!({ "items": { "yoga-mat": 1 }, "cents": 100 });
    let placed = http.post(&order).json(&wanted).send().await.context("place an order")?;
    let placed: Value = placed.error_for_status().context("place an order")?.json().await?;
    ensure!(placed["paid_in"] == "cluster-1", "the order was not paid in cluster-1: {placed}");

    let page = steps::answers(&layout.page()).await?;
    for role in [Role::Shopping, Role::Users, Role::Cart, Role::Order] {
        served_by(&page, role, "cluster-1")?;
    }
    says(&page, ", paid in cluster-1</span>", "that an order was paid")?;
    says(&page, "Prices come from the catalog.", "that its cart holds something")?;
    says(&page, "The catalog can't be reached", "that its catalog is missing")?;
    ensure!(!page.contains(steps::FROM_CLUSTER_2), "the page shows a catalog that it can't reach yet");
    ensure!(
        served_by(&page, Role::Catalog, "cluster-2").is_err(),
        "a catalog answers that nobody may find yet"
    );
    passed(
        out,
        "the page shows users, cart, order and payment of cluster-1, and says that its catalog is missing",
    );
    Ok(())
}

/// After it.
pub(crate) async fn after(demo: &Demo, layout: &Layout, out: &Output) -> Result<()> {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
    let page = steps::answers(&layout.page()).await?;
    for role in [Role::Shopping, Role::Users, Role::Cart, Role::Order] {
        served_by(&page, role, "cluster-1")?;
    }
    served_by(&page, Role::Catalog, "cluster-2")?;
    says(&page, steps::FROM_CLUSTER_2, "who served the catalog")?;
    let product =
        between(&page, r#"name="product" value=""#, "\"").context("the page has no product to buy")?;
    passed(out, "the page shows the products, served by cluster-2, all else by cluster-1");

    form(&http, layout, "cart", &format!("product={product}")).await?;
    form(&http, layout, "checkout", "").await?;
    let page = steps::answers(&layout.page()).await?;
    let orders = page.matches(", paid in cluster-1</span>").count();
    ensure!(orders == 2, "the page shows {orders} orders that were paid, not 2: {page}");
    says(&page, "Nothing in it yet.", "that the cart is empty after the order")?;
    passed(out, "a product of cluster-2 goes into the cart, is ordered and paid in cluster-1");

    let name = CATALOG.trim_end_matches(":8082");
    let udp = names::ask(layout, name, Over::Udp).await?;
    let tcp = names::ask(layout, name, Over::Tcp).await?;
    ensure!(udp == tcp, "DNS answers {udp:?} over UDP but {tcp:?} over TCP");
    let inside = udp.first().is_some_and(|ip| layout.in_prefix(1, *ip));
    ensure!(udp.len() == 1 && inside, "{name} is {udp:?}, not one address in {}", layout.prefix(1));
    passed(out, &format!("DNS answers {name} with {} over UDP and TCP", udp[0]));

    let source = "/cluster/cluster-1/ns/default/sa/shopping";
    let log = layout.cluster_dir(2).join("sidecar-access.log");
    until("the server's log names the caller", || async { Ok(logged(&log, source)?.then_some(())) }).await?;
    passed(out, &format!("the log of cluster-2's sidecar names the caller: …{source}"));

    open_is_counted(demo, udp[0]).await?;
    passed(
        out,
        &format!("the edge shopping → catalog.{DOMAIN} is counted, and a request from the moment it begins"),
    );
    Ok(())
}

/// The lines of the closing table, as a user would paste them.
pub(crate) async fn pasted(demo: &Demo, layout: &Layout, out: &Output) -> Result<()> {
    let [dig, curl, explain] = lines(demo, layout)?;
    let address = names::ask(layout, CATALOG.trim_end_matches(":8082"), Over::Udp).await?;
    if on_path(&["dig"]) {
        let said = pasted_line(&dig).await?;
        let first: Option<IpAddr> = said.trim().parse().ok();
        ensure!(first.is_some() && first == address.first().copied(), "dig says {said:?}, not {address:?}");
        passed(out, "the line with dig answers the same address");
    } else {
        out.line("    – the line with dig was not tried: this machine has none (package dnsutils)");
    }
    if on_path(&["dig", "curl"]) && manifests::curl().is_some() {
        let body = pasted_line(&curl).await?;
        let products: Value = serde_json::from_str(&body).with_context(|| format!("curl got {body:?}"))?;
        ensure!(products.as_array().is_some_and(|all| !all.is_empty()), "curl got no products: {body}");
        passed(out, "the line with curl gets the products");
    } else {
        out.line(
            "    – the line with curl was not tried: this machine lacks it, or dig (packages curl, dnsutils)",
        );
    }
    until("explain says yes at every hop", || async { pasted_line(&explain).await.map(Some) }).await?;
    passed(out, "the line with tombolo explain walks the request, and every hop says yes");
    Ok(())
}

async fn pasted_line(line: &Line) -> Result<String> {
    let args = ["-c", &line.text].map(str::to_owned);
    process::run(Path::new("/bin/sh"), &args, None)
        .await
        .with_context(|| format!("the line with {}", line.program))
}

/// Opens a connection as a workload, says nothing, and looks for it among the open ones.
async fn open_is_counted(demo: &Demo, address: IpAddr) -> Result<()> {
    let name = CATALOG.trim_end_matches(":8082");
    until("the edge is counted", || async {
        Ok((table::total(&table::counts(demo).await?, name, "cluster-2") > 0).then_some(()))
    })
    .await?;
    // Only workloads are let in, and this program is none: curl is, where there is one. It says nothing, until it is ended.
    let Some(curl) = manifests::curl() else { return Ok(()) };
    let url = format!("telnet://{address}:8082");
    let mut held = tokio::process::Command::new(curl)
        .args(["-sS", "--noproxy", "*", &url])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("start curl")?;
    let open = until("a request that goes on is counted as open", || async {
        let counts = table::counts(demo).await?;
        let open = counts.iter().any(|((source, n, cluster), count)| {
            source == "default/visitor"
                && n == name
                && cluster == "cluster-2"
                && count.open > 0
                && count.ok > 0
        });
        Ok(open.then_some(()))
    })
    .await;
    held.kill().await.context("end curl")?;
    open
}

fn on_path(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    programs.iter().all(|program| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Sends a form of the page.
async fn form(http: &reqwest::Client, layout: &Layout, action: &str, body: &str) -> Result<()> {
    let url = format!("{}{action}", layout.page());
    let request = http.post(&url).header("content-type", "application/x-www-form-urlencoded");
    let answer = request.body(body.to_owned()).send().await.with_context(|| format!("POST {url}"))?;
    answer.error_for_status().map(drop).with_context(|| format!("POST {url} {body}"))
}

/// Checks that the page says which cluster a service answered from.
fn served_by(page: &str, role: Role, cluster: &str) -> Result<()> {
    let row = between(page, &format!(r#"<tr data-service="{role}">"#), "</tr>")
        .with_context(|| format!("the page has no row for {role}"))?;
    ensure!(row.contains(&format!(">{cluster}</span>")), "{role} is not served by {cluster}: {row}");
    Ok(())
}

fn says(page: &str, text: &str, what: &str) -> Result<()> {
    if !page.contains(text) {
        bail!("the page does not say {what} ({text:?}): {page}");
    }
    Ok(())
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    text.split_once(start)?.1.split_once(end).map(|(inside, _)| inside)
}

fn logged(log: &Path, source: &str) -> Result<bool> {
    let text = std::fs::read_to_string(log).with_context(|| format!("read {}", log.display()))?;
    Ok(text.lines().any(|line| {
        serde_json::from_str::<Value>(line)
            .is_ok_and(|entry| entry["source"].as_str().is_some_and(|s| s.ends_with(source)))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_who_served() {
        let page = r#"<tr data-service="users"><td><span class="chip">cluster-1</span></td></tr><tr data-service="catalog"><td><span class="chip bad">none</span></td></tr>"#;
        served_by(page, Role::Users, "cluster-1").unwrap();
        served_by(page, Role::Users, "cluster-2").unwrap_err();
        served_by(page, Role::Catalog, "cluster-2").unwrap_err();
        served_by(page, Role::Cart, "cluster-1").unwrap_err();
    }
}
