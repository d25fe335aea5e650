//! While the poller is awake a client makes no system call (clause RUN-2): a thread under strict seccomp, which kills
//! it at the first one, submits and reaps a million no-ops.

use dmaplane_embedded::{Config, Context, RunMode};
use dmaplane_ring::build::Nop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const OPERATIONS: u64 = 1_000_000;
const BATCH: u64 = 32;
const FAILED: u64 = u64::MAX;

static REAPED: AtomicU64 = AtomicU64::new(0);

#[test]
fn run_2_a_million_no_ops_under_strict_seccomp() {
    let config = Config { mode: RunMode::Poller { idle: Duration::from_secs(600) }, ..Config::default() };
    let context = Context::open(config).unwrap();
    let mut ring = context.ring(128, 256).unwrap();
    // The poller is awake once it has answered.
    ring.push(Nop::new()).unwrap();
    ring.submit();
    assert!(ring.wait(Duration::from_secs(5)) && ring.reap_one().is_some());
    std::thread::spawn(move || {
        // SAFETY: only this thread is bound; it makes no further call but the exit below.
        if unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) } != 0 {
            REAPED.store(FAILED, Ordering::Release);
            return;
        }
        let (mut pushed, mut reaped, mut sum) = (0u64, 0u64, 0u64);
        while reaped < OPERATIONS {
            while pushed < OPERATIONS && pushed - reaped < 128 {
                for _ in 0..BATCH.min(OPERATIONS - pushed) {
                    if ring.push(Nop::new().user_data(pushed)).is_err() {
                        break;
                    }
                    pushed += 1;
                }
                ring.submit();
            }
            reaped += u64::from(ring.reap(128, |cqe| sum += cqe.user_data + u64::from(cqe.res != 0)));
            std::hint::spin_loop();
        }
        let right = sum == OPERATIONS * (OPERATIONS - 1) / 2;
        REAPED.store(if right { reaped } else { FAILED }, Ordering::Release);
        // Under strict seccomp a thread may only leave by `exit`; nothing of it is dropped.
        // SAFETY: ends this thread alone.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    });
    let start = Instant::now();
    while REAPED.load(Ordering::Acquire) == 0 {
        assert!(start.elapsed() < Duration::from_secs(120), "the thread was killed, or is far too slow");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(REAPED.load(Ordering::Acquire), OPERATIONS, "seccomp could not be set, or a CQE is wrong");
    println!("{OPERATIONS} no-ops in {:?} without a system call", start.elapsed());
    // Its ring is never dropped: end the context's threads with the process.
    std::mem::forget(context);
}
