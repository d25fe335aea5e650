//! For whoever looks on: what a context has, object by object (clause OBS-2), and words for what is in it.

use crate::context::Context;
use crate::types::{GlueRecord, record_kind};
use core::ffi::{c_char, c_int};
use core::ptr::null;
use dmaplane_engine::RecordKind;
use dmaplane_ring::abi::Opcode;

/// The first object of a kind from table index `from` on: 1, and `record` is filled in; 0: there is none; -EAGAIN.
///
/// # Safety
/// `context` is valid; `record` is valid for writes.
// SAFETY: no other symbol has this name: all of the driver's begin with `dmaplane_`, each defined once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_next_record(
    context: *const Context,
    kind: u32,
    from: u32,
    record: *mut GlueRecord,
) -> c_int {
    let Some(kind) = record_kind(kind) else { return 0 };
    // SAFETY: the caller's promise.
    let context = unsafe { &*context };
    match context.with_engine(|core| core.engine.next_record(kind, from)) {
        Ok(Some(found)) => {
            // SAFETY: the caller's promise.
            unsafe { record.write(GlueRecord::from(&found)) };
            1
        }
        Ok(None) => 0,
        Err(errno) => errno.as_result(),
    }
}

/// A word for a kind of record; null: there is no such kind.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub extern "C" fn dmaplane_kind_name(kind: u32) -> *const c_char {
    record_kind(kind).map_or(null(), |kind| kind.name().as_ptr())
}

/// A word for word number `column` of such a record; null: it has no more.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub extern "C" fn dmaplane_column_name(kind: u32, column: u32) -> *const c_char {
    let names = record_kind(kind).map_or(&[][..], RecordKind::columns);
    names.get(column as usize).map_or(null(), |name| name.as_ptr())
}

/// A word for an opcode; null: there is none.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub extern "C" fn dmaplane_opcode_name(opcode: u32) -> *const c_char {
    let opcode = u8::try_from(opcode).ok().and_then(Opcode::from_byte);
    opcode.map_or(null(), |opcode| opcode.name().as_ptr())
}
