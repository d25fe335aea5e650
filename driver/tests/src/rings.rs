//! Operations through rings.

use crate::Test;
use crate::kit::{WAIT, complete, device, refused, succeed};
use anyhow::{Context as _, Result, ensure};
use dmaplane_device::Device;
use dmaplane_ring::abi::device::{DeviceSetup, setup_flags};
use dmaplane_ring::abi::{Errno, Opcode, Sqe};
use dmaplane_ring::build::{Nop, Timeout};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("dev_4_no_ops_complete_in_order_by_entering", entered),
    ("dev_4_a_wait_ends_at_its_time_and_with_what_it_waits_for", waits),
    ("dev_4_a_wait_under_a_signal_mask_is_interrupted_by_what_it_lets_through", masked),
    ("dev_4_an_eventfd_and_poll_tell_of_completions", told),
    ("bug_8_threads_with_rings_of_their_own_get_their_own_completions", own_completions),
    ("bug_14_a_full_completion_queue_costs_nothing_and_loses_nothing", full),
    ("sqe_4_an_unknown_opcode_is_refused", unknown_opcode),
];

fn entered() -> Result<()> {
    let (_device, mut ring) = device()?;
    let mut next = 0;
    for round in 0..200u64 {
        for n in 0..48 {
            ensure!(ring.push(Nop::new().user_data(round * 48 + n)).is_ok(), "the ring is full");
        }
        ensure!(ring.enter(48, WAIT)? == 48, "not all of a batch are there");
        let mut right = true;
        ring.reap(u32::MAX, |cqe| {
            right &= cqe.user_data == next && cqe.res == 0;
            next += 1;
        });
        ensure!(right, "a completion is not the next one");
    }
    ensure!(next == 200 * 48, "{next} completions");
    Ok(())
}

fn waits() -> Result<()> {
    let (_device, mut ring) = device()?;
    let start = Instant::now();
    refused(ring.enter(1, Duration::from_millis(50)), libc::ETIME, "a wait for nothing")?;
    ensure!(start.elapsed() >= Duration::from_millis(50), "it ended after {:?}", start.elapsed());
    // The CQE comes from the engine's timer, on a work item, while we wait.
    let cqe = complete(&mut ring, Timeout::after_ns(30_000_000).sqe())?;
    ensure!(cqe.result() == Err(Errno::ETIME), "{cqe:?}");
    refused(ring.enter(1, Duration::ZERO), libc::ETIME, "a wait of no time")?;
    ensure!(ring.reap_one().is_none(), "a second completion of one operation");
    Ok(())
}

fn told() -> Result<()> {
    let (_device, mut ring) = device()?;
    let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK)?;
    let pipe = rustix::pipe::pipe()?;
    refused(ring.register(Some(pipe.0.as_fd())), libc::EINVAL, "a pipe for an eventfd")?;
    ring.register(Some(eventfd.as_fd()))?;
    let mut told_by_eventfd = 0;
    for round in 0..50u64 {
        ensure!(ring.push(Timeout::after_ns(12_000_000).user_data(round)).is_ok(), "the ring is full");
        ring.enter(0, WAIT)?;
        // The eventfd may be written to a moment after the ring has told: that one comes too early for the next.
        let cqe = loop {
            if ring.prepare_sleep() {
                let within = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
                let mut both = [
                    rustix::event::PollFd::new(&eventfd, rustix::event::PollFlags::IN),
                    rustix::event::PollFd::new(&ring, rustix::event::PollFlags::IN),
                ];
                ensure!(rustix::event::poll(&mut both, Some(&within))? > 0, "round {round}: nothing told");
            }
            ring.awake();
            let mut count = [0; 8];
            told_by_eventfd += u32::from(rustix::io::read(&eventfd, &mut count).is_ok());
            if let Some(cqe) = ring.reap_one() {
                break cqe;
            }
        };
        ensure!(cqe.user_data == round && cqe.result() == Err(Errno::ETIME), "{cqe:?}");
    }
    ensure!(told_by_eventfd > 10, "the eventfd told of {told_by_eventfd} of 50");
    ring.register(None)?;
    Ok(())
}

extern "C" fn take_signal(_: i32) {}

/// Whether the signal waits to be handled.
fn is_pending() -> bool {
    // SAFETY: the set is this function's own.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigpending(&mut set);
        libc::sigismember(&set, libc::SIGUSR1) == 1
    }
}

