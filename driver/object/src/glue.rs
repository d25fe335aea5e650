//! What C does for the engine: every function of the glue that Rust calls.
//!
//! Rules for all of them, unless a function says otherwise:
//!
//! - *Who calls*: the holder of the context's baton, so one thread at a time a context, different contexts in parallel.
//! - *Context*: process context (the poller, a worker, a system call), preemptible, interrupts on, no lock of C's held
//!   by Rust. `current` is whoever runs the engine, which says nothing about the context's owner: never use its `mm`,
//!   files, credentials or memcg, but those that were captured when the context was opened.
//! - *No sleeping* (clause HOST-1): spinlocks and `GFP_NOWAIT` at most; work that may sleep or takes long (zeroing,
//!   pinning, registration, name lookup, more than 256 KiB of copying) goes to a worker, and the call says "started".
//! - *No calling back*: none of them calls `dmaplane_run` or one of `calls`, which would wait for the baton that the
//!   caller holds. `dmaplane_post_*` may be called: the event is handled later.
//! - *Lock order*: the baton comes before every lock of the glue. So no lock that a function here takes may be held
//!   around a call of `exports` or `calls`; around `dmaplane_post_*` any lock may be held, but those of `run_soon`.
//! - *Indices* of buffers, lists, slots, peers and listeners are the engine's (clause HOST-3): trusted, below the
//!   limits of the set-up. Nodes, and what lies in buffers, are the user's: `array_index_nospec`.

use crate::types::{GlueAlloc, GlueContext, GlueIncoming, GlueOutcome, GluePost, GlueSighting, GlueTarget};
use core::ffi::c_void;
use core::marker::PhantomData;
use dmaplane_engine::WIRE_WORDS;
use dmaplane_ring::abi::Run;

/// A CQE found no room, which clause RES-1 excludes; it is lost.
pub const BUG_CQ_OVERFLOW: u32 = 1;
/// An event found no room, which clause INBOX-4 excludes; it is lost. More was posted than was started or connected.
pub const BUG_INBOX_OVERFLOW: u32 = 2;
/// What one engine has said is no message to another; it is lost. Both are of this module, so this cannot be.
pub const BUG_NO_MESSAGE: u32 = 3;

/// The way to C's side of one context.
#[derive(Clone, Copy)]
pub(crate) struct Glue(*mut GlueContext);

impl Glue {
    /// # Safety
    /// The functions of the glue accept `context` until [`dmaplane_context_destroy`] has returned.
    ///
    /// [`dmaplane_context_destroy`]: crate::exports::dmaplane_context_destroy
    pub(crate) unsafe fn new(context: *mut GlueContext) -> Glue {
        Glue(context)
    }
}

