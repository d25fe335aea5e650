//! What C calls to set a context up, run it and end it.
//!
//! All functions but those of `posts` want process context, without any lock that a function of the glue takes (see
//! [`glue`](crate::glue)). -EAGAIN from one of them: somebody else runs the engine at this moment; call again after
//! `cond_resched`, and let a poller step aside meanwhile.

use crate::areas::Areas;
use crate::context::Context;
use crate::glue::Glue;
use crate::run::Ran;
use crate::tables::Block;
use crate::types::{GlueContext, GlueUsage, Setup};
use core::ffi::c_void;
use core::ptr::NonNull;
use dmaplane_ring::abi::{ABI_VERSION, Errno, RingLayout};
use dmaplane_ring::atomic::Word;
use dmaplane_ring::queue::{Engine as RingEnds, RingMemory, RingWord};

/// What a call says to C: a number, or a negative errno.
pub(crate) fn as_result(outcome: Result<u32, Errno>) -> i32 {
    match outcome {
        Ok(number) => number as i32,
        Err(errno) => errno.as_result(),
    }
}

/// The version of the ABI that this object speaks. The C glue compares it with its own header when the module is
/// loaded, so that a stale prebuilt object is refused.
// SAFETY: no other symbol has this name: all of the driver's begin with `dmaplane_`, each defined once.
#[unsafe(no_mangle)]
pub extern "C" fn dmaplane_engine_abi_version() -> u32 {
    ABI_VERSION
}

/// Bytes of memory that a context of these limits needs; 0: -EINVAL, a limit is zero or too large.
///
/// # Safety
/// `setup` is valid.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_context_bytes(setup: *const Setup) -> u64 {
    // SAFETY: the caller's promise.
    let setup = unsafe { &*setup };
    if setup.limits().is_none() {
        return 0;
    }
    let mut block = Block::counting();
    let _ = block.room::<Context>(1);
    // SAFETY: nothing is called through it: the context does not come to be.
    let glue = unsafe { Glue::new(core::ptr::null_mut()) };
    let _ = Context::new(setup, glue, &mut block);
    block.taken() as u64
}

/// Makes a context at the start of `memory`; null where the limits are wrong or the memory is too small.
///
/// # Safety
/// `memory` is valid for reads and writes of `bytes` bytes and aligned to a page; nothing else touches it until
/// [`dmaplane_context_destroy`] has succeeded. `setup` is valid. The glue's functions accept `glue` just as long.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_context_init(
    memory: *mut c_void,
    bytes: u64,
    setup: *const Setup,
    glue: *mut GlueContext,
) -> *mut Context {
    let aligned = NonNull::new(memory).filter(|memory| memory.addr().get().is_multiple_of(4096));
    let made = aligned.and_then(|memory| {
        // SAFETY: the caller's promise.
        let (mut block, glue, setup) =
            unsafe { (Block::over(memory.cast(), bytes as usize), Glue::new(glue), &*setup) };
        let place = block.room::<Context>(1)?;
        let context = Context::new(setup, glue, &mut block)?;
        // SAFETY: `room` has given the place out, aligned, and to nobody else.
        unsafe { place.write(context) };
        Some(place)
    });
    made.map_or(core::ptr::null_mut(), NonNull::as_ptr)
}

/// Ends a context that is closed, and wipes its secrets: 0, after which its memory is C's again; -EBUSY before it is
/// closed, or while somebody runs it.
///
/// # Safety
/// `context` is valid, and no other thread is in one of this object's functions with it, or will be: workers flushed,
/// timer cancelled, poller stopped, system calls left.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_context_destroy(context: *mut Context) -> i32 {
    {
        // SAFETY: the caller's promise; the reference ends before the wiping.
        let context = unsafe { &*context };
        if !context.is_closed() || !context.baton.try_take() {
            return Errno::EBUSY.as_result();
        }
    }
    // SAFETY: the caller's promise. Nothing in a context wants dropping.
    unsafe { core::ptr::write_bytes(context.cast::<u8>(), 0, size_of::<Context>()) };
    0
}

