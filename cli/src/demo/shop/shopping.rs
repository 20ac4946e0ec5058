//! `shopping`: the web page. It asks the other services at the same time, and shows what it got: where one can't be
//! reached, the page says so and why, and the rest of it works.

use super::{
    Config, Role,
    cart::{Addition, Content},
    catalog::Product,
    client::{CallError, Client, Served},
    http::{Call, Reply},
    order::{Placed, Wanted},
    page,
    users::{CUSTOMER, User},
};
use hyper::{StatusCode, header};

#[derive(Debug)]
pub(super) struct Shopping {
    client: Client,
    config: Config,
}

/// What the page shows: of each service its answer, or why there is none.
pub(super) struct View<'a> {
    pub(super) config: &'a Config,
    pub(super) user: Result<Served<User>, CallError>,
    pub(super) products: Result<Served<Vec<Product>>, CallError>,
    pub(super) cart: Result<Served<Content>, CallError>,
    pub(super) orders: Result<Served<Vec<Placed>>, CallError>,
}

impl View<'_> {
    /// Each service called: where it was asked for, and where it answered or why it did not.
    pub(super) fn calls(&self) -> [(Role, Result<page::Origin, String>); 4] {
        fn origin<T>(result: &Result<Served<T>, CallError>) -> Result<page::Origin, String> {
            match result {
                Ok(served) => {
                    let cluster = served.cluster.clone();
                    Ok(page::Origin { cluster, address: served.address, took: served.took })
                }
                Err(error) => Err(error.to_string()),
            }
        }
        [
            (Role::Users, origin(&self.user)),
            (Role::Catalog, origin(&self.products)),
            (Role::Cart, origin(&self.cart)),
            (Role::Order, origin(&self.orders)),
        ]
    }
}

impl Shopping {
    pub(super) fn new(client: Client, config: Config) -> Self {
        Self { client, config }
    }

    pub(super) async fn answer(&self, call: &Call) -> Reply {
        // A form of another site would shop in the visitor's name.
        let foreign = call.headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
        if foreign && call.method != hyper::Method::GET {
            return Reply::error(StatusCode::FORBIDDEN, "this form is on another site");
        }
        let (method, parts) = call.route();
        match (method, &parts[..]) {
            ("GET", []) => self.page().await,
            ("GET", ["status"]) => self.status().await,
            ("POST", ["cart"]) => match field(&call.body, "product") {
                Some(product) => {
                    let addition = Addition { product, pieces: 1 };
                    let path = format!("/cart/{CUSTOMER}");
                    after(
                        self.client
                            .post::<Content>(Role::Cart, &path, &addition)
                            .await
                            .map(drop)
                            .map_err(|error| error.to_string()),
                    )
                }
                None => Reply::error(StatusCode::BAD_REQUEST, "the form has no product"),
            },
            ("POST", ["checkout"]) => after(self.checkout().await),
            _ => Reply::not_found(),
        }
    }

    async fn view(&self) -> View<'_> {
        let (user, products, cart, orders) = (
            format!("/users/{CUSTOMER}"),
            "/products",
            format!("/cart/{CUSTOMER}"),
            format!("/orders/{CUSTOMER}"),
        );
        let (user, products, cart, orders) = tokio::join!(
            self.client.get(Role::Users, &user),
            self.client.get(Role::Catalog, products),
            self.client.get(Role::Cart, &cart),
            self.client.get(Role::Order, &orders),
        );
        View { config: &self.config, user, products, cart, orders }
    }

    async fn page(&self) -> Reply {
        Reply::new(StatusCode::OK, "text/html; charset=utf-8", page::render(&self.view().await))
            .with(header::CONTENT_SECURITY_POLICY, page::POLICY)
            .with(header::CACHE_CONTROL, "no-store")
    }

    /// The page's facts, for programs.
    async fn status(&self) -> Reply {
        let view = self.view().await;
        let calls = view.calls().map(|(role, origin)| {
            let peer = self.config.peers.get(&role).map(ToString::to_string);
            let value = match origin {
                Ok(origin) => serde_json::json!({
                    "target": peer,
                    "cluster": origin.cluster,
                    "address": origin.address.to_string(),
                    "duration_us": u64::try_from(origin.took.as_micros()).unwrap_or(u64::MAX),
                }),
                Err(error) => serde_json::json!({ "target": peer, "error": error }),
            };
            (role.as_str().to_owned(), value)
        });
        let products = view.products.as_ref().map_or(0, |served| served.value.len());
        Reply::json(&serde_json::json!({
            "cluster": self.config.cluster,
            "products": products,
            "services": serde_json::Map::from_iter(calls),
        }))
    }

    async fn checkout(&self) -> Result<(), String> {
        let path = format!("/cart/{CUSTOMER}");
        let (items, products) = tokio::join!(
            self.client.get::<Content>(Role::Cart, &path),
            self.client.get::<Vec<Product>>(Role::Catalog, "/products"),
        );
        let said = |error: CallError| error.to_string();
        let (items, products) = (items.map_err(said)?.value, products.map_err(said)?.value);
        let cents =
            total(&items, &products).ok_or("the cart holds a product that the catalog does not have")?;
        let order = format!("/orders/{CUSTOMER}");
        self.client.post::<Placed>(Role::Order, &order, &Wanted { items, cents }).await.map_err(said)?;
        self.client.delete::<Content>(Role::Cart, &path).await.map(drop).map_err(said)
    }
}

/// The price of a cart, in cents; none where the catalog does not know a product of it.
pub(super) fn total(items: &Content, products: &[Product]) -> Option<u64> {
    items.iter().try_fold(0_u64, |sum, (id, pieces)| {
        let product = products.iter().find(|product| product.id == *id)?;
        product.cents.checked_mul(u64::from(*pieces))?.checked_add(sum)
    })
}

/// Back to the page; or why not.
fn after(result: Result<(), String>) -> Reply {
    match result {
        Ok(()) => Reply::see_other("/"),
        Err(error) => Reply::new(StatusCode::BAD_GATEWAY, "text/html; charset=utf-8", page::failure(&error))
            .with(header::CONTENT_SECURITY_POLICY, page::POLICY),
    }
}

/// A field of a form. Only what product ids are made of is taken, so nothing is escaped in it.
fn field(body: &[u8], name: &str) -> Option<String> {
    let body = std::str::from_utf8(body).ok()?;
    let value = body.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    let good = !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    good.then(|| value.to_owned())
}
