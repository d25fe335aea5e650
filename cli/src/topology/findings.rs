//! What was found and what is missing, and what that means for somebody who moves memory here.

use super::Topology;
use super::host::DeviceFile;
use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Found,
    Missing,
}

#[derive(Debug, Serialize)]
pub struct Finding {
    pub what: &'static str,
    pub state: State,
    pub consequence: String,
}

fn finding(what: &'static str, found: bool, consequence: impl Into<String>) -> Finding {
    let state = if found { State::Found } else { State::Missing };
    Finding { what, state, consequence: consequence.into() }
}

/// One line for everything that makes a difference.
pub fn findings(topology: &Topology) -> Vec<Finding> {
    vec![
        nodes(topology),
        placement(topology),
        huge_pages(topology),
        device_file(
            "/dev/dmaplane",
            &topology.dmaplane,
            "the embedded host serves all the same, unless --device asks for it; `contexts` shows who has what there",
            "the embedded host serves, in the process",
        ),
        device_file(
            "/dev/udmabuf",
            &topology.udmabuf,
            "buffers are exported as dma-bufs",
            "buffers are exported as sealed memfds, which GPU drivers do not import",
        ),
        rdma(topology),
        accelerators(topology),
        io_uring(topology),
        system_calls(topology),
    ]
}

fn nodes(topology: &Topology) -> Finding {
    match topology.nodes.len() {
        0 | 1 => finding("several NUMA nodes", false, "all memory is equally near; placement has nothing to choose"),
        count => finding("several NUMA nodes", true, format!("{count} nodes; place buffers near their device")),
    }
}

fn placement(topology: &Topology) -> Finding {
    match &topology.placement.reason {
        None => finding("verified placement", true, "each page's node can be looked up"),
        Some(reason) => {
            finding("verified placement", false, format!("strict placement fails, other is unverifiable ({reason})"))
        }
    }
}

fn huge_pages(topology: &Topology) -> Finding {
    let what = "2 MiB pages";
    let free = topology.huge_pages.iter().find(|pages| pages.page_bytes == 2 << 20).map_or(0, |pages| pages.free);
    if free > 0 {
        return finding(what, true, format!("{free} are free"));
    }
    let shared = topology.transparent_huge_pages.shared.as_deref();
    if let Some(setting @ ("always" | "within_size" | "advise" | "force")) = shared {
        return finding(
            what,
            false,
            format!("none reserved (vm.nr_hugepages); memfds get some by shmem_enabled={setting}"),
        );
    }
    finding(what, false, "buffers have 4 KiB pages, which cost more to map and to register; set vm.nr_hugepages")
}

fn device_file(what: &'static str, file: &DeviceFile, found: &str, missing: &str) -> Finding {
    match (file.present, file.usable) {
        (true, true) => finding(what, true, found),
        (true, false) => finding(what, false, format!("it is there, but not for this user; {missing}")),
        (false, _) => finding(what, false, missing),
    }
}

fn rdma(topology: &Topology) -> Finding {
    let what = "RDMA device";
    match topology.rdma.iter().filter(|device| device.state.as_deref() == Some("ACTIVE")).count() {
        0 if !topology.rdma.is_empty() => finding(what, false, "none has an active port; between hosts there is tcp"),
        0 => finding(what, false, "between hosts there is tcp"),
        count => finding(what, true, format!("{count} with an active port")),
    }
}

fn accelerators(topology: &Topology) -> Finding {
    match topology.accelerators.len() {
        0 => finding("GPU or accelerator", false, "host memory only"),
        count => finding("GPU or accelerator", true, format!("{count} on PCI")),
    }
}

fn io_uring(topology: &Topology) -> Finding {
    let tcp = &topology.tcp_backend;
    match &topology.io_uring.reason {
        None => finding("io_uring", true, format!("available to this process; tcp uses {tcp}")),
        Some(reason) => finding("io_uring", false, format!("tcp uses {tcp} ({reason})")),
    }
}

/// A filter by itself is no fault; it explains others.
fn system_calls(topology: &Topology) -> Finding {
    let what = "all system calls";
    match (topology.confinement.seccomp, topology.confinement.seccomp_filters) {
        (None, _) => finding(what, false, "this kernel does not say whether seccomp forbids some"),
        (Some("off"), _) => finding(what, true, "seccomp forbids none"),
        (Some(mode), count) => {
            let count = count.map(|count| format!(", {count} installed")).unwrap_or_default();
            finding(what, false, format!("seccomp forbids some (mode {mode}{count}), as in a container"))
        }
    }
}
