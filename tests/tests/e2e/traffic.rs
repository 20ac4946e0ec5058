//! What users send across the clusters.

use sha2::{Digest as _, Sha256};
use std::{process::Stdio, time::Instant};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
    time::timeout,
};
use tombolo_testkit::wait::until_ok;
use tombolo_tests::loopback::{LAST_WORDS, SOON, USUAL_FILES, World, fill, psql};

/// Runs a client program with this on its stdin; gives its stdout.
async fn run(mut command: Command, stdin: &str) -> (bool, String) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    let shown = format!("{command:?}");
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).await.unwrap();
    let output = timeout(SOON, child.wait_with_output()).await.unwrap_or_else(|_| panic!("{shown} hangs"));
    let output = output.unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

pub(crate) async fn server_first(world: &mut World) {
    world.greeted().await.unwrap();
    // The server's log shows who called.
    let line = world.logged("cluster-2/sidecar-access.log", "greet.acme.example.com").await;
    assert!(line.contains("/cluster/cluster-1/") && line.contains("tester"), "{line}");
}

pub(crate) async fn psql_by_name(world: &mut World) {
    world.servers.database.sql("create table t as select generate_series(1, 100000) as n");
    let ip = until_ok("db resolves", SOON, || world.resolve("db")).await;
    let mut command = Command::new(psql());
    command.env("PGHOSTADDR", ip.to_string()).env("PGCONNECT_TIMEOUT", "30").env("LC_ALL", "C.UTF-8");
    command.args(["-X", "-A", "-t", "-h", "db.acme.example.com", "-p", "5432", "-U", "tombolo", "-d"]);
    let name = world.servers.database.sql("select current_database()");
    command.args([&name, "-v", "ON_ERROR_STOP=1", "-c", "select sum(n) from t", "-c", "select n from t"]);
    let (success, text) = run(command, "").await;
    assert!(success, "{text}");
    assert_eq!((text.lines().next(), text.lines().count()), (Some("5000050000"), 100_001));
}

pub(crate) async fn nc_half_close(world: &mut World) {
    let ip = until_ok("count resolves", SOON, || world.resolve("count")).await;
    let mut command = Command::new(world.path("nc"));
    command.args(["-N", &ip.to_string(), "7000"]);
    let (success, text) = run(command, "pear\napple\nfig\n").await;
    assert_eq!((success, text.as_str()), (true, "apple\nfig\npear\n15 bytes\n"));
}

pub(crate) async fn reset_after_data(world: &mut World) {
    let mut stream = world.connect("reset").await;
    let mut data = vec![0; LAST_WORDS];
    timeout(SOON, stream.read_exact(&mut data)).await.expect("the data comes").unwrap();
    assert!(data.iter().all(|byte| *byte == b'x'));
    stream.write_all(b"!").await.unwrap();
    let end = timeout(SOON, stream.read_u8()).await.expect("the reset comes").unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
}

pub(crate) async fn unknown_workload(world: &mut World) {
    let ip = until_ok("greet resolves", SOON, || world.resolve("greet")).await;
    let mut command = Command::new(world.path("stranger"));
    command.args(["-d", &ip.to_string(), "7000"]);
    assert_eq!(run(command, "").await.1, "");
    world.logged("cluster-1/sidecar-access.log", "unknown_workload").await;
}

pub(crate) async fn a_gibibyte_down(world: &mut World) {
    let mut stream = world.connect("blob").await;
    let start = Instant::now();
    let mut left = 1usize << 30;
    stream.write_all(format!("{left}\n").as_bytes()).await.unwrap();
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 18]);
    while left > 0 {
        let most = left.min(buffer.len());
        let len = timeout(SOON, stream.read(&mut buffer[..most])).await.expect("bytes flow").unwrap();
        assert_ne!(len, 0, "the end came {left} bytes early");
        hash.update(&buffer[..len]);
        left -= len;
    }
    let mut sum = Vec::new();
    timeout(SOON, stream.read_to_end(&mut sum)).await.expect("the end comes").unwrap();
    assert_eq!(sum, hash.finalize()[..]);
    eprintln!("  {:.0} MiB/s", 1024.0 / start.elapsed().as_secs_f64());
}

pub(crate) async fn sixty_four_mebibytes_up(world: &mut World) {
    let mut stream = world.connect("sum").await;
    let (mut hash, mut state, mut buffer) = (Sha256::new(), 2, vec![0; 1 << 18]);
    for _ in 0..256 {
        fill(&mut buffer, &mut state);
        hash.update(&buffer);
        timeout(SOON, stream.write_all(&buffer)).await.expect("bytes flow").unwrap();
    }
    stream.shutdown().await.unwrap();
    let mut sum = Vec::new();
    timeout(SOON, stream.read_to_end(&mut sum)).await.expect("the answer comes").unwrap();
    assert_eq!(sum, hash.finalize()[..]);
}

pub(crate) async fn a_thousand_idle(world: &mut World) {
    let before = world.memory();
    let ip = until_ok("echo resolves", SOON, || world.resolve("echo")).await;
    let mut streams = Vec::new();
    // Some more, so that no sidecar could have them under the usual limit of open files.
    for number in 0..USUAL_FILES + 76 {
        let mut stream = TcpStream::connect((ip, 7000)).await.unwrap();
        // The first byte is there and back: the connection stands from end to end before the next one.
        stream.write_all(b"!").await.unwrap();
        let back = timeout(SOON, stream.read_u8()).await;
        assert_eq!(back.expect("an echo").unwrap_or_else(|e| panic!("connection {number}: {e}")), b'!');
        streams.push(stream);
    }
    eprintln!(
        "  memory of the programs: {before} MiB, with {} connections {} MiB",
        streams.len(),
        world.memory()
    );
    let files = world.most_files();
    assert!(files > USUAL_FILES, "no gateway was beyond the limit of open files it began with: {files}");
    for (number, stream) in streams.iter_mut().enumerate() {
        stream.write_all(format!("{number:07}\n").as_bytes()).await.unwrap();
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        let mut line = [0; 8];
        let read = timeout(SOON, stream.read_exact(&mut line)).await.expect("an echo");
        read.unwrap_or_else(|error| panic!("connection {number}: {error}"));
        assert_eq!(line, format!("{number:07}\n").as_bytes());
    }
}
