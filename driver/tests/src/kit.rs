//! What the tests have in common.

use anyhow::{Context, Result, anyhow, bail, ensure};
use dmaplane_device::{Device, Ring};
use dmaplane_ring::abi::device::DeviceSetup;
use dmaplane_ring::abi::{BufferHandle, Cqe, Errno, Sqe};
use dmaplane_ring::build::Alloc;
use std::ffi::CStr;
use std::process::Command;
use std::time::{Duration, Instant};

pub const WAIT: Duration = Duration::from_secs(20);

/// An operation ended with an errno.
#[derive(Debug)]
pub struct Ended(pub Errno);

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::error::Error for Ended {}

/// Whether this kernel has every checker: what takes seconds elsewhere takes minutes here.
pub fn slow() -> bool {
    std::env::var_os("DMAPLANE_SLOW_KERNEL").is_some()
}

/// Runs a program; what it says is in the error.
pub fn command(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("starting {program}"))?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Loads a module from its file. As a call: starting a program for it takes longer than many a test.
pub fn load(module: &str) -> Result<()> {
    let file = std::fs::File::open(module).with_context(|| format!("opening {module}"))?;
    rustix::system::finit_module(file, c"", 0).with_context(|| format!("loading {module}"))
}

/// Does what is no part of a test while the kernel ends its grace periods (RCU) at once: a module that comes and goes
/// waits for several, which take longer than many a test.
pub fn with_short_grace_periods(what: impl FnOnce() -> Result<()>) -> Result<()> {
    let expedite = |value| std::fs::write("/sys/kernel/rcu_expedited", value).context("making grace periods short");
    expedite("1")?;
    let did = what();
    expedite("0")?;
    did
}

/// Unloads a module; one that is in use is refused.
pub fn unload(name: &CStr) -> Result<()> {
    rustix::system::delete_module(name, libc::O_NONBLOCK).with_context(|| format!("unloading {name:?}"))
}

/// Whether unloading a module is refused because it is in use, and for no other reason.
pub fn is_in_use(name: &CStr) -> bool {
    rustix::system::delete_module(name, libc::O_NONBLOCK) == Err(rustix::io::Errno::AGAIN)
}

/// What the machine has left: a test that has failed may have found it full.
pub fn memory_left() -> String {
    let all = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let wanted = ["MemFree", "MemAvailable", "Cached", "Shmem", "Slab"];
    let lines = all.lines().filter(|line| wanted.iter().any(|name| line.split(':').next() == Some(name)));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(", ")
}

/// A context of the driver's defaults, and a ring.
pub fn device() -> Result<(Device, Ring)> {
    let device = Device::open(DeviceSetup::default())?;
    let ring = device.ring(64, 128)?;
    Ok((device, ring))
}

/// Pushes one SQE and waits for its CQE, whatever it says.
pub fn complete(ring: &mut Ring, sqe: impl Into<Sqe>) -> Result<Cqe> {
    ensure!(ring.push(sqe).is_ok(), "the ring is full");
    ring.enter(1, WAIT)?;
    ring.reap_one().context("a completion was announced and is not there")
}

/// The same for one that has to succeed.
pub fn succeed(ring: &mut Ring, sqe: impl Into<Sqe>) -> Result<Cqe> {
    let cqe = complete(ring, sqe)?;
    cqe.result().map_err(Ended)?;
    Ok(cqe)
}

/// A buffer, and its length after rounding.
pub fn alloc(ring: &mut Ring, bytes: u64) -> Result<(BufferHandle, u64)> {
    let cqe = succeed(ring, Alloc::new(bytes).map_err(|error| anyhow!("{error}"))?.sqe())?;
    Ok((BufferHandle::from_bits(cqe.word0).context("no buffer's handle")?, cqe.word1))
}

/// A line of the descriptor's fdinfo.
pub fn information(device: &Device, name: &str) -> Result<u64> {
    let all = device.information()?;
    all.get(name).copied().with_context(|| format!("fdinfo says nothing of {name}: {all:?}"))
}

/// What of the module's is held: descriptors, contexts, rings, memories, exports.
pub fn held() -> Result<u64> {
    Ok(std::fs::read_to_string("/sys/module/dmaplane/refcnt")?.trim().parse()?)
}

/// Waits until something is so, which it is at some time: a minute is for ever.
pub fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(60) {
        if is_so()? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("it never came to that: {what}")
}

/// That a call failed, for this reason.
pub fn refused<T>(result: std::io::Result<T>, errno: i32, what: &str) -> Result<()> {
    match result {
        Ok(_) => bail!("{what} was allowed"),
        Err(error) if error.raw_os_error() == Some(errno) => Ok(()),
        Err(error) => bail!("{what}: {error}, where errno {errno} was due"),
    }
}
