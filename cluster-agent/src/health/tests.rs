use super::*;
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
};

const QUICK: HealthConfig = HealthConfig {
    interval: Duration::from_millis(30),
    doubt: Duration::from_millis(10),
    timeout: Duration::from_millis(500),
    rise: 2,
    fall: 2,
    concurrency: 2,
};

async fn until(results: &mut watch::Receiver<Arc<Results>>, wanted: impl Fn(&Results) -> bool) {
    timeout(Duration::from_secs(10), results.wait_for(|now| wanted(now))).await.unwrap().unwrap();
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(16).unwrap()
}

#[tokio::test]
async fn an_endpoint_comes_goes_and_comes_back() {
    let (checks, checker) = checks(QUICK);
    let mut results = checks.results;
    let listener = listen("127.0.0.1:0".parse().unwrap());
    let address = listener.local_addr().unwrap();
    let probe = Probe { address, http: None };
    let steps = async {
        checks.targets.send_replace(BTreeSet::from([probe.clone()]));
        until(&mut results, |now| now.get(&probe) == Some(&true)).await;
        drop(listener);
        until(&mut results, |now| now.get(&probe) == Some(&false)).await;
        let again = listen(address);
        until(&mut results, |now| now.get(&probe) == Some(&true)).await;
        checks.targets.send_replace(BTreeSet::new());
        until(&mut results, |now| now.is_empty()).await;
        drop((again, checks.targets));
    };
    tokio::join!(checker.run(), steps);
}

#[tokio::test]
async fn http_needs_a_good_status() {
    let (checks, checker) = checks(QUICK);
    let mut results = checks.results;
    let listener = listen("127.0.0.1:0".parse().unwrap());
    let address = listener.local_addr().unwrap();
    let server = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 512];
            let n = stream.read(&mut request).await.unwrap();
            let text = String::from_utf8_lossy(&request[..n]);
            let answer: &[u8] = match text.split(' ').nth(1) {
                Some("/good") => b"HTTP/1.1 204 No Content\r\n\r\n",
                Some("/silent") => b"",
                _ => b"HTTP/1.1 500 Oh\r\n\r\n",
            };
            stream.write_all(answer).await.unwrap();
        }
    };
    let probe = |path: &str| Probe { address, http: Some(path.to_owned()) };
    let steps = async {
        let all = [probe("/good"), probe("/bad"), probe("/silent"), Probe { address, http: None }];
        checks.targets.send_replace(all.into());
        until(&mut results, |now| now.len() == 4).await;
        let found: Vec<(Probe, bool)> = results.borrow().iter().map(|(p, good)| (p.clone(), *good)).collect();
        let expected = [
            (Probe { address, http: None }, true),
            (probe("/bad"), false),
            (probe("/good"), true),
            (probe("/silent"), false),
        ];
        assert_eq!(found, expected);
        drop(checks.targets);
    };
    tokio::select! {
        () = server => {}
        ((), ()) = async { tokio::join!(checker.run(), steps) } => {}
    }
}
