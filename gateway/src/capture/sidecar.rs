//! Capture mode `sidecar`: connections come by the redirect ([`super::redirect`]) to one port on loopback, and
//! connection tracking remembers where they meant to go.

use super::listener::{Accept, Listener};
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Binds the port on both loopbacks, so that nobody outside can pretend to have been redirected. Port 0 takes a free
/// one, the same for both.
///
/// # Errors
/// As bind(2). A machine without IPv6 is no error.
pub(super) fn bind(port: u16, accept: &Accept) -> io::Result<Vec<Listener>> {
    let v4 = Listener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), accept.clone())?;
    let port = v4.local().port();
    match Listener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, port)), accept.clone()) {
        Ok(v6) => Ok(vec![v4, v6]),
        Err(error) if no_ipv6(&error) => Ok(vec![v4]),
        Err(error) => Err(error),
    }
}

/// Binds the port on all addresses: the redirect of a connection that comes in changes its destination to the address of the
/// interface that it came by.
///
/// # Errors
/// As bind(2). A machine without IPv6 is no error.
pub(super) fn bind_everywhere(port: u16, accept: &Accept) -> io::Result<Vec<Listener>> {
    let v4 = Listener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), accept.clone())?;
    let port = v4.local().port();
    match Listener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), accept.clone()) {
        Ok(v6) => Ok(vec![v4, v6]),
        Err(error) if no_ipv6(&error) => Ok(vec![v4]),
        Err(error) => Err(error),
    }
}

fn no_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{attest::Attestor, original, redirect::Redirect};
    use std::{collections::BTreeSet, process::Command, sync::Arc, time::Duration};
    use tokio::{
        net::{TcpListener, TcpStream},
        sync::mpsc,
        time::timeout,
    };
    use tombolo_model::{
        SpiffeId,
        snapshot::{WorkloadSelector, WorkloadSpec},
    };

    const SOON: Duration = Duration::from_secs(10);
    const INSIDE: &str = "TOMBOLO_TEST_NETWORK_NAMESPACE";
    /// Loopback up, and a route to the virtual addresses: what a pod's default route is.
    const LAB: &str = "ip link set lo up && ip route add 240.0.0.0/4 dev lo && \
                       ip -6 route add fd74:6f6d:6265:6c6f::/64 dev lo && exec \"$0\" \"$@\"";

    /// Runs the test of this name again, in user and network namespaces of its own.
    #[test]
    fn redirected_connections_keep_their_destination() {
        if std::env::var_os(INSIDE).is_some() {
            return;
        }
        let done = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "sh", "-c", LAB])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "capture::sidecar::tests::inside_a_network_namespace", "--nocapture"])
            .env(INSIDE, "1")
            .output()
            .expect("unshare (util-linux), ip (iproute2) and nft (nftables) are installed");
        let output = String::from_utf8_lossy(&done.stdout);
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && output.contains("captured as dialled"), "{output}\n{errors}");
    }

    /// Does nothing but inside the namespace that the test above makes.
    #[tokio::test]
    async fn inside_a_network_namespace() {
        if std::env::var_os(INSIDE).is_none() {
            return;
        }
        let (taken, mut accepted) = mpsc::channel(16);
        let accept: Accept = Arc::new(move |stream, client| taken.try_send((stream, client)).unwrap());
        let listeners = bind(0, &accept).unwrap();
        let redirect = Redirect {
            vips: vec!["240.0.0.0/4".parse().unwrap(), "fd74:6f6d:6265:6c6f::/64".parse().unwrap()],
            port: listeners[0].local().port(),
            exclude_uid: None,
            exclude_mark: Some(7),
            exclude_ports: [25].into(),
            inbound: None,
        };
        redirect.install().unwrap();
        redirect.install().unwrap();
        let rules = String::from_utf8(Command::new("nft").args(["list", "ruleset"]).output().unwrap().stdout)
            .unwrap();
        assert_eq!(rules.matches("redirect to").count(), 2, "twice is once: {rules}");

        let uid = nix::unistd::getuid().as_raw();
        let shopping: Arc<[WorkloadSpec]> = Arc::new([WorkloadSpec {
            identity: SpiffeId::parse("spiffe://acme.test/cluster/c1/ns/default/sa/shopping").unwrap(),
            selectors: BTreeSet::from([WorkloadSelector::Uid(uid)]),
        }]);
        for dialled in ["240.1.2.3:8082", "[fd74:6f6d:6265:6c6f::7]:5432"] {
            let dialled: SocketAddr = dialled.parse().unwrap();
            let client = timeout(SOON, TcpStream::connect(dialled)).await.unwrap().unwrap();
            let (server, from) = timeout(SOON, accepted.recv()).await.unwrap().unwrap();
            let original = original::destination(&server, server.local_addr().unwrap()).unwrap();
            assert_eq!(original, dialled);
            assert_eq!(from.port(), client.local_addr().unwrap().port());
            let who = Attestor::new().attest(shopping.clone(), from, original).await.unwrap();
            assert_eq!(who, shopping[0].identity, "attested through the redirect");
        }

        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _direct = TcpStream::connect(other.local_addr().unwrap()).await.unwrap();
        timeout(SOON, other.accept()).await.unwrap().expect("other destinations go as before");

        Redirect::remove().unwrap();
        Redirect::remove().unwrap();
        let rules = Command::new("nft").args(["list", "ruleset"]).output().unwrap().stdout;
        assert!(rules.is_empty(), "{}", String::from_utf8_lossy(&rules));
        println!("captured as dialled");
    }
}
