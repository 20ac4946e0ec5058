//! What can be seen on the link between the gateways.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tombolo_testkit::{netlab::Namespace, process::Program, wait::until_ok};

const SOON: Duration = Duration::from_secs(30);

/// `dumpcap` (of tshark) at work on a gateway's end of the link.
pub(crate) struct Recording {
    program: Program,
    file: PathBuf,
}

impl Recording {
    /// Starts it; returns when packets arrive. Gateways probe each other all the time, so they do.
    pub(crate) async fn start(gateway: &Namespace, file: &Path) -> Self {
        let mut command = gateway.command("dumpcap");
        command.args(["-q", "-i", "wan0", "-f", "host 198.51.100.2", "-a", "duration:120", "-w"]).arg(file);
        let this = Self { program: Program::spawn("dumpcap", command), file: file.to_owned() };
        this.holds(1_000).await;
        this
    }

    async fn holds(&self, bytes: usize) {
        until_ok("packets are captured", SOON, || {
            let size = fs::read(&self.file).map_or(0, |all| all.len());
            std::future::ready((size > bytes).then_some(()).ok_or_else(|| self.program.stderr()))
        })
        .await;
    }

    /// Ends it in order, once so many bytes are in the file: what is still on its way there is lost at the end.
    pub(crate) async fn stop(mut self, at_least: usize) {
        self.holds(at_least).await;
        let status = self.program.stop(SOON).await;
        assert!(status.success(), "dumpcap: {status}: {}", self.program.stderr());
    }
}

/// Rows of fields of the packets that the filter takes.
fn tshark(file: &Path, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-d", "tcp.port==15443,tls", "-Y", filter, "-T", "fields", "-r"]).arg(file);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output().expect("tshark runs (make deps-test installs it)");
    assert!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// All handshakes agree on TLS 1.3 with the hybrid key exchange, and every byte of the connections that began in the capture lies in a TLS
/// record: two hellos in clear, and all else encrypted. `at_least`: bytes that must have passed.
pub(crate) fn assert_tls_1_3(file: &Path, at_least: usize) {
    let hellos = tshark(
        file,
        "tls.handshake.type == 2",
        &["tls.handshake.extensions.supported_version", "tls.handshake.extensions_key_share_group"],
    );
    assert!(!hellos.is_empty(), "no ServerHello was captured");
    for hello in hellos {
        assert_eq!(hello, ["0x0304", "4588"], "TLS 1.3 and X25519MLKEM768");
    }
    let begun = tshark(file, "tcp.flags.syn == 1 && tcp.flags.ack == 0", &["tcp.stream"]);
    let mut passed = 0;
    for stream in begun.iter().map(|row| &row[0]) {
        let filter = format!("tcp.stream == {stream} && tcp.len > 0");
        let mut sides = BTreeMap::<String, BTreeMap<usize, Vec<u8>>>::new();
        for row in tshark(file, &filter, &["ip.src", "tcp.seq", "tcp.payload"]) {
            let side = sides.entry(row[0].clone()).or_default();
            side.insert(row[1].parse().expect("a sequence number"), bytes(&row[2]));
        }
        for (from, segments) in sides {
            let what = format!("stream {stream} from {from}");
            passed += assert_records(&what, &joined(&what, &segments));
        }
    }
    assert!(passed >= at_least, "only {passed} bytes of {at_least} were captured");
}

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |pair| u8::from_str_radix(pair, 16).expect("hex");
    (0..hex.len() / 2).map(|i| byte(&hex[2 * i..2 * i + 2])).collect()
}

/// The bytes of one direction; what was sent twice counts once.
fn joined(what: &str, segments: &BTreeMap<usize, Vec<u8>>) -> Vec<u8> {
    let mut all = Vec::new();
    for (sequence, segment) in segments {
        let start = sequence - 1;
        assert!(start <= all.len(), "{what}: a hole in the capture at byte {}", all.len());
        all.extend(segment.iter().skip(all.len() - start));
    }
    all
}

/// One hello in clear, and all else of type "application data", which in TLS 1.3 is everything encrypted.
fn assert_records(what: &str, stream: &[u8]) -> usize {
    const CHANGE_CIPHER_SPEC: u8 = 20;
    const HANDSHAKE: u8 = 22;
    const APPLICATION_DATA: u8 = 23;
    let mut rest = stream;
    let mut hellos = 0;
    while let [kind, 3, minor, high, low, tail @ ..] = rest {
        match (*kind, *minor) {
            (HANDSHAKE, 1 | 3) => hellos += 1,
            // An empty gesture to old middleboxes.
            (CHANGE_CIPHER_SPEC, 3) => assert_eq!(tail.first(), Some(&1), "{what}"),
            (APPLICATION_DATA, 3) => {}
            other => panic!("{what}: a record of type and version {other:?}"),
        }
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        rest = tail.get(length..).unwrap_or_default();
    }
    assert!(rest.len() < 5, "{what}: not TLS: {rest:?}");
    assert_eq!(hellos, 1, "{what}: handshake records in clear");
    stream.len()
}

/// None of the texts occurs in the capture.
pub(crate) fn assert_absent(file: &Path, texts: &[&[u8]]) {
    let raw = fs::read(file).expect("the capture");
    for text in texts {
        let found = raw.windows(text.len()).any(|window| window == *text);
        assert!(!found, "{} is seen on the link", String::from_utf8_lossy(text));
    }
}
