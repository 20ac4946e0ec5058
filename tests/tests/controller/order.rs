//! `tombolo cluster install` again and again at a true controller: what is named changes, and nothing else does.

use crate::{
    support::{Org, Site, site},
    user::User,
};
use serde_json::{Value, json};

async fn order(site: &Site, acme: &Org) -> Value {
    site.must(&acme.admin, "GET", &acme.path("/clusters/east/install"), None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_order_does_not_name_stays() {
    let (site, _database, _files) = site().await;
    let acme = site.organization("acme").await;
    let user = User::new(&site);
    user.login(&acme.admin, &[]).await.ends(0);
    site.cluster(&acme, "east").await;
    let install = async |options: &[&str]| {
        let start = ["cluster", "install", "east", "--no-wait"];
        user.run(&[&start[..], options].concat()).await
    };

    let first = ["--exclude-namespace=secret", "--node", "--capture=node", "--webhook-failure=fail"];
    let said = install(&first).await.ends(0);
    assert!(!said.out.contains('→'), "nothing was in force: {said:#?}");
    let before = order(&site, &acme).await;
    assert_eq!(before["injector"]["failure_policy"], "fail");

    let said = install(&["--ingress=node-port", "--ingress=load-balancer", "--ingress-annotation=a.b/c=d"])
        .await
        .ends(0);
    let line = "  gateways.ingress.exposure: load-balancer → node-port, load-balancer (a.b/c=d)";
    assert!(said.out.lines().any(|said| said == line), "{said:#?}");
    let mut wanted = before.clone();
    wanted["gateways"]["ingress"]["exposure"] =
        json!([{ "type": "node_port" }, { "type": "load_balancer", "annotations": { "a.b/c": "d" } }]);
    let now = order(&site, &acme).await;
    for field in ["version", "registry", "namespaces", "gateways", "dns", "injector", "node", "default_mode"]
    {
        assert_eq!(now[field], wanted[field], "{field}");
    }

    // what is there already is not ordered again, and what stood before it stays what a rollback gives back
    let said = install(&["--node"]).await.ends(0);
    assert!(said.out.contains("nothing of what is in force changes"), "{said:#?}");
    assert_eq!(order(&site, &acme).await, now);
    // and is no noise to programs
    assert_eq!(install(&["--no-node", "--capture=gateway", "-o", "json"]).await.ends(0).out, "");
    let now = order(&site, &acme).await;
    assert_eq!(
        (&now["node"]["enabled"], &now["namespaces"]),
        (&json!(false), &json!({ "exclude": ["secret"] }))
    );

    let said = install(&["--reset", "--no-dns"]).await.ends(0);
    assert!(said.out.contains("  namespaces.exclude: secret → none"), "{said:#?}");
    let now = order(&site, &acme).await;
    assert_eq!(
        (&now["dns"]["corefile"], &now["injector"]["failure_policy"]),
        (&json!(false), &json!("ignore"))
    );
    assert_eq!(now["gateways"]["ingress"]["exposure"], json!([{ "type": "load_balancer" }]));

    let said =
        install(&["--never-dial=10.244.0.1/16,fd00:1::/64", "--never-dial=10.96.0.0/12"]).await.ends(0);
    let line = "  gateways.egress.never_dial: (nothing) → 10.96.0.0/12, 10.244.0.0/16, fd00:1::/64";
    assert!(said.out.lines().any(|said| said == line), "{said:#?}");
    let said = install(&["--never-dial=10.96.0.0/12,fd00:1::/64,10.244.0.0/16"]).await.ends(0);
    assert!(said.out.contains("nothing of what is in force changes"), "{said:#?}");
    let now = order(&site, &acme).await;
    assert_eq!(
        now["gateways"]["egress"]["never_dial"],
        json!(["10.96.0.0/12", "10.244.0.0/16", "fd00:1::/64"])
    );
    let said = install(&["--no-never-dial"]).await.ends(0);
    assert!(said.out.contains("fd00:1::/64 → (nothing)"), "{said:#?}");
    assert_eq!(order(&site, &acme).await["gateways"]["egress"].get("never_dial"), None);
    install(&["--never-dial=everywhere"]).await.ends(2);
    let said = install(&["--never-dial=::/0"]).await.ends(1);
    assert!(said.err.contains("no other cluster could be reached"), "{said:#?}");
    // the agent's own, of its manifest
    let printed = ["cluster", "manifest", "east", "--never-dial=10.244.0.0/16", "--never-dial=fd00:1::/64"];
    let printed = user.run(&printed).await.ends(0);
    let lines = "            - --never-dial=10.244.0.0/16\n            - --never-dial=fd00:1::/64\n";
    assert!(printed.out.contains(lines), "{printed:#?}");
    assert!(!user.run(&["cluster", "manifest", "east"]).await.ends(0).out.contains("--never-dial"));

    // what can't be both, and what nobody can listen at
    for wrong in [
        ["--node", "--no-node"],
        ["--dns", "--no-dns"],
        ["--all-namespaces", "--exclude-namespace=a"],
        ["--no-never-dial", "--never-dial=::1/128"],
    ] {
        install(&wrong).await.ends(2);
    }
    let said = install(&["--ingress=node-port=0"]).await.ends(2);
    assert!(said.err.contains("node-port=31443"), "{said:#?}");
    site.bound.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_taken_back_where_no_agent_would_hear_of_it() {
    let (site, _database, _files) = site().await;
    let acme = site.organization("acme").await;
    let user = User::new(&site);
    user.login(&acme.admin, &[]).await.ends(0);
    site.cluster(&acme, "east").await;
    user.run(&["cluster", "install", "east", "--no-wait"]).await.ends(0);
    // it never joined: nobody is waited for
    user.run(&["cluster", "uninstall", "east", "--yes"]).await.ends(0);
    let (status, _) = site.call(&acme.admin, "GET", &acme.path("/clusters/east/install"), None).await;
    assert_eq!(status, 404);
    user.run(&["cluster", "remove", "east", "--yes"]).await.ends(0);
    let said = user.run(&["cluster", "uninstall", "east", "--yes"]).await.ends(1);
    assert!(said.err.contains("--kubeconfig and --context"), "{said:#?}");
    site.bound.drain().await;
}
