//! An agent says what runs in its cluster.

use super::{Agent, body::Body, peer::AgentPeer};
use crate::{
    app::error::{Kind, Refusal},
    store::inventory::InventoryMark,
};
use axum::{Json, extract::State};
use tombolo_wire::message::{InventoryAck, InventoryUpdate};

/// How many namespaces and services a cluster may have.
const MOST: i64 = 200_000;

/// `POST /agent/v1/inventory`
pub(super) async fn inventory(
    State(agent): State<Agent>,
    peer: AgentPeer,
    Body(update): Body<InventoryUpdate>,
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
    if tx.inventory_size(org, cluster).await? > MOST {
        return Err(Refusal::new(
            Kind::InvalidField,
            format!(
                "A cluster may have {MOST} namespaces and services together; leave some out at the agent."
            ),
        ));
    }
    let mark = InventoryMark { epoch: update.epoch, sequence };
    tx.set_inventory_mark(org, cluster, &mark).await?;
    tx.commit().await?;
    count("stored");
    Ok(Json(InventoryAck { sequence: update.sequence }))
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
    match i64::try_from(update.sequence) {
        Ok(sequence) if sequence > 0 => Ok(sequence),
        _ => wrong("sequence", "is not a count from 1", "begin at 1 with each epoch"),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// It follows.
    Store,
    /// It is stored already.
    Known,
    /// What it changes is not here.
    Resend,
}

fn plan(stored: Option<&InventoryMark>, epoch: &str, sequence: i64, whole: bool) -> Plan {
    match stored {
        Some(mark) if mark.epoch == epoch && sequence <= mark.sequence => {
            if sequence == mark.sequence {
                Plan::Known
            } else {
                Plan::Resend
            }
        }
        Some(mark) if !whole => {
            if mark.epoch == epoch && sequence == mark.sequence + 1 {
                Plan::Store
            } else {
                Plan::Resend
            }
        }
        None if !whole => Plan::Resend,
        _ => Plan::Store,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_follows() {
        let mark = InventoryMark { epoch: "a".into(), sequence: 5 };
        for (stored, epoch, sequence, whole, expected) in [
            (None, "a", 1, true, Plan::Store),
            (None, "a", 1, false, Plan::Resend),
            (Some(&mark), "a", 6, false, Plan::Store),
            (Some(&mark), "a", 5, false, Plan::Known),
            (Some(&mark), "a", 5, true, Plan::Known),
            (Some(&mark), "a", 4, true, Plan::Resend),
            (Some(&mark), "a", 7, false, Plan::Resend),
            (Some(&mark), "a", 9, true, Plan::Store),
            (Some(&mark), "b", 1, true, Plan::Store),
            (Some(&mark), "b", 6, false, Plan::Resend),
        ] {
            assert_eq!(
                plan(stored, epoch, sequence, whole),
                expected,
                "{stored:?} {epoch} {sequence} {whole}"
            );
        }
    }
}
