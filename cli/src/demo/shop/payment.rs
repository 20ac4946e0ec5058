//! `payment`: takes the money. All of it imaginary.

use super::http::{Call, Reply};
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(super) struct Payment {
    taken: AtomicU64,
}

/// A payment asked for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Charge {
    pub(super) customer: String,
    pub(super) cents: u64,
}

/// A payment made.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Receipt {
    pub(super) number: u64,
}

impl Payment {
    pub(super) fn answer(&self, call: &Call) -> Reply {
        let (method, parts) = call.route();
        match (method, &parts[..]) {
            ("POST", ["payments"]) => match call.json::<Charge>() {
                Ok(charge) if charge.cents == 0 => {
                    Reply::error(StatusCode::UNPROCESSABLE_ENTITY, "there is nothing to pay")
                }
                Ok(_) => {
                    let number = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
                    Reply::json_as(StatusCode::CREATED, &Receipt { number })
                }
                Err(reply) => reply,
            },
            _ => Reply::not_found(),
        }
    }
}
