//! Networks for tests: Linux network namespaces, tied together by veth pairs. Two clusters in a lab may have the same addresses, as true ones do.
//! Needs root; without it a lab fails at once and says so.

use nix::{
    sched::{CloneFlags, setns},
    unistd::Uid,
};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

/// Namespaces that belong together. They are deleted when this is dropped.
pub struct Lab {
    namespaces: Vec<Namespace>,
}

impl Lab {
    /// An empty lab. Namespaces that a killed test process left are deleted first.
    ///
    /// # Panics
    /// Without root, or without the program `ip`.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it needs root, and is nothing to be made in passing")]
    pub fn new() -> Self {
        assert!(
            Uid::effective().is_root(),
            "network namespaces need root: run this test as root (sudo -E cargo test)"
        );
        must(Command::new("ip").arg("-V"));
        remove_leftovers();
        Self { namespaces: Vec::new() }
    }

    /// A new namespace, with its loopback up. `label` is for messages.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn namespace(&mut self, label: &str) -> Namespace {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tmb-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        must(Command::new("ip").args(["netns", "add", &name]));
        let namespace = Namespace(Arc::new(Named { label: label.to_owned(), name }));
        self.namespaces.push(namespace.clone());
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    /// Ties two namespaces together with a pair of interfaces, each with a name (15 bytes at most) and an address as `10.0.0.1/24`.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn link(
        &self,
        (left, left_device, left_address): End<'_>,
        (right, right_device, right_address): End<'_>,
    ) {
        must(
            Command::new("ip")
                .args(["link", "add", left_device, "netns", left.name(), "type", "veth"])
                .args(["peer", "name", right_device, "netns", right.name()]),
        );
        left.address(left_device, left_address);
        right.address(right_device, right_address);
    }
}

/// One end of a link: where, the interface's name, its address with prefix length.
pub type End<'a> = (&'a Namespace, &'a str, &'a str);

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            delete(namespace.name());
        }
    }
}

struct Named {
    label: String,
    name: String,
}

/// A network namespace of a lab.
#[derive(Clone)]
pub struct Namespace(Arc<Named>);

impl Namespace {
    /// Its name, as `ip netns` knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What it was called in the test.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.0.label
    }

    /// Runs `ip -n <namespace> …`.
    ///
    /// # Panics
    /// When it fails, with what it said.
    pub fn ip(&self, args: &[&str]) -> String {
        text(must(Command::new("ip").args(["-n", self.name()]).args(args)))
    }

    /// Gives an interface an address (IPv6 without duplicate detection, which would take seconds), and sets it up.
    ///
    /// # Panics
    /// When it fails.
    pub fn address(&self, device: &str, address: &str) {
        let family: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
        self.ip(&[&["address", "add", address, "dev", device], family].concat());
        self.ip(&["link", "set", device, "up"]);
    }

    /// Adds a route; `default` is a destination too.
    ///
    /// # Panics
    /// When it fails.
    pub fn route(&self, destination: &str, via: &str) {
        self.ip(&["route", "add", destination, "via", via]);
    }

    /// Gives the namespace a `resolv.conf` of its own, for programs that [`Self::command`] starts.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn resolver(&self, server: &str) {
        let folder = Path::new(CONFIG).join(self.name());
        fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let file = folder.join("resolv.conf");
        fs::write(&file, format!("nameserver {server}\n"))
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }

    /// Sets an interface up or down: a cable pulled, both ways at once.
    ///
    /// # Panics
    /// When it fails.
    pub fn set_link(&self, device: &str, up: bool) {
        self.ip(&["link", "set", device, if up { "up" } else { "down" }]);
    }

    /// Writes a sysctl of the namespace, as `net/ipv4/ip_forward`.
    ///
    /// # Panics
    /// When it fails.
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = format!("/proc/sys/{key}");
        let value = value.to_owned();
        self.enter(move || fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}")));
    }

    /// A command that runs in the namespace, to be started as any other. It keeps its pid: `ip` makes way for the program.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.name()]).arg(program.as_ref());
        command
    }

    /// Runs a program in the namespace to its end, and gives its stdout.
    ///
    /// # Panics
    /// When it fails, with what it said.
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        text(must(self.command(program).args(args)))
    }

    /// Runs a closure on a thread that is in the namespace, and waits for it. Sockets made in it stay in the namespace wherever they go; a
    /// runtime that is made in it has its threads there.
    ///
    /// # Panics
    /// As the closure does, and when the namespace can't be entered.
    pub fn enter<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// As [`Self::enter`], but does not wait.
    ///
    /// # Panics
    /// When no thread can be started.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let path = self.path();
        let started = thread::Builder::new().name(self.label().to_owned()).spawn(move || {
            let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            setns(file, CloneFlags::CLONE_NEWNET)
                .unwrap_or_else(|error| panic!("enter {}: {error}", path.display()));
            work()
        });
        started.expect("a thread can be started")
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(self.name())
    }
}

/// Where `ip netns exec` looks for files that stand in the place of those in `/etc`.
const CONFIG: &str = "/etc/netns";

fn delete(name: &str) {
    let _ = fs::remove_dir_all(Path::new(CONFIG).join(name));
    let _ = Command::new("ip").args(["netns", "delete", name]).output();
}

fn remove_leftovers() {
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let pid = name.strip_prefix("tmb-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            delete(name);
        }
    }
}

fn text(output: Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn must(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error} (the package iproute2 has the program ip)"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    #[test]
    fn two_pairs_with_the_same_addresses() {
        let mut lab = Lab::new();
        let mut pairs = Vec::new();
        for word in ["one", "two"] {
            let (server, client) = (lab.namespace("server"), lab.namespace("client"));
            lab.link((&server, "eth0", "10.9.0.1/24"), (&client, "eth0", "10.9.0.2/24"));
            let listener = server.enter(|| TcpListener::bind("10.9.0.1:80").unwrap());
            let serve = thread::spawn(move || {
                listener.accept().unwrap().0.write_all(word.as_bytes()).unwrap();
            });
            pairs.push((client, serve, word));
        }
        for (client, serve, word) in pairs {
            let heard = client.enter(|| {
                let mut text = String::new();
                TcpStream::connect("10.9.0.1:80").unwrap().read_to_string(&mut text).unwrap();
                text
            });
            serve.join().unwrap();
            assert_eq!(heard, word);
            assert!(client.run("ip", &["-br", "address"]).contains("10.9.0.2/24"));
            client.resolver("10.9.0.1");
            assert_eq!(client.run("cat", &["/etc/resolv.conf"]), "nameserver 10.9.0.1\n");
        }
        let names: Vec<PathBuf> = lab.namespaces.iter().map(Namespace::path).collect();
        drop(lab);
        assert!(names.iter().all(|path| !path.exists()));
        assert!(names.iter().all(|path| !Path::new(CONFIG).join(path.file_name().unwrap()).exists()));
    }
}
