//! Writes between two processes, beside what plain means and the peers reach.

use crate::ours::Pair;
use crate::ours::workload::LARGE_BYTES;
use crate::peers::{Kind, PeerProcess, Peers};
use crate::plain::Plain;
use crate::sample::Measurement;
use crate::table::{Quantity, Table};
use anyhow::Result;

/// How ours is measured.
type Ours = fn(&mut Pair) -> Result<Measurement>;

/// A peer's figure beside one of ours: which of ours, what the table says beyond the peer's name, and the peer's key.
struct Beside {
    ours: usize,
    remark: &'static str,
    key: &'static str,
}

const LARGE: usize = 0;
const SCATTERED: usize = 1;
const SMALL: usize = 2;
const ANSWERED: usize = 3;

const fn beside(ours: usize, remark: &'static str, key: &'static str) -> Beside {
    Beside { ours, remark, key }
}

const NIXL: &[Beside] = &[
    beside(LARGE, "", "write_large"),
    beside(SCATTERED, ", one transfer", "write_scattered"),
    beside(SMALL, ", without notification", "write_small"),
    beside(SMALL, ", with notification", "write_small_notified"),
    beside(ANSWERED, ", notification answered", "write_small_answered"),
];

const MOONCAKE_SMALL: &[Beside] = &[
    beside(SMALL, ", without notification", "write_small"),
    beside(SMALL, ", with notification", "write_small_notified"),
];

const MOONCAKE: &[Beside] = &[
    beside(LARGE, "", "write_large"),
    beside(SCATTERED, ", one batch", "write_scattered"),
    beside(SMALL, ", without notification", "write_small"),
    beside(SMALL, ", with notification", "write_small_notified"),
];

const IPERF3: &[Beside] = &[beside(LARGE, ", one stream for a second", "stream")];

/// Two processes that share memory. Mooncake has no shared memory on one host, so its tcp stands beside.
pub fn over_shm(table: &mut Table, peers: &Peers) -> Result<()> {
    let quantities = [
        Quantity::rate("shm: 64 MiB WRITE", "GB/s"),
        Quantity::rate("shm: one WRITE_LIST of 81,920 scattered 4 KiB blocks", "GB/s"),
        Quantity::time("shm: 4 KiB WRITE_IMM, delivered", "us"),
        Quantity::time("shm: 4 KiB WRITE_IMM, answered by the program", "us"),
    ];
    let mut pair = Pair::open("shm")?;
    let mut plain = Plain::new(LARGE_BYTES);
    table.compare(quantities[LARGE], "memcpy, 64 MiB", || pair.write_large(), || plain.memcpy())?;
    table.compare(quantities[SCATTERED], "memcpy, 64 MiB", || pair.write_scattered(), || plain.memcpy())?;
    drop(plain);
    for (kind, figures) in [(Kind::NixlShm, NIXL), (Kind::NixlDefault, NIXL), (Kind::MooncakeTcp, MOONCAKE_SMALL)] {
        with_peer(table, peers, kind, &quantities, figures, &mut pair)?;
    }
    pair.check()
}

/// Two processes and a loopback connection.
pub fn over_tcp(table: &mut Table, peers: &Peers) -> Result<()> {
    let quantities = [
        Quantity::rate("tcp: 64 MiB WRITE", "GB/s"),
        Quantity::rate("tcp: one WRITE_LIST of 81,920 scattered 4 KiB blocks", "GB/s"),
        Quantity::time("tcp: 4 KiB WRITE_IMM, delivered", "us"),
        Quantity::time("tcp: 4 KiB WRITE_IMM, answered by the program", "us"),
    ];
    let mut pair = Pair::open("tcp")?;
    let mut plain = Plain::new(LARGE_BYTES);
    table.compare(quantities[LARGE], "plain socket, 64 MiB", || pair.write_large(), || plain.socket())?;
    drop(plain);
    for (kind, figures) in [(Kind::Iperf3, IPERF3), (Kind::NixlTcp, NIXL), (Kind::MooncakeTcp, MOONCAKE)] {
        with_peer(table, peers, kind, &quantities, figures, &mut pair)?;
    }
    pair.check()
}

/// Starts a peer and compares each of its figures with ours. One that does not start is a line for each figure.
fn with_peer(
    table: &mut Table,
    peers: &Peers,
    kind: Kind,
    quantities: &[Quantity; 4],
    figures: &[Beside],
    pair: &mut Pair,
) -> Result<()> {
    let mut process = peers.start(kind);
    for figure in figures {
        let quantity = quantities[figure.ours];
        let name = format!("{}{}", kind.name(), figure.remark);
        match &mut process {
            Err(error) => table.cannot(quantity.what, &name, error),
            Ok(process) => {
                let ours = our_measurement(figure.ours);
                let theirs = |process: &mut PeerProcess| process.measure(figure.key, quantity.unit);
                table.compare(quantity, &name, || ours(pair), || theirs(process))?;
            }
        }
    }
    Ok(())
}

fn our_measurement(index: usize) -> Ours {
    [Pair::write_large, Pair::write_scattered, Pair::write_small, Pair::write_small_answered][index]
}
