//! What a host does for the engine (clauses HOST-1 to HOST-20).
//!
//! Objects are named by the engine's table indices: buffer 3 of the engine is buffer 3 of the host. An index is the
//! host's from the call that makes the object to the call that ends it, and is never used in between for another.

use crate::message::{Message, Request};
use crate::observe::Seen;
use crate::operation::{OpId, Operation};
use dmaplane_ring::abi::{Cqe, Errno, Run};

/// What became of a call to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done. No event follows.
    Done {
        /// Non-negative, or a negative errno.
        result: i32,
        /// First result word.
        word0: u64,
        /// Second result word.
        word1: u64,
    },
    /// It has begun; exactly one event follows.
    Started,
}

impl Outcome {
    /// Done with result 0 and these words.
    pub const fn done(word0: u64, word1: u64) -> Self {
        Outcome::Done { result: 0, word0, word1 }
    }

    /// Done with an error.
    pub const fn failed(errno: Errno) -> Self {
        Outcome::Done { result: errno.as_result(), word0: 0, word1: 0 }
    }
}

/// What ALLOC asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocRequest {
    /// At least this many bytes; the host rounds up to its pages.
    pub length_bytes: u64,
    /// The node, where one is asked for.
    pub node: Option<u32>,
    /// Fail rather than place a page elsewhere.
    pub strict: bool,
    /// 2 MiB pages or fail.
    pub huge: bool,
    /// Memory that this context has freed will do, with what was left in it; and it is kept for the next when freed.
    pub recycle: bool,
}

impl AllocRequest {
    /// Zeroed memory anywhere.
    pub const fn plain(length_bytes: u64) -> AllocRequest {
        AllocRequest { length_bytes, node: None, strict: false, huge: false, recycle: false }
    }
}

/// What a PLACEMENT finds, as the host's result words carry it. No page looked at: the system does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacementReport {
    /// Pages on the node asked for.
    pub pages_on_node: u64,
    /// All pages looked at.
    pub pages: u64,
}

/// What a peer says of itself when connecting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PeerInfo {
    /// Its context's identity.
    pub context: [u64; 2],
    /// Requests that it takes from us at a time.
    pub window: u32,
}

/// What a request of ours touches on our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Post {
    /// A range of a buffer.
    Range {
        /// The buffer.
        buffer: u32,
        /// From here, in bytes.
        offset: u64,
        /// So many bytes.
        length: u64,
    },
    /// Segments of a list, named by index pairs that lie in a buffer; the notification, if any, lies there too.
    List {
        /// The list.
        list: u32,
        /// The buffer with the index pairs.
        index_buffer: u32,
        /// Where the pairs start, in bytes.
        index_offset: u64,
        /// How many pairs.
        count: u64,
        /// Where the notification starts, in bytes.
        notification_offset: u64,
        /// Its length.
        notification_bytes: u32,
    },
}

/// What a peer's request touches on our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A range of a buffer: already checked against the lease.
    Range {
        /// The buffer.
        buffer: u32,
        /// From here, in bytes.
        offset: u64,
        /// So many bytes.
        length: u64,
    },
    /// A leased list; the host checks each index with [`locate_segment`](crate::locate_segment) before the first byte.
    List {
        /// The list.
        list: u32,
        /// How many index pairs.
        count: u64,
    },
}

/// Whether the host still touches our memory after `post` has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalPart {
    /// Not any more, or only the peer does, until its `Done`.
    Done,
    /// Yes; a `LocalDone` follows.
    Started,
}

/// The host. Calls never block, and never call the engine back.
pub trait Host {
    /// A clock that never runs backwards.
    fn now_ns(&mut self) -> u64;
    /// Free entries in a ring's CQ.
    fn cq_free(&mut self, ring: u32) -> u32;
    /// At most what [`Host::cq_free`] says, where that is cheaper to know: what the client has reaped since the host
    /// last looked need not be in it.
    #[inline]
    fn cq_free_at_least(&mut self, ring: u32) -> u32 {
        self.cq_free(ring)
    }
    /// Writes a CQE; the engine has made sure that there is room.
    fn complete(&mut self, ring: u32, cqe: Cqe);
    /// Writes a CQE if more entries than `held` are free by [`Host::cq_free_at_least`]; else nothing, and `false`.
    #[inline]
    fn complete_beyond(&mut self, ring: u32, held: u32, cqe: Cqe) -> bool {
        let is_free = held < self.cq_free_at_least(ring);
        if is_free {
            self.complete(ring, cqe);
        }
        is_free
    }

