//! The poller: who takes SQEs while nobody makes a call, and sleeps when nothing comes.

use crate::Test;
use crate::kit::{WAIT, slow};
use anyhow::{Context as _, Result, ensure};
use dmaplane_device::{Device, Ring};
use dmaplane_ring::abi::QueryWhat;
use dmaplane_ring::abi::device::{DeviceSetup, setup_flags};
use dmaplane_ring::build::{Nop, Query};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("dev_4_a_poller_takes_what_nobody_enters_for", polled),
    ("run_4_rings_come_and_go_beside_a_busy_poller", others),
    ("run_2_who_wakes_a_poller_that_slept_makes_no_further_system_call", woken),
];

fn polled() -> Result<()> {
    let setup = DeviceSetup { flags: setup_flags::POLLER, poller_idle_us: 2000, ..DeviceSetup::default() };
    let device = Device::open(setup)?;
    let mut ring = device.ring(64, 128)?;
    let (mut pushed, mut reaped, mut sum) = (0u64, 0u64, 0u64);
    let start = Instant::now();
    while reaped < 20_000 {
        while pushed < 20_000 && pushed - reaped + 32 <= 64 {
            for _ in 0..32 {
                ensure!(ring.push(Nop::new().user_data(pushed)).is_ok(), "the ring is full");
                pushed += 1;
            }
            ring.submit()?;
        }
        reaped += u64::from(ring.reap(u32::MAX, |cqe| sum += cqe.user_data));
        // Now and then it is left to sleep.
        if reaped.is_multiple_of(4096) {
            std::thread::sleep(Duration::from_millis(10));
        }
        ensure!(start.elapsed() < Duration::from_secs(60), "{reaped} of 20,000 after a minute");
    }
    ensure!(sum == 20_000 * 19_999 / 2, "completions carry other names than the operations had");
    Ok(())
}

fn until_poller_sleeps(ring: &Ring, wanted: bool) -> Result<()> {
    let start = Instant::now();
    while ring.poller_sleeps() != wanted {
        ensure!(start.elapsed() < WAIT, "the poller {}", if wanted { "does not sleep" } else { "is not woken" });
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn woken() -> Result<()> {
    let program = std::env::current_exe()?;
    let ended = Command::new(program).arg("--child=silent").stdout(Stdio::inherit()).output()?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.signal() != Some(libc::SIGKILL), "it has made a system call: {said}");
    ensure!(ended.status.signal() != Some(libc::SIGALRM), "completions are missing: {said}");
    ensure!(ended.status.success(), "{}: {said}", ended.status);
    Ok(())
}

/// In a process of its own: lets the poller fall asleep, rings once, and lives under strict seccomp from then on, which
/// kills it for a system call.
pub fn silent() -> Result<()> {
    const BATCH: u64 = 64;
    let operations = if slow() { 64_000 } else { 1_000_000 };
    let setup = DeviceSetup { flags: setup_flags::POLLER, poller_idle_us: 2_000_000, ..DeviceSetup::default() };
    let device = Device::open(setup)?;
    let mut ring = device.ring(2 * BATCH as u32, 4 * BATCH as u32)?;
    // Its first steps may come after the ring.
    until_poller_sleeps(&ring, false)?;
    until_poller_sleeps(&ring, true)?;
    ensure!(ring.push(Nop::new()).is_ok(), "the ring is full");
    ring.submit()?;
    until_poller_sleeps(&ring, false).context("it was rung for")?;
    ensure!(ring.enter(1, WAIT)? == 1 && ring.reap_one().is_some(), "what was rung for is not done");
    // SAFETY: this process has one thread, which makes no further call but the exit below. The clock cannot be read
    // either: an alarm ends what would wait for ever.
    let is_strict = unsafe {
        libc::alarm(120);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) == 0
    };
    if !is_strict {
        println!("  this kernel has no seccomp: that no call is made is known by the poller's flag alone");
    }
    let (mut pushed, mut reaped, mut wrong) = (0u64, 0u64, 0u64);
    while reaped < operations {
        while pushed < operations && pushed - reaped <= BATCH {
            for n in pushed..pushed + BATCH {
                wrong += u64::from(ring.push(Nop::new().user_data(n)).is_err());
            }
            pushed += BATCH;
            wrong += u64::from(!is_strict && ring.poller_sleeps());
            ring.submit()?;
        }
        ring.reap(u32::MAX, |cqe| {
            wrong += u64::from(cqe.user_data != reaped || cqe.res != 0);
            reaped += 1;
        });
        std::hint::spin_loop();
    }
    // SAFETY: ends this thread, and so the process; nothing of it is dropped.
    unsafe { libc::syscall(libc::SYS_exit, libc::c_long::from(wrong > 0)) };
    unreachable!("it has left")
}

/// Rings come and go while a client leaves the poller no pause: it makes queries faster than they are answered. Neither
/// waits long for the other.
fn others() -> Result<()> {
    /// Rings and answers, each at least.
    const RINGS: usize = 50;
    const ANSWERS: u64 = 1000;
    let device = Device::open(DeviceSetup { flags: setup_flags::POLLER, ..DeviceSetup::default() })?;
    let mut busy = device.ring(256, 512)?;
    std::thread::scope(|scope| {
        let (go_on, ended) = mpsc::channel::<()>();
        let (answer, answers) = mpsc::channel::<u64>();
        let client = scope.spawn(move || -> Result<()> {
            while ended.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
                while busy.push(Query::new(QueryWhat::InFlight)).is_ok() {}
                busy.submit()?;
                let reaped = busy.reap(u32::MAX, |_| ());
                if reaped > 0 {
                    answer.send(u64::from(reaped)).context("nobody counts answers")?;
                }
            }
            Ok(())
        });
        // The first answer: from here on the poller has something to do at all times.
        let mut answered = answers.recv_timeout(WAIT).unwrap_or(0);
        let (mut times, begin) = (Vec::new(), Instant::now());
        let result: Result<()> = (|| {
            ensure!(answered > 0, "the client has no answer");
            while times.len() < RINGS || answered < ANSWERS {
                let start = Instant::now();
                drop(device.ring(8, 16)?);
                times.push(start.elapsed());
                answered += answers.try_iter().sum::<u64>();
                ensure!(begin.elapsed() < WAIT, "{} rings came and went, and {answered} answers came", times.len());
            }
            Ok(())
        })();
        drop(go_on);
        client.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
        result?;
        let slowest = times.iter().max().context("no ring came and went")?;
        println!(
            "  {} rings came and went beside a busy poller, the slowest in {slowest:?}, and {answered} answers came",
            times.len()
        );
        ensure!(*slowest < Duration::from_secs(2), "calls waited for the poller: {times:?}");
        Ok(())
    })
}
