//! Where memory lies: asking for a node, and looking what came of it.

use super::Plane;
use crate::buffer::Buffer;
use crate::error::Error;
use dmaplane_embedded::placement_support;
use dmaplane_ring::abi::{CqeFlags, Errno};
use dmaplane_ring::build::{Alloc, PagePlacement, Placement};

/// Where a buffer's pages lie, as far as the system tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PagesOnNode {
    /// Looked up page by page.
    Counted {
        /// So many lie on the node.
        on_node: u64,
        /// So many were looked at.
        pages: u64,
    },
    /// It could not be looked up; they may lie anywhere.
    Unverifiable {
        /// What the system refuses.
        reason: String,
    },
}

impl Plane {
    /// Allocates zeroed memory on a node. Preferred placement is a wish, and one that [`Plane::placement`] may not be
    /// able to verify; strict placement is verified or fails.
    pub fn alloc_placed(&mut self, length_bytes: u64, placement: PagePlacement) -> Result<Buffer, Error> {
        let what = "allocating a buffer";
        let sqe = Alloc::new(length_bytes).map_err(|source| Error::Value { what, source })?.placement(placement).sqe();
        let cqe = self.local(what, sqe).map_err(|error| match (placement, error.errno()) {
            (PagePlacement::Strict(_), Some(Errno::EOPNOTSUPP)) => Error::PlacementForbidden { what, reason: reason() },
            _ => error,
        })?;
        self.buffer_of(what, cqe.word0)
    }

    /// Allocates zeroed memory on the node that a device is nearest to ([`node_of_device`](crate::node_of_device)), as
    /// far as there is room; anywhere, where it is no nearer to one node than to another.
    ///
    /// ```
    /// let mut plane = dmaplane::Plane::open(dmaplane::Config::default())?;
    /// assert!(matches!(plane.alloc_near(4096, "no such device"), Err(dmaplane::Error::NoDevice { .. })));
    /// # Ok::<(), dmaplane::Error>(())
    /// ```
    pub fn alloc_near(&mut self, length_bytes: u64, device: &str) -> Result<Buffer, Error> {
        let placement = crate::near::node_of_device(device)?.map_or(PagePlacement::Any, PagePlacement::Preferred);
        self.alloc_placed(length_bytes, placement)
    }

    /// As [`Plane::alloc`], for an owner that makes and frees such buffers again and again: it may be given the memory
    /// of one that it has freed, with what was left in it, which takes microseconds instead of a page fault and a
    /// zeroed page for each 4 KiB. Never memory that a peer or another process was handed; nor another owner's.
    ///
    /// ```
    /// # fn main() -> Result<(), dmaplane::Error> {
    /// let mut plane = dmaplane::Plane::open(dmaplane::Config::default())?;
    /// let mut buffer = plane.alloc_recycled(1 << 20)?;
    /// buffer.as_mut_slice()[0] = 7;
    /// plane.free(buffer)?;
    /// assert_eq!(plane.alloc_recycled(1 << 20)?.as_slice()[0], 7);
    /// assert_eq!(plane.alloc(1 << 20)?.as_slice()[0], 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn alloc_recycled(&mut self, length_bytes: u64) -> Result<Buffer, Error> {
        let what = "allocating a buffer";
        let alloc = Alloc::new(length_bytes).map_err(|source| Error::Value { what, source })?;
        let cqe = self.local(what, alloc.recycled().sqe())?;
        self.buffer_of(what, cqe.word0)
    }

    /// How many of the buffer's pages lie on `node`, looked up page by page.
    pub fn placement(&mut self, buffer: &Buffer, node: u32) -> Result<PagesOnNode, Error> {
        let what = "looking where a buffer lies";
        self.check(what, &buffer.hold)?;
        let cqe = self.local(what, Placement::new(buffer.handle, node).sqe())?;
        if cqe.flags & CqeFlags::UNVERIFIABLE.bits() != 0 {
            return Ok(PagesOnNode::Unverifiable { reason: reason() });
        }
        Ok(PagesOnNode::Counted { on_node: cqe.word0, pages: cqe.word1 })
    }
}

/// A CQE has no room for words: what is refused here is asked here.
fn reason() -> String {
    match placement_support() {
        dmaplane_embedded::Placement::Unverifiable { reason } => reason,
        dmaplane_embedded::Placement::Verifiable => "the system tells nothing of this memory's pages".to_owned(),
    }
}
