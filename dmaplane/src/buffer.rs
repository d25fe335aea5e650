//! Typed objects. None of them can be copied, so that a handle is used up when its object goes.

use crate::host::Mapping;
use crate::objects::Hold;
use dmaplane_ring::abi::{BufferHandle, ImportHandle, LeaseHandle, ListHandle};

/// Memory that is ours alone: no peer holds a lease on it and no operation uses it. Dropping it frees it.
#[derive(Debug)]
pub struct Buffer {
    pub(crate) handle: BufferHandle,
    pub(crate) mapping: Mapping,
    pub(crate) hold: Hold,
}

impl Buffer {
    /// Its handle, for SQEs of your own.
    pub fn handle(&self) -> BufferHandle {
        self.handle
    }

    /// Bytes, a multiple of the page size.
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    /// Never: a buffer has at least one page.
    pub fn is_empty(&self) -> bool {
        self.mapping.is_empty()
    }

    /// Its bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the mapping is valid while `self` lives. Nobody writes to it meanwhile: operations that write
        // locally take the buffer by `&mut` or by value, a lease consumes it, each is checked to be of the context that
        // it is used with, and whoever goes round the types (`Plane::attach`, `Plane::sublist`) promises it.
        unsafe { std::slice::from_raw_parts(self.mapping.as_ptr(), self.mapping.len()) }
    }

    /// Some of its bytes; `None` outside of it. No reference to the others is made meanwhile.
    pub fn range(&self, range: std::ops::Range<usize>) -> Option<&[u8]> {
        if range.start > range.end || range.end > self.mapping.len() {
            return None;
        }
        // SAFETY: within the mapping; otherwise as in `as_slice`.
        Some(unsafe { std::slice::from_raw_parts(self.mapping.as_ptr().add(range.start), range.len()) })
    }

    /// Some of its bytes; `None` outside of it.
    pub fn range_mut(&mut self, range: std::ops::Range<usize>) -> Option<&mut [u8]> {
        if range.start > range.end || range.end > self.mapping.len() {
            return None;
        }
        // SAFETY: within the mapping; otherwise as in `as_mut_slice`.
        Some(unsafe { std::slice::from_raw_parts_mut(self.mapping.as_ptr().add(range.start), range.len()) })
    }

    /// Its bytes.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`; and nobody reads it through us meanwhile, by `&mut`.
        unsafe { std::slice::from_raw_parts_mut(self.mapping.as_ptr(), self.mapping.len()) }
    }
}

/// Segments over buffers, which it holds. Dropping it ends it and frees them.
#[derive(Debug)]
pub struct List {
    pub(crate) handle: ListHandle,
    pub(crate) segments: u64,
    // Dropped before the buffers, which it uses.
    pub(crate) hold: Hold,
    pub(crate) buffers: Vec<Buffer>,
}

impl List {
    /// Its handle, for SQEs of your own.
    pub fn handle(&self) -> ListHandle {
        self.handle
    }

    /// Its segments.
    pub fn segments(&self) -> u64 {
        self.segments
    }

    /// The buffers, in the order in which they were given.
    pub fn buffers(&self) -> &[Buffer] {
        &self.buffers
    }

    /// One buffer's bytes, to be written. (Not the buffer: it stays the list's.)
    pub fn bytes_mut(&mut self, buffer: usize) -> Option<&mut [u8]> {
        self.buffers.get_mut(buffer).map(Buffer::as_mut_slice)
    }

    /// Some of one buffer's bytes, to be written.
    pub fn range_mut(&mut self, buffer: usize, range: std::ops::Range<usize>) -> Option<&mut [u8]> {
        self.buffers.get_mut(buffer)?.range_mut(range)
    }
}

/// What can be leased.
pub trait LeaseTarget: sealed::Sealed {}
impl LeaseTarget for Buffer {}
impl LeaseTarget for List {}

pub(crate) mod sealed {
    #[cfg(feature = "tokio")]
    use dmaplane_ring::{abi::Rights, build::BuildError, build::LeaseGrant};

    pub trait Sealed {
        #[doc(hidden)]
        fn hold(&self) -> &crate::objects::Hold;

        /// A lease on all of it.
        #[doc(hidden)]
        #[cfg(feature = "tokio")]
        fn grant(&self, rights: Rights) -> Result<LeaseGrant, BuildError>;
    }

    impl Sealed for super::Buffer {
        fn hold(&self) -> &crate::objects::Hold {
            &self.hold
        }

        #[cfg(feature = "tokio")]
        fn grant(&self, rights: Rights) -> Result<LeaseGrant, BuildError> {
            LeaseGrant::range(self.handle, 0, self.len() as u64, rights)
        }
    }

    impl Sealed for super::List {
        fn hold(&self) -> &crate::objects::Hold {
            &self.hold
        }

        #[cfg(feature = "tokio")]
        fn grant(&self, rights: Rights) -> Result<LeaseGrant, BuildError> {
            Ok(LeaseGrant::list(self.handle, rights))
        }
    }
}

/// What a peer may touch: no slices until the lease is revoked. Dropping it revokes the lease and frees what it was on.
///
/// ```compile_fail
/// fn peek(leased: dmaplane::Leased<dmaplane::Buffer>) -> u8 {
///     leased.as_slice()[0]
/// }
/// ```
/// ```compile_fail
/// // Granting takes the buffer: it cannot be read while it is leased.
/// fn grant(plane: &mut dmaplane::Plane, buffer: dmaplane::Buffer) {
///     let _leased = plane.grant(buffer, dmaplane::Rights::WRITE);
///     let _ = buffer.as_slice();
/// }
/// ```
#[derive(Debug)]
#[must_use = "the memory comes back by `Plane::revoke`"]
pub struct Leased<T: LeaseTarget> {
    pub(crate) handle: LeaseHandle,
    // Dropped before the target, which it uses.
    pub(crate) hold: Hold,
    pub(crate) target: T,
}

impl<T: LeaseTarget> Leased<T> {
    /// Its handle, for SQEs of your own.
    pub fn handle(&self) -> LeaseHandle {
        self.handle
    }
}

/// A peer's lease, claimed by us. Dropping it gives it back.
#[derive(Debug)]
pub struct Import {
    pub(crate) handle: ImportHandle,
    pub(crate) length: u64,
    pub(crate) hold: Hold,
}

impl Import {
    /// Bytes of a range, segments of a list.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Its handle, for SQEs of your own.
    pub fn handle(&self) -> ImportHandle {
        self.handle
    }
}
