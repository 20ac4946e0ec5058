//! The shop over real sockets.

use super::{client::CallError, client::Served, page, shopping::View, *};
use hickory_resolver::proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{RData, Record, RecordType},
};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};
use tokio::{net::UdpSocket, sync::oneshot};
use tombolo_runtime::task::spawn;

/// Services that run until the test ends.
struct Shop {
    addresses: BTreeMap<Role, SocketAddr>,
    stops: Vec<oneshot::Sender<()>>,
    http: reqwest::Client,
}

impl Shop {
    fn new() -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(20))
            .build()
            .unwrap();
        Self { addresses: BTreeMap::new(), stops: Vec::new(), http }
    }

    /// Starts a service; those that it calls are where they are, or where `host` says.
    async fn start(
        &mut self,
        role: Role,
        cluster: &str,
        host: &[(Role, &str)],
        resolver: Option<SocketAddr>,
    ) {
        let config = Config::read(role, |name| match name {
            "LISTEN" => Some("127.0.0.1:0".to_owned()),
            "CLUSTER" => Some(cluster.to_owned()),
            "RESOLVER" => resolver.map(|address| address.to_string()),
            _ => Role::ALL.into_iter().filter(|peer| name == format!("{peer}_HOST").to_uppercase()).find_map(
                |peer| {
                    let told =
                        host.iter().find(|(role, _)| *role == peer).map(|(_, text)| (*text).to_owned());
                    told.or_else(|| self.addresses.get(&peer).map(ToString::to_string))
                },
            ),
        })
        .unwrap();
        let bound = Bound::bind(role, config).await.unwrap();
        self.addresses.insert(role, bound.address());
        let (stop, stopped) = oneshot::channel::<()>();
        self.stops.push(stop);
        spawn("shop", async move { bound.run(async { drop(stopped.await) }).await });
    }

    async fn start_all(&mut self) {
        self.start(Role::Catalog, "cluster-2", &[], None).await;
        for role in [Role::Users, Role::Cart, Role::Payment, Role::Order, Role::Shopping] {
            self.start(role, "cluster-1", &[], None).await;
        }
    }

    fn url(&self, role: Role, path: &str) -> String {
        format!("http://{}{path}", self.addresses[&role])
    }
    async fn page(&self) -> String {
        let response = self.http.get(self.url(Role::Shopping, "/")).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(
            response.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'")
        );
        response.text().await.unwrap()
    }
    async fn status(&self) -> Value {
        let text =
            self.http.get(self.url(Role::Shopping, "/status")).send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap()
    }
    async fn post(&self, role: Role, path: &str, body: &str) -> reqwest::Response {
        self.http.post(self.url(role, path)).body(body.to_owned()).send().await.unwrap()
    }
}

