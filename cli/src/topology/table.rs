//! The same for people.

use super::Topology;
use super::devices::Device;
use super::findings::State;
use super::nodes::HugePages;
use crate::rows::{section, size};
use std::fmt::Write;

fn pages(pages: &[HugePages]) -> String {
    let each = pages.iter().map(|pages| format!("{} of {} x {}", pages.free, pages.total, size(pages.page_bytes)));
    or_dash(each.collect::<Vec<_>>().join(", "))
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

fn node(node: Option<u32>) -> String {
    node.map_or("-".to_owned(), |node| node.to_string())
}

fn device(kind: &str, device: &Device) -> Vec<String> {
    let id = device.id.as_ref().map(|id| format!(" ({id})")).unwrap_or_default();
    vec![
        kind.to_owned(),
        format!("{} {}{id}", device.bus, device.address),
        node(device.node),
        or_dash(device.driver.clone().unwrap_or_default()),
        or_dash(device.interfaces.join(", ")),
    ]
}

/// The whole report.
pub fn text(topology: &Topology) -> String {
    let mut text = String::new();
    let nodes: Vec<Vec<String>> = topology
        .nodes
        .iter()
        .map(|node| {
            let distances: Vec<String> = node.distances.iter().map(u32::to_string).collect();
            vec![
                node.node.to_string(),
                or_dash(node.cpus.clone()),
                size(node.memory_bytes),
                size(node.free_bytes),
                distances.join(" "),
                pages(&node.huge_pages),
            ]
        })
        .collect();
    section(&mut text, &["NODE", "CPUS", "MEMORY", "FREE", "DISTANCES", "HUGE PAGES FREE"], &nodes);

    let mut devices: Vec<Vec<String>> = topology.nics.iter().map(|nic| device("nic", nic)).collect();
    devices.extend(topology.accelerators.iter().map(|accelerator| device("accelerator", accelerator)));
    devices.extend(topology.rdma.iter().map(|rdma| {
        let port = [rdma.link_layer.clone(), rdma.state.clone()].into_iter().flatten().collect::<Vec<_>>().join(" ");
        let driver = or_dash(rdma.driver.clone().unwrap_or_default());
        vec!["rdma".to_owned(), rdma.name.clone(), node(rdma.node), driver, or_dash(port)]
    }));
    section(&mut text, &["DEVICE", "WHERE", "NODE", "DRIVER", "INTERFACES"], &devices);

    let limits = &topology.limits;
    let bytes = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), size);
    let rows = [
        ("memory of the control group", bytes(limits.cgroup_memory_bytes)),
        (
            "processors of the control group",
            limits.cgroup_cpus.map_or("unlimited".to_owned(), |cpus| format!("{cpus:.2}")),
        ),
        ("files in /dev/shm", limits.shm_file_bytes.map_or("none: it is not there".to_owned(), size)),
        ("locked memory", bytes(limits.locked_memory_bytes)),
        ("file and memfd size", bytes(limits.file_bytes)),
        ("open files", limits.open_files.map_or("unlimited".to_owned(), |files| files.to_string())),
        ("System V segment", bytes(limits.system_v_segment_bytes)),
    ];
    section(&mut text, &["LIMIT", "OF THIS PROCESS"], &rows.map(|(name, value)| vec![name.to_owned(), value]));

    let findings: Vec<Vec<String>> = topology
        .findings
        .iter()
        .map(|finding| {
            let state = if finding.state == State::Found { "found" } else { "missing" };
            vec![finding.what.to_owned(), state.to_owned(), finding.consequence.clone()]
        })
        .collect();
    section(&mut text, &["WHAT", "STATE", "WHICH MEANS"], &findings);
    let missing = topology.findings.iter().filter(|finding| finding.state == State::Missing).count();
    let _ = writeln!(text, "{} found, {missing} missing", topology.findings.len() - missing);
    text
}
