//! Capture by socket lookup: the kernel takes the virtual addresses for its own (a local route), and where it looks for who listens there, a
//! BPF program names the proxy's sockets. No netfilter and no connection tracking are in it, and a connection's own address is the one that was
//! dialled. What kube-proxy holds of the virtual addresses, it takes before; a rule of `super::node` keeps it from the pods' connections.
//!
//! The program lasts as long as this process; the route stays unless [`Routes`] are taken away. Connections to virtual addresses are refused
//! then, and do not leave the node.

mod bpf;
pub(super) mod ipvs;
mod program;
mod route;

use ipnet::IpNet;
use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

/// The program at work. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Steering {
    _link: OwnedFd,
}

/// Brings connections to `vips` in this network namespace to the listening sockets: the first takes those over IPv4, the second those over
/// IPv6. Needs `CAP_NET_ADMIN` and `CAP_BPF`.
///
/// # Errors
/// What the kernel said, and to what.
pub(super) fn steer(
    vips: &[IpNet],
    sockets: &[impl AsFd],
    routes: &Routes,
    source: Option<IpAddr>,
) -> io::Result<Steering> {
    let said =
        |what: &'static str| move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
    let map =
        bpf::socket_map(u32::try_from(sockets.len().max(1)).unwrap_or(1)).map_err(said("the socket map"))?;
    for (key, socket) in (0..).zip(sockets) {
        bpf::put_socket(&map, key, socket).map_err(said("a socket in the map"))?;
    }
    let nets: Vec<IpNet> = vips.iter().copied().filter(|net| program::key_of(net) < sockets.len()).collect();
    let code = program::assemble(&nets, &map);
    let program = bpf::load(&code).map_err(said("the program"))?;
    let link = bpf::attach(&program).map_err(said("the attachment"))?;
    for net in &nets {
        match routes.add(*net, source) {
            // IPv6 that is switched off: nobody sends there, and sockets can be bound all the same
            Err(error) if error.raw_os_error() == Some(nix::libc::EACCES) && matches!(net, IpNet::V6(_)) => {}
            result => result.map_err(said("the local route"))?,
        }
    }
    Ok(Steering { _link: link })
}

/// The local routes that this process made. They are needed as long as connections go on.
#[derive(Debug, Default)]
pub(super) struct Routes(Mutex<Vec<IpNet>>);

impl Routes {
    fn add(&self, net: IpNet, source: Option<IpAddr>) -> io::Result<()> {
        route::local(&net, source)?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains(&net) {
            all.push(net);
        }
        Ok(())
    }

    /// Takes them away.
    pub(super) fn remove(&self) {
        for net in std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)) {
            if let Err(error) = route::remove(&net) {
                tracing::warn!(%net, %error, "the local route stays; connections there are refused until a proxy is back");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        process::Command,
        thread,
    };

    const INSIDE: &str = "TOMBOLO_TEST_LOOKUP_NAMESPACE";

    /// Runs the test of this name again, in a network namespace of its own. Needs root: an unprivileged user may load no such program.
    #[test]
    fn connections_are_steered_by_their_address() {
        if std::env::var_os(INSIDE).is_some() {
            return;
        }
        assert!(nix::unistd::geteuid().is_root(), "BPF programs need root: run this test as root");
        let done = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "capture::lookup::tests::inside_a_network_namespace", "--nocapture"])
            .env(INSIDE, "1")
            .output()
            .expect("unshare (util-linux) and ip (iproute2) are installed");
        let output = String::from_utf8_lossy(&done.stdout);
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && output.contains("steered as dialled"), "{output}\n{errors}");
    }

    /// Does nothing but inside the namespace that the test above makes.
    #[test]
    fn inside_a_network_namespace() {
        if std::env::var_os(INSIDE).is_none() {
            return;
        }
        let listeners = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("[::1]:0").unwrap()];
        let vips: Vec<IpNet> =
            ["240.0.0.0/4", "fd74:6f6d:6265:6c6f::/64"].map(|net| net.parse().unwrap()).into();
        let routes = Routes::default();
        let steering = steer(&vips, &listeners, &routes, None).unwrap();
        let second = steer(&vips, &listeners, &routes, None).is_ok();
        assert!(second, "a second one beside it, as while a new proxy starts");
        for (listener, dialled) in listeners.iter().zip(["240.1.2.3:8082", "[fd74:6f6d:6265:6c6f:9::7]:5432"])
        {
            let accepting = listener.try_clone().unwrap();
            let served = thread::spawn(move || {
                let (mut stream, _) = accepting.accept().unwrap();
                stream.write_all(stream.local_addr().unwrap().to_string().as_bytes()).unwrap();
            });
            let mut heard = String::new();
            TcpStream::connect(dialled).unwrap().read_to_string(&mut heard).unwrap();
            served.join().unwrap();
            assert_eq!(heard, dialled, "the socket's own address is what was dialled");
        }
        assert!(TcpStream::connect("127.0.0.2:8082").is_err(), "other addresses are none of ours");
        drop(steering);
        assert!(TcpStream::connect("240.1.2.3:8082").is_err(), "refused once the program is gone");
        let local = || {
            let show = ["route", "show", "table", "all", "type", "local"];
            let shown = Command::new("ip").args(show).output().unwrap().stdout;
            String::from_utf8(shown).unwrap().contains("240.0.0.0/4")
        };
        assert!(local(), "the route stays");
        routes.remove();
        assert!(!local(), "until it is taken away");
        routes.remove();
        println!("steered as dialled");
    }
}
