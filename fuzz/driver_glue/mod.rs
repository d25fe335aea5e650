//! C's side of a driver's context, for fuzzing its Rust object: every function does what a real one may, by what the
//! input says, on memory that is exactly as long as was asked for.
//!
//! A context's peers are its own: whoever connects finds the listener of the same context.

use dmaplane_engine_object::Context;
use dmaplane_engine_object::lists::{
    dmaplane_list_get, dmaplane_list_locate, dmaplane_list_put, dmaplane_list_record_bytes, dmaplane_list_seal,
};
use dmaplane_engine_object::posts::{
    dmaplane_look_soon, dmaplane_post_connected, dmaplane_post_finished, dmaplane_post_incoming,
    dmaplane_post_local_done, dmaplane_post_transfer_done,
};
use dmaplane_engine_object::types::{
    GlueAlloc, GlueContext, GlueIncoming, GlueOutcome, GluePeerInfo, GluePlace, GluePost, GlueSighting, GlueTarget,
    INCOMING_GONE, INCOMING_MESSAGE, OBJECT_LIST, Setup,
};
use dmaplane_ring::abi::{Errno, Run};
use dmaplane_sim::model::Model;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::{CStr, c_void};
use std::ptr::null_mut;

pub const SETUP: Setup = Setup {
    buffer_bytes: 1 << 30,
    context: [1, 2],
    token_key: [3, 4],
    rings: 4,
    operations: 64,
    buffers: 16,
    lists: 4,
    leases: 8,
    imports: 8,
    peers: 4,
    listeners: 2,
    slots: 4,
    inbound_per_peer: 8,
};

/// Bytes of a buffer that the glue has memory for: what lies beyond is zero.
const BUFFER_BYTES: usize = 4096;
/// Runs of a list that it has memory for.
const RUNS_MAX: u64 = 200;
/// A token, as LEASE_EXPORT writes it.
const TOKEN_BYTES: usize = 80;
/// Connections that wait to be taken, a listener.
const INCOMING_MAX: usize = 32;
/// Something that C has given Rust, and gets back.
pub const THING: *mut c_void = 0x1000 as *mut c_void;

/// What a fuzzer has found for us to do.
#[derive(Default)]
pub struct Input(VecDeque<u8>);

