//! Objects that enter and leave by a system call (clauses CAL-3 to CAL-5). Rules and -EAGAIN:
//! [`exports`](crate::exports).
//!
//! Who holds the baton tells C the index, and C puts its object there or takes it, before anything else can happen to
//! it. Handles are the user's numbers; the engine looks them up.

use crate::context::Context;
use crate::exports::as_result;
use core::ffi::c_void;
use dmaplane_ring::abi::{Errno, Handle};

/// Makes memory that C has pinned or imported a buffer: 0 and its handle, once `dmaplane_glue_put_buffer` has put
/// `object` in its place; -ENFILE, -ECANCELED, -EAGAIN.
///
/// # Safety
/// `context` is valid; `handle` is valid for writes.
// SAFETY: no other symbol has this name: all of the driver's begin with `dmaplane_`, each defined once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_add_buffer(
    context: *const Context,
    length_bytes: u64,
    object: *mut c_void,
    handle: *mut u64,
) -> i32 {
    // SAFETY: the caller's promise.
    let context = unsafe { &*context };
    let added = context.with_engine(|core| {
        let added = core.engine.add_buffer(length_bytes)?;
        core.host.glue.put_buffer(added.index(), object);
        Ok(added)
    });
    // SAFETY: the caller's promise.
    unsafe { hand_out(added.flatten(), handle) }
}

/// Puts a descriptor into a slot: 0 and its handle, once `dmaplane_glue_put_slot` has put `object` there; -ENFILE,
/// -ECANCELED, -EAGAIN.
///
/// # Safety
/// `context` is valid; `handle` is valid for writes.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_add_slot(context: *const Context, object: *mut c_void, handle: *mut u64) -> i32 {
    // SAFETY: the caller's promise.
    let context = unsafe { &*context };
    let added = context.with_engine(|core| {
        let added = core.engine.add_slot()?;
        core.host.glue.put_slot(added.index(), object);
        Ok(added)
    });
    // SAFETY: the caller's promise.
    unsafe { hand_out(added.flatten(), handle) }
}

/// Puts a listener in: 0 and its handle, once `dmaplane_glue_put_listener` has put `object` there; -ENFILE, -ECANCELED,
/// -EAGAIN.
///
/// # Safety
/// `context` is valid; `handle` is valid for writes.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_add_listener(context: *const Context, object: *mut c_void, handle: *mut u64) -> i32 {
    // SAFETY: the caller's promise.
    let context = unsafe { &*context };
    let added = context.with_engine(|core| {
        let added = core.engine.add_listener()?;
        core.host.glue.put_listener(added.index(), added.bits(), object);
        Ok(added)
    });
    // SAFETY: the caller's promise.
    unsafe { hand_out(added.flatten(), handle) }
}

/// Takes a reference to a live buffer's memory, for mmap: 0 and what `dmaplane_glue_hold_buffer` gave; -EBADF, -ESTALE,
/// -EOPNOTSUPP where that was null, -EAGAIN.
///
/// # Safety
/// `context` is valid; `object` is valid for writes.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_hold_buffer(context: *const Context, buffer: u64, object: *mut *mut c_void) -> i32 {
    // SAFETY: the caller's promise.
    let context = unsafe { &*context };
    let held = context.with_engine(|core| {
        let index = core.engine.buffer_index(Handle::from_bits(buffer))?;
        let held = core.host.glue.hold_buffer(index);
        if held.is_null() { Err(Errno::EOPNOTSUPP) } else { Ok(held) }
    });
    as_result(held.flatten().map(|held| {
        // SAFETY: the caller's promise.
        unsafe { object.write(held) };
        0
    }))
}

/// Takes what an EXPORT_DMABUF or `dmaplane_add_slot` put into a slot out of it, which ends the slot: 0 and what
/// `dmaplane_glue_take_slot` gave; -EBADF, -ESTALE, -EBUSY, -EAGAIN. C makes room in the descriptor table before.
///
/// # Safety
/// `context` is valid; `object` is valid for writes.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_take_slot(context: *const Context, slot: u64, object: *mut *mut c_void) -> i32 {
    // SAFETY: the caller's promise.
    let context = unsafe { &*context };
    let taken = context.with_engine(|core| {
        let index = core.engine.remove_slot(Handle::from_bits(slot))?;
        Ok(core.host.glue.take_slot(index))
    });
    as_result(taken.flatten().map(|taken| {
        // SAFETY: the caller's promise.
        unsafe { object.write(taken) };
        0
    }))
}

/// # Safety
/// `to` is valid for writes.
unsafe fn hand_out(added: Result<Handle, Errno>, to: *mut u64) -> i32 {
    as_result(added.map(|handle| {
        // SAFETY: the caller's promise.
        unsafe { to.write(handle.bits()) };
        0
    }))
}
