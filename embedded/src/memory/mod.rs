//! Memory: regions that are ours, regions that are a peer's, where their pages lie, and every copy.

mod checksum;
mod copy;
mod peer_region;
mod placement;
mod region;
mod stream;

pub(crate) use checksum::{Checksum, Moved};
pub(crate) use copy::{CopyEnd, SLICE_BYTES, copy_slices};
pub(crate) use peer_region::PeerRegion;
pub(crate) use placement::can_look;
pub use placement::{Placement, placement_support};
pub(crate) use region::errno;
pub use region::{Mapping, Region};
pub(crate) use stream::{Stores, prefetch};
