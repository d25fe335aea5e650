//! The module that has another driver's part (`driver/tests/importer`): a device that imports dma-bufs.

use crate::kit::{load, unload};
use anyhow::{Context as _, Result, ensure};
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// The module, loaded; goes with this.
pub struct Loaded;

impl Loaded {
    pub fn new() -> Result<Loaded> {
        let module =
            std::env::var("DMAPLANE_IMPORTER").context("DMAPLANE_IMPORTER does not say where importer.ko is")?;
        load(&module)?;
        Ok(Loaded)
    }

    pub fn open(&self) -> Result<Importer> {
        let file = std::fs::OpenOptions::new().read(true).write(true).open("/dev/dmaplane-importer")?;
        Ok(Importer(file))
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // Fences hold it for a while, until those have gone who may still look at them.
        let gone = crate::kit::until("the importer goes", || Ok(unload(c"importer").is_ok()));
        if let Err(error) = gone {
            println!("  {error:#}");
        }
    }
}

/// A device's part: one attachment, and one piece of work that others wait for. Both end with this.
pub struct Importer(std::fs::File);

/// `struct importer_attach` of importer.c.
#[repr(C)]
struct Attach {
    fd: i32,
    dynamic: u32,
    length_bytes: u64,
    pieces: u64,
}

/// `struct importer_work` of importer.c.
#[repr(C)]
struct Work {
    write: u32,
    add: u32,
    sum: u64,
}

const ATTACH: u32 = 0xc018_4900;
const WORK: u32 = 0xc010_4901;
const DETACH: u32 = 0x4902;
const BUSY: u32 = 0x4903;
const IDLE: u32 = 0x4904;
const LOSE: u32 = 0x4905;
const WAIT: u32 = 0x4008_4906;

impl Importer {
    fn call(&self, number: u32, argument: usize) -> std::io::Result<()> {
        // SAFETY: the argument is a number, or points to the call's own structure, which the caller has borrowed.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), number.into(), argument) };
        if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Attaches and maps: the bytes that the device has addresses of, and in how many pieces.
    pub fn attach(&self, fd: BorrowedFd<'_>, dynamic: bool) -> Result<(u64, u64)> {
        let mut arguments = Attach { fd: fd.as_raw_fd(), dynamic: dynamic.into(), length_bytes: 0, pieces: 0 };
        self.call(ATTACH, &raw mut arguments as usize).context("attaching")?;
        ensure!(arguments.pieces > 0, "no pieces");
        Ok((arguments.length_bytes, arguments.pieces))
    }

    /// The device reads all of it: the sum of the bytes.
    pub fn sum(&self) -> Result<u64> {
        let mut arguments = Work { write: 0, add: 0, sum: 0 };
        self.call(WORK, &raw mut arguments as usize).context("reading")?;
        Ok(arguments.sum)
    }

    /// The device makes byte n `n * 7 + add`.
    pub fn write(&self, add: u8) -> Result<()> {
        let mut arguments = Work { write: 1, add: add.into(), sum: 0 };
        self.call(WORK, &raw mut arguments as usize).context("writing")
    }

    pub fn detach(&self) -> Result<()> {
        self.call(DETACH, 0).context("detaching")
    }

    /// The device is at work with a dma-buf until [`Importer::idle`].
    pub fn busy(&self, fd: BorrowedFd<'_>) -> Result<()> {
        self.call(BUSY, fd.as_raw_fd() as usize).context("a fence")
    }

    pub fn idle(&self) -> Result<()> {
        self.call(IDLE, 0).context("the end of a fence")
    }

    /// Locks both dma-bufs, as who submits work with them does, and waits for all that is under way with either.
    pub fn wait_locked(&self, first: BorrowedFd<'_>, second: BorrowedFd<'_>) -> Result<()> {
        let mut arguments = [first.as_raw_fd(), second.as_raw_fd()];
        self.call(WAIT, arguments.as_mut_ptr() as usize).context("waiting with both locked")
    }

    /// The module loses memory, until it goes.
    pub fn lose(&self) -> Result<()> {
        self.call(LOSE, 0).context("losing memory")
    }
}
