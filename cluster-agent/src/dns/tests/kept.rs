//! DNS as a process of its own, from the files that an agent keeps.

use super::*;
use crate::{
    dns::{
        kept::{ADDRESSES, SNAPSHOT},
        process::Process,
    },
    state::DataDir,
};
use hickory_proto::{op::ResponseCode, rr::RData};
use std::{fs, net::SocketAddr};
use tokio::{net::UdpSocket, sync::oneshot, time::timeout};
use tombolo_feed::cache;
use tombolo_runtime::task::spawn;
use tombolo_testkit::wait::until;

async fn ask(server: SocketAddr, name: &str) -> (ResponseCode, Option<RData>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(&query(name, RecordType::A).to_vec().unwrap()).await.unwrap();
    let mut buffer = [0; 1500];
    let length = timeout(DEADLINE, socket.recv(&mut buffer)).await.unwrap().unwrap();
    let answer = Message::from_vec(&buffer[..length]).unwrap();
    (answer.metadata.response_code, answer.answers.first().map(|record| record.data.clone()))
}

fn a(address: &str) -> (ResponseCode, Option<RData>) {
    (ResponseCode::NoError, Some(RData::A(address.parse().unwrap())))
}

#[tokio::test]
async fn names_come_from_what_the_agent_kept_and_stay_when_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent");
    let data = DataDir::create(&path).unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let process = Process::build(&path, Config::new(listen, ForwardTo::Refuse), None).await.unwrap();
    let server = process.address();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = spawn("process", process.run(async { drop(stopped.await) }, DEADLINE));
    let catalog = "catalog.acme.example.com.";
    assert_eq!(ask(server, catalog).await.0, ResponseCode::ServFail, "nothing was kept yet");

    data.write_json(ADDRESSES, &AddressMode::Allocated).unwrap();
    cache::store(&data.file(SNAPSHOT), Generation::new(1), &example()).unwrap();
    until("the first snapshot", DEADLINE, || ask(server, catalog), |seen| *seen == a("240.0.0.1")).await;

    // the agent starts with another option
    let prefix = AddressMode::Explicit("127.101.0.0/16".parse().unwrap());
    data.write_json(ADDRESSES, &prefix).unwrap();
    until("the addresses of the prefix", DEADLINE, || ask(server, catalog), |seen| *seen == a("127.101.0.1"))
        .await;

    // a damaged file, then none: what is in force stays. The next good one shows that both were looked at.
    fs::write(data.file(SNAPSHOT), "{").unwrap();
    assert_eq!(ask(server, catalog).await, a("127.101.0.1"));
    fs::remove_file(data.file(SNAPSHOT)).unwrap();
    assert_eq!(ask(server, catalog).await, a("127.101.0.1"));
    let other = resources([name("cart.acme.example.com", NameKind::Service, 9, &[])]);
    cache::store(&data.file(SNAPSHOT), Generation::new(2), &other).unwrap();
    until(
        "the next snapshot",
        DEADLINE,
        || ask(server, "cart.acme.example.com."),
        |seen| *seen == a("127.101.0.9"),
    )
    .await;
    assert_eq!(ask(server, catalog).await.0, ResponseCode::NXDomain, "withdrawn by a snapshot without it");

    for damage in [Some("{"), None] {
        let path = data.file(SNAPSHOT);
        damage.map_or_else(|| fs::remove_file(&path).unwrap(), |text| fs::write(&path, text).unwrap());
        let error = crate::dns::kept::read(&data).unwrap_err().to_string();
        assert!(error.contains("snapshot") || error.contains("kept"), "{error}");
    }
    drop(stop);
    timeout(DEADLINE, running).await.unwrap().unwrap();
}
