//! An agent says what runs in its cluster.

use super::{Agent, body::Body, peer::AgentPeer, size::Sizes};
use crate::{
    app::error::{Kind, Refusal},
    sequence::{Mark, Plan, plan},
    store::inventory::InventorySize,
};
use axum::{Json, extract::State};
use tombolo_model::bounds::whole::{NAMESPACES, NAMESPACES_SIZE, POD_NAMES, SERVICES, SERVICES_SIZE, excess};
use tombolo_wire::message::{InventoryAck, InventoryUpdate};

/// What is stored is longer than the JSON that came, but not so much longer.
const STORED: usize = 2;

/// `POST /agent/v1/inventory`
pub(super) async fn inventory(
    State(agent): State<Agent>,
    peer: AgentPeer,
    Body(update, _room): Body<InventoryUpdate>,
) -> Result<Json<InventoryAck>, Refusal> {
    let count = |outcome| agent.metrics.inventories.get_or_create(&[("outcome", outcome)]).inc();
    let sequence = check(&update)?;
    let (org, cluster) = (peer.org.id, peer.cluster);
    let mut tx = agent.deps.store.begin().await?;
    // first the organization, then the cluster: everybody locks in this order
    tx.lock_org(org).await?;
    peer.check(&mut tx, agent.deps.now()).await?;
    let stored = tx.inventory_mark(org, cluster).await?.ok_or_else(|| peer.revoked())?;
    match plan(stored.as_ref(), &update.epoch, sequence, update.whole) {
        Plan::Store => {}
        Plan::Known => {
            // the answer to the first time was lost on the way
            count("known");
            return Ok(Json(InventoryAck { sequence: update.sequence }));
        }
        Plan::Resend => {
            count("resend");
            return Err(Refusal::new(
                Kind::UnknownBase,
                "The change follows an update that is not stored here; send the whole inventory.",
            ));
        }
    }
    tx.upsert_namespaces(org, cluster, &update.namespaces).await?;
    tx.upsert_services(org, cluster, &update.services, agent.deps.now()).await?;
    let (namespaces, services): (Vec<String>, Vec<String>) = if update.whole {
        (
            update.namespaces.keys().map(ToString::to_string).collect(),
            update.services.keys().map(ToString::to_string).collect(),
        )
    } else {
        (
            update.removed_namespaces.iter().map(ToString::to_string).collect(),
            update.removed_services.iter().map(ToString::to_string).collect(),
        )
    };
    tx.remove_namespaces(org, cluster, &namespaces, update.whole).await?;
    tx.remove_services(org, cluster, &services, update.whole).await?;
    // What was known was of another state, which may have had the same number.
    let mut known = update.whole.then(|| Sizes::whole(&update));
    if !update.whole {
        // of a change alone nobody knows what it makes of the rest
        known = agent.door.sizes.fits((org, cluster), &update);
        if known.is_none() {
            let pods = update.services.values().any(|record| !record.pods.is_empty());
            let size = tx.inventory_size(org, cluster, pods).await?;
            within(size)?;
            known = Some(Sizes::counted(&update, size, pods));
        }
    }
    let mark = Mark { epoch: update.epoch, sequence };
    tx.set_inventory_mark(org, cluster, &mark).await?;
    tx.commit().await?;
    if let Some(known) = known {
        agent.door.sizes.stored((org, cluster), known);
    }
    count("stored");
    Ok(Json(InventoryAck { sequence: update.sequence }))
}

/// Whether what a cluster has told in all is in bounds.
pub(super) fn within(size: InventorySize) -> Result<(), Refusal> {
    let most = |many: usize| i64::try_from(many).unwrap_or(i64::MAX);
    let excess = [
        (size.namespaces, NAMESPACES, "namespaces"),
        (size.services, SERVICES, "services"),
        (size.pods, POD_NAMES, "names of pods"),
        (size.bytes, STORED * (SERVICES_SIZE + NAMESPACES_SIZE), "bytes"),
    ]
    .into_iter()
    .find(|(many, bound, _)| *many > most(*bound));
    excess.map_or(Ok(()), |(_, bound, what)| Err(too_much(what, bound)))
}

fn too_much(what: &str, most: usize) -> Refusal {
    let detail = format!(
        "A cluster may have {most} {what}, and this one would have more. What it told before stays in force."
    );
    let remedy = "leave namespaces out (tombolo cluster install --exclude-namespace), or make two clusters of it; a newer agent leaves out \
                  the newest services by itself, and says so";
    let field = if what.ends_with("namespaces") { "namespaces" } else { "services" };
    Refusal::new(Kind::InvalidField, detail).field(field, format!("are more than {most} {what}"), remedy)
}

fn check(update: &InventoryUpdate) -> Result<i64, Refusal> {
    let wrong = |field: &str, message: &str, remedy: &str| {
        Err(Refusal::new(Kind::InvalidField, "The update cannot be taken.").field(field, message, remedy))
    };
    if update.epoch.is_empty() || update.epoch.len() > 100 {
        return wrong(
            "epoch",
            "is empty or longer than 100 characters",
            "use a new random text for each process",
        );
    }
    if let Some((key, (field, most))) =
        update.services.iter().find_map(|(key, record)| Some((key, record.excess()?)))
    {
        return wrong(
            &format!("services[{key}].{field}"),
            &format!("is more than {most}"),
            "upgrade the agent: it leaves out what is too much",
        );
    }
    if let Some((what, most)) = excess(&update.namespaces, &update.services) {
        return Err(too_much(what, most));
    }
    match i64::try_from(update.sequence) {
        Ok(sequence) if sequence > 0 => Ok(sequence),
        _ => wrong("sequence", "is not a count from 1", "begin at 1 with each epoch"),
    }
}
