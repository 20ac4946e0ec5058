//! What the files say, without any file: contents in, changes of the effective objects out.
//!
//! Rules, in the order in which they decide:
//! 1. An object that stands in several files is taken from the first by name; the others are reported.
//! 2. A file with a bad document gives what its good documents say. Objects of its last version that are in none of
//!    them stay: the bad document may be theirs, and damage withdraws nothing.
//! 3. Kinds and fields that are not for us are reported and passed over; they damage nothing.
//! 4. A file that is gone, or that is sound and lacks an object, takes the object away.

use super::{Change, Object, ObjectKey, document};
use std::collections::{BTreeMap, BTreeSet};
use tombolo_wire::message::Problem;

/// The largest file that is read, in bytes.
pub(crate) const MAX_FILE_BYTES: usize = 8 << 20;

/// All files of a directory, and what they amount to.
#[derive(Debug, Default)]
pub struct Files {
    files: BTreeMap<String, File>,
    /// Which files have the object. The first one's is in force.
    holders: BTreeMap<ObjectKey, BTreeSet<String>>,
}

#[derive(Debug, Default)]
struct File {
    objects: BTreeMap<ObjectKey, (usize, Object)>,
    /// What can't be used; while there is any, nothing is taken away.
    faults: Vec<document::Fault>,
    /// What is passed over.
    notes: Vec<document::Fault>,
}

impl Files {
    /// The content of a file is this now.
    pub fn load(&mut self, name: &str, content: &[u8]) -> Vec<Change> {
        let (mut objects, mut faults, notes) = match std::str::from_utf8(content) {
            _ if content.len() > MAX_FILE_BYTES => {
                let message = format!("has more than {MAX_FILE_BYTES} bytes; split it into several files");
                (BTreeMap::new(), vec![document::Fault { line: 1, message }], Vec::new())
            }
            Ok(text) => read(text),
            Err(error) => {
                let line = 1 + content[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count();
                let message = "is not UTF-8 text; save it as UTF-8".to_owned();
                (BTreeMap::new(), vec![document::Fault { line, message }], Vec::new())
            }
        };
        let old = self.files.remove(name).unwrap_or_default();
        let old_objects = old.objects.clone();
        if !faults.is_empty() {
            let before = objects.len();
            for (key, value) in old.objects {
                objects.entry(key).or_insert(value);
            }
            let kept = objects.len() - before;
            if kept > 0 {
                let line = faults.first().map_or(1, |fault| fault.line);
                let message = format!(
                    "while a document of this file is bad, {kept} object(s) of its last good version stay in force"
                );
                faults.push(document::Fault { line, message });
            }
        }
        self.replace(name, &old_objects, Some(File { objects, faults, notes }))
    }

    /// The file could not be read. What it said stays in force.
    pub fn unreadable(&mut self, name: &str, why: &str) {
        let file = self.files.entry(name.to_owned()).or_default();
        file.faults = vec![document::Fault { line: 1, message: format!("cannot be read: {why}") }];
    }

    /// The file is gone.
    pub fn remove(&mut self, name: &str) -> Vec<Change> {
        match self.files.remove(name) {
            Some(old) => self.replace(name, &old.objects, None),
            None => Vec::new(),
        }
    }

    /// The files known.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Whether the file is there.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// Whether the file is there, and all of it was understood.
    #[must_use]
    pub fn is_sound(&self, name: &str) -> bool {
        self.files.get(name).is_some_and(|file| file.faults.is_empty())
    }

    /// Whether loading this content would take an object away, or is damaged. The reader waits a moment with such a
    /// content, as it may be half of a file that is being written.
    #[must_use]
    pub fn would_withdraw(&self, name: &str, content: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(content) else { return true };
        let (objects, faults, _) = read(text);
        let old = self.files.get(name);
        !faults.is_empty()
            || old.is_some_and(|file| file.objects.keys().any(|key| !objects.contains_key(key)))
    }

    /// What was left out, by file and line, and duplicates.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (name, file) in &self.files {
            for fault in file.faults.iter().chain(&file.notes) {
                let subject = format!("{name}:{}", fault.line);
                problems.push(Problem { subject, message: fault.message.clone() });
            }
            for (key, (line, _)) in &file.objects {
                let first = self.holders.get(key).and_then(BTreeSet::first);
                if let Some(first) = first.filter(|first| *first != name) {
                    let subject = format!("{name}:{line}");
                    let message =
                        format!("{key} stands in {first} already, which is taken; remove one of the two");
                    problems.push(Problem { subject, message });
                }
            }
        }
        problems
    }

    fn replace(
        &mut self,
        name: &str,
        old: &BTreeMap<ObjectKey, (usize, Object)>,
        new: Option<File>,
    ) -> Vec<Change> {
        let empty = BTreeMap::new();
        let objects = new.as_ref().map_or(&empty, |file| &file.objects);
        let touched: BTreeSet<ObjectKey> = old.keys().chain(objects.keys()).cloned().collect();
        let in_force = |holders: &BTreeSet<String>, files: &BTreeMap<String, File>, key: &ObjectKey| {
            let first = holders.first()?;
            let of_file = if first == name { old.get(key) } else { files.get(first)?.objects.get(key) };
            of_file.map(|(_, object)| object.clone())
        };
        let none = BTreeSet::new();
        let before: Vec<Option<Object>> = touched
            .iter()
            .map(|key| in_force(self.holders.get(key).unwrap_or(&none), &self.files, key))
            .collect();
        for key in &touched {
            let holders = self.holders.entry(key.clone()).or_default();
            if objects.contains_key(key) {
                holders.insert(name.to_owned());
            } else {
                holders.remove(name);
            }
            if holders.is_empty() {
                self.holders.remove(key);
            }
        }
        if let Some(file) = new {
            self.files.insert(name.to_owned(), file);
        }
        let mut changes = Vec::new();
        for (key, before) in touched.into_iter().zip(before) {
            let after = self
                .holders
                .get(&key)
                .and_then(BTreeSet::first)
                .and_then(|first| self.files.get(first)?.objects.get(&key))
                .map(|(_, object)| object.clone());
            match (before, after) {
                (before, Some(after)) if before.as_ref() != Some(&after) => {
                    changes.push(Change::Apply(after))
                }
                (Some(_), None) => changes.push(Change::Delete(key)),
                _ => {}
            }
        }
        changes
    }
}

/// Objects, each with its line; what can't be used; what is passed over.
type Said = (BTreeMap<ObjectKey, (usize, Object)>, Vec<document::Fault>, Vec<document::Fault>);

/// Reads every document; what is bad is left out with its reason.
fn read(text: &str) -> Said {
    let mut objects: BTreeMap<ObjectKey, (usize, Object)> = BTreeMap::new();
    let (mut faults, mut notes) = (Vec::new(), Vec::new());
    for document in document::split(text) {
        let content = document.read();
        faults.extend(content.faults);
        notes.extend(content.notes);
        for (line, object) in content.objects {
            let key = object.key();
            if let Some((first, _)) = objects.get(&key) {
                let message =
                    format!("{key} stands in line {first} already, which is taken; remove one of the two");
                faults.push(document::Fault { line, message });
            } else {
                objects.insert(key, (line, object));
            }
        }
    }
    (objects, faults, notes)
}
