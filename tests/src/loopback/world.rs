//! Everything that runs.

use super::{
    SOON,
    api::Api,
    balancer::Balancer,
    disk::Disk,
    manifest::account,
    names::Names,
    parts::{Lives, PORTS, Site, machine, manifests},
    servers::{FAR, NEAR, Servers},
    wire::Wire,
};
use serde_json::{Value, json};
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fs,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tombolo_testkit::{
    postgres::Database,
    process::Program,
    wait::{until, until_ok},
};

/// How many there are of each part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One of each, the controller with its own database.
    Single,
    /// Two replicas of the controller on one database, behind a load balancer; two egress gateways in cluster-1, two ingress
    /// gateways in cluster-2.
    Twins,
}

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How many there are of each part.
    pub shape: Shape,
    /// How long certificates live.
    pub lives: Lives,
    /// Whether there are [`World::wire`]s between the parts, and each cluster has a [`World::disk`] of its own (as root, in a mount
    /// namespace of the test).
    pub wires: bool,
    /// The folder of an older build, whose programs run until they are [upgraded](World::upgrade).
    pub old: Option<PathBuf>,
}

/// Everything that runs. Dropped in this order; the folder last.
pub struct World {
    pub(super) programs: BTreeMap<String, Program>,
    /// The controller's API.
    pub api: Api,
    /// What the clusters serve.
    pub servers: Servers,
    pub(super) balancer: Option<Balancer>,
    pub(super) wires: BTreeMap<String, Wire>,
    pub(super) disks: Vec<Disk>,
    _database: Option<Database>,
    pub(super) site: Site,
}

/// Where psql is: the program itself, not a wrapper around it, for a workload is known by its executable.
#[must_use]
pub fn psql() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|entry| entry.path().join("bin/psql")).find(|path| path.exists());
    let found = found.or_else(|| std::env::var_os("TOMBOLO_PG_BIN").map(|bin| Path::new(&bin).join("psql")));
    let path = found.filter(|path| path.exists());
    path.expect("no psql found: install the package postgresql-client").canonicalize().unwrap()
}

fn nc() -> PathBuf {
    let path = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|dir| dir.join("nc.openbsd"))
        .find(|path| path.exists());
    path.expect("no nc.openbsd found: install the package netcat-openbsd")
}

impl World {
    /// Starts all of it, until a first connection went across the clusters.
    pub async fn start(shape: Shape) -> Self {
        Self::start_with(shape, Lives::Usual).await
    }

    /// The same, with certificates that live so long.
    pub async fn start_with(shape: Shape, lives: Lives) -> Self {
        Self::set_up(Setup { shape, lives, wires: false, old: None }).await
    }

