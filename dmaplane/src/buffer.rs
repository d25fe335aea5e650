//! Typed objects. None of them can be copied, so that a handle is used up when its object goes.

use dmaplane_embedded::Mapping;
use dmaplane_ring::abi::{BufferHandle, ImportHandle, LeaseHandle, ListHandle};

/// Memory that is ours alone: no peer holds a lease on it and no operation uses it.
#[derive(Debug)]
pub struct Buffer {
    pub(crate) handle: BufferHandle,
    pub(crate) mapping: Mapping,
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
        // locally take the buffer by `&mut` or by value, and a lease consumes it.
        unsafe { std::slice::from_raw_parts(self.mapping.as_ptr(), self.mapping.len()) }
    }

    /// Its bytes.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`; and nobody reads it through us meanwhile, by `&mut`.
        unsafe { std::slice::from_raw_parts_mut(self.mapping.as_ptr(), self.mapping.len()) }
    }
}

/// Segments over buffers, which it holds.
#[derive(Debug)]
pub struct List {
    pub(crate) handle: ListHandle,
    /// Its segments.
    pub segments: u64,
    pub(crate) buffers: Vec<Buffer>,
}

impl List {
    /// Its handle, for SQEs of your own.
    pub fn handle(&self) -> ListHandle {
        self.handle
    }

    /// The buffers, in the order in which they were given.
    pub fn buffers(&self) -> &[Buffer] {
        &self.buffers
    }

    /// The same, to be written.
    pub fn buffers_mut(&mut self) -> &mut [Buffer] {
        &mut self.buffers
    }
}

/// What can be leased.
pub trait LeaseTarget: sealed::Sealed {}
impl LeaseTarget for Buffer {}
impl LeaseTarget for List {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Buffer {}
    impl Sealed for super::List {}
}

/// What a peer may touch: no slices until the lease is revoked.
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
    pub(crate) target: T,
}

impl<T: LeaseTarget> Leased<T> {
    /// Its handle, for SQEs of your own.
    pub fn handle(&self) -> LeaseHandle {
        self.handle
    }
}

/// A peer's lease, claimed by us.
#[derive(Debug)]
pub struct Import {
    pub(crate) handle: ImportHandle,
    /// Bytes of a range, segments of a list.
    pub length: u64,
}

impl Import {
    /// Its handle, for SQEs of your own.
    pub fn handle(&self) -> ImportHandle {
        self.handle
    }
}
