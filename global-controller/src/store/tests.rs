//! The schema and what the database refuses.

use super::{Change, Error, Store, Tx};
use crate::store::{inventory::InventorySize, organization::OrganizationRow, status::Said};
use chrono::DateTime;
use std::{fs, path::Path, str::FromStr as _};
use tombolo_model::{
    Generation, GlobalName,
    id::{ClusterId, OrgId},
    inventory::{NamespaceRecord, PodRecord, ServiceKey},
    mcs::{ExportRecord, Traits},
};
use tombolo_testkit::{build, postgres::Database};
use uuid::Uuid;

async fn database() -> Database {
    tokio::task::spawn_blocking(Database::create).await.unwrap()
}

async fn open(database: &Database) -> Store {
    let options = sqlx::postgres::PgConnectOptions::from_str(database.url()).unwrap();
    Store::open(options, 4).await.unwrap()
}

fn organization(name: &str) -> OrganizationRow {
    OrganizationRow {
        id: OrgId::new(Uuid::now_v7()),
        name: build::name(name),
        trust_domain: build::name(&format!("{name}.tombolo.internal")),
        generation: Generation::new(1),
        created_at: DateTime::UNIX_EPOCH,
    }
}

async fn insert_cluster(tx: &mut Tx, org: OrgId, cluster: ClusterId) {
    sqlx::query(
        "INSERT INTO clusters (org_id, id, name, created_at, updated_at) VALUES ($1, $2, 'c', now(), now())",
    )
    .bind(org.as_uuid())
    .bind(cluster.as_uuid())
    .execute(tx.conn())
    .await
    .unwrap();
}

#[tokio::test]
async fn migrations_may_run_twice() {
    let database = database().await;
    // replicas that start together
    let (one, two) = tokio::join!(open(&database), open(&database));
    let describe = "select string_agg(c, ' ' order by c) from (
        select table_name || '.' || column_name || ':' || data_type as c
        from information_schema.columns where table_schema = 'public') x";
    let before = database.sql(describe);
    // and by hand
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files.iter().filter(|file| file.extension().is_some_and(|e| e == "sql")) {
        database.sql(&fs::read_to_string(file).unwrap());
    }
    assert_eq!(database.sql(describe), before);
    one.close().await;
    two.close().await;
}

#[tokio::test]
async fn a_commit_takes_a_generation_and_tells_of_it() {
    let database = database().await;
    let store = open(&database).await;
    let mut listener = sqlx::postgres::PgListener::connect_with(store.pool()).await.unwrap();
    listener.listen(super::change::CHANNEL).await.unwrap();
    let org = organization("acme");
    let mut tx = store.begin().await.unwrap();
    tx.insert_organization(&org).await.unwrap();
    tx.changed(org.id, Change::Roots);
    tx.changed(org.id, Change::Roots);
    let taken = tx.commit().await.unwrap();
    assert_eq!(taken[&org.id], Generation::new(2));
    assert_eq!(listener.recv().await.unwrap().payload(), org.id.to_string());

    let mut tx = store.begin().await.unwrap();
    let (since, until) = (Generation::new(1), Generation::new(2));
    assert_eq!(tx.changes_between(org.id, since, until).await.unwrap(), Some(vec![Change::Roots]));
    // a log that does not reach back, or forth, is no log
    assert_eq!(tx.changes_between(org.id, Generation::ZERO, until).await.unwrap(), None);
    assert_eq!(tx.changes_between(org.id, since, Generation::new(3)).await.unwrap(), None);
    // a transaction that is dropped changes nothing
    tx.changed(org.id, Change::Roots);
    drop(tx);
    assert_eq!(database.sql("select generation from organizations"), "2");
}

#[tokio::test]
async fn what_the_database_refuses_has_a_name() {
    let database = database().await;
    let store = open(&database).await;
    let (one, two) = (organization("acme"), organization("acme"));
    let mut tx = store.begin().await.unwrap();
    tx.insert_organization(&one).await.unwrap();
    let error = tx.insert_organization(&two).await.unwrap_err();
    assert!(error.is_duplicate("organizations_name_key"), "{error:?}");
    drop(tx);

    // a row of one organization cannot refer to another's
    let mut tx = store.begin().await.unwrap();
    let two = organization("other");
    tx.insert_organization(&one).await.unwrap();
    tx.insert_organization(&two).await.unwrap();
    let cluster = ClusterId::new(Uuid::now_v7());
    insert_cluster(&mut tx, one.id, cluster).await;
    let wrong = sqlx::query(
        "INSERT INTO inventory_services (org_id, cluster_id, key, record) VALUES ($1, $2, 'a/b', '{}')",
    )
    .bind(two.id.as_uuid())
    .bind(cluster.as_uuid())
    .execute(tx.conn())
    .await;
    assert!(matches!(wrong.map_err(Error::from), Err(Error::Reference { .. })));
}

