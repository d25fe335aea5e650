//! The structures that cross the border between Rust and C. Plain words without padding; their sizes are asserted.

use core::ffi::c_char;
use dmaplane_engine::{
    AllocRequest, Identity, Limits, Outcome, PeerInfo, Post, Record, RecordKind, Target, WIRE_WORDS,
};
use dmaplane_ring::abi::Errno;

/// C's side of a context. Rust only hands the pointer back.
#[repr(C)]
pub struct GlueContext {
    opaque: [u8; 0],
}

/// What a context is made with.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Setup {
    /// Bytes of one buffer at most.
    pub buffer_bytes: u64,
    /// The context's name, told to peers: from `get_random_bytes`.
    pub context: [u64; 2],
    /// Told to nobody: from `get_random_bytes`.
    pub token_key: [u64; 2],
    /// Rings; like all limits below at least 1.
    pub rings: u32,
    /// Operations in flight: the sum of the rings' CQ entries may not be more.
    pub operations: u32,
    /// Buffers.
    pub buffers: u32,
    /// Lists.
    pub lists: u32,
    /// Leases.
    pub leases: u32,
    /// Imports.
    pub imports: u32,
    /// Peers.
    pub peers: u32,
    /// Listeners.
    pub listeners: u32,
    /// Descriptor slots.
    pub slots: u32,
    /// Transfers that one peer may have in flight here.
    pub inbound_per_peer: u32,
}

/// Most entries of any table: far below the 28 bits of a handle's index, and such that no size overflows.
const TABLE_ENTRIES_MAX: u32 = 1 << 20;

impl Setup {
    /// The engine's limits; `None` where one is zero or beyond what a context may have.
    pub(crate) fn limits(&self) -> Option<Limits> {
        let tables = [
            self.rings,
            self.operations,
            self.buffers,
            self.lists,
            self.leases,
            self.imports,
            self.peers,
            self.listeners,
            self.slots,
            self.inbound_per_peer,
        ];
        let limits = Limits {
            rings: self.rings,
            operations: self.operations,
            buffers: self.buffers,
            buffer_bytes: self.buffer_bytes,
            lists: self.lists,
            leases: self.leases,
            imports: self.imports,
            peers: self.peers,
            listeners: self.listeners,
            slots: self.slots,
            inbound_per_peer: self.inbound_per_peer,
        };
        let fits = |entries: u32| entries > 0 && entries <= TABLE_ENTRIES_MAX;
        // Listeners count 32-fold in the inbox.
        let sums_fit = fits(limits.inbound()) && self.listeners <= 1 << 12;
        let fine = tables.into_iter().all(fits) && sums_fit && self.buffer_bytes > 0;
        fine.then_some(limits)
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity { context: self.context, token_key: self.token_key }
    }
}

/// What became of a call. The glue fills it in; it comes as "done, with -EIO".
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct GlueOutcome {
    /// First result word.
    pub word0: u64,
    /// Second result word.
    pub word1: u64,
    /// Non-negative, or a negative errno; of no interest where the work has started.
    pub result: i32,
    /// Not zero: it has begun, and exactly one event follows.
    pub started: u32,
}

impl GlueOutcome {
    pub(crate) const UNTOUCHED: GlueOutcome =
        GlueOutcome { word0: 0, word1: 0, result: Errno::EIO.as_result(), started: 0 };

    pub(crate) fn outcome(&self) -> Outcome {
        if self.started != 0 {
            return Outcome::Started;
        }
        Outcome::Done { result: clean_result(self.result), word0: self.word0, word1: self.word1 }
    }
}

/// A node is asked for.
pub const ALLOC_HAS_NODE: u32 = 1 << 0;
/// Fail rather than place a page elsewhere.
pub const ALLOC_STRICT: u32 = 1 << 1;
/// 2 MiB pages or fail.
pub const ALLOC_HUGE: u32 = 1 << 2;
/// Memory that this context has freed will do, unzeroed.
pub const ALLOC_RECYCLE: u32 = 1 << 3;

