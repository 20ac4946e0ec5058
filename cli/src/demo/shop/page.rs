//! The page, as HTML that needs nothing from anywhere else. Whatever comes from a service is escaped; pictures go in
//! as images, which run no scripts.

use super::{
    Role,
    client::Served,
    shopping::{View, total},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use std::{
    fmt::{self, Write as _},
    net::SocketAddr,
    time::Duration,
};

/// What a browser may load and do for this page.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; \
                                 base-uri 'none'; frame-ancestors 'none'";

/// Where an answer came from.
pub(super) struct Origin {
    pub(super) cluster: String,
    pub(super) address: SocketAddr,
    pub(super) took: Duration,
}

/// Text, escaped for HTML.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            c => f.write_char(c),
        })
    }
}

/// An amount.
struct Price(u64);

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}.{:02}", self.0 / 100, self.0 % 100)
    }
}

/// The page.
pub(super) fn render(view: &View<'_>) -> String {
    let mut body = String::new();
    // Writing to a String does not fail.
    let _ = write_body(&mut body, view);
    document("ACME Fitness", &body)
}

/// The page after something went wrong.
pub(super) fn failure(reason: &str) -> String {
    let body = format!(
        r#"<main><section class="notice bad" role="alert"><h2>That did not work</h2><p>{}</p></section><p><a href="/">Back to the shop</a></p></main>"#,
        Text(reason)
    );
    document("ACME Fitness: that did not work", &body)
}

fn document(title: &str, body: &str) -> String {
    format!(
        r#"<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title><style>{}</style></head><body>{body}</body></html>"#,
        include_str!("page.css")
    )
}

