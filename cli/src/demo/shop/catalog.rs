//! `catalog`: the products. Their pictures come with them, as SVG.

use super::http::{Call, Reply};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// A product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Product {
    pub(super) id: Cow<'static, str>,
    pub(super) name: Cow<'static, str>,
    pub(super) about: Cow<'static, str>,
    pub(super) cents: u64,
    /// An SVG document.
    pub(super) picture: Cow<'static, str>,
}

pub(super) fn answer(call: &Call) -> Reply {
    let (method, parts) = call.route();
    match (method, &parts[..]) {
        ("GET", ["products"]) => Reply::json(&products()),
        ("GET", ["products", id]) => match products().into_iter().find(|product| product.id == *id) {
            Some(product) => Reply::json(&product),
            None => Reply::not_found(),
        },
        _ => Reply::not_found(),
    }
}

fn products() -> Vec<Product> {
    PRODUCTS
        .iter()
        .map(|(id, name, about, cents, drawing)| Product {
            id: (*id).into(),
            name: (*name).into(),
            about: (*about).into(),
            cents: *cents,
            picture: format!(
                r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 160 120" fill="none" stroke-linecap="round" stroke-linejoin="round">{drawing}</svg>"##
            )
            .into(),
        })
        .collect()
}

/// Id, name, about, cents, drawing on 160 × 120.
const PRODUCTS: [(&str, &str, &str, u64, &str); 8] = [
    (
        "yoga-mat",
        "Yoga mat",
        "Natural rubber, five millimetres, rolls up small.",
        6250,
        r##"<rect width="160" height="120" fill="#e4f3ec"/><rect x="26" y="44" width="92" height="42" rx="6" fill="#3aa17e"/><circle cx="118" cy="65" r="21" fill="#2c8466"/><circle cx="118" cy="65" r="13" fill="#3aa17e"/><circle cx="118" cy="65" r="6" fill="#e4f3ec"/><path d="M44 44v42M100 44v42" stroke="#1f6a51" stroke-width="5"/>"##,
    ),
    (
        "water-bottle",
        "Water bottle",
        "Steel, 750 ml, cold for a day.",
        3495,
        r##"<rect width="160" height="120" fill="#e5effa"/><rect x="62" y="34" width="36" height="72" rx="10" fill="#3b7dd8"/><rect x="66" y="18" width="28" height="18" rx="4" fill="#1e4f94"/><path d="M80 18v-6" stroke="#1e4f94" stroke-width="6"/><rect x="62" y="58" width="36" height="20" fill="#cfe1f7"/><path d="M70 42v56" stroke="#8fb8ee" stroke-width="4"/>"##,
    ),
    (
        "fit-bike",
        "Fit bike",
        "Thirty-two levels of uphill, none of the rain.",
        49_900,
        r##"<rect width="160" height="120" fill="#fbeee6"/><g stroke="#b5532a" stroke-width="5"><circle cx="48" cy="80" r="22"/><circle cx="112" cy="80" r="22"/><path d="M48 80l22-36h32l10 36M70 44l14 36h-36M84 80l18-36M102 44l-4-12h12M62 36h16"/></g><circle cx="84" cy="80" r="6" fill="#b5532a"/>"##,
    ),
    (
        "basketball",
        "Basketball",
        "Indoor and outdoor, size seven.",
        2999,
        r##"<rect width="160" height="120" fill="#fdf1e2"/><circle cx="80" cy="60" r="42" fill="#ea8a2f"/><g stroke="#6b3a0c" stroke-width="3"><circle cx="80" cy="60" r="42"/><path d="M38 60h84M80 18v84M50 31c18 18 18 40 0 58M110 31c-18 18-18 40 0 58"/></g>"##,
    ),
    (
        "smart-watch",
        "Smart watch",
        "Counts your steps, keeps them to itself.",
        19_900,
        r##"<rect width="160" height="120" fill="#ececf6"/><rect x="62" y="8" width="36" height="104" rx="8" fill="#4a4a6a"/><rect x="52" y="32" width="56" height="56" rx="14" fill="#23233b"/><rect x="58" y="38" width="44" height="44" rx="9" fill="#0e7c86"/><path d="M63 62h9l5-12 8 20 5-8h8" stroke="#d7fbff" stroke-width="3"/>"##,
    ),
    (
        "red-pants",
        "Red pants",
        "For running late, or just running.",
        7900,
        r##"<rect width="160" height="120" fill="#fbe9ea"/><path d="M54 18h52l8 88h-24l-10-56-10 56h-24z" fill="#cf3a45"/><path d="M54 18h52l1 12h-54z" fill="#8f1f2a"/><path d="M80 30v20" stroke="#8f1f2a" stroke-width="3"/>"##,
    ),
    (
        "dumbbells",
        "Dumbbells",
        "A pair of eight kilos each.",
        5450,
        r##"<rect width="160" height="120" fill="#edf0f2"/><path d="M48 60h64" stroke="#5b6770" stroke-width="9"/><g fill="#2d363d"><rect x="30" y="34" width="16" height="52" rx="5"/><rect x="114" y="34" width="16" height="52" rx="5"/><rect x="18" y="44" width="12" height="32" rx="4"/><rect x="130" y="44" width="12" height="32" rx="4"/></g>"##,
    ),
    (
        "tennis-shoes",
        "Tennis shoes",
        "Light, grippy, and white until the first match.",
        11_200,
        r##"<rect width="160" height="120" fill="#eaf4e4"/><path d="M24 50c8 6 18 4 24-6l14 10c14 12 30 18 50 20 16 2 24 8 24 18h-112z" fill="#fff" stroke="#55723f" stroke-width="3"/><path d="M24 92h112v6a4 4 0 0 1-4 4h-104a4 4 0 0 1-4-4z" fill="#7fae5b"/><path d="M62 56l-8 10M72 63l-8 10M83 69l-7 10" stroke="#55723f" stroke-width="3"/>"##,
    ),
];
