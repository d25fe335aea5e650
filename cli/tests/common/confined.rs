//! The command as Docker starts programs by default; see the crate `dmaplane-sandbox`.

use super::{PROGRAM, Running};
use dmaplane_sandbox::Sandbox;
use std::process::Command;

/// Starts it inside, with these variables in its environment. What it starts is inside too.
pub fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Running {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).envs(variables.iter().copied());
    Sandbox::new().unwrap().confine(&mut command);
    Running::start_command(command)
}

/// The same, with this process's environment alone.
pub fn start(arguments: &[&str]) -> Running {
    start_with(arguments, &[])
}

/// Whether those inside see a container's devices, not this machine's.
pub fn has_own_devices() -> bool {
    Sandbox::new().unwrap().has_own_mounts()
}