fn write_body(out: &mut String, view: &View<'_>) -> fmt::Result {
    write_header(out, view)?;
    out.push_str("<main>");
    write_products(out, view)?;
    out.push_str(r#"<aside><section class="card" aria-labelledby="cart"><h2 id="cart">Your cart</h2>"#);
    write_cart(out, view)?;
    out.push_str(
        r#"</section><section class="card" aria-labelledby="orders"><h2 id="orders">Your orders</h2>"#,
    );
    write_orders(out, view)?;
    out.push_str("</section></aside>");
    write_services(out, view)?;
    out.push_str("</main>");
    Ok(())
}

fn write_header(out: &mut String, view: &View<'_>) -> fmt::Result {
    out.push_str(
        r#"<header><a class="brand" href="/"><svg viewBox="0 0 32 32" aria-hidden="true"><path d="M3 22c5-9 9-9 13 0 4 9 8 9 13 0" fill="none" stroke="currentColor" stroke-width="4" stroke-linecap="round"/><circle cx="7" cy="11" r="4" fill="currentColor"/><circle cx="25" cy="11" r="4" fill="currentColor"/></svg>ACME Fitness</a>"#,
    );
    match &view.user {
        Ok(Served { value: user, .. }) => {
            write!(out, r#"<p class="who">{}, {}</p>"#, Text(&user.name), Text(&user.city))?;
        }
        Err(_) => out.push_str(r#"<p class="who">Guest</p>"#),
    }
    out.push_str("</header>");
    Ok(())
}

fn write_products(out: &mut String, view: &View<'_>) -> fmt::Result {
    let target = view.config.peers.get(&Role::Catalog).map(ToString::to_string).unwrap_or_default();
    match &view.products {
        Ok(served) => {
            write!(
                out,
                r#"<section id="catalog" data-cluster="{0}"><div class="title"><h1>Products</h1><p class="from">served by <b>{0}</b></p></div><ul class="grid">"#,
                Text(&served.cluster)
            )?;
            for product in &served.value {
                write!(
                    out,
                    r#"<li class="product"><img alt="" width="160" height="120" src="data:image/svg+xml;base64,{picture}"><div><h3>{name}</h3><p>{about}</p></div><form method="post" action="/cart"><span class="price">{price}</span><button name="product" value="{id}" aria-label="Add {name} to the cart">Add</button></form></li>"#,
                    picture = BASE64_STANDARD.encode(&*product.picture),
                    name = Text(&product.name),
                    about = Text(&product.about),
                    price = Price(product.cents),
                    id = Text(&product.id),
                )?;
            }
            out.push_str("</ul></section>");
        }
        Err(error) => write!(
            out,
            r#"<section id="catalog" data-cluster=""><div class="title"><h1>Products</h1></div><div class="notice bad" role="alert"><h2>The catalog can't be reached</h2><p>{}</p><p>This shop looks for it at <code>{}</code> (<code>CATALOG_HOST</code>).</p></div></section>"#,
            Text(&error.to_string()),
            Text(&target)
        )?,
    }
    Ok(())
}

fn write_cart(out: &mut String, view: &View<'_>) -> fmt::Result {
    let products = view.products.as_ref().map(|served| &served.value[..]).unwrap_or_default();
    match &view.cart {
        Err(_) => out.push_str("<p>The cart can't be reached.</p>"),
        Ok(served) if served.value.is_empty() => out.push_str(r#"<p class="quiet">Nothing in it yet.</p>"#),
        Ok(served) => {
            out.push_str(r#"<ul class="lines">"#);
            for (id, pieces) in &served.value {
                let name =
                    products.iter().find(|product| product.id == *id).map_or(&**id, |product| &*product.name);
                write!(out, "<li><span>{}</span><span>{pieces}</span></li>", Text(name))?;
            }
            match total(&served.value, products) {
                Some(cents) => write!(
                    out,
                    r#"<li class="sum"><span>Total</span><span>{}</span></li></ul><form method="post" action="/checkout"><button class="wide">Check out</button></form>"#,
                    Price(cents)
                )?,
                None => out.push_str(r#"</ul><p class="quiet">Prices come from the catalog.</p>"#),
            }
        }
    }
    Ok(())
}

fn write_orders(out: &mut String, view: &View<'_>) -> fmt::Result {
    match &view.orders {
        Err(_) => out.push_str("<p>The orders can't be reached.</p>"),
        Ok(served) if served.value.is_empty() => out.push_str(r#"<p class="quiet">None yet.</p>"#),
        Ok(served) => {
            out.push_str(r#"<ul class="lines">"#);
            for order in &served.value {
                let pieces: u32 = order.items.values().sum();
                write!(
                    out,
                    "<li><span>No. {}, {pieces} pieces, paid in {}</span><span>{}</span></li>",
                    order.number,
                    Text(&order.paid_in),
                    Price(order.cents)
                )?;
            }
            out.push_str("</ul>");
        }
    }
    Ok(())
}

fn write_services(out: &mut String, view: &View<'_>) -> fmt::Result {
    let here = &view.config.cluster;
    write!(
        out,
        r#"<section class="card services" aria-labelledby="services"><h2 id="services">Who answered</h2><div class="scroll"><table><thead><tr><th scope="col">Service</th><th scope="col">Cluster</th><th scope="col">Asked for</th><th scope="col">Address</th><th scope="col" class="number">Time</th></tr></thead><tbody><tr data-service="shopping"><th scope="row">shopping</th><td><span class="chip">{}</span></td><td colspan="3" class="quiet">this page</td></tr>"#,
        Text(here)
    )?;
    for (role, origin) in view.calls() {
        let target = view.config.peers.get(&role).map(ToString::to_string).unwrap_or_default();
        write!(out, r#"<tr data-service="{role}"><th scope="row">{role}</th>"#)?;
        match origin {
            Ok(origin) => {
                let away = if origin.cluster == *here { "" } else { " away" };
                let micros = origin.took.as_micros();
                write!(
                    out,
                    r#"<td><span class="chip{away}">{}</span></td><td><code>{}</code></td><td><code>{}</code></td><td class="number">{}.{} ms</td></tr>"#,
                    Text(&origin.cluster),
                    Text(&target),
                    origin.address,
                    micros / 1000,
                    micros % 1000 / 100
                )?;
            }
            Err(error) => write!(
                out,
                r#"<td><span class="chip bad">none</span></td><td><code>{}</code></td><td colspan="2">{}</td></tr>"#,
                Text(&target),
                Text(&error)
            )?,
        }
    }
    out.push_str("</tbody></table></div></section>");
    Ok(())
}
