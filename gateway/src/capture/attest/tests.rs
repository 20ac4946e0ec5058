use super::*;
use std::{
    collections::BTreeSet,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};
use tokio::net::{TcpListener, TcpStream};
use tombolo_model::snapshot::WorkloadSelector::{self, Cgroup, Path as Exe, Uid};

fn id(account: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://acme.test/cluster/c1/ns/default/sa/{account}")).unwrap()
}
fn workload(account: &str, selectors: &[WorkloadSelector]) -> WorkloadSpec {
    WorkloadSpec { identity: id(account), selectors: selectors.iter().cloned().collect::<BTreeSet<_>>() }
}
fn me() -> u32 {
    nix::unistd::getuid().as_raw()
}

/// Calls a listener in the given way and says who it was taken for.
async fn attested(workloads: &[WorkloadSpec]) -> Result<SpiffeId, AttestError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, peer) = listener.accept().await.unwrap();
    Attestor::new().attest(workloads.into(), peer, server.local_addr().unwrap()).await
}

/// A program of its own path, a hard link of `bash`, that holds a connection until it is dropped.
struct Helper {
    _dir: tempfile::TempDir,
    path: PathBuf,
    child: std::process::Child,
    server: TcpStream,
    peer: SocketAddr,
}

impl Helper {
    async fn connect() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shopping");
        let bash =
            ["/usr/bin/bash", "/bin/bash"].into_iter().find(|p| Path::new(p).exists()).expect("bash is here");
        if fs::hard_link(bash, &path).is_err() {
            fs::copy(bash, &path).unwrap(); // another file system
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; read -r line <&3");
        let child = std::process::Command::new(&path).args(["-c", &script]).spawn().unwrap();
        let (server, peer) = listener.accept().await.unwrap();
        Self { _dir: dir, path, child, server, peer }
    }

    async fn attest(&self, workloads: &[WorkloadSpec]) -> Result<SpiffeId, AttestError> {
        Attestor::new().attest(workloads.into(), self.peer, self.server.local_addr().unwrap()).await
    }
}
impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn by_user_id() {
    assert_eq!(attested(&[workload("a", &[Uid(me())])]).await.unwrap(), id("a"));
    let refused = attested(&[workload("a", &[Uid(me() + 1)])]).await.unwrap_err();
    assert!(matches!(&refused, AttestError::Nobody(facts) if *facts == format!("uid={}", me())), "{refused}");
}

#[tokio::test]
async fn by_path() {
    let helper = Helper::connect().await;
    let path = helper.path.to_str().unwrap().to_owned();
    let others = [
        workload("bash", &[Exe("/usr/bin/bash".into()), Uid(me())]),
        workload("shopping", &[Exe(path.clone()), Uid(me())]),
    ];
    assert_eq!(helper.attest(&others).await.unwrap(), id("shopping"));
    for other in [vec![Exe(path.clone()), Uid(me() + 1)], vec![Exe(path)]] {
        let refused = helper.attest(&[workload("shopping", &other)]).await;
        assert!(matches!(refused, Err(AttestError::Nobody(_))), "{other:?}");
    }
}

/// Who shares a socket may send on it: all must be the one workload.
#[tokio::test]
async fn a_socket_of_two_programs_is_nobodys() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, peer) = listener.accept().await.unwrap();
    let own = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    let mine = workload("mine", &[Exe(own), Uid(me())]);
    let server = server.local_addr().unwrap();
    let attest = async |all: &[WorkloadSpec]| Attestor::new().attest(all.into(), peer, server).await;
    assert_eq!(attest(std::slice::from_ref(&mine)).await.unwrap(), id("mine"));

    let given = std::os::fd::OwnedFd::from(socket2::SockRef::from(&client).try_clone().unwrap());
    let mut child = std::process::Command::new("sleep").arg("60").stdin(given).spawn().unwrap();
    let theirs = fs::read_link(format!("/proc/{}/exe", child.id())).unwrap().to_str().unwrap().to_owned();
    let alone = attest(std::slice::from_ref(&mine)).await;
    let both = attest(&[mine, workload("theirs", &[Exe(theirs), Uid(me())])]).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(matches!(alone, Err(AttestError::Nobody(_))), "{alone:?}");
    assert!(matches!(both, Err(AttestError::Shared { .. })), "{both:?}");
}

