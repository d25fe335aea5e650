//! The driver's Rust object from C's side, under the address sanitizer, which no kernel's reaches: SQEs, what a hostile
//! process writes into its rings, lists, events, calls and peers' messages, in any order. Every table and ring lies in
//! memory that is exactly as long as the object has asked for, and goes when it says that it may.
#![no_main]

#[path = "../driver_glue/mod.rs"]
mod glue;

use dmaplane_engine_object::Context;
use dmaplane_engine_object::calls::{
    dmaplane_add_buffer, dmaplane_add_listener, dmaplane_add_slot, dmaplane_hold_buffer, dmaplane_take_slot,
};
use dmaplane_engine_object::exports::{
    dmaplane_attach_ring, dmaplane_awake, dmaplane_close, dmaplane_context_bytes, dmaplane_context_destroy,
    dmaplane_context_init, dmaplane_detach_ring, dmaplane_is_closed, dmaplane_next_deadline_ns, dmaplane_prepare_sleep,
    dmaplane_ring_bytes, dmaplane_ring_ready, dmaplane_run, dmaplane_usage, dmaplane_wait_begin, dmaplane_wait_end,
};
use dmaplane_engine_object::observe::{
    dmaplane_column_name, dmaplane_kind_name, dmaplane_next_record, dmaplane_opcode_name,
};
use dmaplane_engine_object::types::{GlueRecord, GlueUsage};
use dmaplane_ring::abi::{
    BufferHandle, ClientArea, Cqe, EngineArea, LeaseHandle, ListHandle, ListenerHandle, Opcode, PeerHandle, Rights,
    RingLayout, Run, Sqe,
};
use dmaplane_ring::atomic::Word;
use dmaplane_ring::build::{Accept, Alloc, Connect, CreditGrant, LeaseExport, LeaseGrant, LeaseImport, ListPrepare};
use dmaplane_ring::queue::{Client, MappedRing};
use dmaplane_sim::compose::{MIXES, Surroundings};
use glue::{SETUP, Side, THING, end_some};
use libfuzzer_sys::fuzz_target;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::mem::MaybeUninit;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

unsafe extern "C" {
    fn __asan_poison_memory_region(start: *const c_void, bytes: usize);
}

/// Memory of C's, zeroed, as long as was asked for and no longer.
struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

impl Memory {
    fn new(bytes: usize) -> Memory {
        let layout = Layout::from_size_align(bytes, 4096).expect("a length");
        // SAFETY: the length is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).expect("memory");
        Memory { start, layout }
    }

