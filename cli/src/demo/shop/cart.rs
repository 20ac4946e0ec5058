//! `cart`: what each customer means to buy.

use super::http::{Call, Reply};
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// The most customers, products in a cart, and pieces of a product.
const CUSTOMERS: usize = 1000;
const PRODUCTS: usize = 50;
const PIECES: u32 = 99;

#[derive(Debug, Default)]
pub(super) struct Cart(Mutex<BTreeMap<String, Content>>);

/// Pieces by product.
pub(super) type Content = BTreeMap<String, u32>;

/// A product to be put into a cart.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Addition {
    pub(super) product: String,
    pub(super) pieces: u32,
}

impl Cart {
    pub(super) fn answer(&self, call: &Call) -> Reply {
        let mut carts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (method, parts) = call.route();
        match (method, &parts[..]) {
            ("GET", ["cart", user]) => Reply::json(&carts.get(*user).cloned().unwrap_or_default()),
            ("POST", ["cart", user]) => {
                let addition: Addition = match call.json() {
                    Ok(addition) => addition,
                    Err(reply) => return reply,
                };
                let full = |what| Reply::error(StatusCode::CONFLICT, what);
                if !carts.contains_key(*user) && carts.len() >= CUSTOMERS {
                    return full("too many customers; come back later");
                }
                if addition.product.is_empty() || addition.product.len() > 64 {
                    return Reply::error(StatusCode::BAD_REQUEST, "a product's id has 1 to 64 bytes");
                }
                let cart = carts.entry((*user).to_owned()).or_default();
                if !cart.contains_key(&addition.product) && cart.len() >= PRODUCTS {
                    return full("the cart is full; order first");
                }
                let pieces = cart.entry(addition.product).or_default();
                *pieces = pieces.saturating_add(addition.pieces).min(PIECES);
                Reply::json(cart)
            }
            ("DELETE", ["cart", user]) => Reply::json(&carts.remove(*user).unwrap_or_default()),
            _ => Reply::not_found(),
        }
    }
}
