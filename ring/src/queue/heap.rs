//! A ring in this process's own memory: what the embedded host and tests use.

use super::{Client, Engine, MappedRing};
use crate::abi::RingLayout;
use core::ptr::NonNull;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::sync::Arc;

/// Page-aligned zeroed memory.
#[derive(Debug)]
pub struct Pages {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: `Pages` owns plain memory and gives no access to it by itself.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    fn new(bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes.max(4096), 4096).expect("ring areas are a few MiB at most");
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        match NonNull::new(start) {
            Some(start) => Pages { start, layout },
            None => handle_alloc_error(layout),
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, freed once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// A ring on the heap.
pub type HeapRing = MappedRing<[Pages; 2]>;

impl HeapRing {
    /// Both sides of a fresh ring.
    pub fn pair(layout: RingLayout) -> (Client<Arc<HeapRing>>, Engine<Arc<HeapRing>>) {
        let pages = [Pages::new(layout.client_bytes()), Pages::new(layout.engine_bytes())];
        let (client, engine) = (pages[0].start, pages[1].start);
        // SAFETY: the areas are as long as the layout says, page-aligned, live as long as `pages`, which the ring
        // owns (moving the array does not move the heap memory), and nothing else refers to them.
        let ring = Arc::new(unsafe { MappedRing::new(client, engine, layout, pages) });
        ring.identify();
        let client = Client::attach(ring.clone()).expect("it was made a ring just now");
        (client, Engine::new(ring))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{Cqe, EngineArea, Sqe};
    use crate::atomic::Word;
    use crate::queue::{Full, RingIdentity, RingMemory, RingMismatch, RingWord};

    fn sqe(user_data: u64) -> Sqe {
        Sqe { user_data, ..Sqe::default() }
    }

    /// Two areas in memory of our own, as a client gets them from a call.
    fn attach(
        engine: &MappedRing<[Pages; 2]>,
        layout: RingLayout,
        lengths: (usize, usize),
    ) -> Result<(), RingMismatch> {
        let [client_area, engine_area] = engine.owner();
        let client = NonNull::slice_from_raw_parts(client_area.start, lengths.0);
        let area = NonNull::slice_from_raw_parts(engine_area.start, lengths.1);
        // SAFETY: the pages live as long as `engine`, longer than what is attached here.
        unsafe { MappedRing::attach(client, area, layout, ()) }.map(|_| ())
    }

    #[test]
    fn ring_2_a_client_takes_only_a_ring_of_its_version_and_sizes() {
        let layout = RingLayout::new(8, 16).unwrap();
        let pages = [Pages::new(layout.client_bytes()), Pages::new(layout.engine_bytes())];
        let whole = (layout.client_bytes(), layout.engine_bytes());
        let (client, engine) = (pages[0].start, pages[1].start);
        // SAFETY: as in `pair`.
        let ring = unsafe { MappedRing::new(client, engine, layout, pages) };
        assert_eq!(attach(&ring, layout, whole), Err(RingMismatch::Magic(0)), "its engine has not set it up");
        ring.identify();
        assert_eq!(attach(&ring, layout, whole), Ok(()));

        let (sq_entries, cq_entries) = (layout.sq_entries, layout.cq_entries);
        for expected in [RingLayout { sq_entries: 4, ..layout }, RingLayout { cq_entries: 8, ..layout }] {
            let error = RingMismatch::Sizes { expected, sq_entries, cq_entries };
            assert_eq!(attach(&ring, expected, whole), Err(error));
        }
        for short in [(whole.0 - 1, whole.1), (whole.0, whole.1 - 1), (0, 0)] {
            assert_eq!(attach(&ring, layout, short), Err(RingMismatch::Areas(layout)));
        }
        // What a foreign or a later engine may have written.
        let word = |offset: usize, value: u32| {
            // SAFETY: a word of the engine's area, which nobody else touches.
            unsafe { engine.add(offset).cast::<u32>().write(value) }
        };
        word(EngineArea::VERSION, 1);
        assert_eq!(attach(&ring, layout, whole), Err(RingMismatch::Version(1)));
        assert_eq!(Client::attach(Arc::new(ring)).err(), Some(RingMismatch::Version(1)));
    }

    #[test]
    fn ring_2_sizes_that_no_ring_has_are_none() {
        for (sq_entries, cq_entries) in [(3, 16), (8, 8), (32, 16), (1 << 16, 1 << 16), (0, 16)] {
            let expected = RingLayout { sq_entries, cq_entries };
            let error = RingMismatch::Sizes { expected, sq_entries, cq_entries };
            assert_eq!(RingIdentity::of(expected).check(expected), Err(error));
            assert!(std::format!("{error}").contains("entries, not"));
        }
    }

    #[test]
    fn ring_4_nothing_is_visible_before_publish_and_a_full_queue_hands_the_sqe_back() {
        let (mut client, mut engine) = HeapRing::pair(RingLayout::new(4, 16).unwrap());
        for n in 0..4 {
            client.submitter.push(&sqe(n)).unwrap();
        }
        assert_eq!(client.submitter.push(&sqe(4)), Err(Full(sqe(4))));
        assert!(engine.submissions.peek(0).is_none());
        assert!(!client.submitter.publish(), "the engine is awake");
        assert_eq!((0..5).filter_map(|n| engine.submissions.peek(n)).map(|s| s.user_data).sum::<u64>(), 6);
        engine.submissions.advance(4);
        assert_eq!(client.submitter.free(), 4);
    }

    #[test]
    fn ring_4_batches_of_any_length_arrive_whole_and_in_order() {
        // More than is staged, and more than the ring takes in one round.
        let (mut client, mut engine) = HeapRing::pair(RingLayout::new(64, 128).unwrap());
        let mut next = 0;
        for length in (0..=64).chain([64, 1, 33, 32, 31, 2]) {
            for n in next..next + length {
                client.submitter.push(&sqe(n)).unwrap();
            }
            assert!(engine.submissions.peek(0).is_none(), "{length} were visible before they were published");
            let _ = client.submitter.publish();
            for n in next..next + length {
                let taken = engine.submissions.peek(0).unwrap();
                assert_eq!(taken, sqe(n));
                engine.submissions.advance(1);
                engine.completions.push(&Cqe::new(n, -1)).unwrap();
            }
            assert_eq!(client.completer.available(), 0);
            let _ = engine.completions.publish();
            let mut reaped = next;
            client.completer.reap(u32::MAX, |cqe| {
                assert_eq!(cqe, Cqe::new(reaped, -1));
                reaped += 1;
            });
            next += length;
            assert_eq!(reaped, next);
        }
    }

    #[test]
    fn ring_4_what_is_staged_and_what_is_written_through_arrive_in_one_order() {
        let (mut client, mut engine) = HeapRing::pair(RingLayout::new(64, 128).unwrap());
        let mut window = [Sqe::default(); 32];
        let (mut next, mut expected, mut reaped) = (0, 0, 0);
        for round in 0..200u64 {
            // The way changes in the middle of batches, with entries staged or none.
            for n in 0..round % 65 {
                if (round + n) % 7 == 0 {
                    client.submitter.write_through((round + n) % 2 == 0);
                }
                client.submitter.push(&sqe(next)).unwrap();
                next += 1;
            }
            assert_eq!(engine.submissions.peek_near_batch(&mut window), 0, "visible before they were published");
            let _ = client.submitter.publish();
            loop {
                let count = engine.submissions.peek_near_batch(&mut window);
                for taken in window.iter().take(count) {
                    assert_eq!(*taken, sqe(expected));
                    if expected % 11 == 0 {
                        engine.completions.write_through(expected % 2 == 0);
                    }
                    engine.completions.push(&Cqe::new(expected, 0)).unwrap();
                    expected += 1;
                }
                engine.submissions.advance(count as u32);
                if count == 0 {
                    break;
                }
            }
            assert_eq!(u64::from(engine.completions.unpublished()), round % 65);
            assert_eq!(u64::from(client.completer.available()), expected - round % 65 - reaped, "published too early");
            let _ = engine.completions.publish();
            // Some are left behind, so that the next round's begin in the middle of the ring.
            let left = if round == 199 { 0 } else { round % 64 };
            client.completer.reap(u32::try_from(expected - reaped - left.min(expected - reaped)).unwrap(), |cqe| {
                assert_eq!(cqe, Cqe::new(reaped, 0));
                reaped += 1;
            });
        }
        assert_eq!((next, expected, reaped), (expected, reaped, next));
    }

    #[test]
    fn ring_7_lying_indices_move_nothing() {
        let (mut client, mut engine) = HeapRing::pair(RingLayout::new(4, 16).unwrap());
        client.submitter.push(&sqe(1)).unwrap();
        let _ = client.submitter.publish();
        let memory = client.completer.memory().clone();
        assert_eq!(engine.submissions.available(), 1);
        for lie in [5, 0x8000_0000, u32::MAX] {
            memory.word(RingWord::SqTail).store_relaxed(lie);
            assert_eq!(engine.submissions.available(), 1, "tail {lie} is more than the queue holds");
        }
        engine.completions.push(&Cqe::new(1, 0)).unwrap();
        engine.completions.publish();
        assert_eq!(engine.completions.free(), 15);
        for lie in [2, 17, u32::MAX] {
            memory.word(RingWord::CqHead).store_relaxed(lie);
            assert_eq!(engine.completions.free(), 15, "head {lie} is beyond what was published");
        }
    }

    #[test]
    fn ring_5_counts_wrap_through_u32() {
        let (mut client, mut engine) = HeapRing::pair(RingLayout::new(4, 16).unwrap());
        for round in 0..100u64 {
            for n in 0..3 {
                client.submitter.push(&sqe(round * 3 + n)).unwrap();
            }
            let _ = client.submitter.publish();
            for n in 0..3 {
                assert_eq!(engine.submissions.peek(n).unwrap().user_data, round * 3 + u64::from(n));
            }
            engine.submissions.advance(3);
        }
    }

    #[test]
    fn wake_1_a_sleeper_is_reported_to_the_publisher() {
        let (mut client, mut engine) = HeapRing::pair(RingLayout::new(4, 16).unwrap());
        assert!(engine.submissions.prepare_sleep());
        client.submitter.push(&sqe(1)).unwrap();
        assert!(client.submitter.publish(), "the engine sleeps");
        assert!(!engine.submissions.prepare_sleep(), "an SQE waits");
        engine.submissions.awake();
        client.submitter.push(&sqe(2)).unwrap();
        assert!(!client.submitter.publish());

        assert_eq!(client.completer.prepare_sleep(), Some(0));
        engine.completions.push(&Cqe::new(1, 0)).unwrap();
        assert!(engine.completions.publish(), "the client sleeps");
        assert_eq!(client.completer.prepare_sleep(), None);
    }
}