    /// What lies beyond is nobody's: areas are whole pages.
    fn end_at(self, bytes: usize) -> Memory {
        // SAFETY: within the memory, of which nothing is used yet.
        unsafe { __asan_poison_memory_region(self.start.as_ptr().add(bytes).cast(), self.layout.size() - bytes) };
        self
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// A ring that is attached: its areas go with it.
struct Ring {
    index: u32,
    layout: RingLayout,
    client: Client<Arc<MappedRing<()>>>,
    areas: [Memory; 2],
}

impl Ring {
    fn attach(context: *mut Context, sq_entries: u32, cq_entries: u32) -> Option<Ring> {
        let layout = RingLayout::new(sq_entries, cq_entries).expect("sizes of a ring");
        let mut bytes = [0, 0];
        let [client, engine] = &mut bytes;
        // SAFETY: the references are valid.
        assert_eq!(unsafe { dmaplane_ring_bytes(sq_entries, cq_entries, client, engine) }, 0);
        let ends = [
            ClientArea::ENTRIES + sq_entries as usize * size_of::<Sqe>(),
            EngineArea::ENTRIES + cq_entries as usize * size_of::<Cqe>(),
        ];
        let areas = [0, 1].map(|area| Memory::new(bytes[area] as usize).end_at(ends[area]));
        let [client, engine] = [areas[0].start, areas[1].start];
        // SAFETY: the areas are as long as they have to be, and outlive the ring.
        let index = unsafe {
            let (client, engine) = (client.as_ptr().cast(), engine.as_ptr().cast());
            dmaplane_attach_ring(context, client, engine, sq_entries, cq_entries)
        };
        let index = u32::try_from(index).ok()?;
        // SAFETY: as above.
        let mapped = Arc::new(unsafe { MappedRing::new(client, engine, layout, ()) });
        Some(Ring { index, layout, client: Client::new(mapped), areas })
    }

    /// What any thread of the process may do to what it has mapped.
    fn scribble(&self, word: u64, value: u64) {
        let start = self.areas[0].start.as_ptr();
        // SAFETY: within the area, which is aligned and touched by atomics only.
        let number = |at: usize| unsafe { &*start.add(at).cast::<AtomicU32>() };
        match word & 3 {
            // A little more or less than it was: what is far off is refused at a glance.
            0 | 1 => {
                let number = number(if word & 1 == 0 { ClientArea::SQ_TAIL } else { ClientArea::CQ_HEAD });
                let by = value as i8;
                number.store_relaxed(number.load_relaxed().wrapping_add_signed(by.into()));
            }
            2 => number([ClientArea::FLAGS, ClientArea::SQ_TAIL][(word >> 2) as usize & 1]).store_relaxed(value as u32),
            _ => {
                let words = self.layout.sq_entries as usize * Sqe::WORDS;
                let at = ClientArea::ENTRIES + (word >> 2) as usize % words * 8;
                // SAFETY: as above.
                unsafe { &*start.add(at).cast::<AtomicU64>() }.store_relaxed(value);
            }
        }
    }
}

/// A word of the object's.
fn told(word: *const c_char) -> bool {
    // SAFETY: it is null, or has its NUL.
    !word.is_null() && unsafe { CStr::from_ptr(word) }.to_bytes().is_ascii()
}

fn look_on(context: *mut Context, rings: &[Ring]) {
    assert_eq!((0..256).filter(|opcode| told(dmaplane_opcode_name(*opcode))).count(), Opcode::ALL.len());
    for kind in (0..).take_while(|kind| told(dmaplane_kind_name(*kind))) {
        let columns = (0..).take_while(|column| told(dmaplane_column_name(kind, *column))).count();
        let mut from = 0;
        let mut record = MaybeUninit::<GlueRecord>::uninit();
        // SAFETY: the context lives, and there is room for a record.
        while unsafe { dmaplane_next_record(context, kind, from, record.as_mut_ptr()) } == 1 {
            // SAFETY: it was filled in.
            let record = unsafe { record.assume_init_ref() };
            assert!(told(record.state) && columns <= record.words.len());
            from = record.index + 1;
        }
    }
    let mut usage = GlueUsage::default();
    // SAFETY: the context lives, the reference is valid, and the areas are the rings'.
    unsafe {
        assert_eq!(dmaplane_usage(context, &mut usage), 0);
        let _ = dmaplane_next_deadline_ns(context);
        for ring in rings {
            let [client, engine] = [0, 1].map(|area| ring.areas[area].start.as_ptr().cast());
            let ready = dmaplane_ring_ready(client, engine, ring.layout.sq_entries, ring.layout.cq_entries);
            assert!(ready <= ring.layout.cq_entries);
        }
    }
    assert!(usage.buffers <= SETUP.buffers && usage.operations <= SETUP.operations);
}

/// What a call puts in: its handle.
fn add(add: unsafe extern "C" fn(*const Context, *mut c_void, *mut u64) -> i32, context: *mut Context) -> Option<u64> {
    let mut made = 0;
    // SAFETY: the context lives, and the reference is valid.
    let result = unsafe { add(context, THING, &mut made) };
    (result == 0).then_some(made)
}

fn call(context: *mut Context, side: &RefCell<Side>) {
    let mut this = side.borrow_mut();
    let (which, pick) = (this.input.below(5), this.input.word());
    let seen: Vec<u64> = this.model.handles.keys().copied().collect();
    let handle = seen.get(pick as usize % (seen.len() + 1)).copied().unwrap_or(pick);
    drop(this);
    let (mut made, mut thing) = (0, THING);
    // SAFETY: the context lives, and the references are valid.
    let made = unsafe {
        match which {
            0 => (dmaplane_add_buffer(context, pick % (1 << 30), thing, &mut made) == 0).then_some(made),
            1 => add(dmaplane_add_slot, context),
            2 => add(dmaplane_add_listener, context),
            3 => {
                let _ = dmaplane_hold_buffer(context, handle, &mut thing);
                None
            }
            _ => {
                let _ = dmaplane_take_slot(context, handle, &mut thing);
                None
            }
        }
    };
    assert_eq!(thing, THING, "C gets its own back");
    side.borrow_mut().model.handles.extend(made.map(|made| (made, true)));
}

/// Reaps, and notes the handles that came and those that are over.
fn reap(ring: &mut Ring, side: &RefCell<Side>) -> Vec<Cqe> {
    let (mut cqes, model) = (Vec::new(), &mut side.borrow_mut().model);
    ring.client.completer.reap(u32::MAX, |cqe| cqes.push(cqe));
    for cqe in cqes.iter().filter(|cqe| cqe.res >= 0) {
        // What it says may be what a hostile thread has written.
        let Some(entry) = model.entries.get(cqe.user_data as usize) else { continue };
        let sqe = entry.sqe;
        model.succeeded(&sqe, cqe);
    }
    cqes
}

fn submit(ring: &mut Ring, side: &RefCell<Side>) {
    let mut this = side.borrow_mut();
    let (mix, change) = (MIXES[this.input.below(MIXES.len())], this.input.byte());
    let bytes = [(); 7].map(|()| this.input.byte());
    let (sqe, first) = Surroundings { model: &this.model, tokens: &this.tokens, planes: 1, mix }.compose(bytes);
    for (buffer, offset, bytes) in first {
        this.write(buffer, offset, &bytes);
    }
    let mut words = this.model.submitted(ring.index, sqe).to_words();
    if change >= 0xf0 {
        words[usize::from(change & 7)] ^= this.input.word();
    }
    let _ = ring.client.submitter.push(&Sqe::from_words(words));
}

/// Has one operation done that succeeds.
fn done(context: *mut Context, ring: &mut Ring, side: &RefCell<Side>, sqe: impl Into<Sqe>) -> u64 {
    let sqe = side.borrow_mut().model.submitted(ring.index, sqe.into());
    ring.client.submitter.push(&sqe).expect("there is room");
    let _ = ring.client.submitter.publish();
    for _ in 0..100 {
        // SAFETY: the context lives.
        let _ = unsafe { dmaplane_run(context, 64) };
        let cqes = reap(ring, side);
        if let Some(cqe) = cqes.iter().find(|cqe| cqe.user_data == sqe.user_data) {
            assert!(cqe.res >= 0, "{sqe:?}: {cqe:?}");
            return cqe.word0;
        }
        end_some(side);
    }
    panic!("{sqe:?} does not end");
}

/// Connects the context to itself, and makes one of each thing, so that SQEs have something to name.
fn furnish(context: *mut Context, rings: &mut [Ring], side: &RefCell<Side>) {
    side.borrow_mut().tame = true;
    let [ring, other, ..] = rings else { panic!("two rings") };
    let listener = add(dmaplane_add_listener, context).expect("there was room for one");
    let slot = add(dmaplane_add_slot, context).expect("there was room for one");
    side.borrow_mut().model.handles.extend([(listener, true), (slot, true)]);
    let accept = Accept::new(ListenerHandle::from_bits(listener).expect("its handle")).sqe();
    let accept = side.borrow_mut().model.submitted(other.index, accept);
    other.client.submitter.push(&accept).expect("there is room");
    let _ = other.client.submitter.publish();
    let buffer = |bits| BufferHandle::from_bits(bits).expect("its handle");
    let [first, second] =
        [4096, 1024].map(|bytes| buffer(done(context, ring, side, Alloc::new(bytes).expect("a length").sqe())));
    done(context, ring, side, Connect::new(first, 0, 1).expect("an address").sqe());
    let accepted = reap(other, side);
    let peer = PeerHandle::from_bits(accepted[0].word0).expect("its handle");
    let bits = second.handle().bits();
    let run = Run { buffer: bits, offset_bytes: 512, stride_bytes: 64, length_bytes: 32, count: 4, reserved: 0 };
    let run: Vec<u8> = run.to_words().iter().flat_map(|word| word.to_le_bytes()).collect();
    side.borrow_mut().write(first.handle().index(), 0, &run);
    let list = done(context, ring, side, ListPrepare::new(first, 0, 1).expect("a list"));
    let list = ListHandle::from_bits(list).expect("its handle");
    let leases = [
        done(context, ring, side, LeaseGrant::range(first, 1024, 1024, Rights::KNOWN).expect("a range")),
        done(context, ring, side, LeaseGrant::list(list, Rights::KNOWN)),
    ];
    for lease in leases {
        done(context, ring, side, LeaseExport::new(LeaseHandle::from_bits(lease).expect("its handle"), first, 3072));
        done(context, ring, side, LeaseImport::new(first, 3072, 80).expect("a token"));
    }
    // It ends when all that was granted is used.
    let grant = CreditGrant::new(peer, 4).slots(first, 2048, 64).expect("slots").sqe();
    let grant = side.borrow_mut().model.submitted(ring.index, grant);
    ring.client.submitter.push(&grant).expect("there is room");
    let _ = ring.client.submitter.publish();
    side.borrow_mut().tame = false;
}

fn other(context: *mut Context, rings: &mut Vec<Ring>, which: usize, side: &RefCell<Side>) {
    let action = side.borrow_mut().input.below(64);
    // SAFETY: the context lives in all of them.
    match action {
        0..16 => {
            // Its memory goes at once. What it has in flight keeps its room for a while.
            let ring = rings.swap_remove(which);
            assert_eq!(unsafe { dmaplane_detach_ring(context, ring.index) }, 0);
            drop(ring);
            rings.extend(Ring::attach(context, 8, 16));
        }
        16..24 => rings.extend(Ring::attach(context, 8, 16)),
        24..32 => {
            let _ = unsafe { dmaplane_awake(context) };
        }
        32..40 => {
            let _ = unsafe { dmaplane_prepare_sleep(context) };
        }
        40..50 => {
            let index = rings[which].index;
            assert_eq!(unsafe { dmaplane_wait_begin(context, index) }, 0);
            let _ = unsafe { dmaplane_run(context, 4) };
            unsafe { dmaplane_wait_end(context, index) };
        }
        // Whatever goes on.
        63 => unsafe { dmaplane_close(context) },
        _ => {
            let mut this = side.borrow_mut();
            this.now_ns += 1 << this.input.below(32);
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let side = Side::for_input(bytes);
    // SAFETY: a valid reference.
    let memory = Memory::new(unsafe { dmaplane_context_bytes(&SETUP) } as usize);
    let glue = (&raw const *side).cast_mut().cast();
    // SAFETY: the memory is so long, aligned and ours; the side outlives the context.
    let context =
        unsafe { dmaplane_context_init(memory.start.as_ptr().cast(), memory.layout.size() as u64, &SETUP, glue) };
    assert_ne!(context, null_mut());
    side.borrow_mut().set_context(context);
    let mut rings: Vec<Ring> =
        [(16, 16), (8, 16)].into_iter().filter_map(|(sq, cq)| Ring::attach(context, sq, cq)).collect();
    furnish(context, &mut rings, &side);
    while !side.borrow().input.is_empty() {
        if rings.is_empty() {
            // There is no room yet, or never again.
            side.borrow_mut().input.byte();
            rings.extend(Ring::attach(context, 8, 16));
            end_some(&side);
            let _ = unsafe { dmaplane_run(context, 64) };
            continue;
        }
        let (action, which) = {
            let input = &mut side.borrow_mut().input;
            (input.byte() & 15, input.below(rings.len()))
        };
        // SAFETY: the context lives in all of them.
        match action {
            0..=5 => submit(&mut rings[which], &side),
            6 => {
                let mut this = side.borrow_mut();
                let (word, value) = (this.input.word(), this.input.word());
                rings[which].scribble(word, value);
            }
            7 => {
                let _ = rings[which].client.submitter.publish();
            }
            8 | 9 => {
                let _ = rings[which].client.submitter.publish();
                let turns = 1 + side.borrow_mut().input.below(8) as u32;
                let _ = unsafe { dmaplane_run(context, turns) };
            }
            10 | 11 => drop(end_some(&side)),
            12 => {
                let _ = reap(&mut rings[which], &side);
            }
            13 => call(context, &side),
            14 => look_on(context, &rings),
            _ => other(context, &mut rings, which, &side),
        }
    }
    // It ends whatever there is, once all work has.
    // SAFETY: the context lives until it is destroyed.
    unsafe { dmaplane_close(context) };
    for turn in 0.. {
        let ran = unsafe { dmaplane_run(context, 64) };
        if !end_some(&side) && ran == 1 {
            break;
        }
        assert!(turn < 100_000, "it does not end");
    }
    look_on(context, &rings);
    assert!(side.borrow().closed && unsafe { dmaplane_is_closed(context) } == 1, "something is held for good");
    assert_eq!(unsafe { dmaplane_context_destroy(context) }, 0);
});