/// Bytes of a ring's two areas: 0, or -EINVAL for sizes that no ring has (clause RING-2).
///
/// # Safety
/// `client_bytes` and `engine_bytes` are valid for writes.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_ring_bytes(
    sq_entries: u32,
    cq_entries: u32,
    client_bytes: *mut u64,
    engine_bytes: *mut u64,
) -> i32 {
    let Some(layout) = RingLayout::new(sq_entries, cq_entries) else {
        return Errno::EINVAL.as_result();
    };
    // SAFETY: the caller's promise.
    unsafe {
        client_bytes.write(layout.client_bytes() as u64);
        engine_bytes.write(layout.engine_bytes() as u64);
    }
    0
}

/// Attaches a ring (clause CAL-2): its index; -EINVAL, -ENFILE, -ECANCELED, -EAGAIN.
///
/// # Safety
/// `context` is valid. Both areas are as long as [`dmaplane_ring_bytes`] says, page-aligned, zeroed kernel addresses.
/// They stay mapped until [`dmaplane_detach_ring`] has succeeded or the context is destroyed, and C touches them no
/// more.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_attach_ring(
    context: *const Context,
    client_area: *mut c_void,
    engine_area: *mut c_void,
    sq_entries: u32,
    cq_entries: u32,
) -> i32 {
    let areas = (NonNull::new(client_area), NonNull::new(engine_area), RingLayout::new(sq_entries, cq_entries));
    let (Some(client), Some(engine), Some(layout)) = areas else {
        return Errno::EINVAL.as_result();
    };
    // SAFETY: the caller's promise.
    let (context, areas) = unsafe { (&*context, Areas::new(client.cast(), engine.cast(), layout)) };
    let attached = context.with_engine(|core| {
        let ring = core.engine.attach_ring(cq_entries)?;
        areas.identify();
        let RingEnds { submissions, mut completions } = RingEnds::new(areas);
        completions.write_through(!core.polled);
        core.inlets.attach(ring, submissions);
        core.host.outlets.attach(ring, completions);
        Ok(ring)
    });
    as_result(attached.flatten())
}

/// Ends a ring alone (clause TD-7): 0, after which its areas are C's again; -ENOENT where there is none of this index;
/// -EAGAIN.
///
/// # Safety
/// `context` is valid.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_detach_ring(context: *const Context, ring: u32) -> i32 {
    // SAFETY: the caller's promise.
    let context = unsafe { &*context };
    let detached = context.with_engine(|core| {
        core.engine.detach_ring(&mut core.host, ring);
        core.host.publish(&context.waiters);
        core.host.outlets.detach(ring);
        if core.inlets.detach(ring) { Ok(0) } else { Err(Errno::ENOENT) }
    });
    as_result(detached.flatten())
}

/// How many CQEs of a ring the client has not reaped, by the areas alone: any context, no baton. The client's word for
/// what it has reaped is not believed beyond what a ring holds.
///
/// # Safety
/// Both areas are a ring's, as for [`dmaplane_attach_ring`].
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_ring_ready(
    client_area: *mut c_void,
    engine_area: *mut c_void,
    sq_entries: u32,
    cq_entries: u32,
) -> u32 {
    let areas = (NonNull::new(client_area), NonNull::new(engine_area), RingLayout::new(sq_entries, cq_entries));
    let (Some(client), Some(engine), Some(layout)) = areas else {
        return 0;
    };
    // SAFETY: the caller's promise.
    let areas = unsafe { Areas::new(client.cast(), engine.cast(), layout) };
    // Acquire: pairs with the release in `Producer::publish`; the client that is told finds its CQEs.
    let published = areas.word(RingWord::CqTail).load_acquire();
    published.wrapping_sub(areas.word(RingWord::CqHead).load_relaxed()).min(cq_entries)
}

/// A client begins to wait for CQEs of a ring: from now on `dmaplane_glue_wake_client` is called for each batch,
/// whether its flag is up or not. Look at [`dmaplane_ring_ready`] after this. 0, or -ENOENT.
///
/// # Safety
/// `context` is valid.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_wait_begin(context: *const Context, ring: u32) -> i32 {
    // SAFETY: the caller's promise.
    let context = unsafe { &*context };
    if context.count_waiter(ring, true) { 0 } else { Errno::ENOENT.as_result() }
}