    /// An operation has changed, for whoever looks on (clause OBS-1). Nothing depends on what the host makes of it.
    #[inline]
    fn observe(&mut self, _op: OpId, _operation: &Operation, _seen: Seen) {}

    /// Makes buffer `buffer`, zeroed unless the request allows otherwise. `word0` is its length after rounding.
    fn alloc(&mut self, op: OpId, buffer: u32, request: &AllocRequest) -> Outcome;
    /// Ends a buffer that nothing uses. `op` is what waits for it; without one, no event follows.
    fn free(&mut self, op: Option<OpId>, buffer: u32) -> Outcome;
    /// Looks page by page: `word0` pages of `word1` lie on `node`.
    fn placement(&mut self, op: OpId, buffer: u32, node: u32) -> Outcome;
    /// Makes an export of a buffer in slot `slot`.
    fn export(&mut self, op: OpId, buffer: u32, slot: u32) -> Outcome;
    /// Ends a descriptor slot.
    fn close_slot(&mut self, slot: u32);
    /// Begins or ends CPU access.
    fn sync(&mut self, op: OpId, buffer: u32, end: bool) -> Outcome;
    /// Waits for a descriptor slot.
    fn wait_slot(&mut self, op: OpId, slot: u32) -> Outcome;
    /// Waits until a 32-bit word of a buffer is at least `value`.
    fn wait_word(&mut self, op: OpId, buffer: u32, offset: u64, value: u32) -> Outcome;
    /// Ends work that a call above has started, if it can be ended; its event comes either way.
    fn cancel_work(&mut self, op: OpId);

    /// Copies bytes of a buffer out, once.
    fn read_bytes(&mut self, buffer: u32, offset: u64, bytes: &mut [u8]) -> Result<(), Errno>;
    /// Copies bytes into a buffer.
    fn write_bytes(&mut self, buffer: u32, offset: u64, bytes: &[u8]) -> Result<(), Errno>;

    /// Copies `runs` runs out of a buffer, once, into private memory of list `list`.
    fn list_load(&mut self, op: OpId, list: u32, buffer: u32, offset: u64, runs: u64) -> Outcome;
    /// One of the runs loaded.
    fn list_run(&mut self, list: u32, run: u32) -> Option<Run>;
    /// Keeps the engine's word that all runs are checked, with the number of the first segment of each run to follow
    /// from their counts.
    fn list_seal(&mut self, list: u32);
    /// Ends a list.
    fn list_drop(&mut self, list: u32);

    /// Connects to the address that lies in a buffer. Ends with `Connected`, or `Finished` with an error.
    fn connect(&mut self, op: OpId, buffer: u32, offset: u64, length: u64) -> Outcome;
    /// Makes a pending connection peer `peer`; its messages may come from now on.
    fn adopt(&mut self, pending: u32, peer: dmaplane_ring::abi::Handle);
    /// Ends a pending connection.
    fn reject(&mut self, pending: u32);
    /// Ends a connection. `PeerGone` follows; what is still in flight is then stopped and abandoned one by one.
    fn disconnect(&mut self, peer: u32);
    /// The engine has forgotten the peer; its index may be used again.
    fn drop_peer(&mut self, peer: u32);
    /// Ends a listener.
    fn close_listener(&mut self, listener: u32);

    /// Sends a message, in order, without loss while the connection lives.
    fn send(&mut self, peer: u32, message: &Message);
    /// Sends a request with what it touches here. Where the request asks for a checksum and bytes come in, `LocalDone`
    /// tells their CRC-32C.
    fn post(&mut self, peer: u32, op: OpId, request: &Request, post: &Post) -> Result<LocalPart, Errno>;
    /// Stops touching our memory for a posted operation; its `LocalDone` comes, once.
    fn abandon(&mut self, op: OpId);

    /// Brings a peer's bytes in. The host looks between slices whether [`Host::stop`] was called. With `checksum` it
    /// tells their CRC-32C: `word1` of what is done at once, or the event's.
    fn copy_in(&mut self, transfer: OpId, peer: u32, frame: u32, target: &Target, checksum: bool) -> Outcome;
    /// Gives our bytes to a peer.
    fn serve(&mut self, transfer: OpId, peer: u32, frame: u32, source: &Target) -> Outcome;
    /// Stops a transfer; its `TransferDone` comes, once.
    fn stop(&mut self, transfer: OpId);
    /// Copies what travelled with a message into a buffer: at most 4,096 bytes.
    fn deliver(&mut self, peer: u32, frame: u32, buffer: u32, offset: u64, length: u32) -> Result<(), Errno>;
    /// What travelled with a message is needed no more; bytes that were to come in are thrown away.
    fn drop_frame(&mut self, peer: u32, frame: u32);
}
