//! What a context may hold; each limit has an errno (clause LIM-2).

/// Sizes of a context's tables. All must be at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Rings. Beyond: attaching fails with -ENFILE.
    pub rings: u32,
    /// Operations in flight over all rings: the sum of the rings' CQ entries may not be more.
    pub operations: u32,
    /// Buffers. Beyond: ALLOC is -ENFILE.
    pub buffers: u32,
    /// Bytes of one buffer. Beyond: ALLOC is -EMSGSIZE.
    pub buffer_bytes: u64,
    /// Lists. Beyond: LIST_PREPARE is -ENFILE.
    pub lists: u32,
    /// Leases. Beyond: LEASE_GRANT is -ENFILE.
    pub leases: u32,
    /// Imports. Beyond: LEASE_IMPORT is -ENFILE.
    pub imports: u32,
    /// Peers. Beyond: CONNECT and ACCEPT are -ENFILE.
    pub peers: u32,
    /// Listeners. Beyond: listening fails with -ENFILE.
    pub listeners: u32,
    /// Descriptor slots. Beyond: registering and EXPORT_DMABUF are -ENFILE.
    pub slots: u32,
    /// Transfers that one peer may have in flight here, announced to it. More is a breach of the protocol.
    pub inbound_per_peer: u32,
}

impl Limits {
    /// For programs: a few thousand objects of each kind.
    pub const DEFAULT: Limits = Limits {
        rings: 64,
        operations: 1 << 15,
        buffers: 1 << 14,
        buffer_bytes: 1 << 40,
        lists: 1 << 10,
        leases: 1 << 14,
        imports: 1 << 14,
        peers: 64,
        listeners: 16,
        slots: 1 << 10,
        inbound_per_peer: 128,
    };

    /// Transfers that all peers together may have in flight here.
    pub const fn inbound(&self) -> u32 {
        self.peers.saturating_mul(self.inbound_per_peer)
    }

    /// Timers: at most one an operation, one a lease.
    pub const fn timers(&self) -> u32 {
        self.operations.saturating_add(self.leases)
    }

    /// Inbox slots that a context can fill at most, a power of two: an event for every operation's end and its local
    /// part, every transfer of a peer, every peer and pending connection, and as many `messages` as a host lets wait.
    pub const fn inbox_slots(&self, messages: u32) -> u32 {
        let operations = self.operations.saturating_mul(2);
        let peers = self.peers.saturating_mul(2).saturating_add(self.listeners.saturating_mul(32));
        operations.saturating_add(self.inbound()).saturating_add(peers).saturating_add(messages).next_power_of_two()
    }
}
