//! Which system calls Docker's default profile lets through on x86-64, for a container with its default capabilities
//! on a kernel of 4.8 or later.
//!
//! The facts are those of `seccomp/default.json` in the repository moby/profiles (commit 02e898b, 2026), put into
//! groups of our own. What stands in no group is answered with EPERM; clone3 with ENOSYS, so that C libraries fall back
//! to clone, whose flags can be looked at. Calls of 32-bit programs, which that profile allows too, are none of ours.

use libc::*;

/// Calls that libc has no names for yet.
const SYS_IO_PGETEVENTS: c_long = 333;
const SYS_URETPROBE: c_long = 335;
const SYS_CACHESTAT: c_long = 451;
const SYS_MAP_SHADOW_STACK: c_long = 453;
const SYS_FUTEX_WAKE: c_long = 454;
const SYS_FUTEX_WAIT: c_long = 455;
const SYS_FUTEX_REQUEUE: c_long = 456;
const SYS_STATMOUNT: c_long = 457;
const SYS_LISTMOUNT: c_long = 458;
const SYS_SETXATTRAT: c_long = 463;
const SYS_GETXATTRAT: c_long = 464;
const SYS_LISTXATTRAT: c_long = 465;
const SYS_REMOVEXATTRAT: c_long = 466;

/// Files by their names, and what is known of them.
#[rustfmt::skip]
const NAMES: &[c_long] = &[
    SYS_access, SYS_chdir, SYS_chmod, SYS_chown, SYS_creat, SYS_faccessat, SYS_faccessat2, SYS_fchdir, SYS_fchmod,
    SYS_fchmodat, SYS_fchmodat2, SYS_fchown, SYS_fchownat, SYS_futimesat, SYS_getcwd, SYS_lchown, SYS_link, SYS_linkat,
    SYS_lstat, SYS_mkdir, SYS_mkdirat, SYS_mknod, SYS_mknodat, SYS_name_to_handle_at, SYS_newfstatat, SYS_open,
    SYS_openat, SYS_openat2, SYS_readlink, SYS_readlinkat, SYS_rename, SYS_renameat, SYS_renameat2, SYS_rmdir, SYS_stat,
    SYS_statfs, SYS_statx, SYS_symlink, SYS_symlinkat, SYS_truncate, SYS_umask, SYS_unlink, SYS_unlinkat, SYS_utime,
    SYS_utimensat, SYS_utimes, SYS_STATMOUNT, SYS_LISTMOUNT,
    // Extended attributes.
    SYS_fgetxattr, SYS_flistxattr, SYS_fremovexattr, SYS_fsetxattr, SYS_getxattr, SYS_lgetxattr, SYS_listxattr,
    SYS_llistxattr, SYS_lremovexattr, SYS_lsetxattr, SYS_removexattr, SYS_setxattr, SYS_GETXATTRAT, SYS_LISTXATTRAT,
    SYS_REMOVEXATTRAT, SYS_SETXATTRAT,
    // The capability SYS_CHROOT is among the default ones.
    SYS_chroot,
];

/// Open files: reading, writing, waiting for them, being told of changes.
#[rustfmt::skip]
const DESCRIPTORS: &[c_long] = &[
    SYS_CACHESTAT, SYS_close, SYS_close_range, SYS_copy_file_range, SYS_dup, SYS_dup2, SYS_dup3, SYS_fadvise64,
    SYS_fallocate, SYS_fcntl, SYS_fdatasync, SYS_flock, SYS_fstat, SYS_fstatfs, SYS_fsync, SYS_ftruncate, SYS_getdents,
    SYS_getdents64, SYS_ioctl, SYS_lseek, SYS_pipe, SYS_pipe2, SYS_pread64, SYS_preadv, SYS_preadv2, SYS_pwrite64,
    SYS_pwritev, SYS_pwritev2, SYS_read, SYS_readahead, SYS_readv, SYS_sendfile, SYS_splice, SYS_sync,
    SYS_sync_file_range, SYS_syncfs, SYS_tee, SYS_vmsplice, SYS_write, SYS_writev,
    SYS_epoll_create, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_ctl_old, SYS_epoll_pwait, SYS_epoll_pwait2,
    SYS_epoll_wait, SYS_epoll_wait_old, SYS_eventfd, SYS_eventfd2, SYS_poll, SYS_ppoll, SYS_pselect6, SYS_select,
    SYS_fanotify_mark, SYS_inotify_add_watch, SYS_inotify_init, SYS_inotify_init1, SYS_inotify_rm_watch,
    // The older asynchronous I/O, not io_uring.
    SYS_io_cancel, SYS_io_destroy, SYS_io_getevents, SYS_IO_PGETEVENTS, SYS_io_setup, SYS_io_submit,
];

