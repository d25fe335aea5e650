//! What a transfer copies: fragments whose both ends are checked, of a range or of lists.

use super::ListMemory;
use super::copies::{Prepared, copy_out, prepared};
use super::crew::Crew;
use crate::fabric::shm::{FragmentSource, Kind};
use crate::memory::{Checksum, Moved, PeerRegion, Region, SLICE_BYTES, Stores, prefetch};
use dmaplane_engine::locate_segment;
use dmaplane_ring::abi::{Errno, IndexPair, MAX_OPERATION_BYTES};
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Fragments between two looks whether to stop: a fragment of one byte costs its two cache misses like any other, and
/// so many of them take about as long as [`SLICE_BYTES`] in one.
pub(super) const FRAGMENTS_MAX: usize = 1024;

/// A list's segments with the memory they lie in, by buffer: the region, and a peer's number for it.
pub(crate) struct LocalSegments {
    pub memory: Arc<ListMemory>,
    pub regions: HashMap<u32, Numbered>,
}

/// A region, and a peer's number for it.
type Numbered = (Arc<Region>, u32);

/// A fragment whose both ends are checked, of [`SLICE_BYTES`] at most.
#[derive(Clone, Copy)]
struct Fragment {
    target: NonNull<u8>,
    source: NonNull<u8>,
    length: usize,
}

/// The fragments of a transfer, all of them, and how to copy them.
pub(super) struct Fragments {
    list: Vec<Fragment>,
    bytes: u64,
    checksum: Checksum,
}

// SAFETY: the pointers are into regions that whoever makes the copy holds, from before it hands them to others until
// after the last of those has left (see `Crew`); the memory is shared, and only copied from and to.
unsafe impl Send for Fragments {}
// SAFETY: as above.
unsafe impl Sync for Fragments {}

impl Fragments {
    pub(super) fn new(checksum: Checksum, capacity: usize) -> Fragments {
        Fragments { list: Vec::with_capacity(capacity), bytes: 0, checksum }
    }

    /// Between a peer's region and ours.
    pub(super) fn of_range(
        target: &Region,
        target_offset: u64,
        source: &PeerRegion,
        source_offset: u64,
        length: u64,
        checksum: Checksum,
        stop: &AtomicBool,
    ) -> Result<Fragments, Errno> {
        let to = target.at(target_offset, length).ok_or(Errno::ERANGE)?;
        let from = source.at(source_offset, length, stop)?;
        let mut fragments = Fragments::new(checksum, (length as usize).div_ceil(SLICE_BYTES));
        fragments.push(to, from, length)?;
        Ok(fragments)
    }

