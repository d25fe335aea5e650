//! What the engine asks of the embedded host.
//!
//! The baton's holder calls everything here; slow work goes to the workers, who report by [`Event`]s (to the engine)
//! and [`Note`]s (to the host, where the engine need not know).

mod buffers;
mod copies;
mod crew;
mod fragments;
mod lane;
mod lists;
mod notes;
mod peers;
mod reads;
mod recycled;
mod requests;
mod serving;
mod tcp;
mod transfers;

use crate::config::Config;
use crate::fabric::frames::Frames;
use crate::memory::{Checksum, Region};
use crate::runner::Shared;
use crate::storage::Heap;
use dmaplane_engine::{
    AllocRequest, Engine, Event, Host, ListShape, LocalPart, Message, OpId, Outcome, Post, Request, Target,
};
use dmaplane_ring::abi::{Cqe, Errno, Handle, Run};
use dmaplane_ring::queue::{Completions, HeapRing, RingMemory, RingWord};
use dmaplane_ring::wait::{Sharing, wake_all};
use notes::split;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};

pub(crate) use notes::Note;
pub(crate) use peers::PeerSlot;

/// A list's runs with their segment numbers, which never change.
pub(crate) struct ListMemory {
    shapes: Vec<ListShape>,
    /// Distinct buffers, in order of index.
    buffers: Vec<u32>,
}

struct RingEnd {
    completions: Completions<Arc<HeapRing>>,
    /// Rung beside the futex, for a client that waits for other descriptors as well.
    eventfd: Option<Arc<OwnedFd>>,
    dirty: bool,
    /// Room in the CQ when the engine last asked.
    free_seen: u32,
}

impl RingEnd {
    #[inline]
    fn flush(&mut self) {
        if std::mem::take(&mut self.dirty) && self.completions.publish() {
            self.wake();
        }
    }

    fn wake(&self) {
        wake_all(self.completions.memory().word(RingWord::CqTail), Sharing::Private);
        if let Some(eventfd) = &self.eventfd {
            // It does not block; one that is full is readable as it is.
            let _ = rustix::io::write(eventfd, &1u64.to_ne_bytes());
        }
    }
}

/// A WAIT on a word.
struct WordWait {
    op: OpId,
    region: Arc<Region>,
    offset: u64,
    value: u32,
}

/// The host of one context.
pub(crate) struct EmbeddedHost {
    shared: Weak<Shared>,
    rings: Vec<Option<RingEnd>>,
    /// By buffer index; `None` while the buffer is being made.
    regions: Vec<Option<Arc<Region>>>,
    recycled: recycled::Recycled,
    /// By list index. Shared with the workers that resolve segments.
    lists: Vec<Option<Arc<ListMemory>>>,
    peers: Vec<Option<PeerSlot>>,
    links: peers::BusyLinks,
    listeners: HashMap<u32, OwnedFd>,
    descriptors: HashMap<u32, OwnedFd>,
    frames: Frames,
    words: Vec<WordWait>,
    /// Copies of peers' transfers, by transfer.
    running: HashMap<u64, Arc<lane::Job>>,
    /// The same for READs of ours, by operation: the two are numbered independently.
    reading: HashMap<u64, reads::Reading>,
    /// READs and READ_LISTs that wait for the peer to say where the bytes are, by operation.
    reads: HashMap<u64, reads::ReadPost>,
    /// READs of shm peers whose bytes are not all here, by operation: their peer cannot say yet that they went well.
    unread: HashMap<u64, Handle>,
    /// READs of peers that we serve, by transfer.
    serving: HashMap<u64, serving::Serving>,
    /// Lists that the workers have loaded and the host has not taken yet.
    scratch: HashMap<u64, requests::Scratch>,
    /// What goes over tcp.
    tcp: tcp::TcpHost,
    /// CONNECTs under way, told to stop by their flag.
    connecting: HashMap<u64, Weak<AtomicBool>>,
    /// WAITs on descriptors, told to stop by their flag.
    descriptor_waits: HashMap<u64, Arc<AtomicBool>>,
}

impl EmbeddedHost {
    pub(crate) fn new(shared: Weak<Shared>, config: &Config) -> EmbeddedHost {
        EmbeddedHost {
            shared,
            rings: Vec::new(),
            regions: Vec::new(),
            recycled: recycled::Recycled::new(config.recycled_bytes),
            lists: Vec::new(),
            peers: Vec::new(),
            links: peers::BusyLinks::NEW,
            listeners: HashMap::new(),
            descriptors: HashMap::new(),
            frames: Frames::default(),
            words: Vec::new(),
            running: HashMap::new(),
            reading: HashMap::new(),
            tcp: tcp::TcpHost::default(),
            reads: HashMap::new(),
            unread: HashMap::new(),
            serving: HashMap::new(),
            scratch: HashMap::new(),
            connecting: HashMap::new(),
            descriptor_waits: HashMap::new(),
        }
    }

