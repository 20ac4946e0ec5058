//! A program as a container has it: of an image made from nothing but the program and what it is linked to, read-only, and with `NET_ADMIN` as
//! its only capability.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tombolo_testkit::netlab::Namespace;

/// Becomes the container's process: binds the folder read-only, enters it, and drops every capability but one. Runtimes give a container
/// `/proc`, and `/dev/stdin` in it.
const ENTER: &str = "mount --bind \"$0\" \"$0\" && mount -t proc proc \"$0/proc\" && mount -o remount,bind,ro \"$0\" && \
                     exec chroot \"$0\" /bin/setpriv --bounding-set=-all,+net_admin --no-new-privs \"$@\"";

/// The image: a folder with these programs in `/bin`.
pub(crate) struct Image(PathBuf);

impl Image {
    pub(crate) fn make(folder: PathBuf, programs: &[&Path]) -> Self {
        let setpriv = [Path::new("/usr/bin/setpriv")];
        for program in programs.iter().chain(&setpriv) {
            let name = program.file_name().expect("a program has a name");
            copy(program, &folder.join("bin").join(name));
            for library in libraries(program) {
                copy(&library, &folder.join(library.strip_prefix("/").expect("an absolute path")));
            }
        }
        for part in ["proc", "dev"] {
            fs::create_dir_all(folder.join(part)).expect("a folder");
        }
        symlink("/proc/self/fd/0", folder.join("dev/stdin")).expect("a link");
        Self(folder)
    }

    /// Runs a program of it in a pod, to its end.
    pub(crate) fn run(&self, pod: &Namespace, args: &[&str]) -> Output {
        let mut command = pod.command("unshare");
        command.args(["--mount", "sh", "-c", ENTER]).arg(&self.0).args(args);
        command.env_clear().env("PATH", "/bin:/usr/bin:/usr/sbin:/sbin").output().expect("unshare is there")
    }
}

fn copy(from: &Path, to: &Path) {
    let folder = to.parent().expect("it lies in a folder");
    fs::create_dir_all(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
}

/// What a program is linked to, its loader included.
fn libraries(program: &Path) -> BTreeSet<PathBuf> {
    let output = Command::new("ldd").arg(program).output().expect("ldd runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    paths.map(PathBuf::from).collect()
}
