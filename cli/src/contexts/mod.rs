//! `dmaplane contexts`: the kernel driver's contexts, who holds them, and what is in use there.

mod found;
#[cfg(test)]
mod tests;

use crate::root::Root;
use crate::rows::{section, size};
use anyhow::{Result, ensure};
use clap::Args;
use found::{Context, Found};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub struct ContextsArguments {
    /// For programs
    #[arg(long)]
    json: bool,
    /// Each context's objects, too: operations in flight, buffers, leases, peers (as root, by debugfs)
    #[arg(long)]
    objects: bool,
    /// The folder that has proc/ and sys/
    #[arg(long, value_name = "FOLDER", default_value = "/", hide = true)]
    root: PathBuf,
}

pub fn run(arguments: &ContextsArguments) -> Result<()> {
    let root = Root::new(&arguments.root);
    ensure!(
        root.path("sys/module/dmaplane").exists(),
        "the kernel driver is not loaded: modprobe dmaplane, or insmod driver/dmaplane.ko"
    );
    let found = Found::of(&root, arguments.objects)?;
    let text = if arguments.json { format!("{}\n", serde_json::to_string_pretty(&found)?) } else { text(&found) };
    // Who has read enough is no mistake.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

fn number(context: &Context, name: &str) -> String {
    context.in_use.get(name).map_or("-".to_owned(), u64::to_string)
}

fn row(context: &Context) -> Vec<String> {
    let holders: Vec<String> = context
        .holders
        .iter()
        .map(|holder| {
            let fds: Vec<String> = holder.descriptors.iter().map(u32::to_string).collect();
            format!("{} {} (fd {})", holder.process, holder.name, fds.join(", "))
        })
        .collect();
    let mut row = vec![
        context.context.to_string(),
        if context.closed { "closed" } else { "open" }.to_owned(),
        context.in_use.get("memory-bytes").map_or("-".to_owned(), |&bytes| size(bytes)),
    ];
    row.extend(COLUMNS.iter().map(|(_, name)| number(context, name)));
    row.push(if holders.is_empty() { "nobody: it ends, or a mapping keeps it".to_owned() } else { holders.join("; ") });
    row
}

/// Headings, and what fdinfo calls them.
const COLUMNS: [(&str, &str); 6] = [
    ("OPERATIONS", "operations"),
    ("BUFFERS", "buffers"),
    ("LEASES", "leases"),
    ("IMPORTS", "imports"),
    ("PEERS", "peers"),
    ("REFUSED", "refused"),
];

fn text(found: &Found) -> String {
    let mut text = String::new();
    let mut headings = vec!["CONTEXT", "STATE", "MEMORY"];
    headings.extend(COLUMNS.iter().map(|(heading, _)| heading));
    headings.push("HELD BY");
    section(&mut text, &headings, &found.contexts.iter().map(row).collect::<Vec<_>>());
    for context in &found.contexts {
        for (kind, lines) in &context.objects {
            let _ = writeln!(text, "context {}, {kind}:", context.context);
            for line in lines {
                let _ = writeln!(text, "  {line}");
            }
        }
    }
    let _ = write!(text, "{} contexts", found.contexts.len());
    if found.unreadable_processes > 0 {
        let _ = write!(text, "; {} processes of others could not be looked at", found.unreadable_processes);
    }
    text.push('\n');
    text
}

/// Where the driver shows what each context has, from a root.
fn debugfs() -> &'static Path {
    Path::new("sys/kernel/debug/dmaplane")
}
