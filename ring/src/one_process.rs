//! Fences between threads of one process: who publishes pays nothing, who goes to sleep pays for both.
//!
//! A full fence after each batch waits until every entry has reached the other core, which is most of what a batch
//! costs. Inside one process the kernel can run it for the publisher, at the moment when it matters: membarrier(2) with
//! MEMBARRIER_CMD_PRIVATE_EXPEDITED has every running thread of the process pass through a full fence. Beside it the
//! publisher needs no more than to keep its accesses in program order, which is the compiler's business.
//!
//! Loom cannot see this: what it explores are full fences on both sides, to which membarrier(2) says that a pair of the
//! two is equal.

use crate::atomic::{Atomics, Native};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, compiler_fence};
use rustix::thread::{MembarrierCommand, membarrier};
use std::sync::Once;
use std::time::Duration;

/// The kernel runs this process's fences.
static REGISTERED: AtomicBool = AtomicBool::new(false);

/// How long a store may wait in a processor's buffer at the very most: thousands of times what it takes, and long enough
/// for a thread that is not running to have been switched out, which is a full fence.
const STORES_ARE_OUT: Duration = Duration::from_millis(1);

/// Asks the kernel, once, to run this process's fences; where it does not, all of them are full ones. `true`: it does.
/// Before the first ring is made, so that its users find it settled.
pub fn register() -> bool {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok() {
            // Release: pairs with the acquire below, for the sake of the registration.
            REGISTERED.store(true, Ordering::Release);
        }
    });
    REGISTERED.load(Ordering::Acquire)
}

/// The machine's own atomics, with fences for threads of one process.
#[derive(Clone, Copy, Debug, Default)]
pub struct OneProcess;

impl Atomics for OneProcess {
    type U32 = AtomicU32;
    type U64 = AtomicU64;

    #[inline]
    fn fence_full() {
        Native::fence_full();
    }

    #[inline]
    fn fence_publisher() {
        // Relaxed: whoever finds the old value fences fully, which is never wrong.
        if REGISTERED.load(Ordering::Relaxed) {
            // Partner: the membarrier in `fence_sleeper`, which is a full fence in this thread, before or after all of
            // what stands on either side of here.
            compiler_fence(Ordering::SeqCst);
        } else {
            Native::fence_full();
        }
    }

    fn fence_sleeper() {
        // Partner: `fence_publisher`.
        if REGISTERED.load(Ordering::Acquire) && membarrier(MembarrierCommand::PrivateExpedited).is_err() {
            // Once registered it fails only where the process has forbidden itself the call since. Whoever publishes
            // from now on fences fully; and what others have published meanwhile, trusting in us, is out by then.
            REGISTERED.store(false, Ordering::SeqCst);
            std::thread::sleep(STORES_ARE_OUT);
        }
        Native::fence_full();
    }
}
