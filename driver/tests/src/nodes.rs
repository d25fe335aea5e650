//! Two NUMA nodes: what is asked for is where it was asked for, or the answer says what there was.

use crate::Test;
use crate::kit::{complete, succeed};
use crate::peers::built;
use anyhow::{Context as _, Result, ensure};
use dmaplane_device::{Device, Ring};
use dmaplane_ring::abi::device::DeviceSetup;
use dmaplane_ring::abi::{BufferHandle, Errno};
use dmaplane_ring::build::{Alloc, Free, PagePlacement, Placement};

pub const TESTS: &[Test] = &[
    ("buf_2_strict_placement_is_verified_on_each_node", strict),
    ("buf_2_a_full_node_refuses_with_counts_and_a_wish_tells_what_came_of_it", full),
];

const MIB: u64 = 1 << 20;

fn roomy() -> Result<(Device, Ring)> {
    let nodes = std::fs::read_dir("/sys/devices/system/node")?
        .filter(|entry| entry.as_ref().is_ok_and(|it| it.file_name().to_string_lossy().starts_with("node")))
        .count();
    ensure!(nodes == 2, "this machine has {nodes} nodes, where the lab makes two");
    let device = Device::open(DeviceSetup { memory_bytes: 8 << 30, buffer_bytes: 8 << 30, ..DeviceSetup::default() })?;
    let ring = device.ring(16, 32)?;
    Ok((device, ring))
}

/// Bytes of a node: `MemFree`, `MemTotal`.
fn bytes_of(node: u32, what: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/sys/devices/system/node/node{node}/meminfo"))?;
    let line = text.lines().find(|line| line.contains(&format!("{what}:"))).context("not told")?;
    let kilobytes: u64 = line.split_whitespace().nth(3).context("no number")?.parse()?;
    Ok(kilobytes << 10)
}

fn on_nodes(ring: &mut Ring, buffer: BufferHandle) -> Result<[u64; 3]> {
    let first = succeed(ring, Placement::new(buffer, 0))?;
    let second = succeed(ring, Placement::new(buffer, 1))?;
    Ok([first.word0, second.word0, first.word1])
}

fn strict() -> Result<()> {
    let (_device, mut ring) = roomy()?;
    for node in [0, 1, 0, 1] {
        let made = succeed(&mut ring, built(Alloc::new(24 * MIB))?.placement(PagePlacement::Strict(node)))?;
        let buffer = BufferHandle::from_bits(made.word0).context("no buffer")?;
        let found = on_nodes(&mut ring, buffer)?;
        let expected = if node == 0 { [6144, 0, 6144] } else { [0, 6144, 6144] };
        ensure!(found == expected, "strictly on node {node}: {found:?}");
        succeed(&mut ring, Free::new(buffer))?;
    }
    Ok(())
}

fn full() -> Result<()> {
    let (_device, mut ring) = roomy()?;
    let free = bytes_of(1, "MemFree")?;
    // More than the node can give, and not more than the machine can.
    let asked = bytes_of(1, "MemTotal")?;
    let refused = complete(&mut ring, built(Alloc::new(asked))?.placement(PagePlacement::Strict(1)))?;
    ensure!(refused.result() == Err(Errno::ENOMEM), "more than node 1 has: {refused:?}");
    let (had, wanted) = (refused.word0, refused.word1);
    ensure!(wanted == asked.div_ceil(4096) && had > wanted / 2 && had < wanted, "{had} of {wanted} pages");
    ensure!(bytes_of(1, "MemFree")? > free / 2, "what it had of the node is not given back");
    // More than the machine has: told by what was free there, and nothing is taken for it.
    let all = 4 * asked;
    let refused = complete(&mut ring, built(Alloc::new(all))?.placement(PagePlacement::Strict(1)))?;
    ensure!(refused.result() == Err(Errno::ENOMEM), "more than the machine has: {refused:?}");
    let (had, wanted) = (refused.word0, refused.word1);
    ensure!(wanted == all.div_ceil(4096) && had > free / 4096 / 2 && had <= free / 4096 * 2, "{had} of {wanted} pages");
    let wanted = asked.div_ceil(4096);
    let made = succeed(&mut ring, built(Alloc::new(asked))?.placement(PagePlacement::Preferred(1)))?;
    let buffer = BufferHandle::from_bits(made.word0).context("no buffer")?;
    let [elsewhere, there, all] = on_nodes(&mut ring, buffer)?;
    ensure!(all == wanted && elsewhere + there == all, "{elsewhere} and {there} of {all} pages");
    ensure!(elsewhere > 0 && there > all / 2, "a wish for node 1: {there} of {all} pages");
    Ok(())
}
