//! The project's own lint: rules that no other tool checks.
//!
//! - lines stay short, and files of ring/ and engine/ stay small;
//! - no file names a registry host or a path of one machine;
//! - `unsafe` and memory orderings stay in the files that are listed for them, where a review looks.

mod allow_list;
mod rust_source;
mod size_rules;
mod text_rules;
mod token_rules;

use std::fmt;
use std::fs;

use anyhow::{Context, Result};

use crate::process::capture;
use crate::workspace::Workspace;
use allow_list::AllowList;

/// A file of the tree.
struct SourceFile {
    /// Its path from the root, with forward slashes.
    path: String,
    text: String,
}

impl SourceFile {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn is_markdown(&self) -> bool {
        self.path.ends_with(".md")
    }
}

/// A place where a rule is broken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    /// The line, counted from one; zero means the file as a whole.
    line: usize,
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, message } = self;
        match line {
            0 => write!(formatter, "{path}: {message}"),
            _ => write!(formatter, "{path}:{line}: {message}"),
        }
    }
}

/// Checks all files that git tracks or would take, prints what is wrong, and says whether nothing is.
pub fn run(workspace: &Workspace) -> Result<bool> {
    let files = read_files(workspace)?;
    let unsafe_files = AllowList::read(workspace, "xtask/unsafe-files.txt")?;
    let atomic_files = AllowList::read(workspace, "xtask/atomic-files.txt")?;

    let mut findings = Vec::new();
    for file in &files {
        findings.extend(size_rules::long_lines(file));
        findings.extend(size_rules::long_file(file));
        findings.extend(text_rules::machine_paths(file));
        findings.extend(text_rules::registry_hosts(file));
    }
    findings.extend(unsafe_files.check(&files, "unsafe", token_rules::unsafe_lines));
    findings.extend(atomic_files.check(&files, "a memory ordering", token_rules::ordering_lines));

    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    println!("tidy: {} files, {} findings", files.len(), findings.len());
    Ok(findings.is_empty())
}

fn read_files(workspace: &Workspace) -> Result<Vec<SourceFile>> {
    let mut command = workspace.command("git");
    command.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let list = capture(command).context("tidy asks git for the list of files")?;
    let mut files = Vec::new();
    for path in list.split('\0').filter(|path| !path.is_empty()) {
        // A file that git still tracks may be gone; one that is no text has no lines to check.
        let Ok(bytes) = fs::read(workspace.root.join(path)) else {
            continue;
        };
        if let Ok(text) = String::from_utf8(bytes) {
            files.push(SourceFile { path: path.to_owned(), text });
        }
    }
    Ok(files)
}

#[cfg(test)]
fn sample(path: &str, text: &str) -> SourceFile {
    SourceFile { path: path.to_owned(), text: text.to_owned() }
}