    /// Starts what is asked for.
    pub async fn set_up(Setup { shape, lives, wires, old }: Setup) -> Self {
        // For a thousand connections with both ends here. The programs raise their own (see `usual_limit`).
        tombolo_runtime::limits::raise_open_files().unwrap();
        let dir = tempfile::Builder::new().prefix("tombolo-e2e-").tempdir().unwrap();
        // As root, PostgreSQL runs as another user and must get through.
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o711)).unwrap();
        for name in ["nc", "stranger"] {
            fs::copy(nc(), dir.path().join(name)).unwrap();
        }
        let base = base().await;
        let old = old.map(|folder| (folder, BTreeSet::new()));
        let mut site = Site { base, dir, lives, wires, old, clocks: BTreeMap::new(), database_url: None };
        let (mut database, mut balancer) = (None, None);
        if shape == Shape::Twins {
            let made = tokio::task::spawn_blocking(Database::create).await.unwrap();
            let file = site.path("database-url");
            fs::write(&file, made.url()).unwrap();
            (site.database_url, database) = (Some(file), Some(made));
            balancer = Some(Balancer::start().await);
        }
        let mut programs = BTreeMap::new();
        let controller = site.start("controller").await;
        let fingerprint = controller.ready()["ca_fingerprint"].as_str().unwrap().to_owned();
        let owner = fs::read_to_string(site.path("owner-token")).unwrap();
        let address = controller.address("api");
        programs.insert("controller".to_owned(), controller);
        if let Some(balancer) = &balancer {
            balancer.set("controller", address);
            let second = site.start("controller-b").await;
            balancer.set("controller-b", second.address("api"));
            programs.insert("controller-b".to_owned(), second);
        }
        let url = format!("https://{}", balancer.as_ref().map_or(address, |balancer| balancer.address));
        let api = Api::found(url, fingerprint, owner.trim()).await;
        let servers = Servers::start(site.machine(2), site.machine(3)).await;
        let (wires, disks) = (BTreeMap::new(), Vec::new());
        let mut world = Self { programs, api, servers, balancer, wires, disks, _database: database, site };
        for cluster in 1..=3 {
            world.onboard(cluster, shape).await;
        }
        let clients =
            [("tester", std::env::current_exe().unwrap().canonicalize().unwrap()), ("psql", psql())];
        let clients = clients.into_iter().chain([("nc", world.path("nc").canonicalize().unwrap())]);
        world.manifests(1, &clients.map(|(name, path)| account(name, &path)).collect::<String>());
        world.manifests(2, &world.servers.manifests());
        world.manifests(3, &world.servers.far_manifests());
        let rules = json!([{ "cluster": { "labels": {} }, "namespace": { "name": "default" } }]);
        let body = json!({ "name": "acme", "domain": "acme.example.com", "rules": rules });
        world.api.post("/organizations/acme/global-namespaces", body).await;
        until_ok("a first connection across the clusters", SOON, || world.greeted()).await;
        world
    }

    /// The folder of a cluster: where it has a disk of its own, that.
    #[must_use]
    pub fn disk(&self, cluster: u8) -> PathBuf {
        self.site.home(cluster)
    }

    /// From its next start on, a program is told a time that is off by so much, as `+10m`; by nothing, where there is nothing.
    pub fn set_clock(&mut self, name: &str, off: Option<&'static str>) {
        match off {
            Some(off) => self.site.clocks.insert(name.to_owned(), off),
            None => self.site.clocks.remove(name),
        };
    }

    /// From its next start on, a program is of the build under test.
    pub fn upgrade(&mut self, name: &str) {
        let (_, upgraded) = self.site.old.as_mut().expect("a world of an older build");
        upgraded.insert(name.to_owned());
    }

    /// What the admin port of a gateway or an agent shows of it.
    pub async fn state(&self, name: &str) -> Value {
        let page = if name.ends_with("-agent") { "dump" } else { "state" };
        self.api.page(format!("http://{}/{page}", self.program(name).address("admin"))).await
    }

    /// A program that runs.
    #[must_use]
    pub fn program(&self, name: &str) -> &Program {
        self.programs.get(name).unwrap_or_else(|| panic!("{name} does not run"))
    }

    /// The same, to wait for its end.
    pub fn program_mut(&mut self, name: &str) -> &mut Program {
        self.programs.get_mut(name).unwrap_or_else(|| panic!("{name} does not run"))
    }

    /// Kills a program without a word.
    pub fn kill(&mut self, name: &str) {
        self.program_mut(name).kill();
    }

    /// Starts a program, once more where it ran before: on what that one left.
    pub async fn restart(&mut self, name: &str) {
        let program = self.site.start(name).await;
        if let (Some(balancer), true) = (&self.balancer, name.starts_with("controller")) {
            balancer.set(name, program.address("api"));
        }
        self.programs.insert(name.to_owned(), program);
    }

    /// All programs, and their processes.
    #[must_use]
    pub fn pids(&self) -> BTreeMap<String, u32> {
        self.programs.iter().map(|(name, program)| (name.clone(), program.pid())).collect()
    }

    /// Those that do not run, and those that said that something in them panicked.
    pub fn broken(&mut self) -> Vec<String> {
        let mut broken = Vec::new();
        for (name, program) in &mut self.programs {
            broken.extend(program.status().map(|status| format!("{name} ended: {status}")));
            let said = program.stderr();
            broken.extend(
                said.lines().find(|line| line.contains("panicked")).map(|line| format!("{name}: {line}")),
            );
        }
        broken
    }

    /// How an egress gateway of cluster-1 finds the ingress gateway of a cluster, at its first port.
    pub async fn health(&self, cluster: &str) -> String {
        let state = self.state("cluster-1-egress").await;
        let peers = state["peers"][cluster].as_object();
        let one = peers.and_then(|peers| peers.values().next());
        one.and_then(|peer| peer["health"].as_str()).unwrap_or("not known").to_owned()
    }

    /// Every certificate that gateways show, and when it ends: Unix time in seconds.
    pub async fn certificates(&self) -> BTreeMap<(String, String), f64> {
        let mut all = BTreeMap::new();
        for (name, program) in &self.programs {
            if name.ends_with("-agent") || name.ends_with("-dns") || name.starts_with("controller") {
                continue;
            }
            let state: Value = self.api.page(format!("http://{}/state", program.address("admin"))).await;
            for certificate in state["certificates"].as_array().into_iter().flatten() {
                let identity = certificate["identity"].as_str().unwrap_or_default().to_owned();
                all.insert((name.clone(), identity), certificate["not_after_s"].as_f64().unwrap());
            }
        }
        all
    }

    /// A file of the world.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.site.path(name)
    }

    fn manifests(&self, cluster: u8, text: &str) {
        let namespace = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: default\n";
        fs::write(manifests(&self.site.home(cluster)), format!("{namespace}{text}")).unwrap();
    }

    /// Cluster-1's DNS.
    #[must_use]
    pub fn names(&self) -> Names {
        Names((self.site.machine(1), 5353).into())
    }

    /// A question to cluster-1's DNS.
    ///
    /// # Errors
    /// As [`Names::resolve`].
    pub async fn resolve(&self, service: &str) -> Result<Ipv4Addr, String> {
        self.names().resolve(service).await
    }

    /// A connection from cluster-1, by name.
    pub async fn connect(&self, service: &str) -> TcpStream {
        let ip = until_ok(&format!("{service} resolves"), SOON, || self.resolve(service)).await;
        TcpStream::connect((ip, 7000)).await.unwrap()
    }

    /// One whole new connection, from the name to a server's word.
    ///
    /// # Errors
    /// What came instead.
    pub async fn greeted(&self) -> Result<(), String> {
        self.greeting().await.map(drop)
    }

    /// The same, with the word that came: of which cluster.
    ///
    /// # Errors
    /// What came instead.
    pub async fn greeting(&self) -> Result<&'static str, String> {
        use tokio::io::AsyncReadExt as _;
        let ip = self.resolve("greet").await?;
        let mut text = String::new();
        let talk = async { TcpStream::connect((ip, 7000)).await?.read_to_string(&mut text).await };
        let talked = tokio::time::timeout(Duration::from_secs(5), talk).await;
        talked.map_err(|_| "no word from the server".to_owned())?.map_err(|error| error.to_string())?;
        let known = [NEAR, FAR].into_iter().find(|word| *word == text);
        known.ok_or_else(|| format!("the server said {text:?}"))
    }

    /// Waits until requests go to the nearer cluster, one after the other: after its return, they come back slowly.
    pub async fn all_go_near(&self) {
        let row = Cell::new(0);
        let look = || async {
            row.set(if self.greeting().await == Ok(NEAR) { row.get() + 1 } else { 0 });
            row.get()
        };
        until("requests go to cluster-2", SOON, look, |row| *row >= 5).await;
    }

    /// Waits for a line of an access log.
    pub async fn logged(&self, log: &str, word: &str) -> String {
        let path = self.path(log);
        let look = || std::future::ready(fs::read_to_string(&path).unwrap_or_default());
        let text = until(&format!("{log} has {word}"), SOON, look, |text| text.contains(word)).await;
        text.lines().rfind(|line| line.contains(word)).unwrap_or_default().to_owned()
    }

    /// How many connections an access log has for each reason, apart from those that went well.
    #[must_use]
    pub fn refused(&self, log: &str) -> BTreeMap<String, usize> {
        let text = fs::read_to_string(self.path(log)).unwrap_or_default();
        let mut refused = BTreeMap::new();
        for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let reason = line["reason"].as_str().unwrap_or_default();
            if reason != "ok" {
                let detail = line["detail"].as_str().unwrap_or_default();
                *refused.entry(format!("{reason}: {detail}")).or_default() += 1;
            }
        }
        refused
    }

    fn of_clusters(&self) -> impl Iterator<Item = &Program> {
        self.programs.iter().filter(|(name, _)| name.starts_with("cluster-")).map(|(_, program)| program)
    }

    /// Open files of the program that has most.
    #[must_use]
    pub fn most_files(&self) -> usize {
        let files = |program: &Program| fs::read_dir(format!("/proc/{}/fd", program.pid())).unwrap().count();
        self.of_clusters().map(files).max().unwrap()
    }

    /// Resident memory of the clusters' programs, in MiB.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let resident = self.of_clusters().map(|program| {
            let status = fs::read_to_string(format!("/proc/{}/status", program.pid())).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().to_owned();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        });
        resident.sum::<u64>() / 1024
    }
}

/// A part of loopback that nobody uses.
async fn base() -> u8 {
    for base in (3..=93).step_by(5) {
        let mut free = true;
        for cluster in 1..=3 {
            let at = machine(base, cluster);
            free &= UdpSocket::bind((at, 5353)).await.is_ok();
            for port in PORTS {
                free &= TcpListener::bind((at, port)).await.is_ok();
            }
        }
        if free {
            return base;
        }
    }
    panic!("no free addresses on loopback");
}