/// A cluster that says that its ServiceExports are older than they can be, or younger, decides by that for no other one.
#[tokio::test]
async fn an_export_counts_from_when_it_was_told() {
    let database = database().await;
    let store = open(&database).await;
    let (org, cluster) = (organization("acme"), ClusterId::new(Uuid::now_v7()));
    let mut tx = store.begin().await.unwrap();
    tx.insert_organization(&org).await.unwrap();
    insert_cluster(&mut tx, org.id, cluster).await;
    let key: ServiceKey = build::service_key("default/cart");
    let first = 1_800_000_000;
    let mut told = async |ready, export: Option<i64>, now: i64| {
        let mut record = build::Service::new(&[80]).endpoints(ready, 3).build();
        let export = export.map(|created_s| ExportRecord {
            created_s,
            traits: Traits::default(),
            labels: Default::default(),
            annotations: Default::default(),
        });
        record.export = export.map(Box::new);
        let now = DateTime::from_timestamp(now, 0).unwrap();
        tx.upsert_services(org.id, cluster, &[(key.clone(), record)].into(), now).await.unwrap();
        let read = tx.world_services(org.id, None).await.unwrap();
        read[&(cluster, key.clone())].export.as_ref().map(|export| export.created_s)
    };
    assert_eq!(told(1, None, first).await, None);
    assert_eq!(told(1, Some(0), first).await, Some(first - 3600), "it says 1970");
    assert_eq!(told(2, Some(0), first + 86_400).await, Some(first - 3600), "it is the same one");
    assert_eq!(told(2, Some(first + 9_000), first + 9_001).await, Some(first + 9_000), "made anew");
    assert_eq!(told(2, None, first + 9_002).await, None);
    let ahead = Some(i64::MAX);
    assert_eq!(told(2, ahead, first + 10_000).await, Some(first + 10_000), "it says the end of time");
    assert_eq!(told(0, ahead, first + 20_000).await, Some(first + 10_000), "and does not get younger");
}

/// What a cluster told is counted as it is, however short the database makes it.
#[tokio::test]
async fn what_a_cluster_told_is_counted() {
    let database = database().await;
    let store = open(&database).await;
    let (org, cluster) = (organization("acme"), ClusterId::new(Uuid::now_v7()));
    let mut tx = store.begin().await.unwrap();
    tx.insert_organization(&org).await.unwrap();
    insert_cluster(&mut tx, org.id, cluster).await;
    let (mut plain, mut long) = (build::Service::new(&[80]).build(), build::Service::new(&[80]).build());
    plain.headless = true;
    long.pods = (0..5_000)
        .map(|n| (format!("pod-{n}").parse().unwrap(), PodRecord { ready: true, tunnelled: false }))
        .collect();
    let keys = ["default/plain", "default/long"].map(build::service_key);
    let lengths =
        [&plain, &long].map(|record| i64::try_from(serde_json::to_vec(record).unwrap().len()).unwrap());
    let services = keys.clone().into_iter().zip([plain, long]).collect();
    tx.upsert_services(org.id, cluster, &services, DateTime::UNIX_EPOCH).await.unwrap();
    let spaces = [(keys[0].namespace.clone(), NamespaceRecord::default())].into();
    tx.upsert_namespaces(org.id, cluster, &spaces).await.unwrap();
    let size = tx.inventory_size(org.id, cluster, true).await.unwrap();
    assert_eq!((size.namespaces, size.services, size.pods), (1, 2, 5_000));
    let told: i64 = lengths.iter().sum();
    assert!((told..told * 2).contains(&size.bytes), "{} for {told}", size.bytes);
    assert_eq!(tx.inventory_size(org.id, cluster, false).await.unwrap().pods, 0, "nobody asked");
    let other = ClusterId::new(Uuid::now_v7());
    assert_eq!(tx.inventory_size(org.id, other, true).await.unwrap(), InventorySize::default());
}

