//! NUMA nodes, their memory and huge pages.

use crate::root::{Root, meminfo_bytes, number_after};
use serde::Serialize;

const NODES: &str = "sys/devices/system/node";

#[derive(Debug, PartialEq, Serialize)]
pub struct Node {
    pub node: u32,
    /// As the kernel lists them, `0-3,8`.
    pub cpus: String,
    pub memory_bytes: u64,
    pub free_bytes: u64,
    /// To each node in order; 10 is its own.
    pub distances: Vec<u32>,
    pub huge_pages: Vec<HugePages>,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct HugePages {
    pub page_bytes: u64,
    pub total: u64,
    pub free: u64,
}

/// All nodes. A kernel without NUMA has one.
pub fn nodes(root: &Root) -> Vec<Node> {
    let mut numbers: Vec<u32> = root.names(NODES).iter().filter_map(|name| number_after("node", name)).collect();
    numbers.sort_unstable();
    if numbers.is_empty() {
        return vec![without_numa(root)];
    }
    numbers.into_iter().map(|node| one(root, node)).collect()
}

fn one(root: &Root, node: u32) -> Node {
    let folder = format!("{NODES}/node{node}");
    let meminfo = root.text(format!("{folder}/meminfo")).unwrap_or_default();
    let distances = root.text(format!("{folder}/distance")).unwrap_or_default();
    Node {
        node,
        cpus: root.text(format!("{folder}/cpulist")).unwrap_or_default(),
        memory_bytes: meminfo_bytes(&meminfo, "MemTotal").unwrap_or(0),
        free_bytes: meminfo_bytes(&meminfo, "MemFree").unwrap_or(0),
        distances: distances.split_whitespace().filter_map(|number| number.parse().ok()).collect(),
        huge_pages: huge_pages(root, &format!("{folder}/hugepages")),
    }
}

fn without_numa(root: &Root) -> Node {
    let meminfo = root.text("proc/meminfo").unwrap_or_default();
    Node {
        node: 0,
        cpus: root.text("sys/devices/system/cpu/online").unwrap_or_default(),
        memory_bytes: meminfo_bytes(&meminfo, "MemTotal").unwrap_or(0),
        free_bytes: meminfo_bytes(&meminfo, "MemFree").unwrap_or(0),
        distances: vec![10],
        huge_pages: huge_pages(root, "sys/kernel/mm/hugepages"),
    }
}

/// Huge pages of each size, the small ones first: of a node's folder or of the whole machine's.
pub fn huge_pages(root: &Root, folder: &str) -> Vec<HugePages> {
    let size = |name: &String| {
        let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        Some(HugePages {
            page_bytes: kib.checked_mul(1024)?,
            total: root.number(format!("{folder}/{name}/nr_hugepages")).unwrap_or(0),
            free: root.number(format!("{folder}/{name}/free_hugepages")).unwrap_or(0),
        })
    };
    let mut sizes: Vec<HugePages> = root.names(folder).iter().filter_map(size).collect();
    sizes.sort_by_key(|pages| pages.page_bytes);
    sizes
}
