//! How contexts end.

use crate::Test;
use crate::kit::{alloc, device, is_in_use, slow};
use anyhow::{Context as _, Result, ensure};
use dmaplane_device::Device;
use dmaplane_ring::abi::device::{DeviceSetup, setup_flags};
use dmaplane_ring::build::Timeout;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("td_closing_never_waits_and_ends_what_is_in_flight", never_waits),
    ("td_a_ring_outlives_its_context_and_says_that_it_is_closed", ring_outlives),
    ("td_the_module_is_held_while_a_context_or_a_mapping_lives", held),
    ("dev_7_the_owners_exit_ends_a_context_that_others_still_hold", owner_exits),
    ("dev_7_a_threads_exit_does_not_end_its_processs_context", thread_exits),
    ("bug_9_a_killed_process_leaves_nothing_behind", killed),
    ("bug_11_a_killed_waiter_goes_at_once", killed_waiter),
    ("bug_12_racing_set_ups_make_one_context", racing),
    ("td_contexts_with_pollers_end", pollers),
];

fn never_waits() -> Result<()> {
    for _ in 0..20 {
        let (device, mut ring) = device()?;
        for n in 0..16 {
            ensure!(ring.push(Timeout::after_ns(3_600_000_000_000).user_data(n)).is_ok(), "the ring is full");
        }
        ring.enter(0, Duration::ZERO)?;
        // An allocation that is under way when its context goes.
        ensure!(ring.push(dmaplane_ring::build::Alloc::new(64 << 20).map_err(|e| anyhow::anyhow!("{e}"))?).is_ok());
        ring.enter(0, Duration::ZERO)?;
        let start = Instant::now();
        drop(device);
        drop(ring);
        ensure!(start.elapsed() < Duration::from_secs(2), "closing took {:?}", start.elapsed());
    }
    Ok(())
}

fn ring_outlives() -> Result<()> {
    let (device, mut ring) = device()?;
    drop(device);
    for _ in 0..400 {
        if ring.closed() {
            // It waits for nothing any more.
            let start = Instant::now();
            let waited = ring.enter(1, Duration::from_secs(3600));
            ensure!(matches!(waited, Ok(0)), "a wait on a closed context: {waited:?}");
            ensure!(start.elapsed() < Duration::from_secs(2), "it took {:?}", start.elapsed());
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    anyhow::bail!("the ring of a closed context never says so")
}

fn held() -> Result<()> {
    let (device, mut ring) = device()?;
    ensure!(is_in_use(c"dmaplane"), "the module went under an open context");
    let (buffer, _) = alloc(&mut ring, 4096)?;
    let mapping = device.map(buffer)?;
    drop(ring);
    drop(device);
    std::thread::sleep(Duration::from_millis(200));
    ensure!(is_in_use(c"dmaplane"), "the module went under a mapping");
    ensure!(mapping.write(0, b"still here"), "writing");
    Ok(())
}

/// A child makes a context, and a child of its own, which holds the descriptors when the first is killed.
fn owner_exits() -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?).arg("--child=share").stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("the child has no output")?).lines();
    let first = lines.next().context("the child said nothing")??;
    ensure!(first == "shared", "the child said {first:?}");
    std::thread::sleep(Duration::from_millis(200));
    child.kill()?;
    child.wait()?;
    let start = Instant::now();
    let second = lines.next().context("the grandchild said nothing")??;
    ensure!(second == "closed", "the grandchild said {second:?}");
    ensure!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
    Ok(())
}

/// A thread with a table of descriptors of its own closes them all when it goes.
fn thread_exits() -> Result<()> {
    let (_device, mut ring) = device()?;
    let unshared = std::thread::spawn(|| {
        // SAFETY: this thread opens nothing afterwards, and has nothing that others wait for it to close.
        unsafe { libc::unshare(libc::CLONE_FILES) }
    });
    ensure!(unshared.join().is_ok_and(|result| result == 0), "unshare failed");
    std::thread::sleep(Duration::from_millis(50));
    crate::kit::succeed(&mut ring, dmaplane_ring::build::Nop::new())?;
    ensure!(!ring.closed(), "the context is closed");
    Ok(())
}

fn holder() -> Result<std::process::Child> {
    let mut child = Command::new(std::env::current_exe()?).arg("--child=hold").stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("the child has no output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    ensure!(line.trim() == "ready", "the child said {line:?}");
    Ok(child)
}

fn killed() -> Result<()> {
    for round in 0..5 {
        let mut child = holder()?;
        std::thread::sleep(Duration::from_millis(round * 7));
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}

fn killed_waiter() -> Result<()> {
    // SAFETY: the child makes system calls only, and leaves by a signal.
    let child = unsafe { libc::fork() };
    ensure!(child >= 0, "fork failed");
    if child == 0 {
        let waited = device().and_then(|(_device, mut ring)| Ok(ring.enter(1, Duration::from_secs(3600))?));
        // SAFETY: leaves at once.
        unsafe { libc::_exit(i32::from(waited.is_ok())) };
    }
    std::thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    // SAFETY: our own child.
    unsafe { libc::kill(child, libc::SIGKILL) };
    let mut status = 0;
    // SAFETY: as above.
    unsafe { libc::waitpid(child, &mut status, 0) };
    ensure!(libc::WIFSIGNALED(status), "it ended by itself: {status:#x}");
    ensure!(start.elapsed() < Duration::from_secs(1), "it took {:?} to go", start.elapsed());
    Ok(())
}

fn racing() -> Result<()> {
    for _ in 0..if slow() { 20 } else { 50 } {
        let fd = Device::open_bare(dmaplane_device::PATH)?;
        let copies: Result<Vec<_>, _> = (0..4).map(|_| rustix::io::dup(&fd)).collect();
        let made: Vec<bool> = std::thread::scope(|scope| {
            let threads: Vec<_> = copies?
                .into_iter()
                .map(|copy| scope.spawn(move || Device::set_up(copy, DeviceSetup::default())))
                .collect();
            let results: Vec<_> = threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            Ok::<_, anyhow::Error>(results.into_iter().map(|result| matches!(result, Ok(Ok(_)))).collect())
        })?;
        ensure!(made.iter().filter(|&&made| made).count() == 1, "{made:?}");
    }
    Ok(())
}

fn pollers() -> Result<()> {
    for idle in [0, 1, 50_000] {
        let setup = DeviceSetup { flags: setup_flags::POLLER, poller_idle_us: idle, ..DeviceSetup::default() };
        let device = Device::open(setup)?;
        let mut ring = device.ring(16, 32)?;
        ensure!(ring.push(Timeout::after_ns(3_600_000_000_000)).is_ok(), "the ring is full");
        ring.submit()?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