/// Only who said so much is noted as having it, and nothing is written of anybody else.
#[tokio::test]
async fn who_said_so_much_has_caught_up() {
    let database = database().await;
    let store = open(&database).await;
    let org = organization("acme");
    let mut tx = store.begin().await.unwrap();
    tx.insert_organization(&org).await.unwrap();
    // what is stored as published and applied, whether something was refused, what was said; and what is noted then
    let cases = [
        ("behind", (7, 5), None, 7, Some(7)),
        ("said more", (7, 5), None, 9, Some(7)),
        ("said less", (7, 5), None, 6, None),
        ("has all", (7, 7), None, 9, None),
        ("has more", (7, 8), None, 9, None),
        ("refused", (7, 5), Some("no"), 7, None),
    ];
    let mut said = Vec::new();
    for (name, (published, applied), refused, generation, _) in cases {
        let cluster = ClusterId::new(Uuid::now_v7());
        sqlx::query(
            "INSERT INTO clusters (org_id, id, name, created_at, updated_at) VALUES ($1, $2, $3, now(), now())",
        )
        .bind(org.id.as_uuid())
        .bind(cluster.as_uuid())
        .bind(name)
        .execute(tx.conn())
        .await
        .unwrap();
        sqlx::query(
            "INSERT INTO cluster_status (org_id, cluster_id, published_generation, applied_generation, refused)
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(org.id.as_uuid())
        .bind(cluster.as_uuid())
        .bind(i64::from(published))
        .bind(i64::from(applied))
        .bind(refused)
        .execute(tx.conn())
        .await
        .unwrap();
        said.push(Said { org: org.id, cluster, generation: Generation::new(generation) });
    }
    tx.commit().await.unwrap();
    let written =
        "select string_agg(concat(cluster_id, ' ', xmin), ' ' order by cluster_id) from cluster_status";
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();

    // what another one writes just now is not waited for
    let mut other = store.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM cluster_status FOR UPDATE").execute(other.conn()).await.unwrap();
    let mut tx = store.begin().await.unwrap();
    assert_eq!(tx.catch_up(&said, now).await.unwrap(), []);
    tx.commit().await.unwrap();
    other.commit().await.unwrap();

    let mut tx = store.begin().await.unwrap();
    let mut caught_up = tx.catch_up(&said, now).await.unwrap();
    tx.commit().await.unwrap();
    caught_up.sort_by_key(|said| said.cluster);
    let mut wanted: Vec<Said> = said
        .iter()
        .zip(cases)
        .filter_map(|(said, (.., noted))| Some(Said { generation: Generation::new(noted?), ..*said }))
        .collect();
    wanted.sort_by_key(|said| said.cluster);
    assert_eq!(caught_up, wanted);
    let noted = "select count(*) from cluster_status where applied_at is not null and applied_generation = 7";
    assert_eq!(database.sql(noted), "2");
    let before = database.sql(written);
    // said once more, and by clusters that are not there
    said.push(Said { cluster: ClusterId::new(Uuid::now_v7()), ..said[0] });
    said.push(Said { org: OrgId::new(Uuid::now_v7()), ..said[0] });
    let mut tx = store.begin().await.unwrap();
    assert_eq!(tx.catch_up(&said, now).await.unwrap(), []);
    tx.commit().await.unwrap();
    assert_eq!(database.sql(written), before, "no row is written anew");
}

#[tokio::test]
async fn an_address_that_a_name_has_already_is_no_news() {
    let database = database().await;
    let store = open(&database).await;
    let org = organization("acme");
    let mut tx = store.begin().await.unwrap();
    tx.insert_organization(&org).await.unwrap();
    tx.commit().await.unwrap();
    let [cart, users] = ["cart.example.com", "users.example.com"].map(build::name::<GlobalName>);
    // what is given and what is released, and what comes of it: how many names, and of which the change tells
    type Names<'a> = &'a [&'a GlobalName];
    let steps: [(Names<'_>, Names<'_>, (u64, u64), Names<'_>); 6] = [
        (&[&cart], &[], (1, 0), &[&cart]),
        // another replica, a moment later
        (&[&cart], &[], (0, 0), &[]),
        (&[&cart, &users], &[], (1, 0), &[&users]),
        (&[], &[&cart], (0, 1), &[&cart]),
        (&[], &[&cart], (0, 0), &[]),
        (&[&cart, &users], &[], (1, 0), &[&cart]),
    ];
    let set = |names: &[&GlobalName]| names.iter().map(|name| (*name).clone()).collect();
    for (step, (needed, gone, counts, told)) in steps.into_iter().enumerate() {
        let mut tx = store.begin().await.unwrap();
        let before = tx.lock_org(org.id).await.unwrap().unwrap();
        let given = tx.allocate_vips(org.id, &set(needed), 9, org.created_at).await.unwrap().given;
        let released = tx.release_vips(org.id, &set(gone), org.created_at).await.unwrap();
        assert_eq!((given, released), counts, "step {step}");
        let taken = tx.commit().await.unwrap();
        let Some(after) = taken.get(&org.id) else {
            assert!(told.is_empty(), "step {step}");
            continue;
        };
        let changes = store.begin().await.unwrap().changes_between(org.id, before, *after).await.unwrap();
        let told: Vec<_> = told.iter().map(|name| Change::Vip((*name).clone())).collect();
        assert_eq!(changes, Some(told), "step {step}");
    }
    assert_eq!(
        database.sql("select string_agg(index || ' ' || name, ', ' order by index) from virtual_ips"),
        "1 cart.example.com, 2 users.example.com"
    );
}
