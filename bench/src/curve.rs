//! Throughput against the size of a block, for the picture: one plain write at a time, and a list of scattered blocks.

use crate::ours::Pair;
use crate::ours::connection::Fabric;
use crate::ours::workload::LARGE_BYTES;
use crate::peers::{Kind, Peers};
use crate::plain::Plain;
use crate::results::Results;
use crate::sample::{Measurement, median};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// One line of the picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    pub fabric: String,
    pub name: String,
    /// Bytes of a block, and GB/s.
    pub points: Vec<(u64, f64)>,
}

impl Curve {
    pub fn in_words(&self) -> String {
        let points = self.points.iter();
        points.map(|(bytes, rate)| format!("{} {rate:.2}", size_name(*bytes))).collect::<Vec<_>>().join(", ")
    }
}

/// As axes call it.
pub fn size_name(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

const SIZES: [u64; 8] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20];
const QUICK_SIZES: [u64; 4] = [4 << 10, 64 << 10, 1 << 20, 64 << 20];
/// Writes of one size at most.
const WRITES_MAX: u64 = 1024;
/// iperf3 takes no larger buffers.
const IPERF3_BYTES_MAX: u64 = 1 << 20;
const ROUNDS: usize = 3;

const SHM_PEERS: [Kind; 3] = [Kind::NixlDefault, Kind::NixlTuned, Kind::Mooncake];
const TCP_PEERS: [Kind; 2] = [Kind::NixlTcp, Kind::Mooncake];

/// Plain writes of one size in one measurement.
fn writes(bytes: u64) -> u64 {
    (LARGE_BYTES / bytes).min(WRITES_MAX)
}

pub fn run(results: &mut Results, peers: &Peers) -> Result<()> {
    let sizes: &[u64] = if results.effort.quick { &QUICK_SIZES } else { &SIZES };
    for fabric in Fabric::BOTH {
        ours(results, fabric, sizes)?;
    }
    let mut plain = Plain::new(LARGE_BYTES)?;
    let points = points(sizes, |bytes| plain.memcpy_repeated(bytes, writes(bytes)))?;
    results.curve(Curve { fabric: "shm".to_owned(), name: "memcpy".to_owned(), points });
    for (fabric, kinds) in [("shm", &SHM_PEERS[..]), ("tcp", &TCP_PEERS[..])] {
        for kind in kinds {
            peer_curves(results, peers, fabric, *kind, sizes);
        }
    }
    let streams: Vec<u64> = sizes.iter().copied().filter(|bytes| *bytes <= IPERF3_BYTES_MAX).collect();
    peer_curve(results, peers, "tcp", Kind::Iperf3, "iperf3, one stream", "stream", &streams);
    Ok(())
}

/// Medians; the first round of each size warms up.
fn points(sizes: &[u64], mut measure: impl FnMut(u64) -> Result<Measurement>) -> Result<Vec<(u64, f64)>> {
    let mut points = Vec::new();
    for bytes in sizes {
        let rounds: Result<Vec<_>> = (0..=ROUNDS).map(|_| measure(*bytes).map(|measured| measured.value)).collect();
        points.push((*bytes, median(&rounds.with_context(|| size_name(*bytes))?[1..])));
    }
    Ok(points)
}

fn ours(results: &mut Results, fabric: Fabric, sizes: &[u64]) -> Result<()> {
    let mut pair = Pair::open(fabric)?;
    let name = fabric.name();
    let plain = points(sizes, |bytes| pair.write_repeated(bytes, writes(bytes)))?;
    results.curve(Curve { fabric: name.to_owned(), name: "dmaplane, WRITE".to_owned(), points: plain });
    let mut scattered = Vec::new();
    for bytes in sizes {
        let blocks = pair.scattered_blocks(*bytes, LARGE_BYTES / bytes)?;
        scattered.extend(points(&[*bytes], |_| pair.write_scattered(&blocks))?);
    }
    results.curve(Curve { fabric: name.to_owned(), name: "dmaplane, WRITE_LIST".to_owned(), points: scattered });
    pair.check()
}

fn peer_curves(results: &mut Results, peers: &Peers, fabric: &str, kind: Kind, sizes: &[u64]) {
    let name = match kind {
        Kind::NixlDefault => "NIXL default",
        Kind::NixlTuned => "NIXL tuned",
        Kind::Mooncake => "Mooncake (tcp)",
        _ => "NIXL",
    };
    peer_curve(results, peers, fabric, kind, &format!("{name}, write"), "write", sizes);
    peer_curve(results, peers, fabric, kind, &format!("{name}, list"), "list", sizes);
}

fn peer_curve(results: &mut Results, peers: &Peers, fabric: &str, kind: Kind, name: &str, key: &str, sizes: &[u64]) {
    let measured = peers
        .start(kind)
        .and_then(|mut process| points(sizes, |bytes| process.measure(&format!("{key}_{bytes}"), "GB/s")));
    match measured {
        Ok(points) => results.curve(Curve { fabric: fabric.to_owned(), name: name.to_owned(), points }),
        Err(error) => results.fail(&format!("the curve of {name} over {fabric}"), &error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_named_as_axes_name_them() {
        assert_eq!([4 << 10, 256 << 10, 1 << 20, 64 << 20].map(size_name), ["4 KiB", "256 KiB", "1 MiB", "64 MiB"]);
    }

    #[test]
    fn every_size_divides_what_is_moved() {
        assert!(SIZES.iter().all(|bytes| LARGE_BYTES.is_multiple_of(*bytes)));
        assert_eq!(writes(64 << 20), 1);
    }
}
