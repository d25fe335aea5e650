//! A glue of Rust's, for tests: it notes what it is asked for, and starts what a real one would give to workers.

use dmaplane_engine_object::Context;
use dmaplane_engine_object::exports::{
    dmaplane_attach_ring, dmaplane_context_bytes, dmaplane_context_destroy, dmaplane_context_init, dmaplane_ring_bytes,
    dmaplane_run,
};
use dmaplane_engine_object::types::{
    GlueAlloc, GlueContext, GlueIncoming, GlueOutcome, GluePost, GlueSighting, GlueTarget, Setup,
};
use dmaplane_ring::abi::{RingLayout, Run};
use dmaplane_ring::atomic::Word as _;
use dmaplane_ring::queue::{Client, MappedRing, RingMemory as _, RingWord};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::VecDeque;
use std::ffi::c_void;
use std::ptr::{NonNull, null_mut};
use std::sync::{Condvar, Mutex, MutexGuard};

/// What the glue knows of one context.
#[derive(Default)]
pub struct Noted {
    /// ALLOCs started: the operation and the buffer's index.
    pub allocs: Vec<(u64, u32)>,
    /// Buffers that live here, by index.
    pub buffers: Vec<u32>,
    /// Objects that calls have put in: index and pointer.
    pub objects: Vec<(u32, usize)>,
    /// Clients woken, by ring.
    pub woken: Vec<u32>,
    /// What the timer was last set to.
    pub armed_ns: Option<u64>,
    /// The clock.
    pub now_ns: u64,
    /// A run is due.
    pub due: bool,
    /// How often `closed` came.
    pub closed: u32,
    /// What cannot be.
    pub bugs: Vec<u32>,
    /// What peers have said.
    pub incoming: VecDeque<GlueIncoming>,
    /// Somebody traces.
    pub traced: bool,
    /// Operations that were seen to change: which, its opcode, its state, its result.
    pub sightings: Vec<(u64, u32, String, i32)>,
    /// CQEs that were seen: `user_data` and result.
    pub completions: Vec<(u64, i32)>,
    /// Operations that have begun and not ended.
    pub timed: Vec<u32>,
    /// SQEs taken, CQEs posted, CQEs with an error.
    pub counts: [u64; 3],
    /// The ring whose CQ's tail is noted whenever others are let have the processor.
    pub watched: Option<&'static MappedRing<()>>,
    /// What it was.
    pub tails: Vec<u32>,
}

#[derive(Default)]
pub struct Side {
    noted: Mutex<Noted>,
    due: Condvar,
}

/// A context with its memory.
pub struct Plane {
    side: Box<Side>,
    memory: *mut u8,
    layout: Layout,
    pub context: *mut Context,
}

// SAFETY: a context is made for many threads, and the memory is only freed by the last.
unsafe impl Sync for Plane {}
// SAFETY: as above.
unsafe impl Send for Plane {}

pub const SETUP: Setup = Setup {
    buffer_bytes: 1 << 30,
    context: [1, 2],
    token_key: [3, 4],
    rings: 4,
    operations: 256,
    buffers: 32,
    lists: 4,
    leases: 16,
    imports: 16,
    peers: 4,
    listeners: 2,
    slots: 4,
    inbound_per_peer: 8,
};

impl Plane {
    pub fn new() -> Plane {
        let mut plane = Plane::without_context(&SETUP, 0);
        plane.init(&SETUP).unwrap();
        plane
    }

    /// The memory for a context, so many bytes short.
    pub fn without_context(setup: &Setup, short_bytes: usize) -> Plane {
        // SAFETY: a valid reference.
        let bytes = unsafe { dmaplane_context_bytes(setup) } as usize;
        assert!(bytes > short_bytes, "the set-up is refused");
        let layout = Layout::from_size_align(bytes - short_bytes, 4096).unwrap();
        // SAFETY: the size is not zero.
        let memory = unsafe { alloc_zeroed(layout) };
        Plane { side: Box::default(), memory, layout, context: null_mut() }
    }

    pub fn init(&mut self, setup: &Setup) -> Option<()> {
        let side = (&raw const *self.side).cast_mut().cast();
        // SAFETY: the memory is as long as that, page-aligned and ours; the side lives as long as the context.
        self.context = unsafe { dmaplane_context_init(self.memory.cast(), self.layout.size() as u64, setup, side) };
        (!self.context.is_null()).then_some(())
    }