/// What ALLOC asks for.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct GlueAlloc {
    /// At least this many bytes; the glue rounds up to its pages.
    pub length_bytes: u64,
    /// The user's number, unchecked; with [`ALLOC_HAS_NODE`].
    pub node: u32,
    /// [`ALLOC_HAS_NODE`], [`ALLOC_STRICT`], [`ALLOC_HUGE`], [`ALLOC_RECYCLE`].
    pub flags: u32,
}

impl From<&AllocRequest> for GlueAlloc {
    fn from(request: &AllocRequest) -> GlueAlloc {
        let flag = |wanted: bool, bit: u32| if wanted { bit } else { 0 };
        GlueAlloc {
            length_bytes: request.length_bytes,
            node: request.node.unwrap_or(0),
            flags: flag(request.node.is_some(), ALLOC_HAS_NODE)
                | flag(request.strict, ALLOC_STRICT)
                | flag(request.huge, ALLOC_HUGE)
                | flag(request.recycle, ALLOC_RECYCLE),
        }
    }
}

/// The object is a buffer.
pub const OBJECT_BUFFER: u32 = 0;
/// The object is a list.
pub const OBJECT_LIST: u32 = 1;

/// What a request of ours touches on our side.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct GluePost {
    /// [`OBJECT_BUFFER`] or [`OBJECT_LIST`].
    pub kind: u32,
    /// Index of the buffer or list.
    pub object: u32,
    /// Of a buffer: from here, in bytes.
    pub offset: u64,
    /// Of a buffer: so many bytes. Of a list: so many index pairs.
    pub length: u64,
    /// Of a list: the buffer with the index pairs and the notification.
    pub index_buffer: u32,
    /// Of a list: the notification's length.
    pub notification_bytes: u32,
    /// Of a list: where the pairs start, in bytes.
    pub index_offset: u64,
    /// Of a list: where the notification starts, in bytes.
    pub notification_offset: u64,
}

impl From<&Post> for GluePost {
    fn from(post: &Post) -> GluePost {
        match *post {
            Post::Range { buffer, offset, length } => {
                GluePost { kind: OBJECT_BUFFER, object: buffer, offset, length, ..GluePost::default() }
            }
            Post::List { list, index_buffer, index_offset, count, notification_offset, notification_bytes } => {
                GluePost {
                    kind: OBJECT_LIST,
                    object: list,
                    offset: 0,
                    length: count,
                    index_buffer,
                    notification_bytes,
                    index_offset,
                    notification_offset,
                }
            }
        }
    }
}

/// What a peer's request touches on our side.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct GlueTarget {
    /// [`OBJECT_BUFFER`]: checked against the lease. [`OBJECT_LIST`]: each index is to be looked up by
    /// [`dmaplane_list_locate`](crate::lists::dmaplane_list_locate) before the first byte moves.
    pub kind: u32,
    /// Index of the buffer or list.
    pub object: u32,
    /// Of a buffer: from here, in bytes.
    pub offset: u64,
    /// Of a buffer: so many bytes. Of a list: so many index pairs.
    pub length: u64,
}

impl From<&Target> for GlueTarget {
    fn from(target: &Target) -> GlueTarget {
        match *target {
            Target::Range { buffer, offset, length } => {
                GlueTarget { kind: OBJECT_BUFFER, object: buffer, offset, length }
            }
            Target::List { list, count } => GlueTarget { kind: OBJECT_LIST, object: list, offset: 0, length: count },
        }
    }
}

/// What a peer says of itself when connecting.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct GluePeerInfo {
    /// Its context's name.
    pub context: [u64; 2],
    /// Requests that it takes from us at a time.
    pub window: u32,
    /// Not read.
    pub reserved: u32,
}

impl From<&GluePeerInfo> for PeerInfo {
    fn from(info: &GluePeerInfo) -> PeerInfo {
        PeerInfo { context: info.context, window: info.window }
    }
}

/// A peer has said something.
pub const INCOMING_MESSAGE: u32 = 1;
/// A peer is gone. Nothing more comes of it.
pub const INCOMING_GONE: u32 = 2;

