//! A copy by more than one worker, where one has nothing else to do (clause HOST-19).
//!
//! Whoever has the copy takes pieces of it, one after the other, until none is left. A worker that is free is asked to
//! join in, and leaves as soon as other work waits, so that nobody waits for it longer than for one piece, which is
//! bounded in bytes and in fragments. Should it not come at all, the first one does everything.

use super::fragments::Fragments;
use super::lane::Job;
use crate::memory::{Checksum, Moved};
use crate::worker::{Help, Workers};
use dmaplane_ring::abi::Errno;
use dmaplane_ring::wait::spin_until;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// Shorter copies gain less by a second worker than they lose when it is kept from its processor with a piece in hand.
const SHARED_BYTES_MIN: u64 = 8 << 20;
/// Before it sleeps for the helper's last piece, which takes no longer if the helper has a processor.
const SPIN: Duration = Duration::from_micros(50);

/// Who makes a copy, and what stops it.
pub(super) struct Crew<'a> {
    workers: &'a Workers,
    job: &'a Arc<Job>,
}

impl<'a> Crew<'a> {
    /// A worker with a job, and its colleagues.
    pub(super) fn new(workers: &'a Workers, job: &'a Arc<Job>) -> Crew<'a> {
        Crew { workers, job }
    }

    pub(super) fn stop(&self) -> &AtomicBool {
        self.job.stop_flag()
    }

    /// Copies all fragments, unless stopped: -EKEYREVOKED. Nobody touches the memory any more when it returns.
    ///
    /// # Safety
    /// The caller holds the regions that the fragments were checked against.
    pub(super) unsafe fn copy(&self, fragments: Fragments) -> Result<Moved, Errno> {
        let bytes = fragments.bytes();
        let (copied, checksum) = if bytes < SHARED_BYTES_MIN {
            // SAFETY: the caller's promise.
            unsafe { fragments.copy(0, usize::MAX, self.stop()) }
        } else {
            let share = Arc::new(Share::new(fragments, self.job.clone()));
            self.workers.invite(Arc::downgrade(&share) as _);
            let over = Over(&share);
            while share.copy_piece() {}
            drop(over);
            share.sum()
        };
        if copied == bytes { Ok(Moved { bytes, checksum: checksum.value() }) } else { Err(Errno::EKEYREVOKED) }
    }
}

/// A copy that several workers are at.
struct Share {
    fragments: Fragments,
    job: Arc<Job>,
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Default)]
struct State {
    /// Workers that joined in and may touch the memory.
    helpers: usize,
    /// Nobody may join in any more.
    over: bool,
    /// The first fragment that nobody has taken.
    next: usize,
    /// Of each piece: its first fragment, its bytes and their checksum.
    copied: Vec<(usize, u64, Checksum)>,
}

impl Share {
    fn new(fragments: Fragments, job: Arc<Job>) -> Share {
        Share { fragments, job, state: Mutex::default(), left: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Copies one piece; `false` when none is left, or it was stopped. The caller is the copy's own worker, or a helper
    /// that has joined in and not left.
    fn copy_piece(&self) -> bool {
        if self.job.is_stopped() {
            return false;
        }
        let (first, end) = {
            let mut state = self.state();
            let end = self.fragments.piece_end(state.next);
            (std::mem::replace(&mut state.next, end), end)
        };
        if first == end {
            return false;
        }
        // SAFETY: `Crew::copy`, whose caller holds the regions, is left only after `Over` is dropped: then every helper
        // has left, and none joins in.
        let (bytes, checksum) = unsafe { self.fragments.copy(first, end, self.job.stop_flag()) };
        self.state().copied.push((first, bytes, checksum));
        true
    }

    /// What all have copied, in the order of the fragments.
    fn sum(&self) -> (u64, Checksum) {
        let mut state = self.state();
        state.copied.sort_unstable_by_key(|(first, ..)| *first);
        let mut whole = (0, self.fragments.checksum());
        for &(_, bytes, checksum) in &state.copied {
            whole.0 += bytes;
            whole.1.append(checksum, bytes);
        }
        whole
    }
}

/// The copy is over for its own worker: nobody joins in any more, and who has joined in leaves.
struct Over<'a>(&'a Share);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.state().over = true;
        let alone = || self.0.state().helpers == 0;
        if !spin_until(SPIN, alone) {
            let state = self.0.state();
            let waited = self.0.left.wait_while(state, |state| state.helpers > 0);
            drop(waited.unwrap_or_else(|poisoned| poisoned.into_inner()));
        }
    }
}

impl Help for Share {
    fn help(&self, is_wanted: &dyn Fn() -> bool) {
        {
            let mut state = self.state();
            if state.over {
                return;
            }
            state.helpers += 1;
        }
        let _joined = Joined(self);
        while self.copy_piece() && !is_wanted() {}
    }
}