    pub fn noted(&self) -> MutexGuard<'_, Noted> {
        self.side.noted.lock().unwrap()
    }

    /// 0: somebody else runs; 1: nothing is left to do; 2: there is more.
    pub fn run(&self) -> i32 {
        match self.run_turns() {
            3 => 1,
            ran => ran,
        }
    }

    /// As C sees it: 3 where something was done, too.
    pub fn run_turns(&self) -> i32 {
        // SAFETY: the context lives as long as the plane.
        unsafe { dmaplane_run(self.context, 64) }
    }

    /// Runs whenever the glue asks for it, until the context is closed: what a worker does.
    pub fn work(&self) {
        let mut noted = self.noted();
        while noted.closed == 0 {
            if std::mem::take(&mut noted.due) {
                drop(noted);
                self.run();
                noted = self.noted();
            } else {
                noted = self.side.due.wait(noted).unwrap();
            }
        }
    }

    /// Attaches a ring: its index, and its client. The memory is given to the process.
    pub fn ring(&self, sq_entries: u32, cq_entries: u32) -> Result<(u32, Client<&'static MappedRing<()>>), i32> {
        let (mut client_bytes, mut engine_bytes) = (0, 0);
        // SAFETY: valid references.
        let sizes = unsafe { dmaplane_ring_bytes(sq_entries, cq_entries, &mut client_bytes, &mut engine_bytes) };
        assert_eq!(sizes, 0);
        let area = |bytes: u64| {
            // SAFETY: the size is not zero.
            NonNull::new(unsafe { alloc_zeroed(Layout::from_size_align(bytes as usize, 4096).unwrap()) }).unwrap()
        };
        let (client, engine) = (area(client_bytes), area(engine_bytes));
        let index = loop {
            // SAFETY: the areas are as long as they have to be, page-aligned, zeroed, and never freed.
            let index = unsafe {
                dmaplane_attach_ring(
                    self.context,
                    client.as_ptr().cast(),
                    engine.as_ptr().cast(),
                    sq_entries,
                    cq_entries,
                )
            };
            if index != -11 {
                break index;
            }
        };
        let index = u32::try_from(index).map_err(|_| index)?;
        // SAFETY: as above.
        let ring = unsafe { MappedRing::new(client, engine, RingLayout::new(sq_entries, cq_entries).unwrap(), ()) };
        Ok((index, Client::new(Box::leak(Box::new(ring)))))
    }

    pub fn destroy(&self) -> i32 {
        // SAFETY: tests call this when no other thread is left.
        unsafe { dmaplane_context_destroy(self.context) }
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; nobody is left who uses the context.
        unsafe { dealloc(self.memory, self.layout) };
    }
}

/// The side that a context names.
fn side<'a>(context: *mut GlueContext) -> &'a Side {
    // SAFETY: `Plane::init` has given this pointer.
    unsafe { &*context.cast::<Side>() }
}

fn note<R>(context: *mut GlueContext, note: impl FnOnce(&mut Noted) -> R) -> R {
    note(&mut side(context).noted.lock().unwrap())
}

/// Functions of the glue. SAFETY of the names: all of the driver's begin with `dmaplane_`, each defined once.
macro_rules! glue {
    ($(fn $name:ident($noted:ident $(, $argument:ident: $type:ty)*) $(-> $result:ty)? $body:block)*) => {
        $(
            // SAFETY: as above.
            #[unsafe(no_mangle)]
            extern "C" fn $name(context: *mut GlueContext $(, $argument: $type)*) $(-> $result)? {
                note(context, |$noted| $body)
            }
        )*
    };
}