impl Input {
    pub fn new(bytes: &[u8]) -> Input {
        Input(bytes.iter().copied().collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What lies beyond its end is zero.
    pub fn byte(&mut self) -> u8 {
        self.0.pop_front().unwrap_or(0)
    }

    pub fn word(&mut self) -> u64 {
        (0..8).fold(0, |word, _| word << 8 | u64::from(self.byte()))
    }

    /// A number below a bound that is not zero.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }
}

/// Which event ends work that has started.
#[derive(Clone, Copy)]
enum Work {
    /// Its result words.
    Simple(u64, u64),
    Connect,
    /// The end of the connection that it was said at.
    Local(usize),
    /// So many bytes.
    Transfer(u64),
}

/// One end of a connection; its number is that of the pending connection. Number `n`'s other end is `n ^ 1`.
#[derive(Default)]
struct End {
    /// Index and handle, from `adopt` to `drop_peer`.
    peer: Option<(u32, u64)>,
    /// What has come and was not asked for yet.
    queue: VecDeque<([u64; 8], u32)>,
    /// It is over, or is going to be: told, once, when the queue is empty.
    ends: bool,
    told: bool,
}

/// C's side of one context.
#[derive(Default)]
pub struct Side {
    pub input: Input,
    pub now_ns: u64,
    /// All goes well: nothing of the input is taken yet.
    pub tame: bool,
    /// What the client knows: its SQEs, and handles.
    pub model: Model,
    /// Tokens that were exported.
    pub tokens: Vec<Vec<u8>>,
    pub closed: bool,
    /// What lies in the buffers, which the process writes whenever it likes.
    memory: BTreeMap<u32, Vec<u8>>,
    context: Option<*const Context>,
    started: Vec<(u64, Work)>,
    ends: Vec<End>,
    listeners: Vec<(u32, u64)>,
    lists: Vec<(u32, Vec<u64>)>,
    frames: u32,
    /// Something was said that was not what was heard.
    changed: bool,
}

impl Side {
    pub fn for_input(bytes: &[u8]) -> Box<RefCell<Side>> {
        Box::new(RefCell::new(Side { input: Input::new(bytes), ..Side::default() }))
    }

    pub fn set_context(&mut self, context: *const Context) {
        self.context = Some(context);
    }

    /// A byte of the input's that decides over something.
    fn fate(&mut self) -> u8 {
        if self.tame { 0x61 } else { self.input.byte() }
    }

    /// The process writes to its memory.
    pub fn write(&mut self, buffer: u32, offset: u64, bytes: &[u8]) {
        let memory = self.memory.entry(buffer).or_insert_with(|| vec![0; BUFFER_BYTES]);
        let to = memory.get_mut(offset as usize..).unwrap_or(&mut []);
        for (to, from) in to.iter_mut().zip(bytes) {
            *to = *from;
        }
    }

    fn read(&self, buffer: u32, offset: u64) -> impl Iterator<Item = u8> {
        let memory = self.memory.get(&buffer).and_then(|memory| memory.get(offset as usize..));
        memory.unwrap_or(&[]).iter().copied().chain(std::iter::repeat(0))
    }

    /// Starts work, or says at once what came of it.
    fn asked(&mut self, op: u64, outcome: &mut GlueOutcome, word0: u64, word1: u64) {
        let fate = self.fate();
        if fate & 1 == 0 && op != 0 {
            self.start(op, Work::Simple(word0, word1), outcome);
        } else {
            (outcome.result, outcome.word0, outcome.word1) = (result(fate), word0, word1);
        }
    }

    fn start(&mut self, op: u64, work: Work, outcome: &mut GlueOutcome) {
        outcome.started = 1;
        self.started.push((op, work));
    }

    fn records(&mut self, list: u32) -> Option<&mut Vec<u64>> {
        self.lists.iter_mut().find(|(index, _)| *index == list).map(|(_, records)| records)
    }

    /// The connection's end that has this peer's index.
    fn end_of(&self, peer: u32) -> Option<usize> {
        self.ends.iter().position(|end| end.peer.is_some_and(|(index, _)| index == peer) && !end.told)
    }

    /// Something is said to a peer: what is heard, the input may have changed, as no real glue does.
    fn say(&mut self, peer: u32, message: &[u64; 8], frame: u32) -> Option<usize> {
        let from = self.end_of(peer)?;
        if self.ends[from].ends {
            return None;
        }
        let mut message = *message;
        if self.fate() == 0xff {
            let (at, bits) = (self.fate(), u64::from(self.fate()));
            message[usize::from(at & 7)] ^= bits << (at >> 3 & 7) * 8;
            self.changed = true;
        }
        self.ends[from ^ 1].queue.push_back((message, frame));
        self.look();
        Some(from)
    }

    /// A peer's transfer, at once or later.
    fn transfer(&mut self, transfer: u64, of: &GlueTarget, outcome: &mut GlueOutcome) {
        if of.kind == OBJECT_LIST {
            self.locate(of.object);
        }
        let fate = self.fate();
        if fate & 1 == 0 {
            self.start(transfer, Work::Transfer(of.length), outcome);
        } else {
            (outcome.result, outcome.word0, outcome.word1) = (result(fate), of.length, 7);
        }
    }

    fn end(&mut self, end: usize) {
        self.ends[end].ends = true;
        self.ends[end ^ 1].ends = true;
        self.look();
    }

    fn look(&self) {
        let context = self.context.expect("nothing is said before there is a context");
        // SAFETY: the context lives while its glue is called. No `Side` is borrowed by `run_soon`.
        unsafe { dmaplane_look_soon(context) };
    }

    fn next(&mut self) -> Option<GlueIncoming> {
        self.ends.iter_mut().find_map(|end| {
            let (_, peer) = end.peer?;
            if let Some((words, frame)) = end.queue.pop_front() {
                return Some(GlueIncoming { peer, words, kind: INCOMING_MESSAGE, frame, ..GlueIncoming::default() });
            }
            let is_over = end.ends && !std::mem::replace(&mut end.told, end.ends);
            let errno = Errno::ECONNRESET.as_result();
            is_over.then(|| GlueIncoming { peer, kind: INCOMING_GONE, errno, ..GlueIncoming::default() })
        })
    }

    fn has_next(&self) -> bool {
        self.ends.iter().any(|end| end.peer.is_some() && (!end.queue.is_empty() || end.ends && !end.told))
    }

    /// A segment's place, as who copies looks it up.
    fn locate(&mut self, list: u32) {
        let segment = match self.fate() {
            0xff => u32::MAX,
            number => u32::from(number) % 8,
        };
        let Some(records) = self.records(list) else { return };
        let count = records.len() * 8 / dmaplane_list_record_bytes() as usize;
        let mut place = GluePlace::default();
        // SAFETY: so many records were written.
        let _ = unsafe { dmaplane_list_locate(records.as_ptr().cast(), count as u32, segment, &mut place) };
    }
}

/// Success, or one of some errnos, the kernel's own among them.
fn result(fate: u8) -> i32 {
    match fate >> 5 {
        0 => [Errno::ENOMEM, Errno::ERANGE, Errno::EINVAL, Errno::EPROTO][usize::from(fate >> 1 & 3)].as_result(),
        1 => -512,
        2 => i32::MIN,
        _ => 0,
    }
}

/// Success, but for one byte of all.
fn rarely(fate: u8) -> i32 {
    if fate == 0xff { Errno::ENOMEM.as_result() } else { 0 }
}

/// Has one piece of work end that has started: false where none has.
pub fn end_some(side: &RefCell<Side>) -> bool {
    let mut this = side.borrow_mut();
    if this.started.is_empty() {
        return false;
    }
    let context = this.context.expect("it has started something");
    let started = this.started.len();
    let which = usize::from(this.fate()) % started;
    let (op, work) = this.started.swap_remove(which);
    let result = result(this.fate());
    let waiting = this.ends.iter().filter(|end| end.peer.is_none() && !end.ends).count();
    let listener = this.listeners.last().copied();
    let info = GluePeerInfo {
        context: SETUP.context,
        window: if this.tame { SETUP.inbound_per_peer } else { u32::from(this.fate()) % 16 },
        reserved: u32::MAX,
    };
    let pending = this.ends.len() as u32;
    // A request that was sent fails only with its connection (HOST-17).
    let fails = |end: usize| if this.ends[end].ends { result } else { 0 };
    let local = if let Work::Local(end) = work { fails(end) } else { 0 };
    let connected = result == 0 && waiting < INCOMING_MAX && listener.is_some();
    if matches!(work, Work::Connect) && connected {
        this.ends.extend([End::default(), End::default()]);
    }
    drop(this);
    // SAFETY: the context lives while it has work, and the references are valid.
    unsafe {
        match (work, listener) {
            (Work::Simple(word0, word1), _) => dmaplane_post_finished(context, op, result, word0, word1),
            (Work::Connect, Some((_, listener))) if connected => {
                dmaplane_post_incoming(context, listener, pending + 1, &info);
                dmaplane_post_connected(context, op, pending, &info);
            }
            (Work::Connect, _) => dmaplane_post_finished(context, op, Errno::ECONNREFUSED.as_result(), 0, 0),
            (Work::Local(_), _) => dmaplane_post_local_done(context, op, local, 7),
            (Work::Transfer(bytes), _) => dmaplane_post_transfer_done(context, op, result, bytes, 7),
        }
    }
    true
}

fn with<R>(context: *mut GlueContext, act: impl FnOnce(&mut Side) -> R) -> R {
    // SAFETY: the context was made with this pointer, which outlives it. One thread.
    act(&mut unsafe { &*context.cast::<RefCell<Side>>() }.borrow_mut())
}

/// Bytes of Rust's: pointer and length, by value.
#[repr(C)]
pub struct Bytes {
    start: *mut u8,
    length: u64,
}

/// Functions of the glue.
macro_rules! glue {
    ($(fn $name:ident($side:ident $(, $argument:ident: $type:ty)*) $(-> $result:ty)? $body:block)*) => {
        $(
            // SAFETY: no other symbol has this name: all of the driver's begin with `dmaplane_`, each defined once.
            #[unsafe(no_mangle)]
            extern "C" fn $name(context: *mut GlueContext $(, $argument: $type)*) $(-> $result)? {
                with(context, |$side| $body)
            }
        )*
    };
}

/// Comes from within `look`, which has the side: what it would say is found by looking.
// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn dmaplane_glue_run_soon(_context: *mut GlueContext) {}

/// An overflow cannot be; what is no message can where the input has changed one.
// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn dmaplane_glue_bug(context: *mut GlueContext, what: u32) {
    assert_eq!(what, dmaplane_engine_object::glue::BUG_NO_MESSAGE, "an overflow");
    with(context, |side| assert!(side.changed, "the engine does not understand itself"));
}

glue! {
    fn dmaplane_glue_arm_timer(_side, _deadline_ns: u64) {}
    fn dmaplane_glue_wake_client(_side, _ring: u32) {}
    fn dmaplane_glue_closed(side) { assert!(!std::mem::replace(&mut side.closed, true), "closed twice"); }
    fn dmaplane_glue_now_ns(side) -> u64 { side.now_ns }
    fn dmaplane_glue_relax(side) -> u64 {
        side.now_ns += if side.fate() == 0xff { 1 << 23 } else { 0 };
        side.now_ns
    }
    fn dmaplane_glue_is_traced(side) -> i32 { (side.now_ns as i32 >> 10) & 1 }
    fn dmaplane_glue_sighted(_side, sighting: &GlueSighting) {
        // SAFETY: the object's own words, each with its NUL.
        assert!(!unsafe { CStr::from_ptr(sighting.state) }.is_empty());
    }
    fn dmaplane_glue_completed(_side, _ring: u32, _user_data: u64, _res: i32, _flags: u32) {}
    fn dmaplane_glue_began(_side, op: u32) { assert!(op < SETUP.operations); }
    fn dmaplane_glue_ended(_side, op: u32, _opcode: u32) { assert!(op < SETUP.operations); }
    fn dmaplane_glue_counted(_side, _taken: u64, _posted: u64, _failed: u64) {}
    fn dmaplane_glue_alloc(side, op: u64, _buffer: u32, request: &GlueAlloc, outcome: &mut GlueOutcome) {
        side.asked(op, outcome, request.length_bytes.next_multiple_of(4096), u64::from(request.node));
    }
    fn dmaplane_glue_free(side, op: u64, _buffer: u32, outcome: &mut GlueOutcome) { side.asked(op, outcome, 0, 0); }
    fn dmaplane_glue_placement(side, op: u64, _buffer: u32, node: u32, outcome: &mut GlueOutcome) {
        side.asked(op, outcome, 1, node.into());
    }
    fn dmaplane_glue_export(side, op: u64, _buffer: u32, slot: u32, outcome: &mut GlueOutcome) {
        side.asked(op, outcome, slot.into(), 0);
    }
    fn dmaplane_glue_close_slot(_side, slot: u32) { assert!(slot < SETUP.slots); }
    fn dmaplane_glue_sync(side, op: u64, _buffer: u32, end: u32, outcome: &mut GlueOutcome) {
        side.asked(op, outcome, end.into(), 0);
    }
    fn dmaplane_glue_wait_slot(side, op: u64, _slot: u32, outcome: &mut GlueOutcome) { side.asked(op, outcome, 1, 0); }
    fn dmaplane_glue_wait_word(side, op: u64, _buffer: u32, _offset: u64, value: u32, outcome: &mut GlueOutcome) {
        side.asked(op, outcome, value.into(), 0);
    }
    fn dmaplane_glue_cancel_work(_side, _op: u64) {}
    fn dmaplane_glue_read_bytes(side, buffer: u32, offset: u64, to: Bytes) -> i32 {
        // SAFETY: Rust's own bytes, so many.
        let bytes = unsafe { std::slice::from_raw_parts_mut(to.start, to.length as usize) };
        for (to, from) in bytes.iter_mut().zip(side.read(buffer, offset)) {
            *to = from;
        }
        rarely(side.fate())
    }
    fn dmaplane_glue_write_bytes(side, buffer: u32, offset: u64, from: Bytes) -> i32 {
        // SAFETY: Rust's own bytes, so many.
        let bytes = unsafe { std::slice::from_raw_parts(from.start, from.length as usize) };
        side.write(buffer, offset, bytes);
        if bytes.len() == TOKEN_BYTES {
            side.tokens.push(bytes.to_vec());
        }
        0
    }
    fn dmaplane_glue_list_load(
        side, op: u64, list: u32, buffer: u32, offset: u64, runs: u64, outcome: &mut GlueOutcome
    ) {
        if runs > RUNS_MAX {
            outcome.result = Errno::ENOMEM.as_result();
            return;
        }
        let words = dmaplane_list_record_bytes() as usize / 8;
        let mut records = vec![0; words * runs as usize];
        let mut bytes = side.read(buffer, offset);
        for record in records.chunks_exact_mut(words) {
            let run = [(); Run::WORDS].map(|()| u64::from_le_bytes([(); 8].map(|()| bytes.next().unwrap_or(0))));
            // SAFETY: a record's words.
            unsafe { dmaplane_list_put(record.as_mut_ptr().cast(), &Run::from_words(run)) };
        }
        drop(bytes);
        // What a process may have in its memory.
        if side.fate() == 0xff && !records.is_empty() {
            let (at, bits) = (usize::from(side.fate()) % records.len(), side.input.word());
            records[at] ^= bits;
        }
        side.lists.push((list, records));
        side.asked(op, outcome, runs, 0);
    }
    fn dmaplane_glue_list_run(side, list: u32, run: u32, to: &mut Run) -> i32 {
        let words = dmaplane_list_record_bytes() as usize / 8;
        let record = side.records(list).and_then(|records| records.chunks_exact(words).nth(run as usize));
        let Some(record) = record else { return Errno::ENOENT.as_result() };
        // SAFETY: it was written.
        unsafe { dmaplane_list_get(record.as_ptr().cast(), to) };
        0
    }
    fn dmaplane_glue_list_seal(side, list: u32) {
        let records = side.records(list).expect("it was loaded");
        let count = records.len() * 8 / dmaplane_list_record_bytes() as usize;
        // In two slices, as one that is long.
        let first = count / 2;
        let rest = records[first * dmaplane_list_record_bytes() as usize / 8..].as_mut_ptr().cast();
        // SAFETY: so many were written.
        unsafe {
            let next = dmaplane_list_seal(records.as_mut_ptr().cast(), first as u32, 0);
            dmaplane_list_seal(rest, (count - first) as u32, next);
        }
    }
    fn dmaplane_glue_list_drop(side, list: u32) { side.lists.retain(|(index, _)| *index != list); }
    fn dmaplane_glue_connect(
        side, op: u64, _buffer: u32, _offset: u64, _length: u64, outcome: &mut GlueOutcome
    ) {
        if side.fate() == 0xff {
            outcome.result = Errno::ECONNREFUSED.as_result();
        } else {
            side.start(op, Work::Connect, outcome);
        }
    }
    fn dmaplane_glue_adopt(side, pending: u32, index: u32, peer: u64) {
        side.ends[pending as usize].peer = Some((index, peer));
        side.look();
    }
    fn dmaplane_glue_reject(side, pending: u32) { side.end(pending as usize); }
    fn dmaplane_glue_disconnect(side, peer: u32) {
        if let Some(end) = side.end_of(peer) {
            side.end(end);
        }
    }
    fn dmaplane_glue_drop_peer(side, peer: u32) {
        for end in &mut side.ends {
            end.peer = end.peer.filter(|(index, _)| *index != peer);
        }
    }
    fn dmaplane_glue_close_listener(side, listener: u32) { side.listeners.retain(|(index, _)| *index != listener); }
    fn dmaplane_glue_send(side, peer: u32, message: &[u64; 8]) { let _ = side.say(peer, message, 0); }
    fn dmaplane_glue_next(side, incoming: &mut GlueIncoming) -> i32 {
        side.next().map_or(0, |next| {
            *incoming = next;
            1
        })
    }
    fn dmaplane_glue_has_next(side) -> i32 { side.has_next().into() }
    fn dmaplane_glue_post(side, peer: u32, op: u64, request: &[u64; 8], post: &GluePost) -> i32 {
        if post.kind == OBJECT_LIST {
            side.locate(post.object);
        }
        side.frames += 1;
        let frame = side.frames;
        let Some(end) = side.say(peer, request, frame) else { return Errno::ENOTCONN.as_result() };
        let is_later = side.fate() & 1;
        if is_later == 1 {
            side.started.push((op, Work::Local(end)));
        }
        is_later.into()
    }
    fn dmaplane_glue_abandon(_side, _op: u64) {}
    fn dmaplane_glue_copy_in(
        side, transfer: u64, _peer: u32, _frame: u32, target: &GlueTarget, _checksum: bool, outcome: &mut GlueOutcome
    ) {
        side.transfer(transfer, target, outcome);
    }
    fn dmaplane_glue_serve(
        side, transfer: u64, _peer: u32, _frame: u32, source: &GlueTarget, outcome: &mut GlueOutcome
    ) {
        side.transfer(transfer, source, outcome);
    }
    fn dmaplane_glue_stop(_side, _transfer: u64) {}
    fn dmaplane_glue_deliver(side, _peer: u32, _frame: u32, _buffer: u32, _offset: u64, length: u32) -> i32 {
        assert!(length <= 4096);
        rarely(side.fate())
    }
    fn dmaplane_glue_drop_frame(_side, _peer: u32, _frame: u32) {}
    fn dmaplane_glue_put_buffer(_side, buffer: u32, _object: *mut c_void) { assert!(buffer < SETUP.buffers); }
    fn dmaplane_glue_put_slot(_side, slot: u32, _object: *mut c_void) { assert!(slot < SETUP.slots); }
    fn dmaplane_glue_put_listener(side, listener: u32, handle: u64, _object: *mut c_void) {
        side.listeners.push((listener, handle));
    }
    fn dmaplane_glue_hold_buffer(side, _buffer: u32) -> *mut c_void {
        if side.fate() == 0 { null_mut() } else { THING }
    }
    fn dmaplane_glue_take_slot(_side, slot: u32) -> *mut c_void {
        assert!(slot < SETUP.slots);
        THING
    }
}