    /// Adds what was checked, in pieces that a revoke may wait for.
    pub(super) fn push(&mut self, target: NonNull<u8>, source: NonNull<u8>, length: u64) -> Result<(), Errno> {
        self.bytes += length;
        if self.bytes > MAX_OPERATION_BYTES {
            return Err(Errno::EMSGSIZE);
        }
        let length = length as usize;
        for offset in (0..length).step_by(SLICE_BYTES) {
            let here = SLICE_BYTES.min(length - offset);
            // SAFETY: within ranges that were checked for all of `length`.
            let (target, source) = unsafe { (target.add(offset), source.add(offset)) };
            self.list.push(Fragment { target, source, length: here });
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a checksum is wanted: one of no bytes if so.
    pub(super) fn checksum(&self) -> Checksum {
        self.checksum
    }

    /// Where the piece that begins with fragment `from` ends: as many fragments as may be copied without a look whether
    /// to stop, bounded in bytes and in number. One at least, unless there is none.
    pub(super) fn piece_end(&self, from: usize) -> usize {
        let most = self.list.len().min(from.saturating_add(FRAGMENTS_MAX));
        let (mut end, mut bytes) = (from, 0);
        while end < most {
            bytes += self.list[end].length;
            if bytes > SLICE_BYTES && end > from {
                break;
            }
            end += 1;
        }
        end
    }

    /// Copies some of them, looking before each piece whether to stop: what was copied, all of them if not stopped.
    ///
    /// # Safety
    /// The regions that they were checked against are held meanwhile.
    pub(super) unsafe fn copy(&self, from: usize, to: usize, stop: &AtomicBool) -> (u64, Checksum) {
        let stores = Stores::of_transfer(self.bytes);
        let mut checksum = self.checksum;
        let (mut bytes, mut from) = (0, from);
        let to = to.min(self.list.len());
        // Acquire: pairs with the release of whoever stops us. Once we report that we have stopped, the memory may be
        // reused; the report goes through the inbox, which orders our writes before it.
        while from < to && !stop.load(Ordering::Acquire) {
            let end = self.piece_end(from).min(to);
            for (index, fragment) in self.list.iter().enumerate().take(end).skip(from) {
                if let Some(next) = self.list.get(index + 1) {
                    // Fragments lie anywhere: the processor cannot guess the next one.
                    prefetch(next.source);
                }
                // SAFETY: both ends were checked, and the caller holds their regions. A peer's mapping never overlaps
                // ours.
                unsafe { checksum.copy(fragment.target, fragment.source, fragment.length, stores) };
                bytes += fragment.length as u64;
            }
            from = end;
        }
        (bytes, checksum)
    }
}

/// Copies a range between a peer's region and ours, in slices.
pub(super) fn copy_range(
    target: &Region,
    target_offset: u64,
    source: &PeerRegion,
    source_offset: u64,
    length: u64,
    checksum: Checksum,
    crew: &Crew<'_>,
) -> Result<Moved, Errno> {
    let stop = crew.stop();
    let fragments = Fragments::of_range(target, target_offset, source, source_offset, length, checksum, stop)?;
    // SAFETY: both regions are borrowed.
    unsafe { crew.copy(fragments) }
}

/// The same on the engine's own thread, for a slice at most of what is ready: too short to be stopped.
pub(super) fn copy_slice(
    target: &Region,
    target_offset: u64,
    source: &PeerRegion,
    source_offset: u64,
    length: u64,
    mut checksum: Checksum,
) -> Result<Moved, Errno> {
    let to = target.at(target_offset, length).ok_or(Errno::ERANGE)?;
    let from = source.at(source_offset, length, &AtomicBool::new(false))?;
    // SAFETY: both ranges were just checked, their regions are borrowed, and a peer's mapping never overlaps ours.
    unsafe { checksum.copy(to, from, length as usize, Stores::Cached) };
    Ok(Moved { bytes: length, checksum: checksum.value() })
}

type PeerRegions = Arc<Mutex<HashMap<u32, Arc<PeerRegion>>>>;

/// Looks a peer's regions up, remembering them for the length of one transfer.
struct Sources<'a> {
    regions: &'a PeerRegions,
    known: HashMap<u32, Arc<PeerRegion>>,
    /// The last one: fragments that follow each other mostly lie in one region.
    last: Option<(u32, Arc<PeerRegion>)>,
}

impl<'a> Sources<'a> {
    fn of(regions: &'a PeerRegions) -> Sources<'a> {
        Sources { regions, known: HashMap::new(), last: None }
    }

    fn at(&mut self, source: &FragmentSource, stop: &AtomicBool) -> Result<NonNull<u8>, Errno> {
        if self.last.as_ref().is_none_or(|(number, _)| *number != source.region) {
            self.last = Some((source.region, self.find(source.region)?));
        }
        let (_, region) = self.last.as_ref().ok_or(Errno::EPROTO)?;
        region.at(source.offset, source.length.into(), stop)
    }

    fn find(&mut self, number: u32) -> Result<Arc<PeerRegion>, Errno> {
        if let Some(region) = self.known.get(&number) {
            return Ok(region.clone());
        }
        let regions = self.regions.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let region = regions.get(&number).cloned().ok_or(Errno::EPROTO)?;
        self.known.insert(number, region.clone());
        Ok(region)
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
        crew: &Crew<'_>,
    ) -> Result<Moved, Errno> {
        let table = copy_out(table, offset, count.checked_mul(FragmentSource::BYTES).ok_or(Errno::ERANGE)?)?;
        let segments = |source: &FragmentSource, _: usize| source.segment;
        self.copy(regions, &table, segments, checksum, crew)
    }

    /// A READ_LIST of ours, whose sources the peer has shown.
    pub(super) fn copy_read(
        &self,
        pairs: &[IndexPair],
        regions: &PeerRegions,
        table: &PeerRegion,
        offset: u64,
        checksum: Checksum,
        crew: &Crew<'_>,
    ) -> Result<Moved, Errno> {
        let table = copy_out(table, offset, pairs.len() as u64 * FragmentSource::BYTES)?;
        self.copy(regions, &table, |_, index| pairs[index].local, checksum, crew)
    }

    /// Copies what a table shows into the segments that are named for each of its rows.
    fn copy(
        &self,
        regions: &PeerRegions,
        table: &[u8],
        segment: impl Fn(&FragmentSource, usize) -> u32,
        checksum: Checksum,
        crew: &Crew<'_>,
    ) -> Result<Moved, Errno> {
        let (rows, _) = table.as_chunks::<{ FragmentSource::BYTES as usize }>();
        let mut sources = Sources::of(regions);
        let mut fragments = Fragments::new(checksum, rows.len());
        for (index, row) in rows.iter().enumerate() {
            let source = FragmentSource::decode(row);
            let target = self.target(segment(&source, index), source.length)?;
            fragments.push(target, sources.at(&source, crew.stop())?, source.length.into())?;
        }
        // SAFETY: `self` holds the regions that are copied to, `sources` those that are copied from.
        unsafe { crew.copy(fragments) }
    }
}
