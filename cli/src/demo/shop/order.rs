//! `order`: takes an order, has it paid, and remembers it.

use super::{
    Role,
    cart::Content,
    client::Client,
    http::{Call, Reply},
    payment::{Charge, Receipt},
};
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// The most customers, and orders kept of each: the newest.
const CUSTOMERS: usize = 1000;
const KEPT: usize = 5;

#[derive(Debug)]
pub(super) struct Order {
    client: Client,
    placed: Mutex<BTreeMap<String, Vec<Placed>>>,
}

/// An order to be placed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    pub(super) items: Content,
    pub(super) cents: u64,
}

/// An order that was placed and paid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Placed {
    pub(super) number: u64,
    pub(super) items: Content,
    pub(super) cents: u64,
    /// The cluster in which it was paid.
    pub(super) paid_in: String,
}

impl Order {
    pub(super) fn new(client: Client) -> Self {
        Self { client, placed: Mutex::default() }
    }

    pub(super) async fn answer(&self, call: &Call) -> Reply {
        let (method, parts) = call.route();
        match (method, &parts[..]) {
            ("GET", ["orders", user]) => {
                let placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
                Reply::json(&placed.get(*user).cloned().unwrap_or_default())
            }
            ("POST", ["orders", user]) => match call.json() {
                Ok(wanted) => self.place(user, wanted).await,
                Err(reply) => reply,
            },
            _ => Reply::not_found(),
        }
    }

    async fn place(&self, user: &str, wanted: Wanted) -> Reply {
        if wanted.items.is_empty() {
            return Reply::error(StatusCode::UNPROCESSABLE_ENTITY, "the order is empty");
        }
        let charge = Charge { customer: user.to_owned(), cents: wanted.cents };
        let receipt = match self.client.post::<Receipt>(Role::Payment, "/payments", &charge).await {
            Ok(receipt) => receipt,
            Err(error) => return Reply::error(StatusCode::BAD_GATEWAY, &format!("not paid: {error}")),
        };
        let order = Placed {
            number: receipt.value.number,
            items: wanted.items,
            cents: wanted.cents,
            paid_in: receipt.cluster,
        };
        let mut placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
        if !placed.contains_key(user) && placed.len() >= CUSTOMERS {
            placed.pop_first();
        }
        let orders = placed.entry(user.to_owned()).or_default();
        orders.insert(0, order.clone());
        orders.truncate(KEPT);
        Reply::json_as(StatusCode::CREATED, &order)
    }
}
