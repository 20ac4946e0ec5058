//! A database that was restored from a backup is never taken for what follows: agents that are ahead of it, replicas that
//! run on while it is exchanged, and followers of events.

use crate::support::{Agent, Feed, Site, database, site};
use std::path::Path;
use tombolo_feed::{Client, Options};
use tombolo_model::snapshot::{ClusterResource, ResourceKey};
use tombolo_runtime::task;
use tombolo_testkit::{build, build::Service};

/// A feed that keeps its state in this folder, as an agent does.
fn keeping(agent: &Agent, site: &Site, folder: &Path) -> Feed {
    let mut options = Options::new("/agent/v1/feed", "/agent/v1/ack");
    options.cache = Some(folder.join("snapshot.json"));
    let (client, running) = Client::build(site.connector(Some(&agent.credentials)), options);
    Feed { client, running: task::spawn("feed", running.run()) }
}

fn domains(feed: &Feed) -> Vec<String> {
    let keys = feed.state().resources.keys().map(ToString::to_string).collect::<Vec<_>>();
    keys.into_iter().filter_map(|key| key.strip_prefix("domain/").map(str::to_owned)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_follow_a_database_that_is_older_than_what_they_have() {
    let (original, folder, kept) =
        (database().await, tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let site = Site::start(&original, folder.path()).await;
    let acme = site.organization("acme").await;
    site.gns(&acme, "acme", "acme.example.com").await;
    let agent = site.agent(&acme, "cluster-1").await;
    agent.report(&site, "a", build::inventory([("default/catalog", Service::new(&[1]))])).await;
    let feed = keeping(&agent, &site, kept.path());
    feed.until_name("catalog.acme.example.com", |_| true).await;
    drop(feed);
    site.bound.drain().await;

    // the backup; and after it a name, a namespace and a cluster's removal that it does not know
    let original = std::sync::Arc::new(original);
    let backup = tokio::task::spawn_blocking({
        let original = std::sync::Arc::clone(&original);
        move || original.copy()
    });
    let backup = backup.await.unwrap();
    let site = Site::start(&original, folder.path()).await;
    site.gns(&acme, "late", "late.example.com").await;
    for n in 2..30 {
        agent
            .update(
                &site,
                ("a", n),
                ("default/catalog", Service::new(&[1]).endpoints(1, 40 + n as u32).build()),
            )
            .await
            .unwrap();
        agent
            .update(&site, ("a", n), ("default/catalog", Service::new(&[1]).endpoints(1, 40).build()))
            .await
            .unwrap();
    }
    let feed = keeping(&agent, &site, kept.path());
    feed.until("the late domain", |state| {
        state.resources.contains_key(&ResourceKey::new("domain", "late.example.com"))
    })
    .await;
    feed.until_status("all of it, on disk", |status| status.lag() == 0 && status.kept == status.newest).await;
    let ahead = feed.state().generation;
    drop(feed);
    site.bound.drain().await;

    // the agent comes with what it has, to a controller that has an older state
    let site = Site::start(&backup, folder.path()).await;
    let stored: u64 = backup.sql("select generation from organizations").parse().unwrap();
    assert!(stored < ahead.get() && ahead.epoch() == 0, "{stored} {ahead}");
    let feed = keeping(&agent, &site, kept.path());
    feed.until("the older world, as a newer generation", |state| state.generation > ahead).await;
    assert_eq!((feed.state().generation.epoch(), domains(&feed)), (1, vec!["acme.example.com".to_owned()]));
    let restored = "select actor_kind, actor_name from audit_events where action = 'organization.restored'";
    assert_eq!(backup.sql(restored), "agent|cluster-1");
    // from there on as ever: generations rise, and nothing is told twice over
    let before = feed.state().generation;
    site.gns(&acme, "new", "new.example.com").await;
    feed.until("a new domain", |state| {
        state.resources.contains_key(&ResourceKey::new("domain", "new.example.com"))
    })
    .await;
    assert!(feed.state().generation > before && feed.state().previous >= before);
    drop(feed);
    // one that has been there already begins no other epoch
    let feed = keeping(&agent, &site, kept.path());
    feed.until_status("connected", |status| status.connected).await;
    assert_eq!(backup.sql("select generation >> 40 from organizations"), "1");
    assert_eq!(backup.sql("select count(*) from audit_events where action = 'organization.restored'"), "1");
    drop(feed);
    site.bound.drain().await;
}

/// What a restoration does to the rows of an organization, in one transaction: another history, from `back` generations
/// ago, that has come to `ahead` generations from now; with a global namespace that none of its noted changes names.
fn exchange(back: u64, ahead: u64) -> String {
    format!(
        "update changes set commit_id = gen_random_uuid() where generation > (select generation - {back} from organizations);
         insert into changes (org_id, generation, commit_id, ordinal, kind, reference)
            select id, n, gen_random_uuid(), 1, 'audit', '' from organizations,
            generate_series(generation + 1, generation + {ahead}) as n;
         delete from changes c using organizations o where c.generation > o.generation - {back} + {ahead} and {ahead} = 0;
         update organizations set commit_id = gen_random_uuid(),
            generation = case when {ahead} = 0 then generation - {back} else generation + {ahead} end;
         update global_namespaces set domain = 'other.example.com';
         select pg_notify('tombolo_changes', id::text) from organizations"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_notices_that_its_database_was_exchanged() {
    let (site, database, _files) = site().await;
    let acme = site.organization("acme").await;
    site.gns(&acme, "acme", "acme.example.com").await;
    let agent = site.agent(&acme, "cluster-1").await;
    agent.report(&site, "a", build::inventory([("default/catalog", Service::new(&[1]))])).await;
    let feed = agent.feed(&site);
    feed.until_name("catalog.acme.example.com", |_| true).await;
    feed.until_status("everything settled", |status| status.lag() == 0).await;

    // one whose numbers go on from ours, and whose history is another one
    database.sql(&exchange(3, 4));
    feed.until_name("catalog.other.example.com", |_| true).await;
    assert_eq!(feed.state().generation.epoch(), 0);

    // one that is older
    let ahead = feed.state().generation;
    database.sql(&exchange(5, 0).replace("other.", "older."));
    feed.until_name("catalog.older.example.com", |_| true).await;
    assert!(feed.state().generation > ahead);
    assert_eq!(feed.state().generation.epoch(), 1);
    let restored = "select actor_kind from audit_events where action = 'organization.restored'";
    assert_eq!(database.sql(restored), "system");
    // what the agent reports is followed as before
    let look =
        || async { agent.report(&site, "b", build::inventory([("default/late", Service::new(&[1]))])).await };
    look().await;
    feed.until_name("late.older.example.com", |_| true).await;
    let bundle = feed.state().resources.get(&ResourceKey::new("bundle", "")).cloned();
    assert!(matches!(bundle, Some(ClusterResource::Bundle(_))));
    drop(feed);
    site.bound.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_lies_moves_little() {
    let (site, database, kept) = site().await;
    let acme = site.organization("acme").await;
    let agent = site.agent(&acme, "cluster-1").await;
    let generation = || database.sql("select generation >> 40 from organizations");
    let claim = |generation: u64| {
        let mut options =
            Options::new(format!("/agent/v1/feed?generation={generation}&digest=none"), "/agent/v1/ack");
        options.cache = Some(kept.path().join("none.json"));
        let (client, running) = Client::build(site.connector(Some(&agent.credentials)), options);
        Feed { client, running: task::spawn("feed", running.run()) }
    };
    // nonsense
    let feed = claim(u64::MAX);
    feed.until_status("answered", |status| status.connected).await;
    assert_eq!(generation(), "0");
    let feed = claim(1_000_000);
    feed.until("a state", |state| state.generation.epoch() == 1).await;
    // once more at once is not believed
    let feed = claim((1 << 40) + 1_000_000);
    feed.until_status("answered", |status| status.connected).await;
    assert_eq!(generation(), "1");
    drop(feed);
    site.bound.drain().await;
}
