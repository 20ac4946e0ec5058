//! The rules of the workspace that a compiler does not hold: which crate may use which, which libraries stand where, and what must not be in
//! the repository. The tables here are the truth; `docs/architecture.md` explains them.

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Rows of a table: a name, and what it may use or who may use it.
type Table = &'static [(&'static str, &'static [&'static str])];

/// Our crates, and which of ours each may use. Arrows point down only; no program sees another.
const ARROWS: Table = &[
    ("tombolo-model", &[]),
    ("tombolo-runtime", &[]),
    ("tombolo-wire", &["tombolo-model"]),
    ("tombolo-compile", &["tombolo-model"]),
    ("tombolo-mtls", &["tombolo-model"]),
    ("tombolo-feed", &["tombolo-model", "tombolo-wire", "tombolo-mtls", "tombolo-runtime"]),
    (
        "tombolo-controller",
        &["tombolo-model", "tombolo-wire", "tombolo-compile", "tombolo-mtls", "tombolo-runtime"],
    ),
    ("tombolo-agent", &["tombolo-model", "tombolo-wire", "tombolo-mtls", "tombolo-runtime", "tombolo-feed"]),
    (
        "tombolo-gateway",
        &["tombolo-model", "tombolo-wire", "tombolo-mtls", "tombolo-runtime", "tombolo-feed"],
    ),
    ("tombolo", &["tombolo-model", "tombolo-mtls", "tombolo-runtime"]),
    (
        "tombolo-testkit",
        &["tombolo-model", "tombolo-wire", "tombolo-mtls", "tombolo-runtime", "tombolo-feed"],
    ),
];
/// What crosses processes may use everything.
const TESTS: &str = "tombolo-tests";
/// For tests only, wherever it is used.
const TESTKIT: &str = "tombolo-testkit";
const PROGRAMS: &[&str] = &["tombolo-controller", "tombolo-agent", "tombolo-gateway", "tombolo"];

/// Crates that promise to be pure: all they may use from outside.
const PURE: Table = &[
    ("tombolo-model", &["arcstr", "serde", "serde_json", "thiserror", "uuid", "ipnet"]),
    ("tombolo-compile", &["serde", "serde_json", "thiserror"]),
    ("tombolo-wire", &["serde", "serde_json", "thiserror", "uuid", "sha2", "chrono"]),
];

/// Libraries that pull a lot, or an opinion, with them: who may use them. A name that ends in `*` stands for all that begin so.
const HEAVY: Table = &[
    ("axum", &["tombolo-controller"]),
    ("sqlx", &["tombolo-controller"]),
    ("tower", &["tombolo-controller", "tombolo-agent"]),
    ("tower*", &["tombolo-controller"]),
    ("utoipa*", &["tombolo-controller"]),
    ("aws-lc-rs", &["tombolo-controller"]),
    ("k8s-openapi", &["tombolo-agent"]),
    // the command line makes a cluster join: it applies the manifest, and looks first whether it may
    ("kube*", &["tombolo-agent", "tombolo"]),
    ("notify", &["tombolo-agent"]),
    ("hickory-*", &["tombolo-agent", "tombolo"]),
    ("serde-saphyr", &["tombolo-agent", "tombolo"]),
    ("netlink-*", &["tombolo-gateway"]),
    ("nftables", &["tombolo-gateway"]),
    ("h2", &["tombolo-feed", "tombolo-gateway", "tombolo-agent", "tombolo-testkit"]),
    ("reqwest", &["tombolo"]),
    ("rpassword", &["tombolo"]),
    ("clap*", PROGRAMS),
    ("anyhow", &["tombolo-controller", "tombolo-agent", "tombolo-gateway", "tombolo"]),
    ("hyper*", &["tombolo-runtime", "tombolo-controller", "tombolo-agent", "tombolo-gateway", "tombolo"]),
    (
        "rustls",
        &[
            "tombolo-mtls",
            "tombolo-feed",
            "tombolo-controller",
            "tombolo-agent",
            "tombolo-gateway",
            "tombolo",
        ],
    ),
    ("rustls-webpki", &["tombolo-mtls"]),
    ("x509-parser", &["tombolo-mtls"]),
    ("rcgen", &["tombolo-mtls", "tombolo-testkit"]),
    ("tracing-subscriber", &["tombolo-runtime"]),
    (
        "nix",
        &[
            "tombolo-feed",
            "tombolo-runtime",
            "tombolo-controller",
            "tombolo-agent",
            "tombolo-gateway",
            "tombolo",
            "tombolo-testkit",
        ],
    ),
];

