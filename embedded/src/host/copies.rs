//! The copies themselves, as workers do them: ranges, and lists fragment by fragment.

use super::ListMemory;
use super::transfers::Prepared;
use crate::fabric::shm::{FragmentSource, Kind};
use crate::memory::{Checksum, CopyEnd, Moved, PeerRegion, Region, SLICE_BYTES, copy_slices};
use dmaplane_engine::{AllocRequest, locate_segment};
use dmaplane_ring::abi::{Errno, IndexPair, MAX_OPERATION_BYTES};
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A list's segments with the memory they lie in, by buffer: the region, and a peer's number for it.
pub(crate) struct LocalSegments {
    pub memory: Arc<ListMemory>,
    pub regions: HashMap<u32, Numbered>,
}

/// A region, and a peer's number for it.
type Numbered = (Arc<Region>, u32);

/// A fragment whose both ends are checked.
struct Fragment {
    target: NonNull<u8>,
    source: NonNull<u8>,
    length: usize,
}

/// Copies between a peer's region and ours, in slices.
pub(super) fn copy_range(
    target: &Region,
    target_offset: u64,
    source: &PeerRegion,
    source_offset: u64,
    length: u64,
    mut checksum: Checksum,
    stop: &AtomicBool,
) -> Result<Moved, Errno> {
    let to = target.at(target_offset, length).ok_or(Errno::ERANGE)?;
    let from = source.at(source_offset, length, stop)?;
    // SAFETY: both ranges were just checked, their regions are borrowed, and a peer's mapping never overlaps ours.
    match unsafe { copy_slices(to, from, length as usize, stop, &mut checksum) } {
        CopyEnd::Whole => Ok(Moved { bytes: length, checksum: checksum.value() }),
        CopyEnd::Stopped(_) => Err(Errno::EKEYREVOKED),
    }
}

/// A copy of a range in sharable memory, for memory that has no descriptor.
pub(super) fn bounce(region: &Region, offset: u64, length: u64, stop: &AtomicBool) -> Result<Prepared, Errno> {
    let source = region.at(offset, length).ok_or(Errno::ERANGE)?;
    let copy = sharable(length)?;
    let target = copy.at(0, length).ok_or(Errno::ERANGE)?;
    // SAFETY: both ranges were just checked, their regions are held, and the copy is of memory that is new.
    match unsafe { copy_slices(target, source, length as usize, stop, &mut Checksum::new(false)) } {
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
    Region::allocate(&AllocRequest { length_bytes, node: None, strict: false, huge: false })
}

fn prepared(kind: Kind, contents: &[u8], bytes: u64, pairs: Option<Vec<IndexPair>>) -> Result<Prepared, Errno> {
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
fn copy_out(source: &PeerRegion, offset: u64, length: u64) -> Result<Vec<u8>, Errno> {
    let go_on = AtomicBool::new(false);
    let from = source.at(offset, length, &go_on)?;
    let mut bytes = vec![0u8; length as usize];
    let to = NonNull::from(bytes.as_mut_slice()).cast();
    // SAFETY: `from` was checked for that length; the vector is as long and ours.
    unsafe { copy_slices(to, from, length as usize, &go_on, &mut Checksum::new(false)) };
    Ok(bytes)
}

/// The fragments of a transfer, each checked, and all of them.
#[derive(Default)]
struct Fragments {
    list: Vec<Fragment>,
    bytes: u64,
}

impl Fragments {
    fn push(&mut self, target: NonNull<u8>, source: NonNull<u8>, length: u32) -> Result<(), Errno> {
        self.bytes += u64::from(length);
        if self.bytes > MAX_OPERATION_BYTES {
            return Err(Errno::EMSGSIZE);
        }
        self.list.push(Fragment { target, source, length: length as usize });
        Ok(())
    }
}

/// Copies checked fragments, looking now and then whether to stop.
fn copy_fragments(fragments: &[Fragment], mut checksum: Checksum, stop: &AtomicBool) -> Result<Moved, Errno> {
    let mut bytes = 0;
    let mut since_look = SLICE_BYTES;
    for fragment in fragments {
        since_look += fragment.length;
        if since_look >= SLICE_BYTES {
            // Acquire: pairs with the release of whoever stops us.
            if stop.load(Ordering::Acquire) {
                return Err(Errno::EKEYREVOKED);
            }
            since_look = 0;
        }
        // SAFETY: both ends were checked against regions that the caller holds.
        match unsafe { copy_slices(fragment.target, fragment.source, fragment.length, stop, &mut checksum) } {
            CopyEnd::Whole => bytes += fragment.length as u64,
            CopyEnd::Stopped(_) => return Err(Errno::EKEYREVOKED),
        }
    }
    Ok(Moved { bytes, checksum: checksum.value() })
}

type PeerRegions = Arc<Mutex<HashMap<u32, Arc<PeerRegion>>>>;

/// Looks a peer's regions up, remembering them for the length of one transfer.
struct Sources<'a> {
    regions: &'a PeerRegions,
    known: HashMap<u32, Arc<PeerRegion>>,
}

impl Sources<'_> {
    fn at(&mut self, source: &FragmentSource, stop: &AtomicBool) -> Result<NonNull<u8>, Errno> {
        if !self.known.contains_key(&source.region) {
            let regions = self.regions.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let region = regions.get(&source.region).cloned().ok_or(Errno::EPROTO)?;
            self.known.insert(source.region, region);
        }
        self.known[&source.region].at(source.offset, source.length.into(), stop)
    }
}

