//! The calls on `/dev/dmaplane` (clauses DEV-1 to DEV-15): what an SQE cannot say, because it needs the caller's own
//! context. Each is an ioctl on the descriptor of a context, or of one of its rings.
//!
//! In every structure: unknown flags and reserved words that are not zero are -EINVAL.

use super::Opcode;

/// Bits of [`DeviceSetup::flags`].
pub mod setup_flags {
    /// A kernel thread takes SQEs; without it a client calls [`DeviceEnter`](super::DeviceEnter).
    pub const POLLER: u32 = 1 << 0;
    /// It runs on [`DeviceSetup::poller_cpu`](super::DeviceSetup::poller_cpu).
    pub const POLLER_CPU: u32 = 1 << 1;
}

/// Bits of [`DeviceSetup::features`], as the driver fills them in.
pub mod device_features {
    /// Buffers are placed on the node that is asked for, and looked at page by page.
    pub const PLACEMENT: u32 = 1 << 0;
}

/// Makes a descriptor's context (clause DEV-2). A limit of 0 stands for the driver's default, and what was chosen is
/// filled in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DeviceSetup {
    /// [`ABI_VERSION`](super::ABI_VERSION).
    pub abi_version: u32,
    /// [`setup_flags`].
    pub flags: u32,
    /// Filled in: [`device_features`].
    pub features: u32,
    /// How long the poller looks for work before it sleeps, in microseconds; 0: a millisecond.
    pub poller_idle_us: u32,
    /// With POLLER_CPU.
    pub poller_cpu: u32,
    /// Rings.
    pub rings: u32,
    /// Operations: the CQ entries of all rings together.
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
    /// Zero.
    pub reserved0: u32,
    /// Bytes of one buffer at most.
    pub buffer_bytes: u64,
    /// Bytes of all memory of the context at most; 0: half of the machine's.
    pub memory_bytes: u64,
    /// Zero.
    pub reserved: [u64; 4],
}

/// Makes a ring (clause DEV-3): the call returns its descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DeviceRing {
    /// SQ entries.
    pub sq_entries: u32,
    /// CQ entries.
    pub cq_entries: u32,
    /// Zero.
    pub flags: u32,
    /// Filled in: the ring's index in its context.
    pub index: u32,
    /// Filled in: length of the client's area, which is mapped from offset 0 of the ring's descriptor.
    pub client_bytes: u64,
    /// Filled in: where the engine's area is mapped from. It cannot be mapped writable.
    pub engine_offset: u64,
    /// Filled in: its length.
    pub engine_bytes: u64,
    /// Zero.
    pub reserved: [u64; 2],
}

/// Runs the engine, then waits (clause DEV-4), on a ring's descriptor. Returns how many CQEs are there, at most
/// `min_complete` of which were waited for; -ETIME, -EINTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DeviceEnter {
    /// CQEs to wait for; 0: do not wait.
    pub min_complete: u32,
    /// Zero.
    pub flags: u32,
    /// How long to wait at most; `u64::MAX`: without end.
    pub timeout_ns: u64,
    /// Address of the signal mask for the wait, or 0.
    pub signal_mask: u64,
    /// Its length.
    pub signal_mask_bytes: u32,
    /// Zero.
    pub reserved: u32,
}

/// Where a buffer can be mapped from (clause DEV-5), on the context's descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DeviceMap {
    /// The buffer's handle.
    pub buffer: u64,
    /// Zero.
    pub flags: u64,
    /// Filled in: the offset for mmap.
    pub offset: u64,
    /// Filled in: its length, whole pages.
    pub length_bytes: u64,
}

/// Registers an eventfd (clause DEV-4), on a ring: it is written to where a client that sleeps would be woken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DeviceEventfd {
    /// The descriptor; -1: none any more.
    pub fd: i32,
    /// Zero.
    pub flags: u32,
}

/// Listens at an address (clauses CAL-5, LOC-1), on the context's descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DeviceListen {
    /// Where the address begins: `local:NAME`, as CONNECT's.
    pub address: u64,
    /// Its length, at most 255.
    pub address_bytes: u32,
    /// Zero.
    pub flags: u32,
    /// Filled in: the listener's handle.
    pub listener: u64,
    /// Zero.
    pub reserved: u64,
}

/// Ends a context, or a ring, while its descriptor stays open (clause DEV-9): on either's descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DeviceClose {
    /// Zero.
    pub flags: u64,
    /// Zero.
    pub reserved: u64,
}

/// Makes a dma-buf of another device or process a buffer (clauses CAL-3, DEV-10), on the context's descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DeviceImport {
    /// The dma-buf's descriptor; it may be closed afterwards.
    pub fd: i32,
    /// Zero.
    pub flags: u32,
    /// Filled in: the buffer's handle.
    pub buffer: u64,
    /// Filled in: its length.
    pub length_bytes: u64,
    /// Zero.
    pub reserved: u64,
}

/// Bits of [`DevicePin::flags`].
pub mod pin_flags {
    /// The memory is only read: it may be mapped so, and a lease that lets a peer write to it serves nobody.
    pub const READ_ONLY: u32 = 1 << 0;
}