    pub(crate) fn add_ring(&mut self, index: u32, completions: Completions<Arc<HeapRing>>) {
        let index = index as usize;
        if self.rings.len() <= index {
            self.rings.resize_with(index + 1, || None);
        }
        self.rings[index] = Some(RingEnd { completions, eventfd: None, dirty: false, free_seen: 0 });
    }

    /// Has a ring's client woken through an eventfd, too.
    pub(crate) fn set_eventfd(&mut self, index: u32, eventfd: Arc<OwnedFd>) {
        if let Some(Some(ring)) = self.rings.get_mut(index as usize) {
            ring.eventfd = Some(eventfd);
        }
    }

    pub(crate) fn drop_ring(&mut self, index: u32) {
        if let Some(mut ring) = self.rings[index as usize].take() {
            // Its client may still look at what it has not reaped.
            ring.flush();
        }
    }

    /// Whether the client has not reaped since the engine last looked.
    pub(crate) fn cq_unchanged(&mut self, index: u32) -> bool {
        match self.rings.get_mut(index as usize) {
            Some(Some(ring)) => ring.completions.free() == ring.free_seen,
            _ => true,
        }
    }

    /// Wakes clients that sleep on their CQs; `false` when none did. After closing: CLOSED does not change the word
    /// that they sleep on, so that one wake-up may come before the sleep (clause RING-9).
    pub(crate) fn wake_clients(&self) -> bool {
        let mut sleeping = false;
        for ring in self.rings.iter().flatten().filter(|ring| ring.completions.client_sleeps()) {
            ring.wake();
            // What an eventfd has heard stays: once is enough.
            sleeping |= ring.eventfd.is_none();
        }
        sleeping
    }

    /// Publishes a ring's CQEs in mid-turn: a client that is awake goes on while the engine does. Whether it sleeps is
    /// looked at by [`EmbeddedHost::flush`], once a turn, for that costs a fence.
    #[inline]
    pub(crate) fn publish_early(&mut self, index: u32) {
        if let Some(Some(ring)) = self.rings.get_mut(index as usize) {
            ring.completions.publish_early();
        }
    }

    /// Publishes what the turn has produced.
    pub(crate) fn flush(&mut self) {
        self.rings.iter_mut().flatten().for_each(RingEnd::flush);
        self.flush_links();
        self.tcp.flush();
    }

    /// Looks at what only a thread that spins looks at itself: the sockets of tcp.
    pub(crate) fn poll_sockets(&mut self) {
        self.tcp.poll();
    }

    /// The work of a helper thread, with a way back.
    fn shared(&self) -> Option<Arc<Shared>> {
        self.shared.upgrade()
    }

    /// Gives work to a worker.
    fn give(&self, work: impl FnOnce(&Shared) + Send + 'static) {
        if let Some(shared) = self.shared() {
            let weak = self.shared.clone();
            shared.workers.post(move || {
                if let Some(shared) = weak.upgrade() {
                    work(&shared);
                }
            });
        }
    }

    /// An event of our own: the engine takes it in when it is done with what it is at.
    fn report(&self, event: Event) {
        if let Some(shared) = self.shared() {
            shared.post_quietly(event);
        }
    }
}

impl Host for EmbeddedHost {
    fn now_ns(&mut self) -> u64 {
        self.shared().map_or(0, |shared| shared.now_ns())
    }

    #[inline]
    fn cq_free(&mut self, ring: u32) -> u32 {
        match self.rings.get_mut(ring as usize) {
            Some(Some(ring)) => {
                ring.free_seen = ring.completions.free();
                ring.free_seen
            }
            _ => 0,
        }
    }

    #[inline]
    fn cq_free_at_least(&mut self, ring: u32) -> u32 {
        match self.rings.get(ring as usize) {
            Some(Some(ring)) => ring.completions.free_at_least(),
            _ => 0,
        }
    }

    #[inline(always)]
    fn complete_beyond(&mut self, ring: u32, held: u32, cqe: Cqe) -> bool {
        match self.rings.get_mut(ring as usize) {
            Some(Some(ring)) if held < ring.completions.free_at_least() => {
                ring.dirty = true;
                ring.completions.push(&cqe).is_ok()
            }
            _ => false,
        }
    }

    // Inlined, and without a reference to the CQE that outlives the push, so that it stays in registers: written to the
    // stack by words and read back by pairs of them, it has to wait for the stores, a fifth of what a no-op takes.
    #[inline(always)]
    fn complete(&mut self, ring: u32, cqe: Cqe) {
        if let Some(Some(ring)) = self.rings.get_mut(ring as usize) {
            ring.dirty = true;
            if ring.completions.push(&cqe).is_err() {
                overflowed(cqe);
            }
        }
    }

    fn alloc(&mut self, op: OpId, buffer: u32, request: &AllocRequest) -> Outcome {
        self.start_alloc(op, buffer, request)
    }

