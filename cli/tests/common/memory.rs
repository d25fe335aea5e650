//! What is left of memory that was shared.

use std::time::{Duration, Instant};

/// The kernel frees what a process leaves behind soon after its end, not before it.
const SETTLING: Duration = Duration::from_secs(10);

/// Bytes of shared memory in the whole system: memfds, tmpfs, and what else nobody owns alone.
pub fn shared_bytes() -> u64 {
    let table = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = table.lines().find_map(|line| line.strip_prefix("Shmem:")).expect("a line Shmem");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Waits until the system has at most that much more shared memory than `before`; what it has more at the end.
#[track_caller]
pub fn assert_given_back(before: u64, tolerance: u64, round: &str) -> i64 {
    let start = Instant::now();
    loop {
        let more = shared_bytes() as i64 - before as i64;
        if more <= tolerance as i64 {
            return more;
        }
        assert!(start.elapsed() < SETTLING, "{round}: {more} bytes of shared memory are left behind");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Descriptors and mappings of shared memory that this process has.
pub fn own_memory() -> (usize, usize) {
    let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let targets = links.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let descriptors = targets.filter(|target| target.to_string_lossy().starts_with("/memfd:")).count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    (descriptors, maps.lines().filter(|line| line.contains("/memfd:")).count())
}