/// Memory. No mbind, no move_pages, no userfaultfd.
#[rustfmt::skip]
const MEMORY: &[c_long] = &[
    SYS_brk, SYS_madvise, SYS_MAP_SHADOW_STACK, SYS_membarrier, SYS_memfd_create, SYS_memfd_secret, SYS_mincore,
    SYS_mlock, SYS_mlock2, SYS_mlockall, SYS_mmap, SYS_mprotect, SYS_mremap, SYS_mseal, SYS_msync, SYS_munlock,
    SYS_munlockall, SYS_munmap, SYS_pkey_alloc, SYS_pkey_free, SYS_pkey_mprotect, SYS_remap_file_pages,
    SYS_shmat, SYS_shmctl, SYS_shmdt, SYS_shmget,
    // Another process's, as far as ptrace's own rules go.
    SYS_process_vm_readv, SYS_process_vm_writev, SYS_ptrace, SYS_process_mrelease,
];

/// Sockets once they are made, and the other ways to talk.
#[rustfmt::skip]
const MESSAGES: &[c_long] = &[
    SYS_accept, SYS_accept4, SYS_bind, SYS_connect, SYS_getpeername, SYS_getsockname, SYS_getsockopt, SYS_listen,
    SYS_recvfrom, SYS_recvmmsg, SYS_recvmsg, SYS_sendmmsg, SYS_sendmsg, SYS_sendto, SYS_setsockopt, SYS_shutdown,
    SYS_socketpair,
    SYS_mq_getsetattr, SYS_mq_notify, SYS_mq_open, SYS_mq_timedreceive, SYS_mq_timedsend, SYS_mq_unlink,
    SYS_msgctl, SYS_msgget, SYS_msgrcv, SYS_msgsnd, SYS_semctl, SYS_semget, SYS_semop, SYS_semtimedop,
    SYS_futex, SYS_FUTEX_REQUEUE, SYS_FUTEX_WAIT, SYS_futex_waitv, SYS_FUTEX_WAKE,
    SYS_get_robust_list, SYS_set_robust_list,
];

/// Processes and threads, and who they are.
#[rustfmt::skip]
const PROCESSES: &[c_long] = &[
    SYS_arch_prctl, SYS_capget, SYS_capset, SYS_execve, SYS_execveat, SYS_exit, SYS_exit_group, SYS_fork, SYS_getcpu,
    SYS_getegid, SYS_geteuid, SYS_getgid, SYS_getgroups, SYS_getpgid, SYS_getpgrp, SYS_getpid, SYS_getppid,
    SYS_getpriority, SYS_getrandom, SYS_getresgid, SYS_getresuid, SYS_getrlimit, SYS_getrusage, SYS_getsid, SYS_gettid,
    SYS_getuid, SYS_get_thread_area, SYS_ioprio_get, SYS_ioprio_set, SYS_landlock_add_rule,
    SYS_landlock_create_ruleset, SYS_landlock_restrict_self, SYS_modify_ldt, SYS_pidfd_open, SYS_prctl, SYS_prlimit64,
    SYS_rseq, SYS_seccomp, SYS_setfsgid, SYS_setfsuid, SYS_setgid, SYS_setgroups, SYS_setpgid, SYS_setpriority,
    SYS_setregid, SYS_setresgid, SYS_setresuid, SYS_setreuid, SYS_setrlimit, SYS_setsid, SYS_setuid,
    SYS_set_thread_area, SYS_set_tid_address, SYS_sysinfo, SYS_uname, SYS_URETPROBE, SYS_vfork, SYS_wait4, SYS_waitid,
    SYS_sched_getaffinity, SYS_sched_getattr, SYS_sched_getparam, SYS_sched_get_priority_max,
    SYS_sched_get_priority_min, SYS_sched_getscheduler, SYS_sched_rr_get_interval, SYS_sched_setaffinity,
    SYS_sched_setattr, SYS_sched_setparam, SYS_sched_setscheduler, SYS_sched_yield,
];

