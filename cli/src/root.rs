//! Files of one line each, below a root that tests choose.

use std::fs;
use std::path::{Path, PathBuf};

/// The folder that has sys/, proc/ and dev/.
#[derive(Debug)]
pub struct Root(PathBuf);

impl Root {
    pub fn new(root: &Path) -> Root {
        Root(root.to_owned())
    }

    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.0.join(below)
    }

    /// A file's text without the white space around it; none when it is not there or not ours to read.
    pub fn text(&self, below: impl AsRef<Path>) -> Option<String> {
        fs::read_to_string(self.path(below)).ok().map(|text| text.trim().to_owned())
    }

    pub fn number(&self, below: impl AsRef<Path>) -> Option<u64> {
        self.text(below)?.parse().ok()
    }

    /// The names in a folder, in order; none when there is no folder.
    pub fn names(&self, below: impl AsRef<Path>) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(below)) else { return Vec::new() };
        let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The last part of what a link points to.
    pub fn link_name(&self, below: impl AsRef<Path>) -> Option<String> {
        fs::read_link(self.path(below)).ok()?.file_name()?.to_str().map(str::to_owned)
    }

    /// A NUMA node; the kernel writes -1 where a device has none.
    pub fn numa_node(&self, device: impl AsRef<Path>) -> Option<u32> {
        self.text(device.as_ref().join("numa_node"))?.parse().ok()
    }
}

/// The number in names such as `node12`.
pub fn number_after(prefix: &str, name: &str) -> Option<u32> {
    name.strip_prefix(prefix)?.parse().ok()
}

/// A line `Name:  123 kB` of a meminfo, in bytes. In a node's own there is `Node 0` before the name.
pub fn meminfo_bytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.split_once(name)?.1.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}
