//! Cables that are cut: packets are dropped where they arrive, so that nobody who sends one hears of it.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

/// Which packets are lost, seen from who dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    Both,
    Sent,
    Received,
}

/// What is lost for how long: each direction for each time in `TOMBOLO_CUTS` (`1s 30s 5m`); a few of these where it is not set.
pub(crate) fn cuts() -> Vec<(Lost, Duration)> {
    let all = [Lost::Both, Lost::Sent, Lost::Received];
    let Ok(text) = std::env::var("TOMBOLO_CUTS") else {
        let second = Duration::from_secs(1);
        // Ten seconds are longer than anybody waits for a word, and as long as the longest pause of who tries again.
        return all.map(|lost| (lost, second)).into_iter().chain([(Lost::Both, second * 10)]).collect();
    };
    let times = text.split_whitespace().map(|time| tombolo_runtime::duration::parse(time).unwrap());
    times.flat_map(|time| all.map(|lost| (lost, time))).collect()
}

/// A cut of all that leads to these addresses, healed when this is dropped.
pub(crate) struct Cut(());

impl Cut {
    pub(crate) fn new(to: &[SocketAddr], lost: Lost) -> Self {
        let mut rules = "table inet cut {\nchain lost { type filter hook input priority 0;\n".to_owned();
        for (ip, port) in to.iter().map(|at| (at.ip(), at.port())) {
            if lost != Lost::Received {
                writeln!(rules, "ip daddr {ip} tcp dport {port} drop").unwrap();
            }
            if lost != Lost::Sent {
                writeln!(rules, "ip saddr {ip} tcp sport {port} drop").unwrap();
            }
        }
        rules.push_str("}\n}\n");
        let mut nft = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("nft (make deps-test)");
        nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "{rules}");
        Self(())
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        let deleted = Command::new("nft").args(["delete", "table", "inet", "cut"]).status();
        assert!(deleted.is_ok_and(|status| status.success()), "the cut can't be healed");
    }
}
