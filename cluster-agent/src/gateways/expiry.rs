//! When a gateway is gone. A lost link to the agent says nothing about that: a gateway carries requests without it. So after a
//! grace its tunnel port is dialled, again and again, and only one that nothing listens at takes the gateway out of the set. One whose pod is
//! gone goes without: whoever listens at its address is another one.

use super::{
    hub::Hub,
    standing::{Standing, standing},
};
use crate::index::View;
use futures::future::join_all;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpStream, sync::watch, time::Instant};
use tombolo_wire::message::GatewayHello;

/// How long a tunnel port may take to accept.
const PATIENCE: Duration = Duration::from_secs(1);

/// A gateway to be looked at: which, of which session, and what it said of itself.
#[derive(Debug)]
struct Due {
    instance: String,
    session: u64,
    hello: GatewayHello,
}

impl Hub {
    /// Removes those that are gone, for as long as it is polled.
    pub async fn expire(self: Arc<Self>, view: watch::Receiver<Arc<View>>) {
        let mut set = self.watch_set();
        loop {
            set.borrow_and_update();
            let (due, next) = self.due(Instant::now());
            if !due.is_empty() {
                let pods = Arc::clone(&view.borrow().pods);
                let looks = due.into_iter().map(|due| {
                    let gone = standing(&due.hello, &pods) == Standing::Gone;
                    async move { (!gone && listens(&places(&due.hello)).await, due) }
                });
                self.settle(join_all(looks).await);
                continue;
            }
            match next {
                Some(next) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(next) => {}
                        _ = set.changed() => {}
                    }
                }
                // `self` holds the sender, so the channel can't close.
                None => drop(set.changed().await),
            }
        }
    }

    /// Those to be looked at, and when the next one is.
    fn due(&self, now: Instant) -> (Vec<Due>, Option<Instant>) {
        let inner = self.lock();
        let mut due = Vec::new();
        let mut next: Option<Instant> = None;
        for (instance, entry) in &inner.entries {
            let Some(vanished) = entry.vanished else { continue };
            let at = entry.seen.map_or(vanished, |seen| seen.max(vanished)) + self.config.grace;
            if at <= now {
                let (instance, session) = (instance.clone(), entry.session);
                due.push(Due { instance, session, hello: entry.hello.clone() });
            } else {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        }
        (due, next)
    }

    /// Removes those that nothing listens for, unless they came back meanwhile.
    fn settle(&self, looked: Vec<(bool, Due)>) {
        let mut inner = self.lock();
        let before = inner.entries.len();
        for (listens, Due { instance, session, .. }) in looked {
            let Some(entry) = inner.entries.get_mut(&instance) else { continue };
            if listens {
                entry.seen = Some(Instant::now());
            } else if entry.session == session && entry.vanished.is_some() {
                tracing::info!(gateway.instance = instance, gateway.role = %entry.hello.role, "a gateway is gone");
                inner.entries.remove(&instance);
                inner.journal.gone(&instance);
            }
        }
        if inner.entries.len() != before {
            drop(inner);
            self.keep();
            self.changed();
        }
    }
}

/// Where the gateway takes tunnels. One that listens at all addresses may do so in a network namespace of its own; then it is found
/// where it says that others find it.
fn places(hello: &GatewayHello) -> Vec<String> {
    if !hello.tunnel.ip().is_unspecified() {
        return vec![hello.tunnel.to_string()];
    }
    let here: IpAddr =
        if hello.tunnel.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    let here = SocketAddr::new(here, hello.tunnel.port());
    hello.advertise.iter().cloned().chain([here.to_string()]).collect()
}

/// Whether anything accepts at one of these.
async fn listens(places: &[String]) -> bool {
    let dial = |place| async move {
        tokio::time::timeout(PATIENCE, TcpStream::connect(place)).await.is_ok_and(|done| done.is_ok())
    };
    join_all(places.iter().map(dial)).await.contains(&true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        gateways::HubConfig,
        index::Index,
        source::{Object, PodObject},
        state::DataDir,
    };
    use tokio::net::TcpListener;
    use tombolo_model::{GatewayRole, Generation};
    use tombolo_runtime::task;
    use tombolo_testkit::wait::until;
    use tombolo_wire::version::Hello;

    const SOON: Duration = Duration::from_secs(10);

    fn ingress(tunnel: SocketAddr, advertise: &[&str]) -> GatewayHello {
        GatewayHello {
            advertise: advertise.iter().map(|text| (*text).to_owned()).collect(),
            ..GatewayHello::new(
                Hello::current("tombolo-gateway"),
                "i".to_owned(),
                GatewayRole::Ingress,
                tunnel,
            )
        }
    }

    #[tokio::test]
    async fn a_gateway_without_a_link_stays_while_its_port_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        let config = HubConfig { grace: Duration::from_millis(20), ..HubConfig::default() };
        let hub = Hub::new(config, data, Generation::new(1));
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // It never opens a feed: a gateway whose agent was started anew, and that can't reach it.
        hub.hello(ingress(port.local_addr().unwrap(), &["192.0.2.1:15443"])).unwrap();
        let expiry = task::spawn("expiry", Arc::clone(&hub).expire(watch::channel(Arc::default()).1));
        for _ in 0..3 {
            tokio::time::timeout(SOON, port.accept()).await.expect("its port is looked at").unwrap();
            assert_eq!(hub.ingress().len(), 1, "its port is open");
        }
        drop(port);
        until("gone with its port", SOON, || async { hub.ingress().len() }, |n| *n == 0).await;
        expiry.abort();
    }

    #[tokio::test]
    async fn a_gateway_whose_pod_is_gone_goes_whoever_has_its_address_now() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        let config = HubConfig { grace: Duration::from_millis(20), ..HubConfig::default() };
        let hub = Hub::new(config, data, Generation::new(1));
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let of = |name: &str, uid: &str| GatewayHello {
            instance: name.to_owned(),
            pod: Some(uid.to_owned()),
            ..ingress(port.local_addr().unwrap(), &["192.0.2.1:15443"])
        };
        let pods = |uid: &str| {
            let mut index = Index::default();
            index.apply(Object::Pod(PodObject {
                namespace: "shop".parse().unwrap(),
                name: "cart-0".parse().unwrap(),
                uid: uid.into(),
                node: None,
                addresses: [[127, 0, 0, 1].into()].into(),
                host_network: false,
                account: "cart".parse().unwrap(),
            }));
            Arc::new(index.view())
        };
        let (view, pods_are) = watch::channel(pods("one"));
        hub.hello(of("shop.cart-0", "one")).unwrap();
        let expiry = task::spawn("expiry", Arc::clone(&hub).expire(pods_are));
        tokio::time::timeout(SOON, port.accept()).await.expect("its port is looked at").unwrap();
        assert_eq!(hub.ingress().len(), 1, "it is the same pod");
        // a StatefulSet's pod is made anew: same name, same address, something listens
        view.send_replace(pods("two"));
        until("gone with its pod", SOON, || async { hub.ingress().len() }, |n| *n == 0).await;
        expiry.abort();
    }

    #[test]
    fn where_to_look() {
        let at = |tunnel: &str, advertise: &[&str]| places(&ingress(tunnel.parse().unwrap(), advertise));
        assert_eq!(at("10.0.0.1:5", &["gw:1"]), ["10.0.0.1:5"]);
        assert_eq!(at("0.0.0.0:5", &["gw:1"]), ["gw:1", "127.0.0.1:5"]);
        assert_eq!(at("[::]:5", &[]), ["[::1]:5"]);
    }
}