/// Declares functions of the glue, each with the safe method by which Rust calls it.
macro_rules! glue {
    ($($(#[$doc:meta])* $symbol:ident as $method:ident($($name:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        unsafe extern "C" {
            $($(#[$doc])* fn $symbol(context: *mut GlueContext $(, $name: $type)*) $(-> $result)?;)*
        }

        impl Glue {
            $($(#[$doc])* #[inline] pub(crate) fn $method(self $(, $name: $type)*) $(-> $result)? {
                // SAFETY: `new` has the promise that the glue accepts this context. Arguments are plain numbers,
                // references that are valid for the call, and pointers of C's own handed back to it.
                unsafe { $symbol(self.0 $(, $name)*) }
            })*
        }
    };
}

glue! {
    // Running.

    /// Has `dmaplane_run` called soon, by a worker or the poller; a call while one is due already does nothing.
    ///
    /// *Any context*, hard interrupts among them, by any thread, with whatever locks a poster of events holds:
    /// `queue_work`, or a flag and `wake_up`. It has to be remembered: a poller that is about to sleep must not.
    dmaplane_glue_run_soon as run_soon();
    /// The next deadline is now this (`ktime_get_ns`' clock), `U64_MAX` where there is none: `hrtimer_start` or
    /// `hrtimer_try_to_cancel`. When it has come, `dmaplane_run` has to be called soon. Only while no poller is awake.
    dmaplane_glue_arm_timer as arm_timer(deadline_ns: u64);
    /// There are CQEs in this ring, or it is closed, and its client sleeps: its eventfd, its wait queue. It has to be
    /// remembered until the client looks.
    dmaplane_glue_wake_client as wake_client(ring: u32);
    /// The context is closed: nothing of it is left with the glue. Comes once; the caller is still inside of Rust, so
    /// destroy only after it has left.
    dmaplane_glue_closed as closed();
    /// Something that cannot be is: `WARN_ONCE` with the number. *Any context* for [`BUG_INBOX_OVERFLOW`].
    dmaplane_glue_bug as bug(what: u32);
    /// `ktime_get_ns()`.
    dmaplane_glue_now_ns as now_ns() -> u64;
    /// Others get the processor who wait for it: `cond_resched()`. The time in nanoseconds by a clock that costs
    /// nothing and goes by the kernel's ticks.
    dmaplane_glue_relax as relax() -> u64;

    // For whoever looks on (clauses OBS-1, DEV-15): nothing depends on what C makes of it.

    /// Whether somebody traces this context's operations: asked once a turn.
    dmaplane_glue_is_traced as is_traced() -> i32;
    /// An operation has changed. Only while it is traced.
    dmaplane_glue_sighted as sighted(sighting: &GlueSighting);
    /// A CQE was written: for a tracepoint. Only while it is traced.
    dmaplane_glue_completed as completed(ring: u32, user_data: u64, res: i32, flags: u32);
    /// Operation number `op` has a place in the table from now on, and is timed.
    dmaplane_glue_began as began(op: u32);
    /// It has ended.
    dmaplane_glue_ended as ended(op: u32, opcode: u32);
    /// SQEs taken, CQEs posted, and those of them with an error, since the last call.
    dmaplane_glue_counted as counted(taken: u64, posted: u64, failed: u64);

    // Buffers and descriptor slots (clauses HOST-6 to HOST-12).

    /// Makes buffer `buffer`, zeroed, charged to the context's owner. `word0` is its length after rounding. A worker's
    /// work but for recycled memory of the same owner.
    dmaplane_glue_alloc as alloc(op: u64, buffer: u32, request: &GlueAlloc, outcome: &mut GlueOutcome);
    /// Ends a buffer that nothing uses; mappings and exports keep its memory. `op` 0: no event follows, and the outcome
    /// is not looked at.
    dmaplane_glue_free as free(op: u64, buffer: u32, outcome: &mut GlueOutcome);
    /// Looks page by page: `word0` pages of `word1` lie on `node`, which is the user's number, unchecked.
    dmaplane_glue_placement as placement(op: u64, buffer: u32, node: u32, outcome: &mut GlueOutcome);
    /// Makes a dma-buf of a buffer in slot `slot`.
    dmaplane_glue_export as export(op: u64, buffer: u32, slot: u32, outcome: &mut GlueOutcome);
    /// Ends a descriptor slot. `fput` does not sleep.
    dmaplane_glue_close_slot as close_slot(slot: u32);
    /// Begins (`end` 0) or ends CPU access.
    dmaplane_glue_sync as sync(op: u64, buffer: u32, end: u32, outcome: &mut GlueOutcome);
    /// Waits for a descriptor slot, and takes its count into `word0`.
    dmaplane_glue_wait_slot as wait_slot(op: u64, slot: u32, outcome: &mut GlueOutcome);
    /// Waits until a 32-bit word of a buffer is at least `value` (clause CTL-8); its offset is checked.
    dmaplane_glue_wait_word as wait_word(op: u64, buffer: u32, offset: u64, value: u32, outcome: &mut GlueOutcome);
    /// Ends work that a call has started, if it can be ended; its event comes either way. May come late, and twice.
    dmaplane_glue_cancel_work as cancel_work(op: u64);
    /// Copies at most 512 bytes out of a buffer, once: 0 or a negative errno. The range is checked. `to` is Rust's.
    dmaplane_glue_read_bytes as read_bytes(buffer: u32, offset: u64, to: GlueBytesMut<'_>) -> i32;
    /// Copies at most 512 bytes into a buffer: 0 or a negative errno. The range is checked.
    dmaplane_glue_write_bytes as write_bytes(buffer: u32, offset: u64, from: GlueBytes<'_>) -> i32;

    // Lists (clause HOST-13); their records are written and read by `lists`.

    /// Copies `runs` runs out of a buffer, once, into memory of list `list`. Also when that fails, `list_drop` follows.
    dmaplane_glue_list_load as list_load(
        op: u64, list: u32, buffer: u32, offset: u64, runs: u64, outcome: &mut GlueOutcome
    );
    /// Gives one of the runs loaded, the same each time: 0, or a negative errno where there is no such run.
    dmaplane_glue_list_run as list_run(list: u32, run: u32, to: &mut Run) -> i32;
    /// All runs are checked: `dmaplane_list_seal`. Sealing 2^20 runs takes milliseconds: in slices, or by a worker that
    /// the list's first use waits for.
    dmaplane_glue_list_seal as list_seal(list: u32);
    /// Ends a list, loaded or not, sealed or not; transfers that still look segments up keep their own hold.
    dmaplane_glue_list_drop as list_drop(list: u32);

    // Connections (clauses HOST-14 to HOST-16).

    /// Connects to the address that lies in a buffer. Ends with `dmaplane_post_connected`, or `..._finished` and an
    /// errno.
    dmaplane_glue_connect as connect(op: u64, buffer: u32, offset: u64, length: u64, outcome: &mut GlueOutcome);
    /// Makes pending connection `pending` peer number `index`, whose handle is `peer`; its messages may come from now
    /// on.
    dmaplane_glue_adopt as adopt(pending: u32, index: u32, peer: u64);
    /// Ends a pending connection.
    dmaplane_glue_reject as reject(pending: u32);
    /// Ends a connection; that the peer is gone follows by `next`, once. A second call does nothing.
    dmaplane_glue_disconnect as disconnect(peer: u32);
    /// The engine has forgotten the peer; its index may be used again.
    dmaplane_glue_drop_peer as drop_peer(peer: u32);
    /// Ends a listener.
    dmaplane_glue_close_listener as close_listener(listener: u32);
    /// Sends the 64 bytes of a message, in order, without loss while the connection lives.
    dmaplane_glue_send as send(peer: u32, message: &[u64; WIRE_WORDS]);
    /// The next thing that some peer has said, or that one is gone: not 0, and `incoming` is filled in; 0: nothing. Of
    /// one peer in order; of several in turn. Where something comes, `dmaplane_look_soon` is called after it is there.
    dmaplane_glue_next as next(incoming: &mut GlueIncoming) -> i32;
    /// Whether `next` would have something.
    dmaplane_glue_has_next as has_next() -> i32;

    // Transfers (clauses HOST-17 to HOST-20).

    /// Sends a request with what it touches here: 0 when the glue touches our memory no more, 1 when a
    /// `dmaplane_post_local_done` follows, a negative errno when the peer will never hear of it.
    dmaplane_glue_post as post(peer: u32, op: u64, request: &[u64; WIRE_WORDS], post: &GluePost) -> i32;
    /// Stops touching our memory for a posted operation; its `dmaplane_post_local_done` comes, once.
    dmaplane_glue_abandon as abandon(op: u64);
    /// Brings a peer's bytes in. `word0` is the bytes moved; with `checksum`, `word1` their CRC-32C. The glue looks
    /// between slices whether `stop` was called.
    dmaplane_glue_copy_in as copy_in(
        transfer: u64, peer: u32, frame: u32, target: &GlueTarget, checksum: bool, outcome: &mut GlueOutcome
    );
    /// Gives our bytes to a peer. `word0` is the bytes moved.
    dmaplane_glue_serve as serve(
        transfer: u64, peer: u32, frame: u32, source: &GlueTarget, outcome: &mut GlueOutcome
    );
    /// Stops a transfer; its `dmaplane_post_transfer_done` comes, once.
    dmaplane_glue_stop as stop(transfer: u64);
    /// Copies what travelled with a message into a buffer, at most 4,096 bytes: 0 or a negative errno. The buffer's
    /// range is checked; that so many bytes travelled is the glue's to check.
    dmaplane_glue_deliver as deliver(peer: u32, frame: u32, buffer: u32, offset: u64, length: u32) -> i32;
    /// What travelled with a message is needed no more. Frame 0 is "nothing".
    dmaplane_glue_drop_frame as drop_frame(peer: u32, frame: u32);

    // Objects that `calls` let in and out. `object` is what C gave to that call, `current` is its caller.

    /// Puts what C gave to `dmaplane_add_buffer` under this index.
    dmaplane_glue_put_buffer as put_buffer(buffer: u32, object: *mut c_void);
    /// Puts what C gave to `dmaplane_add_slot` under this index.
    dmaplane_glue_put_slot as put_slot(slot: u32, object: *mut c_void);
    /// Puts what C gave to `dmaplane_add_listener` under this index. `handle` is what `dmaplane_post_incoming` names.
    dmaplane_glue_put_listener as put_listener(listener: u32, handle: u64, object: *mut c_void);
    /// Takes a reference to a buffer's memory, for `dmaplane_hold_buffer`; null where it cannot be mapped.
    dmaplane_glue_hold_buffer as hold_buffer(buffer: u32) -> *mut c_void;
    /// Takes what is in a slot out of it, for `dmaplane_take_slot`; the index is Rust's again.
    dmaplane_glue_take_slot as take_slot(slot: u32) -> *mut c_void;
}

/// Bytes of Rust's that C reads: pointer and length, passed by value.
#[repr(C)]
pub(crate) struct GlueBytes<'a> {
    start: *const u8,
    length: u64,
    bytes: PhantomData<&'a [u8]>,
}

impl<'a> From<&'a [u8]> for GlueBytes<'a> {
    fn from(bytes: &'a [u8]) -> GlueBytes<'a> {
        GlueBytes { start: bytes.as_ptr(), length: bytes.len() as u64, bytes: PhantomData }
    }
}

/// Bytes of Rust's that C writes: pointer and length, passed by value.
#[repr(C)]
pub(crate) struct GlueBytesMut<'a> {
    start: *mut u8,
    length: u64,
    bytes: PhantomData<&'a mut [u8]>,
}

impl<'a> From<&'a mut [u8]> for GlueBytesMut<'a> {
    fn from(bytes: &'a mut [u8]) -> GlueBytesMut<'a> {
        GlueBytesMut { start: bytes.as_mut_ptr(), length: bytes.len() as u64, bytes: PhantomData }
    }
}
