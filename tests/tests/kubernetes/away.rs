//! An API server that dies without a word, behind an address where another one goes on: connections that are there stay as
//! they are, and nothing comes on them any more; new ones are served.

use crate::{
    capture::let_agent_write,
    let_agent, make_service, make_wide,
    server::{ADMIN, AGENT, Store},
    world::{Agent, Controller, SOON},
};
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::{Api, api::ListParams};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tombolo_runtime::task;
use tombolo_testkit::wait::until;

const OWN: &str = "tombolo-system";
/// Names, so that several requests go at once, and as many connections are kept.
const NAMES: usize = 6;
/// The longest that a request waits for its answer, and a connection is kept that is silent, with time to do it again.
const NOTICED: Duration = Duration::from_secs(150);

/// The way to an API server.
struct Road {
    port: u16,
    fallen: watch::Sender<u32>,
}

impl Road {
    async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let own = listener.local_addr().expect("an address").port();
        let fallen = watch::Sender::new(0);
        let falls = fallen.clone();
        task::spawn("road", async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let mut falls = falls.subscribe();
                task::spawn("connection", async move {
                    let Ok(mut to) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut from, &mut to) => {}
                        _ = falls.changed() => {
                            // open at both ends, for ever
                            let _held = (from, to);
                            std::future::pending::<()>().await;
                        }
                    }
                });
            }
        });
        Self { port: own, fallen }
    }

    /// Of all that is connected nothing is heard any more.
    fn falls_silent(&self) {
        self.fallen.send_modify(|times| *times += 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_falls_silent_holds_up_no_writer() {
    let home = tempfile::tempdir().expect("a folder");
    let store = Store::start(&home.path().join("kubernetes"));
    let server = store.server().await;
    let client = server.client(ADMIN).await;
    for name in ["shop", "later", OWN] {
        make_wide::<Namespace>(&client, json!({"metadata": {"name": name}})).await;
    }
    let_agent(&client, &["namespaces", "services", "pods", "serviceaccounts", "nodes"]).await;
    let_agent_write(&client).await;
    for number in 0..NAMES {
        make_service(&client, "shop", &format!("s{number}")).await;
    }
    let controller = Controller::start().await;
    controller.join(home.path()).await;
    let road = Road::to(server.port()).await;
    let kubeconfig = server.kubeconfig_through(AGENT, road.port);
    let agent = Agent::start_with(home.path(), &kubeconfig, &["--capture", "gateway"]).await;
    let services: Api<Service> = Api::namespaced(client.clone(), OWN);
    let count = || async { services.list(&ListParams::default()).await.expect("a list").items.len() };
    // each has a name of its own in this cluster, too
    until("names are Services", SOON, count, |count| *count == 2 * NAMES).await;

    // The next thing that it writes goes where nobody answers.
    road.falls_silent();
    let began = Instant::now();
    controller.choose(&["later"], None).await;
    until("the names are taken out", NOTICED, count, |count| *count == 0).await;
    eprintln!("a silent server holds up a writer for {} s", began.elapsed().as_secs());

    // So do its watches.
    make_service(&client, "later", "orders").await;
    let seen = || agent.ask("orders.acme.example.com");
    let _ = until("what is new is seen", NOTICED, seen, Result::is_ok).await;
    until("and written", NOTICED, count, |count| *count == 2).await;
    eprintln!("and a watch for {} s", began.elapsed().as_secs());
}
