//! Events: what C tells the engine, from any context, hard interrupts among them, under any lock but those of
//! `dmaplane_glue_run_soon`. None of them waits. Non-maskable interrupts excepted: the kernel's queueing functions,
//! which `run_soon` needs, do not work there.
//!
//! Which event ends which call, and how many may come: clauses HOST-2, HOST-14, HOST-15 and INBOX-4. One that names
//! something that is over is noticed and ignored.

use crate::context::Context;
use crate::types::{GluePeerInfo, clean_result};
use dmaplane_engine::{Event, OpId};
use dmaplane_ring::abi::Handle;

/// Work that a call has started has ended.
///
/// # Safety
/// `context` is valid.
// SAFETY: no other symbol has this name: all of the driver's begin with `dmaplane_`, each defined once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_post_finished(context: *const Context, op: u64, result: i32, word0: u64, word1: u64) {
    let event = Event::Finished { op: OpId::from_bits(op), result: clean_result(result), word0, word1 };
    // SAFETY: the caller's promise.
    unsafe { &*context }.post(&event);
}

/// The glue touches nothing more of ours for a posted operation. `checksum`: CRC-32C of what came in, where the request
/// asked for it; else 0. An error means that no answer of the peer's will come.
///
/// # Safety
/// `context` is valid.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_post_local_done(context: *const Context, op: u64, result: i32, checksum: u32) {
    let event = Event::LocalDone { op: OpId::from_bits(op), result: clean_result(result), checksum };
    // SAFETY: the caller's promise.
    unsafe { &*context }.post(&event);
}

/// A peer's transfer touches nothing of ours any more: 0 or an errno, the bytes moved, and their CRC-32C where the
/// request asked for it.
///
/// # Safety
/// `context` is valid.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_post_transfer_done(
    context: *const Context,
    transfer: u64,
    result: i32,
    bytes: u64,
    checksum: u32,
) {
    let event =
        Event::TransferDone { transfer: OpId::from_bits(transfer), result: clean_result(result), bytes, checksum };
    // SAFETY: the caller's promise.
    unsafe { &*context }.post(&event);
}

/// A CONNECT has reached its peer; the glue keeps the connection as `pending` until it is adopted or rejected.
///
/// # Safety
/// `context` and `info` are valid.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_post_connected(
    context: *const Context,
    op: u64,
    pending: u32,
    info: *const GluePeerInfo,
) {
    // SAFETY: the caller's promise.
    let (context, info) = unsafe { (&*context, &*info) };
    context.post(&Event::Connected { op: OpId::from_bits(op), pending, info: info.into() });
}

/// Somebody connected to a listener, named by its handle; at most 32 such wait, a listener.
///
/// # Safety
/// `context` and `info` are valid.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_post_incoming(
    context: *const Context,
    listener: u64,
    pending: u32,
    info: *const GluePeerInfo,
) {
    // SAFETY: the caller's promise.
    let (context, info) = unsafe { (&*context, &*info) };
    context.post(&Event::Incoming { listener: Handle::from_bits(listener), pending, info: info.into() });
}

/// Something has come that `dmaplane_glue_next` gives.
///
/// # Safety
/// `context` is valid.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_look_soon(context: *const Context) {
    // SAFETY: the caller's promise.
    unsafe { &*context }.look_soon();
}
