//! What `make install` puts onto a machine: the units are ones that systemd takes, and their command lines ones that the programs take.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod callers;
mod images;
mod rights;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tombolo_testkit::process::binary;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn output(command: &mut Command) -> (bool, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = [stdout, stderr].concat();
    (status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Installs below a folder of its own, with the programs of this build.
pub(crate) fn install(below: &Path) -> (bool, String) {
    let built = binary("tombolo-agent").parent().unwrap().to_owned();
    output(
        Command::new(root().join("scripts/install"))
            .arg(built)
            .env("DESTDIR", below)
            .env("PREFIX", "/opt/tombolo"),
    )
}

fn setting(text: &str, key: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("no {key}= in\n{text}")).to_owned()
}

#[test]
fn what_is_installed_is_what_the_programs_and_systemd_take() {
    let below = tempfile::tempdir().unwrap();
    let (installed, said) = install(below.path());
    assert!(installed, "{said}");

    let units = below.path().join("etc/systemd/system");
    let mut instances = Vec::new();
    for (unit, roles) in [
        ("tombolo-controller.service", &["controller"][..]),
        ("tombolo-agent.service", &["agent"]),
        ("tombolo-dns.service", &["dns"]),
        ("tombolo-gateway@.service", &["egress", "ingress", "sidecar"]),
    ] {
        let text = fs::read_to_string(units.join(unit)).unwrap();
        for role in roles {
            let line = setting(&text, "ExecStart").replace("%i", role);
            let options = setting(&text, "EnvironmentFile").replace("%i", role);
            let options = fs::read_to_string(below.path().join(options.trim_start_matches('/'))).unwrap();
            let line = line.replace("$OPTIONS", &setting(&options, "OPTIONS"));
            let mut words = line.split_whitespace();
            let program = below.path().join(words.next().unwrap().trim_start_matches('/'));
            // each option is read, in order, before the last one is: a wrong one fails
            let (taken, said) = output(Command::new(&program).args(words).arg("--help"));
            assert!(taken, "{unit} ({role}): {line}\n{said}");
            instances.push(match unit.split_once('@') {
                Some((name, _)) => format!("{name}@{role}.service"),
                None => unit.to_owned(),
            });
        }
    }
    // of the machine itself
    fs::create_dir_all(below.path().join("bin")).unwrap();
    fs::copy("/bin/kill", below.path().join("bin/kill")).unwrap();
    let (good, said) = output(
        Command::new("systemd-analyze")
            .args(["verify", "--man=no", "--recursive-errors=no", "--root"])
            .arg(below.path())
            .args(&instances),
    );
    // it warns about what it ignores, and still succeeds
    assert!(good && !said.contains("tombolo"), "{said}");
    let drop_ins = fs::read_dir(root().join("deploy/systemd/tombolo-gateway@sidecar.service.d")).unwrap();
    for drop_in in drop_ins.map(|entry| entry.unwrap().file_name()) {
        assert!(units.join("tombolo-gateway@sidecar.service.d").join(&drop_in).exists(), "{drop_in:?}");
    }
}

#[test]
fn options_that_are_there_already_stay() {
    let below = tempfile::tempdir().unwrap();
    let options = below.path().join("etc/tombolo/agent.env");
    fs::create_dir_all(options.parent().unwrap()).unwrap();
    fs::write(&options, "OPTIONS=--mine\n").unwrap();
    let (installed, said) = install(below.path());
    assert!(installed, "{said}");
    assert_eq!(fs::read_to_string(&options).unwrap(), "OPTIONS=--mine\n");
    assert!(below.path().join("etc/tombolo/controller.env").exists());
}