/// An address where nothing listens.
async fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test]
async fn a_customer_buys_something() {
    let mut shop = Shop::new();
    shop.start_all().await;
    let page = shop.page().await;
    assert!(page.contains(r#"<section id="catalog" data-cluster="cluster-2">"#), "{page}");
    assert_eq!(page.matches(r#"<li class="product">"#).count(), 8);
    assert!(
        page.contains("data:image/svg+xml;base64,")
            && page.contains("Ada Lovelace")
            && page.contains("Nothing in it yet")
    );

    for _ in 0..2 {
        let response = shop.post(Role::Shopping, "/cart", "product=yoga-mat").await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["location"]),
            (303, &"/".parse().unwrap())
        );
    }
    let page = shop.page().await;
    assert!(
        page.contains("<li><span>Yoga mat</span><span>2</span></li>") && page.contains("$125.00"),
        "{page}"
    );

    assert_eq!(shop.post(Role::Shopping, "/checkout", "").await.status(), 303);
    let page = shop.page().await;
    assert!(
        page.contains("No. 1, 2 pieces, paid in cluster-1") && page.contains("Nothing in it yet"),
        "{page}"
    );

    let status = shop.status().await;
    assert_eq!(status["cluster"], "cluster-1");
    assert_eq!(status["products"], 8);
    assert_eq!(status["services"]["catalog"]["cluster"], "cluster-2");
    assert_eq!(status["services"]["catalog"]["address"], shop.addresses[&Role::Catalog].to_string());
}

#[tokio::test]
async fn without_the_catalog_the_page_says_why_and_the_rest_works() {
    let mut shop = Shop::new();
    let nowhere = nowhere().await;
    for role in [Role::Users, Role::Cart, Role::Payment, Role::Order, Role::Shopping] {
        shop.start(role, "cluster-1", &[(Role::Catalog, &nowhere)], None).await;
    }
    let page = shop.page().await;
    assert!(page.contains(r#"<section id="catalog" data-cluster="">"#), "{page}");
    assert!(page.contains(&format!("{nowhere} does not accept connections: Connection refused")), "{page}");
    assert!(page.contains("Ada Lovelace") && page.contains("CATALOG_HOST"));
    assert_eq!(shop.post(Role::Shopping, "/cart", "product=yoga-mat").await.status(), 303);
    let response = shop.post(Role::Shopping, "/checkout", "").await;
    assert_eq!(response.status(), 502);
    assert!(response.text().await.unwrap().contains("does not accept connections"));
    let page = shop.page().await;
    assert!(page.contains("Prices come from the catalog") && !page.contains("Check out"), "{page}");
    assert!(shop.status().await["services"]["catalog"]["error"].as_str().unwrap().contains(&nowhere));
}

/// A DNS server that knows the addresses of one name, and that no other exists.
async fn dns(known: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    spawn("dns", async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
            let query = Message::from_vec(&buffer[..length]).unwrap();
            let question = query.queries[0].clone();
            let mut answer = Message::response(query.metadata.id, OpCode::Query);
            answer.metadata.recursion_available = true;
            if question.name().to_string().trim_end_matches('.') != known {
                answer.metadata.response_code = ResponseCode::NXDomain;
            } else if question.query_type() == RecordType::A {
                let data = RData::A("127.0.0.1".parse().unwrap());
                answer.add_answer(Record::from_rdata(question.name().clone(), 5, data));
            }
            answer.add_query(question);
            socket.send_to(&answer.to_vec().unwrap(), client).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn names_are_asked_for_at_the_resolver() {
    let mut shop = Shop::new();
    shop.start(Role::Catalog, "cluster-2", &[], None).await;
    let resolver = dns("catalog.acme.example.com").await;
    let port = shop.addresses[&Role::Catalog].port();
    let host = format!("catalog.acme.example.com:{port}");
    shop.start(
        Role::Shopping,
        "cluster-1",
        &[(Role::Catalog, &host), (Role::Users, "users.acme.example.com")],
        Some(resolver),
    )
    .await;
    let status = shop.status().await;
    assert_eq!(status["services"]["catalog"]["cluster"], "cluster-2", "{status}");
    assert_eq!(status["services"]["catalog"]["target"], host);
    let error = status["services"]["users"]["error"].as_str().unwrap();
    assert_eq!(
        error,
        format!("the name users.acme.example.com does not exist, says the DNS server {resolver}")
    );
}

#[tokio::test]
async fn bad_requests() {
    let mut shop = Shop::new();
    shop.start_all().await;
    let long = "x".repeat(70_000);
    let rows: &[(Role, &str, &str, u16)] = &[
        (Role::Cart, "/cart/ada", "{", 400),
        (Role::Cart, "/cart/ada", r#"{"product":"x","pieces":1,"price":0}"#, 400),
        (Role::Cart, "/cart/ada", r#"{"product":"","pieces":1}"#, 400),
        (Role::Cart, "/cart/ada", r#"{"product":"x","pieces":-1}"#, 400),
        (Role::Cart, "/cart/ada", &long, 413),
        (Role::Cart, "/nothing", "", 404),
        (Role::Payment, "/payments", r#"{"customer":"ada","cents":0}"#, 422),
        (Role::Order, "/orders/ada", r#"{"items":{},"cents":1}"#, 422),
        (Role::Shopping, "/cart", "", 400),
        (Role::Shopping, "/cart", "product=%3Cb%3E", 400),
        (Role::Catalog, "/products", "", 404),
        (Role::Users, "/users/ada", "", 404),
    ];
    for (role, path, body, status) in rows {
        let response = shop.post(*role, path, body).await;
        assert_eq!(response.status().as_u16(), *status, "{role} {path} {}", &body[..body.len().min(40)]);
    }
    let foreign =
        shop.http.post(shop.url(Role::Shopping, "/checkout")).header("sec-fetch-site", "cross-site");
    assert_eq!(foreign.send().await.unwrap().status(), 403);
    for role in Role::ALL {
        let response = shop.http.get(shop.url(role, "/healthz")).send().await.unwrap();
        assert_eq!(response.status(), 200, "{role}");
        assert!(response.headers().contains_key("x-served-by"));
    }
}

#[test]
fn what_services_say_is_escaped() {
    let config = Config::read(Role::Shopping, |_| None).unwrap();
    let served = |text: &str| Served {
        value: users::User { id: String::new(), name: text.to_owned(), city: text.to_owned() },
        cluster: text.to_owned(),
        address: "127.0.0.1:1".parse().unwrap(),
        took: Duration::from_micros(1250),
    };
    let bad = "<script>alert('x')</script>\"&";
    let product = catalog::Product {
        id: bad.into(),
        name: bad.into(),
        about: bad.into(),
        cents: 5,
        picture: bad.into(),
    };
    let failed = || CallError::NoSuchName { name: bad.to_owned(), server: bad.to_owned() };
    let html = page::render(&View {
        config: &config,
        products: Ok(Served {
            value: vec![product],
            cluster: bad.to_owned(),
            address: "127.0.0.1:1".parse().unwrap(),
            took: Duration::ZERO,
        }),
        user: Ok(served(bad)),
        cart: Err(failed()),
        orders: Err(failed()),
    });
    assert!(!html.contains("<script") && !html.contains("alert('x')"), "{html}");
    assert!(html.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;"));
    assert!(html.contains("$0.05") && html.contains("1.2 ms"));
    assert!(!page::failure(bad).contains("<script"));
}

#[test]
fn roles() {
    assert_eq!(Role::of_program(Path::new("/tmp/x/bin/catalog")), Some(Role::Catalog));
    for other in ["/tmp/x/bin/tombolo", "/tmp/catalog/bin/x", "/", "catalog.exe"] {
        assert_eq!(Role::of_program(Path::new(other)), None, "{other}");
    }
}

#[test]
fn configuration() {
    let read = |role, set: &[(&str, &str)]| {
        let set: BTreeMap<String, String> =
            set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Config::read(role, |name| set.get(name).cloned())
    };
    let config =
        read(Role::Shopping, &[("CATALOG_HOST", "catalog.acme.example.com"), ("PORT", "9")]).unwrap();
    assert_eq!(config.listen, "127.0.0.1:9".parse().unwrap());
    assert_eq!(config.peers[&Role::Catalog].to_string(), "catalog.acme.example.com:8082");
    assert_eq!(config.peers[&Role::Users].to_string(), "127.0.0.1:8081");
    let config =
        read(Role::Order, &[("PAYMENT_HOST", "[::1]:7"), ("LISTEN", "127.0.0.9:1"), ("PORT", "")]).unwrap();
    assert_eq!(config.peers[&Role::Payment].to_string(), "[::1]:7");
    assert_eq!(config.listen, "127.0.0.9:1".parse().unwrap());

    let bad =
        [("CATALOG_HOST", "a b"), ("CART_HOST", "x:99999"), ("USERS_HOST", "x..y"), ("ORDER_HOST", "x:0")];
    let bad: Vec<_> =
        bad.into_iter().chain([("PORT", "x"), ("RESOLVER", "dns"), ("CLUSTER", "a\nb")]).collect();
    let ConfigError(problems) = read(Role::Shopping, &bad).unwrap_err();
    assert_eq!(problems.len(), bad.len(), "{problems:?}");
    assert!(
        problems.iter().any(|p| p == "CATALOG_HOST=a b is no name:port, as catalog.acme.example.com:8082")
    );
}
