//! Where planes are opened: in this process, or in the kernel driver.

use anyhow::{Result, ensure};
use clap::Args;
use dmaplane::{Config, Plane, RunMode};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where the driver's device is.
const DEVICE: &str = "/dev/dmaplane";

#[derive(Args, Clone, Debug, Default)]
pub struct HostArguments {
    /// The kernel driver's device: its engine, memory and copies, in place of this process's own
    #[arg(long, value_name = "PATH")]
    pub device: Option<PathBuf>,
}

impl HostArguments {
    /// The device, where the driver is wanted: `local` says that its fabric is.
    fn wanted(&self, local: bool) -> Result<Option<&Path>> {
        match (&self.device, local) {
            (None, false) => Ok(None),
            (None, true) => Ok(Some(Path::new(DEVICE))),
            (Some(path), _) => {
                ensure!(local, "--device {}: the driver's fabric is local: leave --fabric away", path.display());
                Ok(Some(path))
            }
        }
    }

    /// Opens a plane; `local`: the driver's fabric is the one that is asked for.
    pub fn open(&self, local: bool, config: Config) -> Result<Plane> {
        match self.wanted(local)? {
            None => Ok(Plane::open(config)?),
            // A poller is a kernel thread, a privilege, and of no use to programs that wait for what they ask.
            Some(path) => Ok(Plane::open_device(path, &Config { mode: RunMode::Enter, ..config })?),
        }
    }

    /// As flags of another process.
    pub fn flags(&self) -> Option<OsString> {
        self.device.as_ref().map(|path| {
            let mut flag = OsString::from("--device=");
            flag.push(path);
            flag
        })
    }
}
