//! `users`: who is shopping. One, in this shop.

use super::http::{Call, Reply};
use serde::{Deserialize, Serialize};

/// A customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct User {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) city: String,
}

/// The customer of the demo.
pub(super) const CUSTOMER: &str = "ada";

pub(super) fn answer(call: &Call) -> Reply {
    let (method, parts) = call.route();
    match (method, &parts[..]) {
        ("GET", ["users", CUSTOMER]) => Reply::json(&User {
            id: CUSTOMER.to_owned(),
            name: "Ada Lovelace".to_owned(),
            city: "London".to_owned(),
        }),
        _ => Reply::not_found(),
    }
}
