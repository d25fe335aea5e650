//! Freed memory that the next buffers of the same context are made of, without being zeroed (clause BUF-3).

use crate::memory::Region;
use dmaplane_engine::AllocRequest;
use std::collections::VecDeque;

/// Regions that nobody uses or can look into. What was put in last is taken first: caches are likeliest to hold it.
pub(super) struct Recycled {
    /// Oldest first. Their lengths add up to `bytes`.
    regions: VecDeque<Region>,
    bytes: u64,
    /// `bytes` is never more.
    bytes_max: u64,
}

impl Recycled {
    pub(super) fn new(bytes_max: u64) -> Recycled {
        Recycled { regions: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Keeps a region, and gives back what there is no room for: the oldest ones, or this one.
    pub(super) fn put(&mut self, region: Region) -> Vec<Region> {
        let length = region.length_bytes();
        if length > self.bytes_max || !region.is_recyclable() {
            return vec![region];
        }
        let mut evicted = Vec::new();
        while self.bytes + length > self.bytes_max
            && let Some(oldest) = self.regions.pop_front()
        {
            self.bytes -= oldest.length_bytes();
            evicted.push(oldest);
        }
        self.bytes += length;
        self.regions.push_back(region);
        evicted
    }

    /// What a request may have instead of fresh memory.
    pub(super) fn take(&mut self, request: &AllocRequest) -> Option<Region> {
        let place = self.regions.iter().rposition(|region| region.suits(request))?;
        let region = self.regions.remove(place)?;
        self.bytes -= region.length_bytes();
        Some(region)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(length_bytes: u64) -> AllocRequest {
        AllocRequest { recycle: true, ..AllocRequest::plain(length_bytes) }
    }

    fn region(length_bytes: u64) -> Region {
        Region::allocate(&request(length_bytes)).unwrap()
    }

    #[test]
    fn buf_3_the_newest_that_suits_is_taken_and_the_oldest_goes_for_want_of_room() {
        let mut recycled = Recycled::new(3 * 4096);
        for number in 1..=3u8 {
            let region = region(4096);
            region.write(0, &[number]).unwrap();
            assert!(recycled.put(region).is_empty());
        }
        let evicted = recycled.put(region(8192));
        assert_eq!(evicted.len(), 2, "each is a page, and two are wanted");
        // 100 bytes are a page, too.
        let taken = recycled.take(&request(100)).unwrap();
        let mut byte = [0];
        taken.read(0, &mut byte).unwrap();
        assert_eq!(byte, [3]);
        assert!(recycled.take(&request(4096)).is_none() && recycled.take(&request(8192)).is_some());
        assert_eq!(recycled.bytes, 0);
        assert_eq!(recycled.put(region(4 * 4096)).len(), 1, "more than may be kept");
    }

    /// BUF-3: what somebody else can look into, or nobody wants recycled, is never given to another user.
    #[test]
    fn buf_3_memory_that_a_peer_was_handed_is_not_recycled() {
        let mut recycled = Recycled::new(1 << 20);
        let (lent, shown) = (region(4096), region(4096));
        assert!(lent.descriptor().is_some() && shown.exportable().is_some());
        assert_eq!(recycled.put(lent).len() + recycled.put(shown).len(), 2);
        assert_eq!(recycled.put(Region::allocate(&AllocRequest::plain(4096)).unwrap()).len(), 1);
        recycled.put(region(4096));
        for other in [
            AllocRequest::plain(4096),
            AllocRequest { node: Some(0), ..request(4096) },
            AllocRequest { huge: true, ..request(4096) },
        ] {
            assert!(recycled.take(&other).is_none(), "{other:?}");
        }
    }
}
