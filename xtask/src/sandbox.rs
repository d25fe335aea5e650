//! `cargo xtask sandbox -- COMMAND`: a program as Docker starts it by default, without Docker.
//!
//! What is imitated and what is not stands at the crate [`dmaplane_sandbox`], which the tests use too.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};
use dmaplane_sandbox::Sandbox;

/// Becomes the program. It returns only when that fails.
pub fn run(words: &[OsString]) -> Result<bool> {
    become_program(words).map(|never| match never {})
}

fn become_program(words: &[OsString]) -> Result<Infallible> {
    let (program, arguments) = words.split_first().context("name a program to run in the sandbox")?;
    let sandbox = Sandbox::new()?;
    if !sandbox.has_own_mounts() {
        eprintln!("sandbox: without CAP_SYS_ADMIN and CAP_MKNOD this machine's own /dev, /proc and /sys are seen");
    }
    let mut command = Command::new(program);
    command.args(arguments);
    sandbox.confine(&mut command);
    Err(command.exec()).with_context(|| format!("starting {} in the sandbox", program.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_named() {
        // A process of its own: what is confined stays so, also when the program cannot be started.
        assert!(run(&[]).unwrap_err().to_string().contains("name a program"));
    }
}
