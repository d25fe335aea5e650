//! What other processes of the tests do: this program again, with a role.

use crate::kit::{alloc, device};
use dmaplane_device::{Device, PATH};
use dmaplane_ring::abi::device::{DeviceSetup, setup_flags};
use dmaplane_ring::build::{Nop, Timeout};
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

pub fn run(role: &str) -> ExitCode {
    let ran = match role {
        "open" => say_errno(Device::open_bare(PATH)),
        "poller" => say_errno(Device::open(DeviceSetup { flags: setup_flags::POLLER, ..DeviceSetup::default() })),
        "silent" => crate::poller::silent(),
        "hold" => hold(),
        "share" => share(),
        other if other.starts_with("writer=") => crate::peers::writer(&other["writer=".len()..]),
        other if other.starts_with("stranger=") => with_descriptor(&other["stranger=".len()..], crate::peers::stranger),
        other if other.starts_with("pinner=") => with_descriptor(&other["pinner=".len()..], crate::sharing::pinner),
        other if other.starts_with("limited=") => crate::buffers::limited(&other["limited=".len()..]),
        other if other.starts_with("outsider=") => crate::outsiders::outsider(&other["outsider=".len()..]),
        "exporter" => crate::sharing::exporter(),
        other => Err(anyhow::anyhow!("no role {other}")),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("child {role}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Says with which errno something fails; 0 where it does not.
fn say_errno<T>(result: std::io::Result<T>) -> anyhow::Result<()> {
    let errno = result.err().and_then(|error| error.raw_os_error()).unwrap_or(0);
    println!("{errno}");
    Ok(())
}

/// Makes a context and a child that waits on its ring, and stays until it is killed. The child says when it is closed.
fn share() -> anyhow::Result<()> {
    let (_device, mut ring) = device()?;
    // SAFETY: this program has one thread. The child touches no mapping, which it does not have, but waits in a call.
    let child = unsafe { libc::fork() };
    anyhow::ensure!(child >= 0, "fork failed");
    if child == 0 {
        let waited = ring.wait_only(1, Duration::from_secs(60));
        println!("{}", if waited.is_ok_and(|ready| ready == 0) { "closed" } else { "not closed" });
        std::io::stdout().flush()?;
        // SAFETY: leaves at once: dropping the ring would look at its mapping.
        unsafe { libc::_exit(0) };
    }
    println!("shared");
    std::io::stdout().flush()?;
    loop {
        std::thread::sleep(Duration::from_secs(1000));
    }
}

/// Holds a context with everything in it until it is killed.
fn hold() -> anyhow::Result<()> {
    let (device, mut ring) = device()?;
    let mut others = Vec::new();
    for n in 0..4 {
        let (buffer, _) = alloc(&mut ring, (n + 1) << 20)?;
        let mapping = device.map(buffer)?;
        mapping.write(0, b"held");
        others.push((mapping, device.ring(8, 16)?));
    }
    anyhow::ensure!(ring.push(Timeout::after_ns(3_600_000_000_000).sqe()).is_ok(), "the ring is full");
    ring.submit()?;
    println!("ready");
    std::io::stdout().flush()?;
    loop {
        anyhow::ensure!(ring.push(Nop::new().sqe()).is_ok(), "the ring is full");
        ring.enter(1, Duration::from_secs(1))?;
        ring.reap(u32::MAX, |_| ());
    }
}

/// Plays a role with a descriptor of the device that this program was given.
fn with_descriptor(number: &str, role: fn(OwnedFd) -> anyhow::Result<()>) -> anyhow::Result<()> {
    // SAFETY: whoever has started this program has left the descriptor open for it, and nobody else here has it.
    role(unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(number.parse()?) })
}