/// Declared for a feature only, so not named in the source: crate, libraries.
const USED_UNSEEN: Table = &[];

/// One TLS stack with one provider: nothing of these is ever built.
const BANNED: &[&str] =
    &["ring", "openssl", "openssl-sys", "native-tls", "rustls-openssl", "boring", "mbedtls"];

/// The public index, and nothing else.
const SOURCE: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";

/// Texts that name the machine or the tools that something was made with, in two halves: this file must not hold them itself.
const FORBIDDEN: &[(&str, &str)] = &[
    ("/wo", "rk/"),
    ("/ro", "ot/"),
    ("/home/", "runner"),
    (".cargo/", "registry"),
    ("shared/", "DESIGN"),
    ("shared/", "style-guide"),
    ("shared/", "research"),
    ("shared/", "lab"),
    ("artif", "actory"),
    ("registry", "-mirror"),
];

/// Files that say where a package manager looks, or who it is: the user's to have.
const FORBIDDEN_FILES: &[&str] = &[".npmrc", "pip.conf", ".netrc", ".pypirc", "credentials.toml"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).current_dir(root()).output().expect("it runs");
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The members of the workspace.
fn metadata() -> Metadata {
    MetadataCommand::new()
        .cargo_path(env!("CARGO"))
        .current_dir(root())
        .no_deps()
        .other_options(vec!["--offline".to_owned()])
        .exec()
        .expect("cargo metadata")
}

fn row(table: Table, name: &str) -> Option<&'static [&'static str]> {
    let fits = |pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    };
    table.iter().find(|(pattern, _)| fits(pattern)).map(|(_, row)| *row)
}

fn ours(name: &str) -> bool {
    name == TESTS || row(ARROWS, name).is_some()
}

fn complain(rule: &str, wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{rule}:\n  {}", wrong.join("\n  "));
}

#[test]
fn arrows_point_down_only() {
    let mut wrong = Vec::new();
    for package in metadata().workspace_packages() {
        let name = package.name.as_str();
        let Some(allowed) = row(ARROWS, name) else {
            if name != TESTS {
                wrong.push(format!("{name} has no row in ARROWS; say there what it may use"));
            }
            continue;
        };
        for used in package.dependencies.iter().filter(|used| ours(&used.name)) {
            let in_tests = used.kind == DependencyKind::Development;
            let in_place = allowed.contains(&used.name.as_str()) || (in_tests && used.name == TESTKIT);
            if !in_place {
                wrong.push(format!("{name} uses {} ({}); it may use {allowed:?}", used.name, used.kind));
            }
        }
    }
    complain("a crate of ours uses one that it may not", wrong);
}

#[test]
fn libraries_stand_where_they_may() {
    let mut wrong = Vec::new();
    for package in metadata().workspace_packages().into_iter().filter(|package| package.name != TESTS) {
        let name = package.name.as_str();
        let used = package.dependencies.iter().filter(|used| used.kind != DependencyKind::Development);
        for used in used.map(|used| used.name.as_str()).filter(|used| !ours(used)) {
            if let Some(pure) = row(PURE, name).filter(|pure| !pure.contains(&used)) {
                wrong.push(format!("{name} is pure and uses {used}; it may use {pure:?}"));
            }
            if let Some(allowed) = row(HEAVY, used).filter(|allowed| !allowed.contains(&name)) {
                wrong.push(format!("{name} uses {used}, which is for {allowed:?}"));
            }
        }
    }
    complain("a library stands in a crate that may not have it", wrong);
}