/// Signals.
#[rustfmt::skip]
const SIGNALS: &[c_long] = &[
    SYS_kill, SYS_pause, SYS_pidfd_send_signal, SYS_restart_syscall, SYS_rt_sigaction, SYS_rt_sigpending,
    SYS_rt_sigprocmask, SYS_rt_sigqueueinfo, SYS_rt_sigreturn, SYS_rt_sigsuspend, SYS_rt_sigtimedwait,
    SYS_rt_tgsigqueueinfo, SYS_sigaltstack, SYS_signalfd, SYS_signalfd4, SYS_tgkill, SYS_tkill,
];

/// Clocks and timers.
#[rustfmt::skip]
const TIME: &[c_long] = &[
    SYS_adjtimex, SYS_alarm, SYS_clock_adjtime, SYS_clock_getres, SYS_clock_gettime, SYS_clock_nanosleep, SYS_getitimer,
    SYS_gettimeofday, SYS_nanosleep, SYS_setitimer, SYS_time, SYS_timer_create, SYS_timer_delete, SYS_timer_getoverrun,
    SYS_timer_gettime, SYS_timer_settime, SYS_timerfd_create, SYS_timerfd_gettime, SYS_timerfd_settime, SYS_times,
];

/// Every call that goes through whatever its arguments are.
pub fn allowed() -> impl Iterator<Item = c_long> {
    [NAMES, DESCRIPTORS, MEMORY, MESSAGES, PROCESSES, SIGNALS, TIME].into_iter().flatten().copied()
}

/// socket: below this family, and these. Not vsock, not the kernel's cryptography (AF_ALG).
pub const SOCKET_FAMILIES_BELOW: u64 = AF_DECnet as u64;
/// The families above it.
pub const SOCKET_FAMILIES: &[u64] =
    &[13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44, 45];

/// personality: Linux, Linux with 16-bit user identities or short inodes, and "which is it?".
pub const PERSONALITIES: &[u64] = &[0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// clone: none of these flags, each of which makes a namespace.
pub const NAMESPACE_FLAGS: u64 =
    (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET) as u64;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// As many as the source has for this architecture; a call that stands twice would hide one that is missing.
    #[test]
    fn no_call_stands_twice_and_none_is_lost() {
        let distinct: BTreeSet<c_long> = allowed().collect();
        assert_eq!(distinct.len(), allowed().count());
        assert_eq!(distinct.len(), ALLOWED_COUNT);
    }

    const ALLOWED_COUNT: usize = 306;

    #[test]
    fn the_namespace_flags_are_those_of_the_source() {
        assert_eq!(NAMESPACE_FLAGS, 2_114_060_288);
        assert_eq!(SOCKET_FAMILIES_BELOW, 12);
    }

    #[test]
    fn what_dmaplane_has_to_do_without_is_not_allowed() {
        for (name, call) in [
            ("io_uring_setup", SYS_io_uring_setup),
            ("mbind", SYS_mbind),
            ("get_mempolicy", SYS_get_mempolicy),
            ("move_pages", SYS_move_pages),
            ("userfaultfd", SYS_userfaultfd),
            ("perf_event_open", SYS_perf_event_open),
            ("pidfd_getfd", SYS_pidfd_getfd),
            ("mount", SYS_mount),
            ("unshare", SYS_unshare),
        ] {
            assert!(allowed().all(|allowed| allowed != call), "{name}");
        }
    }
}
