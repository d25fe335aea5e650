//! Opcodes (clause OP-1). Values are grouped by family, with room in each.

macro_rules! opcodes {
    ($($(#[$doc:meta])* $name:ident = $value:literal),* $(,)?) => {
        /// What an SQE asks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Opcode { $($(#[$doc])* $name = $value),* }

        impl Opcode {
            /// Every opcode of this ABI version.
            pub const ALL: &'static [Opcode] = &[$(Opcode::$name),*];

            /// Decodes the byte; `None` is an unknown opcode, which is -EINVAL (clause SQE-4).
            #[inline]
            pub const fn from_byte(byte: u8) -> Option<Opcode> {
                match byte { $($value => Some(Opcode::$name),)* _ => None }
            }

            /// Its name, as this type has it.
            pub const fn name(self) -> &'static core::ffi::CStr {
                // The macro makes it, with the one NUL at its end.
                const fn named(bytes: &'static [u8]) -> &'static core::ffi::CStr {
                    match core::ffi::CStr::from_bytes_with_nul(bytes) {
                        Ok(name) => name,
                        Err(_) => c"",
                    }
                }
                match self { $(Opcode::$name => const { named(concat!(stringify!($name), "\0").as_bytes()) }),* }
            }
        }
    };
}

opcodes! {
    /// Completes with 0.
    Nop = 0,
    /// Cancels operations by user_data, by handle, or all of the ring.
    Cancel = 1,
    /// Completes with -ETIME when its time has come.
    Timeout = 2,
    /// Bounds the time of the SQE that it follows in a chain.
    LinkTimeout = 3,
    /// Completes when something happened that nobody asked for.
    Watch = 4,
    /// Completes when a descriptor slot or a memory word is signalled.
    Wait = 5,
    /// Reads and clears what WATCH reported, or reads a counter.
    Query = 6,
    /// Makes a buffer.
    Alloc = 16,
    /// Frees a buffer.
    Free = 17,
    /// Reports on which NUMA nodes a buffer's pages lie.
    Placement = 18,
    /// Makes a dma-buf (or a sealed memfd) of a buffer in a slot.
    ExportDmabuf = 24,
    /// Begins or ends CPU access to a buffer of another device.
    Sync = 25,
    /// Checks and keeps a list of segments.
    ListPrepare = 32,
    /// Drops a list.
    ListFree = 33,
    /// Gives a capability for a buffer's range or a list.
    LeaseGrant = 40,
    /// Writes the capability's token into a buffer.
    LeaseExport = 41,
    /// Turns a token into an import handle.
    LeaseImport = 42,
    /// Extends a lease's time to live.
    LeaseRenew = 43,
    /// Ends a lease; when it completes, nothing under it can land.
    LeaseRevoke = 44,
    /// Drops an import handle.
    ImportRelease = 45,
    /// Connects to a peer.
    Connect = 48,
    /// Takes one incoming peer of a listener.
    Accept = 49,
    /// Ends a peer's connection.
    Disconnect = 50,
    /// Writes a buffer's range into a lease.
    Write = 51,
    /// Writes and then delivers 32 bits of immediate data.
    WriteImm = 52,
    /// Reads from a lease into a buffer's range.
    Read = 53,
    /// Writes a list's segments into a leased list's segments.
    WriteList = 54,
    /// Reads a leased list's segments into a list's segments.
    ReadList = 55,
    /// Sends a short message.
    Send = 56,
    /// Receives one message or immediate.
    Recv = 57,
    /// Grants a peer credits; one CQE an arrival.
    CreditGrant = 64,
    /// Reports a peer's credits.
    CreditQuery = 65,
    /// Sets the watermarks of what takes a peer's credits.
    CreditWatermarks = 66,
}

impl Opcode {
    /// Control operations have CQ slots of their own (clause RES-3).
    #[inline]
    pub const fn is_control(self) -> bool {
        matches!(self, Opcode::Cancel | Opcode::LeaseRevoke | Opcode::Disconnect | Opcode::Free)
    }

    /// Passive operations wait for a peer's act and may hold only part of the CQ (clause RES-4).
    #[inline]
    pub const fn is_passive(self) -> bool {
        matches!(self, Opcode::Recv | Opcode::Accept | Opcode::CreditGrant | Opcode::Watch)
    }

    /// Operations that a peer, a timer or a signal may detain (clause RES-5).
    #[inline]
    pub const fn is_detained(self) -> bool {
        matches!(
            self,
            Opcode::Timeout
                | Opcode::LinkTimeout
                | Opcode::Wait
                | Opcode::LeaseImport
                | Opcode::Connect
                | Opcode::Write
                | Opcode::WriteImm
                | Opcode::Read
                | Opcode::WriteList
                | Opcode::ReadList
                | Opcode::Send
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn op_1_every_byte_decodes_to_itself_or_to_nothing() {
        let known = (0..=255u8).filter_map(Opcode::from_byte).inspect(|op| assert!(Opcode::ALL.contains(op))).count();
        assert_eq!(known, Opcode::ALL.len());
        for &op in Opcode::ALL {
            assert_eq!(Opcode::from_byte(op as u8), Some(op));
        }
    }
}