fn masked() -> Result<()> {
    let (_device, mut ring) = device()?;
    let handler = take_signal as extern "C" fn(i32) as usize;
    // SAFETY: the handler does nothing, and the set is this thread's own.
    let set = unsafe {
        libc::signal(libc::SIGUSR1, handler);
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGUSR1);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        libc::raise(libc::SIGUSR1);
        set
    };
    // Blocked: the wait does not mind it.
    refused(ring.enter(1, Duration::from_millis(20)), libc::ETIME, "a wait with a blocked signal pending")?;
    let blocked = 1u64 << (libc::SIGUSR1 - 1);
    refused(ring.enter_masked(1, Duration::from_millis(20), blocked), libc::ETIME, "the same by the call's own mask")?;
    ensure!(is_pending(), "a blocked signal was handled");
    refused(ring.enter_masked(1, WAIT, 0), libc::EINTR, "a wait that lets the signal through")?;
    ensure!(!is_pending(), "its handler has not run");
    // The mask from before is back.
    // SAFETY: as above.
    let blocked = unsafe {
        let mut now = std::mem::zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &mut now);
        libc::sigismember(&now, libc::SIGUSR1)
    };
    ensure!(blocked == 1, "the signal is not blocked any more");
    ensure!(ring.push(Nop::new()).is_ok(), "the ring is full");
    ensure!(ring.enter_masked(1, WAIT, 0)? == 1, "a completion under a mask");
    // SAFETY: as above.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut()) };
    Ok(())
}

fn own_completions() -> Result<()> {
    let device = Device::open(DeviceSetup::default())?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4u64)
            .map(|thread| {
                let device = &device;
                scope.spawn(move || -> Result<()> {
                    let mut ring = device.ring(16, 32)?;
                    for n in 0..2000u64 {
                        let name = thread << 32 | n;
                        let cqe = succeed(&mut ring, Nop::new().user_data(name))?;
                        ensure!(cqe.user_data == name, "thread {thread} got {:#x} for {name:#x}", cqe.user_data);
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().ok().context("a thread has panicked")?)
    })
}

/// The kernel's CPU time so far, in ticks: user, nice, system, irq.
fn busy_ticks() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    let numbers: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    Ok(numbers.iter().take(3).sum())
}

fn full() -> Result<()> {
    full_on(&Device::open(DeviceSetup::default())?)?;
    // Whoever polls does not go round for ever because a client does not reap.
    full_on(&Device::open(DeviceSetup { flags: setup_flags::POLLER, ..DeviceSetup::default() })?)
}

fn full_on(device: &Device) -> Result<()> {
    let mut ring = device.ring(16, 16)?;
    let mut pushed = 0;
    for _ in 0..8 {
        while ring.push(Nop::new().user_data(pushed)).is_ok() {
            pushed += 1;
        }
        ring.enter(0, WAIT)?;
        std::thread::sleep(Duration::from_millis(5));
    }
    // A few places of the CQ are kept for control operations.
    ensure!(pushed >= 24, "a CQ and an SQ full, not {pushed}");
    // 500 ms on two processors are 100 ticks. The least of several: the machine has other things to do.
    let mut least = u64::MAX;
    for _ in 0..5 {
        let before = busy_ticks()?;
        std::thread::sleep(Duration::from_millis(500));
        least = least.min(busy_ticks()? - before);
        if least < 25 {
            break;
        }
    }
    ensure!(least < 25, "{least} ticks of work while a full queue waits for its client");
    let mut next = 0;
    while next < pushed {
        let mut right = true;
        let found = ring.reap(u32::MAX, |cqe| {
            right &= cqe.user_data == next;
            next += 1;
        });
        ensure!(right, "out of order");
        if found == 0 {
            ring.enter(1, WAIT)?;
        }
    }
    Ok(())
}

fn unknown_opcode() -> Result<()> {
    let (_device, mut ring) = device()?;
    for opcode in (0..=255u8).filter(|&byte| Opcode::from_byte(byte).is_none()) {
        let cqe = complete(&mut ring, Sqe { opcode, ..Sqe::default() })?;
        ensure!(cqe.result() == Err(Errno::EINVAL), "opcode {opcode}: {cqe:?}");
    }
    Ok(())
}
