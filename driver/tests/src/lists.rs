//! Lists, as tests make them.

use anyhow::{Result, anyhow, ensure};
use dmaplane_device::Mapping;
use dmaplane_ring::abi::{BufferHandle, Run};
use dmaplane_ring::build::ListPrepare;

/// Writes runs to the beginning of a buffer.
pub fn write_runs(mapping: &Mapping, runs: &[Run]) -> Result<()> {
    for (place, run) in runs.iter().enumerate() {
        let bytes: Vec<u8> = run.to_words().into_iter().flat_map(u64::to_le_bytes).collect();
        ensure!(mapping.write(place * bytes.len(), &bytes), "the runs do not fit");
    }
    Ok(())
}

/// So many pages of a buffer in a row.
pub fn run(buffer: BufferHandle, offset_bytes: u64, count: u32) -> Run {
    Run { buffer: buffer.handle().bits(), offset_bytes, stride_bytes: 4096, length_bytes: 4096, count, reserved: 0 }
}

/// Prepares a list of the runs at a buffer's beginning.
pub fn prepare(buffer: BufferHandle, runs: u64) -> Result<ListPrepare> {
    ListPrepare::new(buffer, 0, runs).map_err(|error| anyhow!("{error}"))
}
