//! The poller: who takes SQEs while nobody makes a call, and sleeps when nothing comes.

use crate::Test;
use crate::kit::{WAIT, slow};
use anyhow::{Context as _, Result, ensure};
use dmaplane_device::Device;
use dmaplane_ring::abi::device::{DeviceSetup, setup_flags};
use dmaplane_ring::build::Nop;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("dev_4_a_poller_takes_what_nobody_enters_for", polled),
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

/// Whether there is a poller, and it runs.
fn poller_runs() -> Result<Option<bool>> {
    for entry in std::fs::read_dir("/proc")? {
        // `12 (dmaplane-poll) S 2 ...`; a process that has ended meanwhile has no such file.
        let stat = std::fs::read_to_string(entry?.path().join("stat")).unwrap_or_default();
        if let Some((name, rest)) = stat.split_once(") ")
            && name.ends_with("(dmaplane-poll")
        {
            return Ok(Some(rest.starts_with('R')));
        }
    }
    Ok(None)
}

fn until_poller_runs(wanted: Option<bool>) -> Result<()> {
    let start = Instant::now();
    while poller_runs()? != wanted {
        ensure!(start.elapsed() < WAIT, "the poller runs: {:?}, where {wanted:?} is wanted", poller_runs()?);
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn woken() -> Result<()> {
    // Those of earlier tests end on a workqueue.
    until_poller_runs(None)?;
    let program = std::env::current_exe()?;
    let ended = Command::new(program).arg("--child=silent").output()?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.signal() != Some(libc::SIGKILL), "it has made a system call: {said}");
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
    until_poller_runs(Some(false))?;
    ensure!(ring.push(Nop::new()).is_ok(), "the ring is full");
    ring.submit()?;
    until_poller_runs(Some(true)).context("it was rung for")?;
    ensure!(ring.enter(1, WAIT)? == 1 && ring.reap_one().is_some(), "what was rung for is not done");
    // SAFETY: this process has one thread, which makes no further call but the exit below.
    ensure!(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) } == 0, "no seccomp");
    let (mut pushed, mut reaped, mut sum) = (0u64, 0u64, 0u64);
    while reaped < operations {
        while pushed < operations && pushed - reaped <= BATCH {
            for n in pushed..pushed + BATCH {
                ensure!(ring.push(Nop::new().user_data(n)).is_ok(), "the ring is full");
            }
            pushed += BATCH;
            ring.submit()?;
        }
        reaped += u64::from(ring.reap(u32::MAX, |cqe| sum += cqe.user_data + u64::from(cqe.res != 0)));
        std::hint::spin_loop();
    }
    let is_wrong = sum != operations * (operations - 1) / 2;
    // SAFETY: ends this thread, and so the process; nothing of it is dropped.
    unsafe { libc::syscall(libc::SYS_exit, libc::c_long::from(is_wrong)) };
    unreachable!("it has left")
}
