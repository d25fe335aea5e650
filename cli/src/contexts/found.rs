//! What /proc and debugfs tell of contexts.

use super::debugfs;
use crate::root::Root;
use anyhow::{Context as _, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// A process that has a context's descriptor.
#[derive(Debug, PartialEq, Serialize)]
pub struct Holder {
    pub process: u32,
    pub name: String,
    pub descriptors: Vec<u32>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Context {
    /// Its number since the driver was loaded.
    pub context: u64,
    /// Nothing of it is left but its descriptors and mappings.
    pub closed: bool,
    /// By the names of the driver's fdinfo.
    pub in_use: BTreeMap<String, u64>,
    pub holders: Vec<Holder>,
    /// Lines by kind, where they were asked for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub objects: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Found {
    pub contexts: Vec<Context>,
    /// Processes whose descriptors are not ours to see.
    pub unreadable_processes: usize,
}

impl Found {
    pub fn of(root: &Root, objects: bool) -> Result<Found> {
        let mut contexts = BTreeMap::new();
        let mut unreadable_processes = 0;
        for name in root.names("proc") {
            let Ok(process) = name.parse() else { continue };
            if !look_at_process(root, process, &mut contexts) {
                unreadable_processes += 1;
            }
        }
        // Those that nobody has a descriptor of, where we may see them.
        for line in root.text(debugfs().join("contexts")).unwrap_or_default().lines() {
            note_line(line, &mut contexts);
        }
        let mut contexts: Vec<Context> = contexts.into_values().collect();
        if objects {
            for context in &mut contexts {
                context.objects = objects_of(root, context.context)?;
            }
        }
        Ok(Found { contexts, unreadable_processes })
    }
}

/// Notes what a process holds; `false`: it cannot be looked at, and has not just gone.
fn look_at_process(root: &Root, process: u32, contexts: &mut BTreeMap<u64, Context>) -> bool {
    let folder = Path::new("proc").join(process.to_string());
    let Ok(descriptors) = std::fs::read_dir(root.path(folder.join("fd"))) else {
        return !root.path(&folder).exists();
    };
    for descriptor in descriptors.flatten() {
        let is_device = std::fs::read_link(descriptor.path()).is_ok_and(|target| target.ends_with("dev/dmaplane"));
        let Some(number) = descriptor.file_name().to_str().and_then(|name| name.parse().ok()).filter(|_| is_device)
        else {
            continue;
        };
        // Closed meanwhile, or no context yet.
        let told = root.text(folder.join("fdinfo").join(u32::to_string(&number))).unwrap_or_default();
        let fields: BTreeMap<String, u64> = told.lines().filter_map(field).collect();
        let Some(&context) = fields.get("context") else { continue };
        let entry = contexts.entry(context).or_default();
        note(entry, context, fields);
        match entry.holders.iter_mut().find(|holder| holder.process == process) {
            Some(holder) => holder.descriptors.push(number),
            None => {
                let name = root.text(folder.join("comm")).unwrap_or_default();
                entry.holders.push(Holder { process, name, descriptors: vec![number] });
            }
        }
    }
    true
}

/// A line such as `dmaplane-buffers: 3`, with a tab.
fn field(line: &str) -> Option<(String, u64)> {
    let (name, value) = line.strip_prefix("dmaplane-")?.split_once(':')?;
    Some((name.to_owned(), value.trim().parse().ok()?))
}

fn note(entry: &mut Context, context: u64, mut fields: BTreeMap<String, u64>) {
    fields.remove("context");
    entry.context = context;
    entry.closed = fields.remove("closed") == Some(1);
    entry.in_use = fields;
}

/// `7: pid=100 uid=0 closed=0 memory-bytes=4096 ...` of debugfs.
fn note_line(line: &str, contexts: &mut BTreeMap<u64, Context>) {
    let Some((number, rest)) = line.split_once(": ") else { return };
    let Ok(number) = number.parse() else { return };
    let fields: BTreeMap<String, u64> = rest
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        // Not of what is in use.
        .filter(|(name, _)| !matches!(*name, "pid" | "uid"))
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect();
    let entry = contexts.entry(number).or_default();
    if entry.holders.is_empty() {
        note(entry, number, fields);
    }
}

/// Kinds that have a line for each object.
const KINDS: [&str; 8] = ["rings", "operations", "buffers", "lists", "leases", "imports", "peers", "transfers"];

fn objects_of(root: &Root, context: u64) -> Result<BTreeMap<String, Vec<String>>> {
    let folder = root.path(debugfs()).join(context.to_string());
    let mut all = BTreeMap::new();
    for kind in KINDS {
        let path = folder.join(kind);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {} (as root, with debugfs mounted)", path.display()))?;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if !lines.is_empty() {
            all.insert(kind.to_owned(), lines);
        }
    }
    Ok(all)
}