/// A library's version and features are decided once, in the workspace.
#[test]
fn manifests_follow_the_workspace() {
    let mut wrong = Vec::new();
    for package in metadata().workspace_packages() {
        let manifest = fs::read_to_string(&package.manifest_path).expect("a manifest");
        let mut table = "";
        for line in manifest.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            if line.starts_with('[') {
                table = line;
            } else if table.contains("dependencies")
                && line.contains('=')
                && !line.contains("workspace = true")
            {
                wrong.push(format!("{}: {line}", package.manifest_path));
            }
        }
        if !manifest.contains("[lints]\nworkspace = true") {
            wrong.push(format!("{}: [lints] workspace = true is missing", package.manifest_path));
        }
    }
    complain("a manifest decides what the workspace decides", wrong);
}

#[test]
fn what_is_declared_is_used() {
    let mut wrong = Vec::new();
    for package in metadata().workspace_packages() {
        let text = sources(package);
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let words: BTreeSet<&str> =
            code.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_')).collect();
        for used in &package.dependencies {
            let word = used.rename.as_ref().unwrap_or(&used.name).replace('-', "_");
            let unseen =
                row(USED_UNSEEN, &package.name).is_some_and(|unseen| unseen.contains(&used.name.as_str()));
            if !unseen && !words.contains(word.as_str()) {
                wrong.push(format!("{}: {} ({})", package.name, used.name, used.kind));
            }
        }
    }
    complain("declared and not used; remove it from the crate's Cargo.toml", wrong);
}

/// All Rust of a package.
fn sources(package: &Package) -> String {
    fn below(dir: &Path, text: &mut String) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                below(&path, text);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&fs::read_to_string(&path).unwrap_or_default());
            }
        }
    }
    let mut text = String::new();
    let folder = package.manifest_path.parent().expect("a manifest lies in a folder");
    for part in ["src", "tests", "benches", "examples"] {
        below(folder.join(part).as_std_path(), &mut text);
    }
    text
}

#[test]
fn one_tls_stack() {
    // The lock lists optional dependencies that nobody turned on; the tree is what is built.
    let args = ["tree", "--offline", "--workspace", "--edges", "all", "--prefix", "none", "--format", "{p}"];
    let tree = run(env!("CARGO"), &args);
    let built: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(built.contains("rustls") && built.contains("aws-lc-rs"), "the tree was not read: {tree:.300}");
    let wrong = BANNED.iter().filter(|name| built.contains(*name)).map(ToString::to_string).collect();
    complain("built, and it must not be (to find out why: cargo tree -i <name> -e features)", wrong);
}

#[test]
fn the_lock_names_the_public_index_only() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock is committed");
    let other = |line: &&str| line.starts_with("source = ") && *line != SOURCE;
    let wrong: BTreeSet<String> = lock.lines().filter(other).map(str::to_owned).collect();
    complain("Cargo.lock", wrong.into_iter().collect());
}

#[test]
fn nothing_of_a_machine_is_committed() {
    let forbidden: Vec<String> = FORBIDDEN.iter().map(|(left, right)| format!("{left}{right}")).collect();
    let private_key = format!("PRIVATE {}", "KEY-----\n");
    let mut wrong = Vec::new();
    for name in run("git", &["ls-files", "-z"]).split('\0').filter(|name| !name.is_empty()) {
        let file = name.rsplit('/').next().unwrap_or_default();
        if FORBIDDEN_FILES.contains(&file) {
            wrong.push(format!("{name}: where packages come from is the user's to say"));
        }
        // A file that is deleted and not committed yet is no matter.
        let Ok(bytes) = fs::read(root().join(name)) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        if text.contains(&private_key) {
            wrong.push(format!("{name}: a private key"));
        }
        for (number, line) in (1..).zip(text.lines()) {
            if let Some(word) = forbidden.iter().find(|word| line.contains(word.as_str())) {
                wrong.push(format!("{name}:{number}: {word}"));
            }
            let resolved = file == "package-lock.json" && line.contains("\"resolved\"");
            if resolved && !line.contains("\"https://registry.npmjs.org/") {
                wrong.push(format!("{name}:{number}: not from npm's own registry"));
            }
        }
    }
    complain("committed, and it must not be", wrong);
}