/// Makes memory of the caller's own a buffer (clauses CAL-3, DEV-11), on the context's descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DevicePin {
    /// Where it begins: a multiple of 8.
    pub address: u64,
    /// How long it is.
    pub length_bytes: u64,
    /// [`pin_flags`].
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
    /// Filled in: the buffer's handle.
    pub buffer: u64,
}

/// Puts an eventfd or a sync_file into a descriptor slot (clause CAL-4), on the context's descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DeviceSlot {
    /// The eventfd, which does not block, or the sync_file; it may be closed afterwards.
    pub fd: i32,
    /// Zero.
    pub flags: u32,
    /// Filled in: the slot's handle.
    pub slot: u64,
    /// Zero.
    pub reserved: u64,
}

/// Takes a descriptor out of a slot (clause CAL-4), on the context's descriptor: the call returns it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DeviceTake {
    /// The slot's handle, of no use afterwards.
    pub slot: u64,
    /// Zero.
    pub flags: u64,
}

/// Where a context's counters are mapped from, on its descriptor, read-only (clause DEV-15).
pub const COUNTERS_OFFSET: u64 = 0;
/// So many bytes of them.
pub const COUNTERS_BYTES: u64 = (COUNTERS_LATENCY + LATENCY_OPCODES * LATENCY_BUCKETS * 8).next_multiple_of(4096);
/// From here on, in bytes: histograms, one an opcode, each of [`LATENCY_BUCKETS`] 64-bit counts.
pub const COUNTERS_LATENCY: u64 = 128;
/// Opcodes that have one: each that is less.
pub const LATENCY_OPCODES: u64 = 80;
/// Of an opcode's histogram: number n counts operations that took at least 2^n nanoseconds and less than twice that;
/// the last one also those that took longer. An operation that ends as it is taken is in none.
pub const LATENCY_BUCKETS: u64 = 40;

/// A context's counters (clause DEV-15): what has been since it was set up. Each is right by itself; they are not of
/// one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DeviceCounters {
    /// SQEs taken.
    pub sqes_taken: u64,
    /// CQEs posted.
    pub cqes_posted: u64,
    /// Of those, with an error.
    pub cqes_failed: u64,
    /// Wake-ups of clients that slept, or waited in ENTER.
    pub client_wakes: u64,
    /// Operations that a worker was given, copies for peers among them.
    pub works: u64,
    /// How often one of those was put off: a device was at the memory.
    pub works_put_off: u64,
    /// Copies made for peers.
    pub copies: u64,
    /// Of those, stopped or failed.
    pub copies_failed: u64,
    /// Bytes that copies have brought into this context's memory.
    pub bytes_in: u64,
    /// Bytes that copies have given to peers.
    pub bytes_out: u64,
    /// Zero.
    pub reserved: [u64; 6],
}

const _: () = {
    assert!(size_of::<DeviceCounters>() as u64 == COUNTERS_LATENCY);
    assert!((Opcode::CreditWatermarks as u64) < LATENCY_OPCODES);
    assert!(size_of::<DeviceImport>() == 32);
    assert!(size_of::<DevicePin>() == 32);
    assert!(size_of::<DeviceSlot>() == 24);
    assert!(size_of::<DeviceTake>() == 16);
    assert!(size_of::<DeviceClose>() == 16);
    assert!(size_of::<DeviceListen>() == 32);
    assert!(size_of::<DeviceEventfd>() == 8);
    assert!(size_of::<DeviceSetup>() == 112);
    assert!(size_of::<DeviceRing>() == 56);
    assert!(size_of::<DeviceEnter>() == 32);
    assert!(size_of::<DeviceMap>() == 32);
};

/// An ioctl's number as Linux makes it: read and written, of this size.
const fn number<T>(call: u32) -> u32 {
    3 << 30 | (size_of::<T>() as u32) << 16 | (DEVICE_IOCTL_TYPE as u32) << 8 | call
}

/// The type byte of the ioctls.
pub const DEVICE_IOCTL_TYPE: u8 = 0xDA;
/// [`DeviceSetup`].
pub const DEVICE_SETUP: u32 = number::<DeviceSetup>(0);
/// [`DeviceRing`].
pub const DEVICE_RING: u32 = number::<DeviceRing>(1);
/// [`DeviceEnter`], on a ring.
pub const DEVICE_ENTER: u32 = number::<DeviceEnter>(2);
/// [`DeviceEventfd`], on a ring.
pub const DEVICE_EVENTFD: u32 = number::<DeviceEventfd>(4);
/// [`DeviceMap`].
pub const DEVICE_MAP: u32 = number::<DeviceMap>(3);
/// [`DeviceListen`].
pub const DEVICE_LISTEN: u32 = number::<DeviceListen>(5);
/// [`DeviceClose`].
pub const DEVICE_CLOSE: u32 = number::<DeviceClose>(6);
/// [`DeviceImport`].
pub const DEVICE_IMPORT: u32 = number::<DeviceImport>(7);
/// [`DevicePin`].
pub const DEVICE_PIN: u32 = number::<DevicePin>(8);
/// [`DeviceSlot`].
pub const DEVICE_SLOT: u32 = number::<DeviceSlot>(9);
/// [`DeviceTake`].
pub const DEVICE_TAKE: u32 = number::<DeviceTake>(10);