/// What comes of a peer.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct GlueIncoming {
    /// The peer's handle.
    pub peer: u64,
    /// The message.
    pub words: [u64; WIRE_WORDS],
    /// [`INCOMING_MESSAGE`] or [`INCOMING_GONE`].
    pub kind: u32,
    /// The glue's number for what travelled with a message, or 0.
    pub frame: u32,
    /// Why it is gone, a negative errno.
    pub errno: i32,
    /// Not read.
    pub reserved: u32,
}

/// What is in use, and counters: for fdinfo.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct GlueUsage {
    /// Accesses of peers that were refused.
    pub refused: u64,
    /// Connections ended for a breach of the protocol.
    pub breaches: u64,
    /// Operations in flight.
    pub operations: u32,
    /// Buffers.
    pub buffers: u32,
    /// Lists.
    pub lists: u32,
    /// Leases.
    pub leases: u32,
    /// Imports.
    pub imports: u32,
    /// Peers.
    pub peers: u32,
    /// Transfers of peers in flight.
    pub inbound: u32,
    /// Descriptor slots.
    pub slots: u32,
    /// Listeners.
    pub listeners: u32,
    /// Operations that only an event of the glue's can end.
    pub awaiting_glue: u32,
}

/// A change of an operation, for a tracepoint.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct GlueSighting {
    /// The operation.
    pub op: u64,
    /// Its SQE's `user_data`.
    pub user_data: u64,
    /// What it waits for from now on; `c"ended"`: nothing.
    pub state: *const c_char,
    /// Its ring.
    pub ring: u32,
    /// Its opcode, which is none of the ABI's where a chain has a wrong SQE.
    pub opcode: u32,
    /// What it has come to; 0 before it has ended.
    pub result: i32,
    /// Zero.
    pub reserved: u32,
}

/// One object of a context's. What its words are `dmaplane_column_name` tells.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct GlueRecord {
    /// Its handle; 0 where it has none.
    pub handle: u64,
    /// What it is doing.
    pub state: *const c_char,
    /// As many as its kind has columns.
    pub words: [u64; Record::WORDS],
    /// Its index in its table.
    pub index: u32,
    /// Zero.
    pub reserved: u32,
}

impl From<&Record> for GlueRecord {
    fn from(record: &Record) -> GlueRecord {
        let Record { index, handle, state, words } = *record;
        GlueRecord { handle, state: state.as_ptr(), words, index, reserved: 0 }
    }
}

/// A kind of record by its number, which counts from 0.
pub(crate) fn record_kind(number: u32) -> Option<RecordKind> {
    RecordKind::ALL.get(number as usize).copied()
}

/// Where a segment of a list lies.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct GluePlace {
    /// From here, in bytes. Checked when the list was prepared; under speculation it is the peer's number.
    pub offset: u64,
    /// Index of the buffer.
    pub buffer: u32,
    /// So many bytes.
    pub length_bytes: u32,
}

const _: () = {
    assert!(size_of::<Setup>() == 80);
    assert!(size_of::<GlueOutcome>() == 24);
    assert!(size_of::<GlueAlloc>() == 16);
    assert!(size_of::<GluePost>() == 48);
    assert!(size_of::<GlueTarget>() == 24);
    assert!(size_of::<GluePeerInfo>() == 24);
    assert!(size_of::<GlueIncoming>() == 88);
    assert!(size_of::<GlueUsage>() == 56);
    assert!(size_of::<GlueSighting>() == 40);
    assert!(size_of::<GlueRecord>() == 88);
    assert!(size_of::<GluePlace>() == 16);
};

/// Errnos from here on are the kernel's own (ERESTARTSYS and the like) and mean nothing to a client.
const KERNEL_ERRNO_MIN: i32 = 512;

/// A result as a client may see it.
pub(crate) fn clean_result(result: i32) -> i32 {
    if result <= -KERNEL_ERRNO_MIN { Errno::EIO.as_result() } else { result }
}

/// The errno in a negative result.
pub(crate) fn errno_of(result: i32) -> Errno {
    Errno::from_raw(clean_result(result).wrapping_neg())
}
