//! The README's way from two clusters to one shop over both, as it is printed there.

use crate::{
    lab::{Cluster, Lab, checkout},
    world::{SOON, World},
};
use serde_json::Value;
use tombolo_testkit::wait::until_ok;

/// The blocks for a shell of a section, in their order.
fn blocks(file: &str, section: &str) -> Vec<String> {
    let text = std::fs::read_to_string(checkout().join(file)).expect("a README");
    let (_, after) = text.split_once(&format!("\n## {section}\n")).expect("the section");
    let section = after.split("\n## ").next().unwrap_or(after);
    let fenced = section.split("```sh\n").skip(1);
    fenced.map(|rest| rest.split("```").next().unwrap_or(rest).to_owned()).collect()
}

/// A kubeconfig with the contexts `c1` and `c2`, as the section has them.
async fn kubeconfig(world: &World, clusters: [&Cluster; 2]) -> String {
    let mut files = Vec::new();
    for (cluster, context) in clusters.into_iter().zip(["c1", "c2"]) {
        let file = world.path(&format!("{context}.kubeconfig"));
        std::fs::copy(&cluster.kubeconfig, &file).expect("a copy");
        let mut copy = cluster.clone();
        copy.kubeconfig.clone_from(&file);
        let current = copy.kubectl(&["config", "current-context"]).await.expect("a context");
        if current.trim() != context {
            copy.kubectl(&["config", "rename-context", current.trim(), context]).await.expect("renamed");
        }
        files.push(file.display().to_string());
    }
    files.join(":")
}

/// The lines but the last one, which looks at what they did.
fn parts(block: &str) -> (&str, &str) {
    block.trim_end().rsplit_once('\n').expect("several lines")
}

#[tokio::test]
async fn the_readme_leads_to_a_shop_over_two_clusters() {
    let english = blocks("README.md", "On Kubernetes");
    assert_eq!(english, blocks("README.ja.md", "Kubernetes で使う"), "both languages have the same commands");
    let [onboard, shop, name] = english.as_slice() else { panic!("three blocks: {english:?}") };

    let lab = Lab::up(2).await;
    let [one, other] = lab.clusters.as_slice() else { panic!("two clusters") };
    let world = World::start().await;
    std::os::unix::fs::symlink(checkout().join("deploy"), world.path("deploy"))
        .expect("the checkout's deploy");
    let kubeconfig = kubeconfig(&world, [one, other]).await;
    let paste = async |lines: &str| world.shell(&kubeconfig, lines, "").await;

    let said = paste(onboard).await.expect("both are onboard");
    for cluster in ["east", "west"] {
        let line = said.lines().any(|line| line.contains(cluster) && line.contains("connected"));
        assert!(line, "{cluster} is connected: {said}");
    }

    // The last line of the others looks at the shop. Its Service has the pods a moment after they are ready, and the name is there
    // within a second; whoever is faster looks again.
    let look = async |line: &str, from: Option<&str>| {
        let said = paste(line).await?;
        let status: Value = serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))?;
        let all = ["users", "cart", "order"].iter().all(|name| status["services"][name]["cluster"] == "east");
        let catalog = status["services"]["catalog"]["cluster"].as_str();
        if all && catalog == from { Ok(status) } else { Err(status.to_string()) }
    };
    let (lines, last) = parts(shop);
    paste(lines).await.expect("the shop is there");
    let before = until_ok("the shop without its catalog", SOON, || look(last, None)).await;
    assert_eq!(before["products"], 0, "{before}");
    assert_eq!(before["services"]["catalog"]["target"], "catalog:8082", "{before}");
    assert!(before["services"]["catalog"]["error"].is_string(), "{before}");

    let (lines, last) = parts(name);
    paste(lines).await.expect("one variable changed");
    let after = until_ok("the catalog of the other cluster", SOON, || look(last, Some("west"))).await;
    assert!(after["products"].as_u64() > Some(0), "{after}");
    assert_eq!(after["services"]["catalog"]["target"], "catalog.shop.example.com:8082", "{after}");

    for (name, context) in [("east", "c1"), ("west", "c2")] {
        let out = format!(
            "tombolo cluster uninstall {name} --yes --context {context}
             kubectl --context {context} delete namespace shop --timeout=120s"
        );
        paste(&out).await.expect("it is taken out");
    }
}
