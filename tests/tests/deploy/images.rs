//! How images are made. That those of this machine's architecture run is tested on real clusters; that those of another one are made the same
//! way is tested here, without a compiler for it.

use super::{output, root};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};
use tombolo_testkit::process::binary;

fn folder() -> PathBuf {
    root().join("deploy/images")
}

/// The images, and what each one's Containerfile says.
fn images() -> BTreeMap<String, String> {
    let all = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap());
    let text = |path: PathBuf| fs::read_to_string(path.join("Containerfile")).ok();
    all.filter_map(|entry| Some((entry.file_name().into_string().unwrap(), text(entry.path())?))).collect()
}

#[test]
fn each_image_is_from_scratch_and_nobodys() {
    let images = images();
    assert_eq!(images.len(), 4, "{images:?}");
    for (name, text) in &images {
        let says = |line: &str| text.lines().any(|found| found == line);
        assert!(says("FROM scratch") && says("USER 65532:65532"), "{name}: {text}");
        // what is copied is of the architecture, whatever builds it: nothing is run
        assert!(!text.lines().any(|line| line.starts_with("RUN")), "{name}: {text}");
        let program = text.lines().find_map(|line| line.strip_prefix("# program: ")).unwrap();
        assert!(name == "shop" || says(&format!("ENTRYPOINT [\"/usr/bin/{program}\"]")), "{name}: {text}");
        let gather = fs::metadata(folder().join(name).join("gather")).unwrap();
        assert_eq!(gather.permissions().mode() & 0o111, 0o111, "{name}");
    }
}

/// Each command of the README, tried dry, builds each image for its architecture, of programs and packages of that one.
#[test]
fn what_the_readme_says_builds_all_images_for_their_architecture() {
    let readme = fs::read_to_string(folder().join("README.md")).unwrap();
    let commands: Vec<&str> =
        readme.lines().filter(|line| line.starts_with("deploy/images/build ")).collect();
    assert_eq!(commands.len(), 2, "{readme}");
    let own = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    for command in commands {
        let (command, make) = command.split_once("# or: ").unwrap();
        let arch = if command.contains("--arch arm64") { "arm64" } else { own };
        let words: Vec<&str> = command.split_whitespace().collect();
        let (good, said) = output(Command::new(root().join(words[0])).args(&words[1..]).arg("--dry-run"));
        assert!(good, "{said}");
        for image in images().keys() {
            // not one that the controller takes for newer than itself
            let name = format!("registry.example.com/tombolo/{image}:{}", env!("CARGO_PKG_VERSION"));
            let built = said.lines().find(|line| line.starts_with("buildah bud") && line.contains(&name));
            assert!(built.is_some_and(|line| line.contains(&format!("--arch {arch} "))), "{image}: {said}");
            assert!(said.contains(&format!("/{image}/gather")), "{said}");
        }
        let cargo = said.lines().find(|line| line.contains("build --release --locked")).unwrap();
        if arch != own {
            for part in
                ["--target aarch64-unknown-linux-gnu", "CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc"]
            {
                assert!(cargo.contains(part), "{cargo}");
            }
            let packages = said.lines().find(|line| line.contains("/packages arm64 ")).unwrap();
            assert!(packages.contains("nftables") && packages.contains("postgresql"), "{packages}");
        }
        let (good, said) =
            output(Command::new("make").arg("-n").args(make.split_whitespace().skip(1)).current_dir(root()));
        assert!(good && said.contains("deploy/images/build"), "{make}: {said}");
        assert_eq!(said.contains("--arch arm64"), make.contains("arm64"), "{make}: {said}");
    }
}

#[test]
fn an_architecture_that_there_is_no_image_for_is_refused() {
    let (good, said) = output(Command::new(folder().join("build")).args(["--arch", "riscv64", "--dry-run"]));
    assert!(!good && said.contains("amd64 and arm64"), "{said}");
}

/// Where a program can't be run, its libraries follow from what the files say. For programs of this machine that comes to what its own loader
/// says.
#[test]
fn libraries_of_another_architecture_are_found_as_its_loader_would() {
    let files = |sysroot: Option<&str>, program: &Path| {
        let below = tempfile::tempdir().unwrap();
        let mut gather = Command::new(folder().join("gather"));
        gather.arg(below.path()).arg(program).env_remove("LIBRARIES").env_remove("SYSROOT");
        if let Some(sysroot) = sysroot {
            gather.env("SYSROOT", sysroot);
        }
        let (good, said) = output(&mut gather);
        assert!(good, "{said}");
        let listed =
            output(Command::new("find").arg(below.path()).args(["-type", "f", "-printf", "%P %s\n"])).1;
        let mut listed: Vec<String> = listed.lines().map(ToOwned::to_owned).collect();
        listed.sort();
        listed
    };
    let shell = fs::canonicalize("/bin/sh").unwrap();
    for program in [binary("tombolo"), shell] {
        let expected = files(None, &program);
        assert!(expected.iter().any(|file| file.contains("libc.so.6")), "{expected:?}");
        assert_eq!(files(Some("/"), &program), expected, "{}", program.display());
    }
}
