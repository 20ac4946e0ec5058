//! What an application speaks passes every capture mode as it is, and the server's proxy sees who calls where there is one to say so.

use super::stage::{MODES, Stage, exec, host, namespace};
use crate::{lab::Cluster, world::SOON};
use serde_json::Value;
use std::{collections::BTreeSet, time::Instant};
use tokio::time::timeout;
use tombolo_testkit::wait::until_ok;

const GIB: u64 = 1 << 30;

/// One protocol: a client, what it says when all went well, and the name and port that it calls.
struct Case {
    what: &'static str,
    container: &'static str,
    command: Vec<String>,
    says: String,
    to: String,
}

fn cases(mode: &str, server: &str) -> Vec<Case> {
    let host = host(mode);
    let case = |what, container, port: u16, command: &[&str], says: &str| Case {
        what,
        container,
        command: command.iter().map(|part| part.replace("HOST", &host)).collect(),
        says: says.to_owned(),
        to: format!("{host}:{port}"),
    };
    let sum = "create temp table t as select n from generate_series(1, 1000) n; select sum(n) from t";
    let kept = "redis.call('set', KEYS[1], ARGV[1]) return redis.call('get', KEYS[1])";
    let mut all = vec![
        case("HTTP/1.1", "tools", 8080, &["/tools", "get", "http://HOST:8080/"], r#""proto":"HTTP/1.1""#),
        case(
            "HTTP/2",
            "tools",
            8080,
            &["/tools", "get", "-h2", "http://HOST:8080/"],
            r#""proto":"HTTP/2.0""#,
        ),
        case(
            "gRPC",
            "tools",
            9000,
            &["/tools", "grpc", "HOST:9000", "hello"],
            &format!("hello [{server}] SERVING"),
        ),
        case("gRPC, streaming", "tools", 9000, &["/tools", "chat", "HOST:9000", "200"], "200 answered"),
        case("WebSocket", "tools", 8080, &["/tools", "ws", "ws://HOST:8080/ws", "hello"], "hello"),
        case("PostgreSQL", "postgres", 5432, &["psql", "-h", "HOST", "-XAtqc", sum], "500500"),
        case("Redis", "redis", 6379, &["redis-cli", "-h", "HOST", "eval", kept, "1", "k", "value"], "value"),
        case("TCP", "tools", 9001, &["/tools", "tcp", "HOST:9001", "hello"], "hello"),
        case("TCP, server first", "tools", 9002, &["/tools", "greet", "HOST:9002"], &format!("220 {server}")),
        case(
            "TCP, half-close",
            "tools",
            9003,
            &["/tools", "half-close", "HOST:9003", "10000000"],
            "10000000 ",
        ),
    ];
    for (what, pod) in [("StatefulSet, pod 0", "named-0"), ("StatefulSet, pod 1", "named-1")] {
        let name = format!("{pod}.named.{mode}.example.com:8080");
        let get = ["/tools", "get", &format!("http://{name}/")];
        let one = case(what, "tools", 8080, &get, &format!(r#""server":"{pod}""#));
        all.push(Case { to: name, ..one });
    }
    let bulk = ["/tools", "bulk", "HOST:9004", &GIB.to_string()];
    all.push(case("1 GiB, SHA-256", "tools", 9004, &bulk, &format!("{GIB} ")));
    all
}

/// What this workload called, as the proxy before the servers of a mode saw it: only calls whose caller proved itself to it.
async fn seen(cluster: &Cluster, mode: &str, workload: &str) -> BTreeSet<String> {
    let space = namespace(mode);
    let proxies: &[&[&str]] = match mode {
        "sidecar" => &[
            &["-n", &space, "logs", "-l", "app=servers", "-c", "tombolo-proxy", "--tail=-1"],
            &["-n", &space, "logs", "-l", "app=named", "-c", "tombolo-proxy", "--tail=-1"],
        ],
        _ => &[&["-n", "tombolo-system", "logs", "daemonset/tombolo-node", "-c", "gateway"]],
    };
    let mut found = BTreeSet::new();
    for logs in proxies {
        let text = cluster.kubectl(logs).await.expect("logs");
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let proved = |line: &Value| {
            let source = line["source"].as_str().unwrap_or_default();
            line["direction"] == "inbound" && line["source_verified"] == true && source.ends_with(workload)
        };
        found.extend(lines.filter(proved).filter_map(|line| line["destination"].as_str().map(str::to_owned)));
    }
    found
}

#[tokio::test]
async fn every_protocol_in_every_mode() {
    let stage = Stage::up().await;
    let [one, other] = stage.pair.clusters();
    let began = Instant::now();
    for (mode, by) in MODES {
        let (space, host) = (namespace(mode), host(mode));
        let workload = format!("/cluster/{}/ns/{space}/sa/caller", one.name);
        // The pods are as the mode wants them.
        let path = "jsonpath={.items[*].spec.initContainers[*].name}";
        let found = one.kubectl(&["-n", &space, "get", "pods", "-o", path]).await.expect("pods");
        let proxy = if mode == "sidecar" { "tombolo-init tombolo-proxy" } else { "" };
        assert_eq!(found, proxy, "{mode}, chosen by {by:?}");
        // The first call waits for names, and in mode `node` for the proxies to know the pods.
        let first = async || {
            let get = ["/tools", "get", "-timeout", "5s", &format!("http://{host}:8080/")];
            exec(one, &space, "tools", &get).await?;
            let known =
                mode == "gateway" || seen(other, mode, &workload).await.contains(&format!("{host}:8080"));
            if known { Ok(()) } else { Err(format!("{workload} is not seen")) }
        };
        until_ok(&format!("mode {mode} is in force"), SOON, first).await;

        let all = cases(mode, &other.name);
        for case in &all {
            let command: Vec<&str> = case.command.iter().map(String::as_str).collect();
            let began = Instant::now();
            let said = timeout(SOON, exec(one, &space, case.container, &command)).await;
            let said = said.unwrap_or_else(|_| Err(format!("nothing within {} s", SOON.as_secs())));
            let good = said.as_ref().is_ok_and(|said| said.contains(&case.says));
            assert!(good, "{mode}: {}: wanted {:?}, got {said:?}", case.what, case.says);
            println!("{mode:<8} {:<20} {:>6} ms", case.what, began.elapsed().as_millis());
        }
        if mode == "gateway" {
            continue;
        }
        let wanted: BTreeSet<String> = all.iter().map(|case| case.to.clone()).collect();
        let all_seen = async || {
            let found = seen(other, mode, &workload).await;
            let missing: Vec<_> = wanted.difference(&found).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("{workload} is not seen at {missing:?}")) }
        };
        until_ok("the servers see who calls", SOON, all_seen).await;
        println!("{mode:<8} the server's proxy saw {workload} at each of {} names and ports", wanted.len());
    }
    println!("the battery took {} s", began.elapsed().as_secs());
    stage.down().await;
}
