//! Tables for people, JSON and YAML for programs.

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use comfy_table::{Cell, Color, Table, presets};
use serde::Serialize;
use std::{
    io::{IsTerminal as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// How to show an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
}

/// How something is, to colour it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// As it should be.
    Good,
    /// Works, but look.
    Warn,
    /// Broken.
    Bad,
    /// Just text.
    Plain,
}

/// Where answers go.
#[derive(Clone, Debug)]
pub struct Output {
    format: Format,
    color: bool,
    terminal: bool,
}

impl Output {
    /// Standard output, in this format. Colours only on a terminal, and not where `NO_COLOR` is set (no-color.org).
    #[must_use]
    pub fn new(format: Format, no_color: bool) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let refused = no_color || std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Self { format, color: terminal && !refused, terminal }
    }

    /// Whether tables are wanted.
    #[must_use]
    pub fn for_people(&self) -> bool {
        self.format == Format::Table
    }

    /// Whether a person looks at a terminal.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// A line.
    pub fn line(&self, text: &str) {
        // A closed pipe (as by `| head`) is no error of ours.
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    /// Text in the colour of a mood.
    #[must_use]
    pub fn paint(&self, mood: Mood, text: &str) -> String {
        let code = match mood {
            Mood::Good => "32",
            Mood::Warn => "33",
            Mood::Bad => "31",
            Mood::Plain => return text.to_owned(),
        };
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// The value, in the format for programs.
    ///
    /// # Errors
    /// A value that has no such form.
    pub fn value<T: Serialize>(&self, value: &T) -> Result<()> {
        match self.format {
            Format::Yaml => {
                let text = serde_saphyr::to_string(value).context("write YAML")?;
                self.line(text.trim_end());
            }
            Format::Json | Format::Table => {
                self.line(&serde_json::to_string_pretty(value).context("write JSON")?)
            }
        }
        Ok(())
    }

    /// A table for people, or `value` for programs.
    ///
    /// # Errors
    /// A value that can't be written.
    pub fn rows<T: Serialize>(&self, value: &T, head: &[&str], rows: Vec<Vec<(Mood, String)>>) -> Result<()> {
        if !self.for_people() {
            return self.value(value);
        }
        if rows.is_empty() {
            self.line("nothing yet");
        } else {
            self.line(&self.table(head, rows));
        }
        Ok(())
    }

    /// A table as text.
    #[must_use]
    pub fn table(&self, head: &[&str], rows: Vec<Vec<(Mood, String)>>) -> String {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(head.iter().map(|h| Cell::new(h.to_uppercase())));
        for row in rows {
            table.add_row(row.into_iter().map(|(mood, text)| {
                let cell = Cell::new(text);
                match (self.color, mood) {
                    (true, Mood::Good) => cell.fg(Color::Green),
                    (true, Mood::Warn) => cell.fg(Color::Yellow),
                    (true, Mood::Bad) => cell.fg(Color::Red),
                    _ => cell,
                }
            }));
        }
        table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
    }
}

/// A plain cell.
#[must_use]
pub fn cell(text: impl Into<String>) -> (Mood, String) {
    (Mood::Plain, text.into())
}

/// A new file for a secret, which only its owner reads. It is made before the secret is asked for, because that is shown
/// once; where none comes, it is removed.
#[derive(Debug)]
pub struct SecretFile {
    file: std::fs::File,
    path: PathBuf,
    kept: bool,
}

impl SecretFile {
    /// Makes the file.
    ///
    /// # Errors
    /// It can't be made, or is there already.
    pub fn create(path: &Path) -> Result<Self> {
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("write the secret into {} (a new file)", path.display()))?;
        Ok(Self { file, path: path.to_owned(), kept: false })
    }

    /// Writes the secret.
    ///
    /// # Errors
    /// The disk says no.
    pub fn keep(mut self, secret: &str) -> Result<()> {
        writeln!(self.file, "{secret}").with_context(|| format!("write {}", self.path.display()))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        if !self.kept {
            // an empty file of ours that stays is no harm
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Writes a secret into a file that only its owner reads.
///
/// # Errors
/// The file can't be written, or is there already.
pub fn secret_file(path: &Path, secret: &str) -> Result<()> {
    SecretFile::create(path)?.keep(secret)
}
