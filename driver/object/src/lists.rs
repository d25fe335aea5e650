//! A list's records: C keeps the memory, the engine's own code says where a segment lies (clauses LST-3, LST-5,
//! HOST-13).
//!
//! A record is opaque to C. They are written while the list is loaded, numbered once when it is sealed, and only read
//! from then on, by any number of threads. None of these functions knows a context or waits: any context will do.

use crate::types::GluePlace;
use dmaplane_engine::{ListShape, locate_segment};
use dmaplane_ring::abi::{Errno, Run};

/// Bytes of one record; aligned to 8.
// SAFETY: no other symbol has this name: all of the driver's begin with `dmaplane_`, each defined once.
#[unsafe(no_mangle)]
pub extern "C" fn dmaplane_list_record_bytes() -> u64 {
    size_of::<ListShape>() as u64
}

/// Writes a record: the run as it was copied out of the user's buffer, unchecked.
///
/// # Safety
/// `record` is valid for writes; `run` is C's private copy.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_list_put(record: *mut ListShape, run: *const Run) {
    // SAFETY: the caller's promise.
    unsafe { record.write(ListShape { first_segment: 0, run: *run }) };
}

/// Reads a record back: for `dmaplane_glue_list_run`.
///
/// # Safety
/// `record` was written; `run` is valid for writes.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_list_get(record: *const ListShape, run: *mut Run) {
    // SAFETY: the caller's promise.
    unsafe { run.write((*record).run) };
}

/// Numbers the segments of `count` records, the first of which begins with segment `first`: the number for the next
/// slice. The runs are checked.
///
/// # Safety
/// `records` points to `count` records that were written, and that nobody else reads or writes meanwhile.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_list_seal(records: *mut ListShape, count: u32, first: u32) -> u32 {
    // SAFETY: the caller's promise.
    let records = unsafe { core::slice::from_raw_parts_mut(records, count as usize) };
    let mut next = first;
    for record in records {
        record.first_segment = next;
        next = next.wrapping_add(record.run.count);
    }
    next
}

/// Where segment `segment`, which is a user's or a peer's number, lies: 0, or -ERANGE where there is no such segment.
///
/// # Safety
/// `records` points to the `count` records of a sealed list; `place` is valid for writes.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_list_locate(
    records: *const ListShape,
    count: u32,
    segment: u32,
    place: *mut GluePlace,
) -> i32 {
    // SAFETY: the caller's promise.
    let records = unsafe { core::slice::from_raw_parts(records, count as usize) };
    let Some((buffer, offset, length_bytes)) = locate_segment(records, segment) else {
        return Errno::ERANGE.as_result();
    };
    // SAFETY: the caller's promise.
    unsafe { place.write(GluePlace { offset, buffer, length_bytes }) };
    0
}
