//! Lists of files in which something is allowed that is forbidden elsewhere.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::{Finding, SourceFile};
use crate::workspace::Workspace;

/// The files of one list. An entry is a path from the root (a folder where it ends with a slash), `#`,
/// and the reason why that file needs it.
pub struct AllowList {
    /// Where the list itself lies.
    path: String,
    entries: Vec<Entry>,
}

struct Entry {
    line: usize,
    path: String,
}

impl Entry {
    fn covers(&self, path: &str) -> bool {
        path == self.path || (self.path.ends_with('/') && path.starts_with(&self.path))
    }
}

impl AllowList {
    /// Reads a list of the tree.
    pub fn read(workspace: &Workspace, path: &str) -> Result<Self> {
        let text = fs::read_to_string(workspace.root.join(path)).with_context(|| path.to_owned())?;
        Self::parse(path, &text)
    }

    fn parse(path: &str, text: &str) -> Result<Self> {
        let mut entries = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let (entry, reason) = line.split_once('#').unwrap_or((line, ""));
            let entry = entry.trim();
            if !entry.is_empty() {
                ensure!(!reason.trim().is_empty(), "{path}:{}: {entry} has no reason", index + 1);
                entries.push(Entry { line: index + 1, path: entry.to_owned() });
            }
        }
        Ok(Self { path: path.to_owned(), entries })
    }

    /// Uses of `what` outside the list, and entries of the list that have none.
    pub fn check(&self, files: &[SourceFile], what: &str, lines_of: impl Fn(&str) -> Vec<usize>) -> Vec<Finding> {
        let mut used = vec![false; self.entries.len()];
        let mut findings = Vec::new();
        for file in files.iter().filter(|file| file.is_rust()) {
            let lines = lines_of(&file.text);
            if lines.is_empty() {
                continue;
            }
            match self.entries.iter().position(|entry| entry.covers(&file.path)) {
                Some(entry) => used[entry] = true,
                None => findings.extend(lines.into_iter().map(|line| Finding {
                    path: file.path.clone(),
                    line,
                    message: format!("{what} in a file that {} does not list", self.path),
                })),
            }
        }
        let unused = self.entries.iter().zip(used).filter(|(_, used)| !used);
        findings.extend(unused.map(|(entry, _)| Finding {
            path: self.path.clone(),
            line: entry.line,
            message: format!("{} holds no {what}: remove the entry", entry.path),
        }));
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn has_x(text: &str) -> Vec<usize> {
        let lines = text.lines().enumerate().filter(|(_, line)| line.contains('x'));
        lines.map(|(index, _)| index + 1).collect()
    }

    #[test]
    fn uses_outside_the_list_and_entries_without_use_are_found() {
        let list = "# Why.\n\na.rs # one\nfolder/ # all of it\ngone.rs # no longer\n";
        let list = AllowList::parse("list.txt", list).unwrap();
        let files = [
            sample("a.rs", "x"),
            sample("folder/b.rs", "x"),
            sample("c.rs", "\nx\nx"),
            sample("d.rs", "y"),
            sample("notes.md", "x"),
        ];
        let findings: Vec<String> = list.check(&files, "x", has_x).iter().map(ToString::to_string).collect();
        assert_eq!(
            findings,
            [
                "c.rs:2: x in a file that list.txt does not list",
                "c.rs:3: x in a file that list.txt does not list",
                "list.txt:5: gone.rs holds no x: remove the entry",
            ]
        );
    }

    #[test]
    fn an_entry_needs_a_reason() {
        let error = AllowList::parse("list.txt", "a.rs\n").err().unwrap().to_string();
        assert_eq!(error, "list.txt:1: a.rs has no reason");
    }
}
