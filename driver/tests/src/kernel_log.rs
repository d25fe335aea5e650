//! What the kernel says while a test runs.

use anyhow::{Context as _, Result};
use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;

/// The lab's own list of what is a report.
#[path = "../../../xtask/src/lab/messages.rs"]
mod messages;

pub use messages::LOST_ON_PURPOSE;

/// The kernel's messages from some moment on.
pub struct KernelLog(File);

impl KernelLog {
    /// From now on.
    pub fn from_now() -> Result<KernelLog> {
        let log = File::options().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg");
        let mut log = log.context("opening /dev/kmsg")?;
        log.seek(SeekFrom::End(0))?;
        Ok(KernelLog(log))
    }

    /// The reports among what was said since last asked.
    pub fn defects(&mut self) -> Result<Vec<String>> {
        let (mut said, mut record) = (String::new(), [0; 8192]);
        loop {
            match self.0.read(&mut record) {
                // "priority,sequence,time,flags;message", and a line each for what it is about.
                Ok(length) => {
                    let text = String::from_utf8_lossy(&record[..length]);
                    let message = text.split_once(';').map_or("", |(_, message)| message);
                    said.push_str(message.lines().next().unwrap_or(""));
                    said.push('\n');
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // So many that the oldest were overwritten: the next that is there is read next.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => said.push_str("BUG: messages were lost\n"),
                Err(error) => return Err(error).context("reading /dev/kmsg"),
            }
        }
        Ok(messages::defects(&said).into_iter().map(str::to_owned).collect())
    }
}