impl LocalSegments {
    /// Whether a fragment is one of ours: -ERANGE for a segment that the list has not, -EINVAL for another length.
    pub(super) fn piece(&self, segment: u32, length: u32) -> Result<(&Arc<Region>, u64, u32), Errno> {
        let ((region, _), offset, own_length) = self.locate(segment)?;
        if own_length == length { Ok((region, offset, length)) } else { Err(Errno::EINVAL) }
    }

    /// How long a segment is.
    pub(super) fn length(&self, segment: u32) -> Result<u32, Errno> {
        self.locate(segment).map(|(_, _, length)| length)
    }

    /// A segment's region and place.
    fn locate(&self, segment: u32) -> Result<(&Numbered, u64, u32), Errno> {
        let (buffer, offset, length) = locate_segment(&self.memory.shapes, segment).ok_or(Errno::ERANGE)?;
        Ok((self.regions.get(&buffer).ok_or(Errno::ESTALE)?, offset, length))
    }

    fn target(&self, segment: u32, length: u32) -> Result<NonNull<u8>, Errno> {
        let ((region, _), offset, own_length) = self.locate(segment)?;
        // Both sides must mean the same piece: a list of other block sizes is prepared in common fragments.
        if own_length != length {
            return Err(Errno::EINVAL);
        }
        region.at(offset, length.into()).ok_or(Errno::ERANGE)
    }

    /// Tells a peer where each local segment's bytes are.
    pub(super) fn sources(&self, kind: Kind, pairs: &[IndexPair]) -> Result<Prepared, Errno> {
        let mut contents = Vec::with_capacity(pairs.len() * FragmentSource::BYTES as usize);
        let mut bytes = 0;
        for pair in pairs {
            let ((_, region), offset, length) = self.locate(pair.local)?;
            let source = FragmentSource { region: *region, length, offset, segment: pair.remote };
            contents.extend_from_slice(&source.encode());
            bytes += u64::from(length);
        }
        if bytes > MAX_OPERATION_BYTES {
            return Err(Errno::EMSGSIZE);
        }
        prepared(kind, &contents, bytes, None)
    }

    /// A peer's WRITE_LIST: every fragment is checked before the first byte moves.
    pub(super) fn copy_in(
        &self,
        regions: &PeerRegions,
        table: &PeerRegion,
        offset: u64,
        count: u64,
        checksum: Checksum,
        stop: &AtomicBool,
    ) -> Result<Moved, Errno> {
        let table = copy_out(table, offset, count.checked_mul(FragmentSource::BYTES).ok_or(Errno::ERANGE)?)?;
        let mut sources = Sources { regions, known: HashMap::new() };
        let mut fragments = Fragments::default();
        for bytes in table.chunks_exact(FragmentSource::BYTES as usize) {
            let source = FragmentSource::decode(bytes.try_into().map_err(|_| Errno::EPROTO)?);
            fragments.push(self.target(source.segment, source.length)?, sources.at(&source, stop)?, source.length)?;
        }
        copy_fragments(&fragments.list, checksum, stop)
    }

    /// A READ_LIST of ours, whose sources the peer has shown.
    pub(super) fn copy_read(
        &self,
        pairs: &[IndexPair],
        regions: &PeerRegions,
        table: &PeerRegion,
        offset: u64,
        checksum: Checksum,
        stop: &AtomicBool,
    ) -> Result<Moved, Errno> {
        let table = copy_out(table, offset, pairs.len() as u64 * FragmentSource::BYTES)?;
        let mut sources = Sources { regions, known: HashMap::new() };
        let mut fragments = Fragments::default();
        for (pair, bytes) in pairs.iter().zip(table.chunks_exact(FragmentSource::BYTES as usize)) {
            let source = FragmentSource::decode(bytes.try_into().map_err(|_| Errno::EPROTO)?);
            fragments.push(self.target(pair.local, source.length)?, sources.at(&source, stop)?, source.length)?;
        }
        copy_fragments(&fragments.list, checksum, stop)
    }
}
