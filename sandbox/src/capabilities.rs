//! The capabilities and limits that a container has by default.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// Docker's fourteen: no SYS_ADMIN, no SYS_NICE, no IPC_LOCK.
pub const DEFAULT: CapabilitySet = CapabilitySet::AUDIT_WRITE
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SYS_CHROOT);

/// RLIMIT_MEMLOCK of containers before kernel 5.16, whose default is 8 MiB.
const LOCKED_BYTES: u64 = 64 << 10;
/// RLIMIT_NOFILE of containers since Docker 29; before it was the daemon's, a million.
const OPEN_FILES: u64 = 1024;

/// Whether this process may make a namespace of mounts and put devices into it.
pub fn may_mount() -> bool {
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::MKNOD;
    capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// Gives up every capability but the default ones, for good.
pub fn reduce() -> Result<(), Errno> {
    let ours = capabilities(None)?;
    // Without SETPCAP nothing can be taken out of the bounding set; but then nothing can be had from it either, since
    // the filter's no_new_privs forbids it.
    if ours.effective.contains(CapabilitySet::SETPCAP) {
        for bit in 0..64 {
            let one = CapabilitySet::from_bits_retain(1 << bit);
            match rustix::thread::capability_is_in_bounding_set(one) {
                Ok(true) if !DEFAULT.contains(one) => rustix::thread::remove_capability_from_bounding_set(one)?,
                Ok(_) => {}
                // The kernel knows no more of them.
                Err(_) => break,
            }
        }
    }
    rustix::thread::clear_ambient_capability_set()?;
    let kept = ours.permitted & DEFAULT;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets)
}

/// Lowers the limits. What is lower already stays.
pub fn limit() -> Result<(), Errno> {
    let lower = |had: Option<u64>, to: u64| Some(had.map_or(to, |had| had.min(to)));
    let locked = getrlimit(Resource::Memlock);
    let maximum = lower(locked.maximum, LOCKED_BYTES);
    setrlimit(Resource::Memlock, Rlimit { current: lower(locked.current, LOCKED_BYTES), maximum })?;
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: lower(files.current, OPEN_FILES), maximum: files.maximum })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number that `/proc/self/status` shows in a container.
    #[test]
    fn the_default_capabilities_are_dockers() {
        assert_eq!(DEFAULT.bits(), 0xa804_25fb);
        for missing in [CapabilitySet::SYS_ADMIN, CapabilitySet::SYS_NICE, CapabilitySet::IPC_LOCK] {
            assert!(!DEFAULT.intersects(missing));
        }
    }
}