/// Functions that these tests do not come to.
macro_rules! unused_glue {
    ($($name:ident)*) => {
        $(
            // SAFETY: as above.
            #[unsafe(no_mangle)]
            extern "C" fn $name() {
                eprintln!("{} is not for these tests", stringify!($name));
                std::process::abort();
            }
        )*
    };
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn dmaplane_glue_run_soon(context: *mut GlueContext) {
    note(context, |noted| noted.due = true);
    side(context).due.notify_all();
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn dmaplane_glue_closed(context: *mut GlueContext) {
    note(context, |noted| noted.closed += 1);
    side(context).due.notify_all();
}

glue! {
    fn dmaplane_glue_arm_timer(noted, deadline_ns: u64) { noted.armed_ns = Some(deadline_ns); }
    fn dmaplane_glue_wake_client(noted, ring: u32) { noted.woken.push(ring); }
    fn dmaplane_glue_bug(noted, what: u32) { noted.bugs.push(what); }
    fn dmaplane_glue_now_ns(noted) -> u64 { noted.now_ns }
    fn dmaplane_glue_relax(noted) -> u64 {
        noted.tails.extend(noted.watched.map(|ring| ring.word(RingWord::CqTail).load_acquire()));
        noted.now_ns
    }
    fn dmaplane_glue_is_traced(noted) -> i32 { noted.traced.into() }
    fn dmaplane_glue_sighted(noted, sighting: &GlueSighting) {
        // SAFETY: the object's own words, each with its NUL.
        let state = unsafe { std::ffi::CStr::from_ptr(sighting.state) }.to_str().unwrap().to_owned();
        noted.sightings.push((sighting.op, sighting.opcode, state, sighting.result));
    }
    fn dmaplane_glue_completed(noted, _ring: u32, user_data: u64, res: i32, _flags: u32) {
        noted.completions.push((user_data, res));
    }
    fn dmaplane_glue_began(noted, op: u32) { noted.timed.push(op); }
    fn dmaplane_glue_ended(noted, op: u32, _opcode: u32) { noted.timed.retain(|&index| index != op); }
    fn dmaplane_glue_counted(noted, taken: u64, posted: u64, failed: u64) {
        for (count, more) in noted.counts.iter_mut().zip([taken, posted, failed]) {
            *count += more;
        }
    }
    fn dmaplane_glue_alloc(noted, op: u64, buffer: u32, _request: &GlueAlloc, outcome: &mut GlueOutcome) {
        noted.allocs.push((op, buffer));
        noted.buffers.push(buffer);
        outcome.started = 1;
    }
    fn dmaplane_glue_free(noted, _op: u64, buffer: u32, outcome: &mut GlueOutcome) {
        noted.buffers.retain(|&index| index != buffer);
        outcome.result = 0;
    }
    fn dmaplane_glue_placement(_noted, _op: u64, _buffer: u32, _node: u32, outcome: &mut GlueOutcome) {
        // The kernel's own: ERESTARTSYS.
        outcome.result = -512;
    }
    fn dmaplane_glue_cancel_work(_noted, _op: u64) {}
    fn dmaplane_glue_put_buffer(noted, buffer: u32, object: *mut c_void) {
        noted.buffers.push(buffer);
        noted.objects.push((buffer, object as usize));
    }
    fn dmaplane_glue_put_slot(noted, slot: u32, object: *mut c_void) {
        noted.objects.push((slot, object as usize));
    }
    fn dmaplane_glue_take_slot(noted, slot: u32) -> *mut c_void {
        let at = noted.objects.iter().position(|&(index, _)| index == slot).unwrap();
        noted.objects.remove(at).1 as *mut c_void
    }
    fn dmaplane_glue_hold_buffer(noted, buffer: u32) -> *mut c_void {
        noted.objects.iter().find(|&&(index, _)| index == buffer).map_or(null_mut(), |it| it.1 as *mut c_void)
    }
    fn dmaplane_glue_put_listener(_noted, _listener: u32, _handle: u64, _object: *mut c_void) {}
    fn dmaplane_glue_close_listener(_noted, _listener: u32) {}
    fn dmaplane_glue_close_slot(noted, slot: u32) { noted.objects.retain(|&(index, _)| index != slot); }
    fn dmaplane_glue_list_run(_noted, _list: u32, _run: u32, _to: &mut Run) -> i32 { -2 }
    fn dmaplane_glue_has_next(noted) -> i32 { (!noted.incoming.is_empty()).into() }
    fn dmaplane_glue_next(noted, incoming: &mut GlueIncoming) -> i32 {
        match noted.incoming.pop_front() {
            Some(next) => {
                *incoming = next;
                1
            }
            None => 0,
        }
    }
    fn dmaplane_glue_post(_noted, _peer: u32, _op: u64, _request: &[u64; 8], _post: &GluePost) -> i32 { -107 }
    fn dmaplane_glue_serve(
        _noted, _transfer: u64, _peer: u32, _frame: u32, _source: &GlueTarget, _outcome: &mut GlueOutcome
    ) {}
}

unused_glue! {
    dmaplane_glue_export dmaplane_glue_sync dmaplane_glue_wait_slot dmaplane_glue_wait_word dmaplane_glue_read_bytes
    dmaplane_glue_write_bytes dmaplane_glue_list_load dmaplane_glue_list_seal dmaplane_glue_list_drop
    dmaplane_glue_connect dmaplane_glue_adopt dmaplane_glue_reject dmaplane_glue_disconnect dmaplane_glue_drop_peer
    dmaplane_glue_send dmaplane_glue_abandon dmaplane_glue_copy_in dmaplane_glue_stop dmaplane_glue_deliver
    dmaplane_glue_drop_frame
}