    fn free(&mut self, op: Option<OpId>, buffer: u32) -> Outcome {
        self.start_free(op, buffer)
    }

    fn placement(&mut self, op: OpId, buffer: u32, node: u32) -> Outcome {
        self.start_placement(op, buffer, node)
    }

    fn export(&mut self, op: OpId, buffer: u32, slot: u32) -> Outcome {
        let _ = op;
        self.export_now(buffer, slot)
    }

    fn close_slot(&mut self, slot: u32) {
        self.descriptors.remove(&slot);
    }

    fn sync(&mut self, _op: OpId, _buffer: u32, _end: bool) -> Outcome {
        // Memory of the CPU's own is always coherent with it.
        Outcome::done(0, 0)
    }

    fn wait_slot(&mut self, op: OpId, slot: u32) -> Outcome {
        self.start_wait_slot(op, slot)
    }

    fn wait_word(&mut self, op: OpId, buffer: u32, offset: u64, value: u32) -> Outcome {
        self.start_wait_word(op, buffer, offset, value)
    }

    fn cancel_work(&mut self, op: OpId) {
        self.cancel_waits(op);
        self.cancel_connect(op);
    }

    fn read_bytes(&mut self, buffer: u32, offset: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        self.region(buffer)?.read(offset, bytes)
    }

    fn write_bytes(&mut self, buffer: u32, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.region(buffer)?.write(offset, bytes)
    }

    fn list_load(&mut self, op: OpId, list: u32, buffer: u32, offset: u64, runs: u64) -> Outcome {
        self.start_list_load(op, list, buffer, offset, runs)
    }

    fn list_run(&mut self, list: u32, run: u32) -> Option<Run> {
        Some(self.lists.get(list as usize)?.as_ref()?.shapes.get(run as usize)?.run)
    }

    fn list_seal(&mut self, _list: u32) {
        // Its segments were numbered when it was loaded.
    }

    fn list_drop(&mut self, list: u32) {
        self.end_list(list);
    }

    fn connect(&mut self, op: OpId, buffer: u32, offset: u64, length: u64) -> Outcome {
        self.start_connect(op, buffer, offset, length)
    }

    fn adopt(&mut self, pending: u32, peer: Handle) {
        self.adopt_pending(pending, peer);
    }

    fn reject(&mut self, pending: u32) {
        if let Some(shared) = self.shared() {
            drop(shared.take_pending(pending));
        }
    }

    fn disconnect(&mut self, peer: u32) {
        self.end_connection(peer, Errno::ECONNRESET);
    }

    fn drop_peer(&mut self, peer: u32) {
        if let Some(slot) = self.peers.get_mut(peer as usize) {
            *slot = None;
        }
        self.forget_link(peer);
        self.frames.remove_of_peer(peer);
    }

    fn close_listener(&mut self, listener: u32) {
        if let Some(socket) = self.listeners.remove(&listener) {
            // Wakes the accepting thread, whose accept then fails.
            let _ = rustix::net::shutdown(&socket, rustix::net::Shutdown::Both);
        }
    }

    fn send(&mut self, peer: u32, message: &Message) {
        self.send_message(peer, message);
    }

    fn post(&mut self, peer: u32, op: OpId, request: &Request, post: &Post) -> Result<LocalPart, Errno> {
        self.post_request(peer, op, request, post)
    }

    fn abandon(&mut self, op: OpId) {
        self.abandon_op(op);
    }

    fn copy_in(&mut self, transfer: OpId, peer: u32, frame: u32, target: &Target, checksum: bool) -> Outcome {
        self.start_copy_in(transfer, peer, frame, target, Checksum::new(checksum))
    }

    fn serve(&mut self, transfer: OpId, peer: u32, frame: u32, source: &Target) -> Outcome {
        self.start_serve(transfer, peer, frame, source)
    }

    fn stop(&mut self, transfer: OpId) {
        self.stop_transfer(transfer);
    }

    fn deliver(&mut self, _peer: u32, frame: u32, buffer: u32, offset: u64, length: u32) -> Result<(), Errno> {
        let payload = &self.frames.get(frame).ok_or(Errno::EPROTO)?.payload;
        if payload.len() != length as usize {
            return Err(Errno::EPROTO);
        }
        self.region(buffer)?.write(offset, payload)
    }

    fn drop_frame(&mut self, _peer: u32, frame: u32) {
        if let Some(frame) = self.frames.remove(frame) {
            self.tcp.refuse(&frame);
        }
    }
}

/// What a note leads to, with the engine at hand.
impl EmbeddedHost {
    pub(crate) fn take_note(&mut self, engine: &mut Engine<Heap>, note: Note) {
        self.handle_note(engine, note);
    }
}

/// The check behind "the CQ cannot overflow" (clause RES-1): with reservation off it fires.
#[cold]
#[inline(never)]
fn overflowed(cqe: Cqe) -> ! {
    panic!("the CQ overflowed: {cqe:?} is lost");
}
