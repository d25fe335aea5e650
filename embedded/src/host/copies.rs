//! What workers make to be shown to peers, and read of what peers show: bounced ranges, tables of segments.

use crate::fabric::shm::Kind;
use crate::memory::{CopyEnd, PeerRegion, Region, copy_slices};
use dmaplane_engine::AllocRequest;
use dmaplane_ring::abi::{Errno, IndexPair};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What a worker has made ready to be shown to a peer.
pub(crate) struct Prepared {
    pub kind: Kind,
    pub region: Arc<Region>,
    pub offset: u64,
    /// Bytes that the transfer will move.
    pub bytes: u64,
    pub payload: Vec<u8>,
    /// For READ_LIST: where the bytes go.
    pub pairs: Option<Vec<IndexPair>>,
}

/// A copy of a range in sharable memory, for memory that has no descriptor.
pub(super) fn bounce(region: &Region, offset: u64, length: u64, stop: &AtomicBool) -> Result<Prepared, Errno> {
    let source = region.at(offset, length).ok_or(Errno::ERANGE)?;
    let copy = sharable(length)?;
    let target = copy.at(0, length).ok_or(Errno::ERANGE)?;
    // SAFETY: both ranges were just checked, their regions are held, and the copy is of memory that is new.
    match unsafe { copy_slices(target, source, length as usize, stop) } {
        CopyEnd::Whole => {}
        CopyEnd::Stopped(_) => return Err(Errno::EKEYREVOKED),
    }
    Ok(Prepared {
        kind: Kind::Source,
        region: Arc::new(copy),
        offset: 0,
        bytes: length,
        payload: Vec::new(),
        pairs: None,
    })
}

fn sharable(length_bytes: u64) -> Result<Region, Errno> {
    Region::allocate(&AllocRequest::plain(length_bytes))
}

pub(super) fn prepared(
    kind: Kind,
    contents: &[u8],
    bytes: u64,
    pairs: Option<Vec<IndexPair>>,
) -> Result<Prepared, Errno> {
    let region = sharable(contents.len() as u64)?;
    region.write(0, contents)?;
    Ok(Prepared { kind, region: Arc::new(region), offset: 0, bytes, payload: Vec::new(), pairs })
}

/// Copies index pairs out of a buffer, once.
pub(super) fn read_pairs(index: &Region, offset: u64, count: u64) -> Result<Vec<IndexPair>, Errno> {
    let mut bytes = vec![0; count as usize * size_of::<IndexPair>()];
    index.read(offset, &mut bytes)?;
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap_or_default());
    Ok(bytes.chunks_exact(8).map(|pair| IndexPair { local: word(&pair[..4]), remote: word(&pair[4..]) }).collect())
}

/// The remote halves of a READ_LIST's pairs, to be shown to the peer; the pairs stay with us.
pub(super) fn remote_index(index: &Region, offset: u64, count: u64) -> Result<Prepared, Errno> {
    let pairs = read_pairs(index, offset, count)?;
    let bytes: Vec<u8> = pairs.iter().flat_map(|pair| pair.remote.to_le_bytes()).collect();
    prepared(Kind::ListIndex, &bytes, 0, Some(pairs))
}

/// The segment numbers of a peer's READ_LIST, copied once.
pub(super) fn read_remote_index(index: &PeerRegion, offset: u64, count: u64) -> Result<Vec<IndexPair>, Errno> {
    let bytes = copy_out(index, offset, count.checked_mul(4).ok_or(Errno::ERANGE)?)?;
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap_or_default());
    Ok(bytes.chunks_exact(4).map(|number| IndexPair { local: word(number), remote: 0 }).collect())
}

/// Private bytes of a peer's region.
pub(super) fn copy_out(source: &PeerRegion, offset: u64, length: u64) -> Result<Vec<u8>, Errno> {
    let go_on = AtomicBool::new(false);
    let from = source.at(offset, length, &go_on)?;
    let mut bytes = vec![0u8; length as usize];
    let to = NonNull::from(bytes.as_mut_slice()).cast();
    // SAFETY: `from` was checked for that length; the vector is as long and ours.
    unsafe { copy_slices(to, from, length as usize, &go_on) };
    Ok(bytes)
}