/// Inodes and process ids are used again: what was read must be about the socket that was asked about.
#[tokio::test]
async fn another_socket_with_the_same_inode_does_not_pass() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, peer) = listener.accept().await.unwrap();
    let server = server.local_addr().unwrap();
    let own = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    let workloads = [workload("a", &[Exe(own), Uid(me())])];
    let ask = |change: &dyn Fn(&mut SocketOwner) -> Result<(), KernelError>| {
        let asked = std::cell::Cell::new(0);
        look_up(&workloads, &Processes::new(), || {
            let mut owner = kernel::owner(peer, server)?;
            asked.set(asked.get() + 1);
            if asked.get() > 1 {
                change(&mut owner)?;
            }
            Ok(owner)
        })
    };
    assert_eq!(ask(&|_| Ok(())).unwrap(), id("a"));
    let reused = ask(&|owner| {
        owner.cookie[0] ^= 1;
        Ok(())
    });
    assert!(matches!(reused, Err(AttestError::Kernel(_))), "{reused:?}");
    assert!(matches!(ask(&|_| Err(KernelError::Gone)), Err(AttestError::Kernel(_))));
}

#[tokio::test]
async fn a_replaced_binary_is_no_longer_that_workload() {
    let helper = Helper::connect().await;
    let path = helper.path.to_str().unwrap().to_owned();
    fs::remove_file(&helper.path).unwrap();
    fs::copy("/proc/self/exe", &helper.path).unwrap();
    let refused = helper.attest(&[workload("shopping", &[Exe(path), Uid(me())])]).await;
    assert!(matches!(refused, Err(AttestError::Nobody(_))), "{refused:?}");
}

#[tokio::test]
async fn by_cgroup() {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = text.lines().find_map(|l| l.strip_prefix("0::")).filter(|p| *p != "/");
    // where the test runs in the root cgroup, the root's path is what there is to match
    let own = own.map_or_else(|| "/".to_owned(), str::to_owned);
    assert_eq!(attested(&[workload("a", &[Cgroup(own)])]).await.unwrap(), id("a"));
    assert!(attested(&[workload("a", &[Cgroup("other.service".into())])]).await.is_err());
}

#[tokio::test]
async fn two_workloads_are_none() {
    let exe = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    let refused =
        attested(&[workload("a", &[Uid(me())]), workload("b", &[Exe(exe), Uid(me())])]).await.unwrap_err();
    let text = refused.to_string();
    assert!(matches!(refused, AttestError::Several { .. }), "{text}");
    assert!(text.contains("sa/a") && text.contains("sa/b"), "{text}");
}

#[tokio::test]
async fn nobody_without_selectors() {
    assert!(matches!(attested(&[]).await, Err(AttestError::Nobody(_))));
    assert!(matches!(attested(&[workload("a", &[])]).await, Err(AttestError::Nobody(_))));
}

/// What a connection costs here: hundreds of callers at once are all known, none refused for the crowd.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_is_attested() {
    let exe = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    let workloads: Arc<[WorkloadSpec]> = Arc::new([workload("a", &[Exe(exe), Uid(me())])]);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    // how long it takes depends on the machine; that none is lost does not
    let attestor = Attestor::with_patience(std::time::Duration::from_secs(60));
    let mut open = Vec::new();
    for _ in 0..300 {
        let client = TcpStream::connect(at).await.unwrap();
        open.push((client, listener.accept().await.unwrap()));
    }
    let asked = open.iter().map(|(_, (server, peer))| {
        let (workloads, server) = (workloads.clone(), server.local_addr().unwrap());
        let attestor = &attestor;
        async move { attestor.attest(workloads, *peer, server).await.unwrap() }
    });
    let start = std::time::Instant::now();
    let found = futures::future::join_all(asked).await;
    println!("{} callers in {:?}", found.len(), start.elapsed());
    assert!(found.iter().all(|who| *who == id("a")));
}
