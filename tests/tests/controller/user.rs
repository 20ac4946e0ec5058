//! Somebody who types `tombolo`.

use crate::support::Site;
use serde_json::Value;
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tombolo_testkit::process::binary;

/// Somebody's home folder, and the controller that they use.
pub(crate) struct User<'a> {
    site: &'a Site,
    home: tempfile::TempDir,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

impl<'a> User<'a> {
    pub(crate) fn new(site: &'a Site) -> Self {
        Self { site, home: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.home.path().join(file)
    }

    pub(crate) fn text(&self, file: &str) -> String {
        self.path(file).display().to_string()
    }

    pub(crate) fn write(&self, file: &str, text: &str) -> String {
        std::fs::write(self.path(file), text).unwrap();
        self.text(file)
    }

    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TOMBOLO_") {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.home.path()).env_remove("XDG_CONFIG_HOME").env_remove("NO_COLOR");
        command
    }

    /// Runs `tombolo` with this on its standard input.
    pub(crate) async fn say(&self, input: &str, args: &[&str]) -> Said {
        let mut command = self.command(&binary("tombolo"));
        command.args(args);
        run(command, input).await
    }

    /// With what was remembered.
    pub(crate) async fn run(&self, args: &[&str]) -> Said {
        self.say("", args).await
    }

    /// With the token of a file, and nothing that was remembered.
    pub(crate) async fn with(&self, token_file: &str, args: &[&str]) -> Said {
        let server = format!("https://{}", self.site.bound.api);
        let start = ["--server", &server, "--ca-fingerprint", &self.site.bound.ca_fingerprint];
        self.run(&[&start[..], &["--token-file", token_file], args].concat()).await
    }

    /// Logs in with a token.
    pub(crate) async fn login(&self, token: &str, more: &[&str]) -> Said {
        let server = format!("https://{}", self.site.bound.api);
        let start = ["login", "--server", &server, "--ca-fingerprint", &self.site.bound.ca_fingerprint];
        self.say(token, &[&start[..], more].concat()).await
    }
}

pub(crate) async fn run(mut command: Command, input: &str) -> Said {
    let input = input.to_owned();
    let ended = tokio::task::spawn_blocking(move || {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // one that reads nothing may be gone already
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    });
    let output = ended.await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}
