//! A root rotates: each step waits for the clusters, and is seen.

use super::Controller;
use crate::{
    reconcile::rotate,
    store::{intermediate::Keep, status::Progress},
};
use chrono::TimeDelta;
use serde_json::{Value, json};
use tombolo_model::{
    ClusterName, Generation, Locality, SpiffeId, TrustDomain,
    id::{ClusterId, OrgId},
    snapshot::CaFingerprint,
};
use tombolo_mtls::{PrivateKey, certificate_info};
use tombolo_wire::message::AgentStatus;
use uuid::Uuid;

const PATH: &str = "/organizations/acme/root-rotation";

/// A cluster whose agent does what the test says.
struct Agent<'a> {
    controller: &'a Controller,
    org: OrgId,
    domain: TrustDomain,
    cluster: ClusterId,
    name: ClusterName,
}

impl Agent<'_> {
    /// Gets an intermediate.
    async fn certified(&self) -> CaFingerprint {
        let now = self.controller.deps.now();
        let id = SpiffeId::cluster(&self.domain, &self.name);
        let csr = PrivateKey::generate().unwrap().csr(&id).unwrap();
        let mut tx = self.controller.deps.store.begin().await.unwrap();
        let (owner, cluster) = ((self.org, &self.domain), (self.cluster, &self.name));
        let ca = &self.controller.deps.ca;
        let issued = ca.sign_intermediate(&mut tx, owner, cluster, &csr, (Keep::Overlap, now)).await.unwrap();
        tx.commit().await.unwrap();
        certificate_info(&issued.certificate).unwrap().fingerprint
    }

    /// Says what it signs with.
    async fn signs_with(&self, intermediate: CaFingerprint) {
        let said = AgentStatus {
            software: "test".to_owned(),
            generation: Generation::ZERO,
            problems: Vec::new(),
            ingress: [].into(),
            ingress_unknown: false,
            gateways: Vec::new(),
            install: None,
            intermediate: Some(intermediate),
            trial: None,
        };
        let mut tx = self.controller.deps.store.begin().await.unwrap();
        tx.set_status(self.org, self.cluster, &said, self.controller.deps.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Has applied all there is.
    async fn follows(&self, generation: u64) {
        let now = self.controller.deps.now();
        let progress = Progress { applied: Some((Generation::new(generation), now)), ..Progress::default() };
        let mut tx = self.controller.deps.store.begin().await.unwrap();
        tx.set_progress(self.org, self.cluster, &progress).await.unwrap();
        tx.commit().await.unwrap();
    }
}

async fn look(controller: &Controller) {
    let deps = &controller.deps;
    rotate::once(&deps.store, deps.root_overlap, deps.now()).await.unwrap();
}

fn uuid(value: &Value) -> Uuid {
    value.as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_root_takes_the_place_of_another() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    let editor = controller.token("acme", "editor", "editor").await;
    let cluster = controller.cluster(&admin, "acme", "cluster-1").await;
    let org = controller.get(&admin, "/organizations/acme").await.expect(200);
    let agent = Agent {
        controller: &controller,
        org: OrgId::new(uuid(&org["id"])),
        domain: org["trust_domain"].as_str().unwrap().parse().unwrap(),
        cluster: ClusterId::new(uuid(&cluster["id"])),
        name: "cluster-1".parse().unwrap(),
    };
    let mut tx = controller.deps.store.begin().await.unwrap();
    let nowhere = Locality::default();
    tx.joined(agent.org, agent.cluster, (&nowhere, &nowhere), controller.deps.now()).await.unwrap();
    tx.commit().await.unwrap();
    agent.signs_with(agent.certified().await).await;
    let roots = async || {
        let bundle = controller.get(&editor, "/organizations/acme/trust-bundle").await.expect(200);
        let roots = bundle["roots"].as_array().unwrap().clone();
        let of = |root: &Value| (root["fingerprint"].as_str().unwrap().to_owned(), root["signing"] == true);
        roots.iter().map(of).collect::<Vec<_>>()
    };
    let [(old, true)] = &roots().await[..] else { panic!("one root, which signs") };

    controller.get(&admin, PATH).await.problem(404, "not-found");
    look(&controller).await;
    controller.post(&editor, PATH, &json!({})).await.problem(403, "forbidden");
    let told = json!({ "phase": "told", "waits_for": ["cluster-1"] });
    assert_eq!(controller.post(&admin, PATH, &json!({})).await.expect(201), told);
    controller.post(&admin, PATH, &json!({})).await.problem(409, "conflict");
    look(&controller).await;
    assert_eq!(controller.get(&editor, PATH).await.expect(200), told, "nobody believes it yet");
    let both = roots().await;
    let [(first, true), (new, false)] = &both[..] else { panic!("{both:?}") };
    assert_eq!(first, old);

    let generation = controller.get(&admin, "/organizations/acme").await.expect(200)["generation"].as_u64();
    agent.follows(generation.unwrap() - 1).await;
    look(&controller).await;
    assert_eq!(controller.get(&editor, PATH).await.expect(200), told, "it has not heard of it");
    agent.follows(generation.unwrap()).await;
    look(&controller).await;
    let signing = json!({ "phase": "signing", "waits_for": ["cluster-1"] });
    assert_eq!(controller.get(&editor, PATH).await.expect(200), signing);
    let mut tx = controller.deps.store.begin().await.unwrap();
    let told = tx.root_certificates(agent.org).await.unwrap();
    let told = told.iter().map(|root| certificate_info(root).unwrap().fingerprint.to_string());
    assert_eq!(told.collect::<Vec<_>>(), [new.clone(), old.clone()], "agents see which one signs");
    drop(tx);

    let next = agent.certified().await;
    look(&controller).await;
    assert_eq!(controller.get(&editor, PATH).await.expect(200), signing, "it does not sign with it yet");
    agent.signs_with(next).await;
    let overlap = controller.get(&editor, PATH).await.expect(200);
    assert_eq!((&overlap["phase"], &overlap["waits_for"]), (&json!("overlap"), &json!([])));
    let until = controller.deps.now() + controller.deps.root_overlap;
    assert_eq!(overlap["until"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap(), until);
    controller.clock.advance((controller.deps.root_overlap - TimeDelta::seconds(1)).to_std().unwrap());
    look(&controller).await;
    assert_eq!(roots().await.len(), 2, "certificates under the old one live");
    controller.clock.advance(TimeDelta::seconds(1).to_std().unwrap());
    look(&controller).await;
    assert_eq!(roots().await, [(new.clone(), true)]);
    controller.get(&admin, PATH).await.problem(404, "not-found");

    let events = controller.get(&admin, "/organizations/acme/audit-events").await.expect(200);
    let actions = events["items"].as_array().unwrap().iter().filter_map(|event| event["action"].as_str());
    let actions: Vec<&str> = actions.filter(|action| action.starts_with("root.")).collect();
    assert_eq!(actions, ["root.retire", "root.sign", "root.create"]);
}
