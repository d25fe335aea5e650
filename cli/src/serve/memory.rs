//! How much memory the workers have, and whether it stays so.

use std::time::Duration;

/// After this long, a service's memory must have stopped growing.
pub const SETTLED: Duration = Duration::from_secs(10);
/// Of growth after that, so much is let pass, in percent of what it was and in bytes: allocators keep what they had for
/// a moment. A lost block table or list an answer would exceed it.
const GROWTH_PERCENT: u64 = 10;
const GROWTH_BYTES: u64 = 8 << 20;

/// A process's own memory and its share of shared memory: each page of shared memory is counted once, however many
/// processes map it. `None` when the process is gone.
pub fn used_bytes(process: u32) -> Option<u64> {
    sum_of(&std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?)
}

fn sum_of(rollup: &str) -> Option<u64> {
    let of = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
    };
    Some(of("Pss_Anon:")? + of("Pss_Shmem:")?)
}

/// What all workers had together, over time.
#[derive(Debug, Default)]
pub struct MemoryLog {
    settled_bytes: Option<u64>,
    max_after_bytes: Option<u64>,
    last_bytes: Option<u64>,
}

impl MemoryLog {
    /// Notes a sample of a moment when all workers served.
    pub fn note(&mut self, since_start: Duration, bytes: u64) {
        self.last_bytes = Some(bytes);
        if since_start < SETTLED {
            self.settled_bytes = Some(bytes);
        } else if self.settled_bytes.is_some() {
            self.max_after_bytes = self.max_after_bytes.max(Some(bytes));
        }
    }

    /// At ten seconds (the last sample before), the most after that, and at the end.
    pub fn bytes(&self) -> (Option<u64>, Option<u64>, Option<u64>) {
        (self.settled(), self.max_after_bytes, self.last_bytes)
    }

    /// At ten seconds, where there was anything after that.
    fn settled(&self) -> Option<u64> {
        self.settled_bytes.filter(|_| self.max_after_bytes.is_some())
    }

    /// What it may be at most after ten seconds.
    pub fn limit_bytes(&self) -> Option<u64> {
        self.settled().map(|bytes| bytes + bytes * GROWTH_PERCENT / 100 + GROWTH_BYTES)
    }

    /// Whether it stayed below that; a run that ended before has nothing to say.
    pub fn is_flat(&self) -> bool {
        self.max_after_bytes.is_none_or(|most| self.limit_bytes().is_some_and(|limit| most <= limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_memory_grows_by_what_is_touched() {
        let grows = || {
            let before = used_bytes(std::process::id()).unwrap();
            let touched = std::hint::black_box(vec![1u8; 64 << 20]);
            let after = used_bytes(std::process::id()).unwrap();
            after >= before + (32 << 20) && !touched.is_empty()
        };
        // Other tests run beside this one, and give theirs back meanwhile.
        assert!((0..20).any(|_| grows()), "64 MiB that were touched did not show");
        assert_eq!(used_bytes(u32::MAX), None);
    }

    #[test]
    fn shared_and_private_pages_are_summed() {
        let rollup = "Rss: 900 kB\nPss: 500 kB\nPss_Anon:   100 kB\nPss_File:  200 kB\nPss_Shmem:   12 kB\n";
        assert_eq!(sum_of(rollup), Some(112 << 10));
        assert_eq!(sum_of("Rss: 900 kB\n"), None);
    }

    #[test]
    fn growth_before_ten_seconds_counts_for_nothing_and_after_that_it_does() {
        let seconds = Duration::from_secs;
        let mut log = MemoryLog::default();
        for (second, mebibytes) in [(1, 10), (9, 100), (11, 104), (20, 117), (21, 90)] {
            log.note(seconds(second), mebibytes << 20);
            assert!(log.is_flat(), "{second}");
            assert_eq!(log.bytes().0.is_some(), second > 10, "{second}");
        }
        assert_eq!(log.bytes(), (Some(100 << 20), Some(117 << 20), Some(90 << 20)));
        assert_eq!(log.limit_bytes(), Some(118 << 20));
        log.note(seconds(22), 119 << 20);
        assert!(!log.is_flat());
    }
}
