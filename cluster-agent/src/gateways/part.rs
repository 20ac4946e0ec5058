//! Each gateway's part of what is told of all: one that says much must not keep the cluster from being heard. What is too much is dropped, and
//! it is said whose it was. Pure.

use tombolo_model::GatewayRole;
use tombolo_wire::message::{GatewayReport, GatewayStatus, Problem};

/// Problems of one gateway, and how long each may be, in bytes.
const PROBLEMS: usize = 20;
const TEXT: usize = 1000;
/// Edges of a gateway that many call through, and of a sidecar.
const EDGES: usize = 5000;
const OWN_EDGES: usize = 500;
/// Clusters that one dials, and addresses of one.
const PEERS: usize = 500;
const ADDRESSES: usize = 32;
/// Names in edges: an account's or a name's, with a namespace before it.
const NAME: usize = 330;
/// The gateways' part of a cluster's status, in bytes: the controller takes 4 MiB of it.
const ALL: usize = 3 << 20;

/// Cuts a text at a character.
fn cut(text: &mut String, most: usize) -> bool {
    if text.len() <= most {
        return false;
    }
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
    true
}

/// Takes what no terminal, log or database should get.
fn clean(text: &mut String) -> bool {
    let is_dirty = text.contains(char::is_control);
    if is_dirty {
        *text = text.replace(char::is_control, " ");
    }
    is_dirty
}

fn is_name(text: &str) -> bool {
    text.len() <= NAME && !text.contains(char::is_control)
}

/// What is kept of a status; and a word about the rest, where there is one.
pub(super) fn bounded(mut status: GatewayStatus, role: GatewayRole) -> GatewayStatus {
    if role != GatewayRole::Egress {
        // nobody else dials them
        status.peers.clear();
    }
    // nor captures for a node
    status.capture = status.capture.filter(|_| role == GatewayRole::Node);
    let edges = if role == GatewayRole::Sidecar { OWN_EDGES } else { EDGES };
    let before = status.edges.len();
    status
        .edges
        .retain(|edge| [&edge.source, &edge.name, &edge.cluster].into_iter().all(|text| is_name(text)));
    status.edges.truncate(edges);
    let mut dropped = before > status.edges.len();
    dropped |= status.problems.len() > PROBLEMS;
    status.problems.truncate(PROBLEMS);
    for problem in &mut status.problems {
        dropped |= cut(&mut problem.subject, NAME) | cut(&mut problem.message, TEXT);
        dropped |= clean(&mut problem.subject) | clean(&mut problem.message);
    }
    if let Some(why) = status.capture.as_mut().and_then(|capture| capture.why.as_mut()) {
        dropped |= cut(why, TEXT) | clean(why);
    }
    while status.peers.len() > PEERS {
        dropped = true;
        status.peers.pop_last();
    }
    for addresses in status.peers.values_mut() {
        let before = addresses.len();
        addresses.retain(|address, _| is_name(address));
        while addresses.len() > ADDRESSES {
            addresses.pop_last();
        }
        dropped |= addresses.len() < before;
        for state in addresses.values_mut() {
            dropped |= state.error.as_mut().is_some_and(|error| cut(error, TEXT) | clean(error));
        }
    }
    if dropped {
        status.problems.push(Problem {
            subject: "status".to_owned(),
            message: "this gateway says more of itself than is taken; the rest is left out".to_owned(),
        });
    }
    status
}