/// A worker has joined in; it leaves also when it panics.
struct Joined<'a>(&'a Share);

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        self.0.state().helpers -= 1;
        self.0.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::super::fragments::FRAGMENTS_MAX;
    use super::*;
    use crate::memory::{PeerRegion, Region, SLICE_BYTES};
    use dmaplane_engine::AllocRequest;
    use std::sync::mpsc::channel;

    const BYTES: u64 = 5 << 20;
    const WAIT: Duration = Duration::from_secs(10);

    /// Memory to copy from, with content, and to copy to.
    fn regions() -> (Vec<u8>, PeerRegion, Region) {
        let request = AllocRequest::plain(BYTES);
        let [source, target] = [(); 2].map(|()| Region::allocate(&request).unwrap());
        let content: Vec<u8> = (0..BYTES as u32).map(|at| ((at * 7) >> 9) as u8).collect();
        source.write(0, &content).unwrap();
        let descriptor = source.descriptor().unwrap().try_clone_to_owned().unwrap();
        (content, PeerRegion::check(descriptor, BYTES).unwrap(), target)
    }

    fn share(source: &PeerRegion, target: &Region) -> Share {
        let checksum = Checksum::new(true);
        let go_on = AtomicBool::new(false);
        // An odd length: the last piece is shorter.
        let fragments = Fragments::of_range(target, 0, source, 0, BYTES - 1, checksum, &go_on).unwrap();
        Share::new(fragments, Arc::default())
    }

    /// XFR-10: each byte is copied once, and the checksums of the pieces are put together in their order.
    #[test]
    fn xfr_10_a_copy_by_two_misses_a_piece_or_mixes_their_order() {
        let (content, source, target) = regions();
        for _ in 0..20 {
            target.write(0, &vec![0; BYTES as usize]).unwrap();
            let share = share(&source, &target);
            std::thread::scope(|scope| {
                scope.spawn(|| share.help(&|| false));
                let over = Over(&share);
                while share.copy_piece() {}
                drop(over);
                let (bytes, checksum) = share.sum();
                assert_eq!((bytes, checksum.value()), (BYTES - 1, crc32c::crc32c(&content[..BYTES as usize - 1])));
            });
            let mut copied = vec![0; BYTES as usize];
            target.read(0, &mut copied).unwrap();
            assert!(copied[..BYTES as usize - 1] == content[..BYTES as usize - 1] && copied[BYTES as usize - 1] == 0);
        }
    }

    /// LSE-12: when the copy's own worker reports, no helper is at the memory, and none comes later.
    #[test]
    fn lse_12_a_helper_is_at_the_memory_after_the_end() {
        let (_, source, target) = regions();
        let share = share(&source, &target);
        let (joined, has_joined) = channel();
        std::thread::scope(|scope| {
            let share = &share;
            let (stay, may_leave) = channel::<()>();
            scope.spawn(move || {
                share.help(&|| {
                    let _ = joined.send(());
                    // It is in the middle of it, for all that anybody knows.
                    let _ = may_leave.recv_timeout(Duration::from_millis(50));
                    true
                });
            });
            has_joined.recv_timeout(WAIT).unwrap();
            drop(Over(share));
            assert_eq!(share.state().helpers, 0);
            drop(stay);
        });
        let before = share.state().copied.len();
        share.help(&|| false);
        assert_eq!(share.state().copied.len(), before, "a helper came after the end");
    }

    /// HOST-18: pieces were as many fragments as made a slice on average, however long those were: a worker was kept by
    /// all the long ones in one, and looked once in 256 KiB of fragments of one byte whether to stop.
    #[test]
    fn host_18_a_piece_of_long_fragments_or_of_many_is_not_bounded() {
        const TINY: usize = 4 * FRAGMENTS_MAX + 3;
        const LONG: usize = 15;
        let (content, source, target) = regions();
        let go_on = AtomicBool::new(false);
        let mut fragments = Fragments::new(Checksum::new(true), TINY + LONG);
        let lengths = [(TINY, 1), (LONG, SLICE_BYTES as u64)];
        let mut at = 0;
        for length in lengths.into_iter().flat_map(|(count, length)| std::iter::repeat_n(length, count)) {
            let to = target.at(at, length).unwrap();
            fragments.push(to, source.at(at, length, &go_on).unwrap(), length).unwrap();
            at += length;
        }
        let share = Share::new(fragments, Arc::default());
        while share.copy_piece() {}
        let ends: Vec<usize> = share.state().copied.iter().map(|(first, ..)| *first).chain([TINY + LONG]).collect();
        for (piece, (_, bytes, _)) in ends.windows(2).zip(&share.state().copied) {
            assert!(piece[1] - piece[0] <= FRAGMENTS_MAX, "a piece of {} fragments", piece[1] - piece[0]);
            assert!(*bytes <= SLICE_BYTES as u64, "a piece of {bytes} bytes");
        }
        let (bytes, checksum) = share.sum();
        assert_eq!((bytes, checksum.value()), (at, crc32c::crc32c(&content[..at as usize])));
    }

    /// HOST-19: a stop stops all of them.
    #[test]
    fn host_19_a_stopped_copy_is_gone_on_with() {
        let (_, source, target) = regions();
        let share = share(&source, &target);
        assert!(share.copy_piece());
        let _ = share.job.stop();
        assert!(!share.copy_piece());
        share.help(&|| false);
        assert_eq!(share.sum().0, SLICE_BYTES as u64);
    }

    /// SEC-5: a helper leaves when other work waits, and is not asked when all workers have work.
    #[test]
    fn sec_5_a_helper_keeps_a_worker_from_other_work() {
        struct Endless(Mutex<std::sync::mpsc::Sender<()>>);
        impl Help for Endless {
            fn help(&self, is_wanted: &dyn Fn() -> bool) {
                self.0.lock().unwrap().send(()).unwrap();
                while !is_wanted() {
                    std::thread::yield_now();
                }
            }
        }
        let workers = Workers::start(1).unwrap();
        let (joined, has_joined) = channel();
        let endless: Arc<dyn Help> = Arc::new(Endless(Mutex::new(joined)));
        workers.invite(Arc::downgrade(&endless));
        has_joined.recv_timeout(WAIT).unwrap();
        let (done, is_done) = channel();
        let (go_on, may_go_on) = channel::<()>();
        workers.post(move || {
            done.send(()).unwrap();
            let _ = may_go_on.recv();
        });
        is_done.recv_timeout(WAIT).unwrap();
        workers.invite(Arc::downgrade(&endless));
        drop(go_on);
        assert!(has_joined.recv_timeout(Duration::from_millis(50)).is_err(), "asked although all have work");
    }
}