/// It waits no more.
///
/// # Safety
/// `context` is valid; [`dmaplane_wait_begin`] has succeeded.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_wait_end(context: *const Context, ring: u32) {
    // SAFETY: the caller's promise.
    let context = unsafe { &*context };
    context.count_waiter(ring, false);
}

/// Runs the engine, at most `turns` turns, each of which takes some microseconds but for slow calls of the glue: for
/// workers, ENTER and the poller. 0: somebody else runs, and looks again before it stops. 1: nothing was to be done. 2:
/// the turns are used up, and `dmaplane_glue_run_soon` has been called, so that the caller may as well leave. 3:
/// nothing is left to do, but something was.
///
/// # Safety
/// `context` is valid.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_run(context: *const Context, turns: u32) -> i32 {
    // SAFETY: the caller's promise.
    let context = unsafe { &*context };
    match context.run(turns) {
        Ran::Elsewhere => 0,
        Ran::Idle => 1,
        Ran::Used => 2,
        Ran::Worked => 3,
    }
}

/// The poller is about to sleep. 1: it may, until `dmaplane_glue_run_soon` is called, which may have happened already;
/// all flags that make clients ring are up. 0: there is work, or somebody else runs; run, and ask again.
///
/// # Safety
/// `context` is valid.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_prepare_sleep(context: *const Context) -> i32 {
    // SAFETY: the caller's promise.
    let context = unsafe { &*context };
    context.prepare_sleep().into()
}

/// The poller is awake: clients need not ring while it is. Without it, as in a context without poller, they always
/// ring. 1: so it is. 0: somebody else runs; run, and say it again.
///
/// # Safety
/// `context` is valid.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_awake(context: *const Context) -> i32 {
    // SAFETY: the caller's promise.
    let context = unsafe { &*context };
    context.awake().into()
}

/// Begins the context's end (clauses TD-1, TD-3): from any context, more than once. `dmaplane_glue_closed` says when it
/// is over; events must go on being posted and runs being made until then.
///
/// # Safety
/// `context` is valid.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_close(context: *const Context) {
    // SAFETY: the caller's promise.
    let context = unsafe { &*context };
    context.ask_to_close();
}

/// 1: nothing of the context is left with the glue. From any context.
///
/// # Safety
/// `context` is valid.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_is_closed(context: *const Context) -> i32 {
    // SAFETY: the caller's promise.
    let context = unsafe { &*context };
    context.is_closed().into()
}

/// The next deadline when the engine last ran, in `ktime_get_ns`' nanoseconds, `U64_MAX` for none: for the poller's own
/// sleep, and for debugging. From any context. `dmaplane_glue_arm_timer` is told of every change.
///
/// # Safety
/// `context` is valid.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_next_deadline_ns(context: *const Context) -> u64 {
    // SAFETY: the caller's promise.
    let context = unsafe { &*context };
    context.deadline_ns.load_relaxed()
}

/// What is in use, for fdinfo: 0, or -EAGAIN.
///
/// # Safety
/// `context` is valid; `usage` is valid for writes.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmaplane_usage(context: *const Context, usage: *mut GlueUsage) -> i32 {
    // SAFETY: the caller's promise.
    let context = unsafe { &*context };
    let found = context.with_engine(|core| {
        let (used, statistics) = (core.engine.usage(), core.engine.statistics());
        GlueUsage {
            refused: statistics.refused,
            breaches: statistics.breaches,
            operations: used.operations,
            buffers: used.buffers,
            lists: used.lists,
            leases: used.leases,
            imports: used.imports,
            peers: used.peers,
            inbound: used.inbound,
            slots: used.slots,
            listeners: used.listeners,
            awaiting_glue: core.engine.operations_awaiting_host(),
        }
    });
    as_result(found.map(|found| {
        // SAFETY: the caller's promise.
        unsafe { usage.write(found) };
        0
    }))
}
