//! `dmaplane topology`: what this machine has for moving memory, where it is, and what its lack means.
//!
//! Reads files of /sys and /proc, looks whether device files are there, and asks the kernel for an io_uring and for
//! where a page lies. Changes nothing, and needs no rights.

mod devices;
mod findings;
mod host;
mod nodes;
mod table;

use crate::root::Root;
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;

#[derive(Args, Clone, Debug)]
pub struct TopologyArguments {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Where /sys, /proc and /dev are: a made-up machine, for tests
    #[arg(long, hide = true, default_value = "/")]
    root: PathBuf,
}

/// Everything that was looked for.
#[derive(Debug, Serialize)]
struct Topology {
    nodes: Vec<nodes::Node>,
    huge_pages: Vec<nodes::HugePages>,
    transparent_huge_pages: host::TransparentHugePages,
    nics: Vec<devices::Device>,
    accelerators: Vec<devices::Device>,
    rdma: Vec<devices::RdmaDevice>,
    udmabuf: host::DeviceFile,
    dmaplane: host::DeviceFile,
    io_uring: host::Support,
    /// What carries tcp's bytes to and from the kernel.
    tcp_backend: String,
    placement: host::Support,
    confinement: host::Confinement,
    limits: host::Limits,
    findings: Vec<findings::Finding>,
}

impl Topology {
    fn of(root: &Root) -> Topology {
        let mut topology = Topology {
            nodes: nodes::nodes(root),
            huge_pages: nodes::huge_pages(root, "sys/kernel/mm/hugepages"),
            transparent_huge_pages: host::TransparentHugePages::of(root),
            nics: devices::nics(root),
            accelerators: devices::accelerators(root),
            rdma: devices::rdma(root),
            udmabuf: host::DeviceFile::of(root, "dev/udmabuf"),
            dmaplane: host::DeviceFile::of(root, "dev/dmaplane"),
            io_uring: host::io_uring(),
            tcp_backend: dmaplane::tcp_backend().to_string(),
            placement: host::placement(),
            confinement: host::Confinement::of(root),
            limits: host::Limits::of(root),
            findings: Vec::new(),
        };
        topology.findings = findings::findings(&topology);
        topology
    }
}

/// Runs the command.
pub fn run(arguments: &TopologyArguments) -> Result<()> {
    let topology = Topology::of(&Root::new(&arguments.root));
    let text = if arguments.json { serde_json::to_string(&topology)? + "\n" } else { table::text(&topology) };
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests;