/// The reports, as long as all of them may be; of the longest ones what they count is left out. And whose that was.
pub(crate) fn fitting(mut reports: Vec<GatewayReport>) -> (Vec<GatewayReport>, Vec<Problem>) {
    let length = |report: &GatewayReport| serde_json::to_vec(report).map_or(0, |text| text.len());
    let mut lengths: Vec<usize> = reports.iter().map(length).collect();
    let mut all: usize = lengths.iter().sum();
    let mut whose = Vec::new();
    while all > ALL {
        let longest = lengths.iter().enumerate().max_by_key(|(_, length)| **length).map(|(at, _)| at);
        let Some(at) = longest else { break };
        let status = &mut reports[at].status;
        if status.edges.is_empty() && status.problems.is_empty() {
            status.peers.clear();
        }
        status.edges.clear();
        status.problems.clear();
        // of what is left nothing can go, and that is little
        let now = length(&reports[at]);
        if now == lengths[at] {
            break;
        }
        all -= lengths[at] - now;
        lengths[at] = now;
        whose.push(reports[at].instance.clone());
    }
    let problem = |instance: String| {
        Problem {
        subject: format!("gateway {instance}"),
        message: "the status of the cluster would be too long: what this gateway counts and complains of is left out".to_owned(),
    }
    };
    (reports, whose.into_iter().map(problem).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombolo_wire::message::{CaptureWay, EdgeCount, NodeCapture};

    fn edges(count: usize, name: &str) -> GatewayStatus {
        let edge = EdgeCount {
            source: "shop/cart".to_owned(),
            name: name.to_owned(),
            cluster: "west".to_owned(),
            ok: 1,
            open: 0,
            failed: 0,
            bytes_up: 0,
            bytes_down: 0,
        };
        GatewayStatus { edges: vec![edge; count], ..GatewayStatus::default() }
    }

    #[test]
    fn what_one_says_has_a_bound() {
        let plain = edges(10, "catalog.acme.example.com");
        assert_eq!(bounded(plain.clone(), GatewayRole::Sidecar), plain);
        let many = bounded(edges(10_000, "catalog.acme.example.com"), GatewayRole::Sidecar);
        assert_eq!((many.edges.len(), many.problems.len()), (OWN_EDGES, 1));
        assert_eq!(bounded(edges(10_000, "a.b"), GatewayRole::Egress).edges.len(), EDGES);
        assert!(bounded(edges(3, &"x".repeat(NAME + 1)), GatewayRole::Egress).edges.is_empty());
        let complaint = Problem { subject: "x".repeat(5000), message: "\u{fc}".repeat(5000) };
        let loud = GatewayStatus { problems: vec![complaint; 100], ..GatewayStatus::default() };
        let loud = bounded(loud, GatewayRole::Sidecar);
        assert_eq!(loud.problems.len(), PROBLEMS + 1);
        assert!(loud.problems.iter().all(|p| p.subject.len() <= NAME && p.message.len() <= TEXT));
        assert!(serde_json::to_vec(&loud).unwrap().len() < 40_000);
        let capture = |why: String| {
            let capture = NodeCapture { way: CaptureWay::Redirect, why: Some(why) };
            GatewayStatus { capture: Some(capture), ..GatewayStatus::default() }
        };
        let why = |status: GatewayStatus| status.capture.and_then(|capture| capture.why);
        let told = |why: &str| capture(why.to_owned());
        assert_eq!(why(bounded(told("no BPF"), GatewayRole::Node)).as_deref(), Some("no BPF"));
        assert_eq!(bounded(told("no BPF"), GatewayRole::Egress).capture, None, "it captures for no node");
        let long = bounded(capture("\n".repeat(5000)), GatewayRole::Node);
        assert_eq!((long.problems.len(), why(long)), (1, Some(" ".repeat(TEXT))));
    }

    #[test]
    fn one_that_says_much_silences_nobody() {
        let report = |instance: &str, status: GatewayStatus| GatewayReport {
            instance: instance.to_owned(),
            role: GatewayRole::Egress,
            software: "test".to_owned(),
            admin: None,
            status,
        };
        let quiet = report("quiet", edges(3, "catalog.acme.example.com"));
        let loud = |n: u32| report(&format!("loud-{n}"), edges(EDGES, &"x".repeat(NAME)));
        let (all, problems) = fitting(vec![loud(1), quiet.clone(), loud(2), loud(3)]);
        assert!(serde_json::to_vec(&all).unwrap().len() <= ALL + 100);
        assert_eq!(all[1], quiet);
        assert_eq!(all.len(), 4, "each is there");
        assert!(!problems.is_empty() && problems.iter().all(|p| p.subject.contains("loud-")), "{problems:?}");
        assert_eq!(fitting(vec![quiet.clone()]), (vec![quiet], vec![]));
    }
}
