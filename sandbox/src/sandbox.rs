//! Putting a program, or a thread, into the sandbox.

use crate::filter::{self, Filters};
use crate::{capabilities, mounts};
use rustix::io::Errno;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// A bug in the table.
    #[error("the profile does not compile to a filter: {0}")]
    Filter(seccompiler::Error),
    /// The kernel refused the filter.
    #[error("the filter is not installed: {0}; the kernel needs CONFIG_SECCOMP_FILTER")]
    Install(Errno),
    /// What would make every test in it pass.
    #[error("the filter is installed and does not bite: a call that it forbids went through")]
    Toothless,
}

/// All that is needed to enter; made beforehand, since nothing can be allocated between fork and exec.
pub struct Sandbox {
    filters: Filters,
    own_mounts: bool,
}

impl Sandbox {
    /// The sandbox that this process may make.
    pub fn new() -> Result<Sandbox, SandboxError> {
        Ok(Sandbox { filters: Filters::compile()?, own_mounts: capabilities::may_mount() })
    }

    /// Whether its programs get a container's /dev, /proc and /sys: it takes CAP_SYS_ADMIN to make them.
    #[must_use]
    pub fn has_own_mounts(&self) -> bool {
        self.own_mounts
    }

    /// Lets a program start only inside. Should a step fail, starting it fails with that step's errno, and standard
    /// error says which step it was.
    pub fn confine(self, command: &mut Command) {
        let enter = move || self.enter().map_err(std::io::Error::from);
        // SAFETY: between fork and exec it makes system calls with what was made before; it takes no memory and no
        // lock, save when the filter is refused, which ends the child.
        unsafe { command.pre_exec(enter) };
    }

    fn enter(&self) -> Result<(), Errno> {
        if self.own_mounts {
            say("making the mounts", mounts::enter())?;
        }
        say("lowering the limits", capabilities::limit())?;
        say("giving up capabilities", capabilities::reduce())?;
        say("installing the filter", self.filters.install())?;
        // ENOTRECOVERABLE is none that a step before can have.
        say("checking that the filter bites", if filter::bites() { Ok(()) } else { Err(Errno::NOTRECOVERABLE) })
    }

    /// Puts this thread, and those that it starts from now on, under the seccomp profile alone. For tests inside a
    /// process; there is no way back.
    pub fn filter_this_thread(self) -> Result<(), SandboxError> {
        self.filters.install().map_err(SandboxError::Install)?;
        if filter::bites() { Ok(()) } else { Err(SandboxError::Toothless) }
    }
}

/// An errno alone would not say what it is about, and nothing else crosses an exec that does not happen.
fn say(step: &str, outcome: Result<(), Errno>) -> Result<(), Errno> {
    if outcome.is_err() {
        for part in ["sandbox: failed at ", step, "\n"] {
            let _ = rustix::io::write(std::io::stderr(), part.as_bytes());
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(field: &str) -> String {
        let mut command = Command::new("cat");
        command.arg("/proc/self/status");
        Sandbox::new().unwrap().confine(&mut command);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(":\t"));
        value.unwrap_or_else(|| panic!("no {field} in {text}")).to_owned()
    }

    #[test]
    fn a_program_inside_is_filtered_and_can_gain_nothing() {
        assert_eq!(status("Seccomp"), "2");
        assert_eq!(status("NoNewPrivs"), "1");
        let effective = u64::from_str_radix(&status("CapEff"), 16).unwrap();
        assert_eq!(effective & !capabilities::DEFAULT.bits(), 0, "{effective:x}");
    }

    #[test]
    fn a_program_inside_sees_a_containers_devices_and_limits() {
        let sandbox = Sandbox::new().unwrap();
        let own_mounts = sandbox.has_own_mounts();
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -l; ulimit -n; stat -f -c %b*%S /dev/shm; ls /dev; echo x > /dev/null"]);
        sandbox.confine(&mut command);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let mut lines = text.lines();
        assert!(lines.next().unwrap().parse::<u64>().unwrap() <= 64, "{text}");
        assert!(lines.next().unwrap().parse::<u64>().unwrap() <= 1024, "{text}");
        if own_mounts {
            assert_eq!(lines.next().unwrap(), "16384*4096", "{text}");
            assert!(!text.contains("udmabuf"), "{text}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_said_to_be_missing() {
        let mut command = Command::new("/nonexistent");
        Sandbox::new().unwrap().confine(&mut command);
        assert_eq!(command.status().unwrap_err().kind(), std::io::ErrorKind::NotFound);
    }
}
