//! The profile as programs of the kernel's packet filter, and the check that they bite.

use crate::profile;
use crate::sandbox::SandboxError;
use rustix::io::Errno;
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{self, Eq, Lt, MaskedEq};
use seccompiler::{BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule, TargetArch};
use std::collections::BTreeMap;

/// What is answered to a call that is not allowed.
const REFUSED: SeccompAction = SeccompAction::Errno(libc::EPERM as u32);

/// Both programs; the kernel asks both, and the stricter answer holds.
pub struct Filters {
    /// Answers clone3 with ENOSYS: a filter of this kind has but one errno.
    no_clone3: BpfProgram,
    allow: BpfProgram,
}

impl Filters {
    pub fn compile() -> Result<Filters, SandboxError> {
        let no_clone3 = compile(
            BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
            SeccompAction::Allow,
            SeccompAction::Errno(libc::ENOSYS as u32),
        )?;
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = profile::allowed().map(|call| (call, Vec::new())).collect();
        // The other program answers for it.
        rules.insert(libc::SYS_clone3, Vec::new());
        let mut sockets = vec![when(Lt, profile::SOCKET_FAMILIES_BELOW)?];
        for &family in profile::SOCKET_FAMILIES {
            sockets.push(when(Eq, family)?);
        }
        rules.insert(libc::SYS_socket, sockets);
        let personalities: Result<_, _> = profile::PERSONALITIES.iter().map(|&value| when(Eq, value)).collect();
        rules.insert(libc::SYS_personality, personalities?);
        rules.insert(libc::SYS_clone, vec![when(MaskedEq(profile::NAMESPACE_FLAGS), 0)?]);
        Ok(Filters { no_clone3, allow: compile(rules, REFUSED, SeccompAction::Allow)? })
    }

    /// Installs them for this thread and whatever it starts. There is no way back.
    ///
    /// Between fork and exec too: it takes no memory and no lock, save when it fails.
    pub fn install(&self) -> Result<(), Errno> {
        for program in [&self.no_clone3, &self.allow] {
            seccompiler::apply_filter(program).map_err(|error| match error {
                seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => {
                    Errno::from_io_error(&error).unwrap_or(Errno::IO)
                }
                _ => Errno::IO,
            })?;
        }
        Ok(())
    }
}

/// A rule for the first argument.
fn when(operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, SandboxError> {
    // Families and personalities are 32 bits, clone's flags a whole word.
    let width = if matches!(operator, MaskedEq(_)) { Qword } else { Dword };
    let condition = SeccompCondition::new(0, width, operator, value);
    condition
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(|error| SandboxError::Filter(error.into()))
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    when_named: SeccompAction,
) -> Result<BpfProgram, SandboxError> {
    SeccompFilter::new(rules, otherwise, when_named, TargetArch::x86_64)
        .and_then(BpfProgram::try_from)
        .map_err(|error| SandboxError::Filter(error.into()))
}

/// Calls that do nothing but fail, or succeed at nothing, and how the profile answers them. Without a filter each of
/// them has another answer: EFAULT, success, success, EINVAL.
const PROBES: [(libc::c_long, Errno); 4] = [
    (libc::SYS_io_uring_setup, Errno::PERM),
    (libc::SYS_mbind, Errno::PERM),
    (libc::SYS_move_pages, Errno::PERM),
    (libc::SYS_clone3, Errno::NOSYS),
];

/// Makes sure that the profile bites: a sandbox that is none would let every test pass.
pub fn bites() -> bool {
    PROBES.iter().all(|&(call, expected)| {
        // SAFETY: null pointers and lengths of 0 only: the calls look at no memory and change nothing.
        let result = unsafe { libc::syscall(call, 0, 0, 0, 0, 0, 0) };
        result == -1 && std::io::Error::last_os_error().raw_os_error() == Some(expected.raw_os_error())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The negative control of the check: it does not say so of a thread without a filter.
    #[test]
    fn a_thread_without_the_filter_is_found_out() {
        assert!(!bites());
    }

    /// A filter holds for the thread that installs it, so that this test's thread is lost to others, and no more.
    #[test]
    fn the_profile_bites_where_it_should_and_nowhere_else() {
        let filters = Filters::compile().unwrap();
        std::thread::spawn(move || {
            filters.install().unwrap();
            assert!(bites());
            // What dmaplane lives on.
            rustix::fs::memfd_create("allowed", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
            rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
            let socket = |family| rustix::net::socket(family, rustix::net::SocketType::STREAM, None);
            socket(rustix::net::AddressFamily::INET).unwrap();
            assert_eq!(socket(rustix::net::AddressFamily::VSOCK).unwrap_err(), Errno::PERM);
            // A thread is clone, by way of clone3's ENOSYS.
            std::thread::spawn(|| {}).join().unwrap();
        })
        .join()
        .unwrap();
    }
}
