//! The one table of what is measured, beside what, and what it has to reach.
//!
//! Targets and floors are the project's own, given as ratios in one run. A ratio above 1 is in our favour whichever way
//! is better, so "a tenth of Mooncake's time" is a ratio of 10.

use clap::ValueEnum;

/// A part of the bench, which can be run alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    Rings,
    Latency,
    Shm,
    Tcp,
    Abort,
    Scale,
    Allocation,
    Curve,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    More,
    Less,
}

/// What a figure has to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// So many times better than what stands beside it; not below the floor, where there is one.
    Ratio { target: f64, floor: Option<f64> },
    /// Ours is at most so much, in the row's unit.
    AtMost(f64),
    /// It is reported, no more.
    Reported,
}

/// A row of the report.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub key: &'static str,
    pub part: Part,
    pub what: &'static str,
    pub beside: &'static str,
    pub unit: &'static str,
    pub better: Better,
    pub goal: Goal,
    /// Whether the README shows it.
    pub shown_first: bool,
}

const fn row(key: &'static str, part: Part, what: &'static str, beside: &'static str) -> Row {
    Row { key, part, what, beside, unit: "GB/s", better: Better::More, goal: Goal::Reported, shown_first: false }
}

impl Row {
    const fn unit(mut self, unit: &'static str) -> Row {
        self.unit = unit;
        self
    }

    const fn less(mut self, unit: &'static str) -> Row {
        self.better = Better::Less;
        self.unit(unit)
    }

    const fn target(mut self, target: f64) -> Row {
        self.goal = Goal::Ratio { target, floor: None };
        self
    }

    const fn target_and_floor(mut self, target: f64, floor: f64) -> Row {
        self.goal = Goal::Ratio { target, floor: Some(floor) };
        self
    }

    const fn at_most(mut self, most: f64) -> Row {
        self.goal = Goal::AtMost(most);
        self
    }

    const fn first(mut self) -> Row {
        self.shown_first = true;
        self
    }

    /// How many times better ours is.
    pub fn ratio(&self, ours: f64, theirs: f64) -> f64 {
        match self.better {
            Better::More => ours / theirs,
            Better::Less => theirs / ours,
        }
    }
}

const BATCHED: &str = "NOP, poller, 32 a batch, 128 in flight";
const QUERY: &str = "CREDIT_QUERY, poller, 32 a batch, 128 in flight";
const WRITE_64: &str = "64-byte WRITE to another process over shm, 32 a batch, 128 in flight";
const OWN_NOP: &str = "our NOP";
const CPU: &str = "CPU s/GB";
const SHM_LARGE: &str = "64 MiB WRITE over shm";
const SHM_LARGE_ANSWERED: &str = "64 MiB WRITE_IMM over shm, answered by the program";
const SHM_LIST: &str = "one WRITE_LIST of 81,920 scattered 4 KiB blocks over shm";
const SHM_SMALL: &str = "4 KiB WRITE_IMM over shm, delivered";
const SHM_ANSWERED: &str = "4 KiB WRITE_IMM over shm, answered by the program";
const TCP_LARGE: &str = "64 MiB WRITE over tcp on loopback";
const TCP_LIST: &str = "one WRITE_LIST of 81,920 scattered 4 KiB blocks over tcp";
const TCP_SMALL: &str = "4 KiB WRITE_IMM over tcp, delivered";
const TCP_ANSWERED: &str = "4 KiB WRITE_IMM over tcp, answered by the program";
const FRESH: &str = "allocate, lease, revoke and free 64 MiB, fresh";
/// NIXL as it comes: UCX chooses, NIXL's own thread makes progress.
pub const NIXL_DEFAULT: &str = "NIXL, default (progress thread on)";
/// NIXL tuned for one host of few cores.
pub const NIXL_TUNED: &str = "NIXL, tuned (UCX shm, progress thread off)";
/// NIXL with the transport that UCX chooses, which on one host is CMA.
pub const NIXL_CMA: &str = "NIXL, tuned (UCX's choice, progress thread off)";
/// The best of the three, by its median in its own comparison.
pub const NIXL_BEST: &str = "NIXL's best";
const NIXL_TCP: &str = "NIXL (UCX tcp, progress thread off)";
const MOONCAKE: &str = "Mooncake (tcp; its wheel has no shm)";
const NOTIFIED: &str = "Mooncake (tcp; its wheel has no shm), with notification";

/// The rows in the order of the report.
pub const ROWS: &[Row] = &[
    row("nop_best", Part::Rings, BATCHED, "the best of io_uring's modes")
        .unit("M/s")
        .target_and_floor(4.0, 2.5)
        .first(),
    row("nop_enter", Part::Rings, BATCHED, "io_uring enter").unit("M/s"),
    row("nop_defer", Part::Rings, BATCHED, "io_uring enter, DEFER_TASKRUN, registered ring").unit("M/s"),
    row("nop_sqpoll", Part::Rings, BATCHED, "io_uring SQPOLL").unit("M/s"),
    row("query", Part::Rings, QUERY, OWN_NOP).unit("M/s"),
    row("write_64", Part::Rings, WRITE_64, OWN_NOP).unit("M/s"),
    row("poller_1", Part::Rings, "NOP, poller, one in flight", "io_uring SQPOLL").less("us").target(1.0).first(),
    row("inline_1", Part::Rings, "NOP, inline, one in flight", "the best of io_uring's enter modes")
        .unit("M/s")
        .target_and_floor(5.0, 3.0)
        .first(),
    row("bare_round_trip", Part::Rings, "bare ring, 64 bytes there and 32 back, 32 a batch", "rtrb, same sizes")
        .unit("M/s"),
    row("bare_one_way", Part::Rings, "bare ring, SQEs one way, 32 a batch", "rtrb, u64 in chunks of 32").unit("M/s"),
    row("p99_shm_write", Part::Latency, "p99 of NOP during 1 GiB WRITEs of its context over shm", "")
        .less("us")
        .at_most(50.0)
        .first(),
    row("p50_shm_write", Part::Latency, "p50 of the same", "").less("us"),
    row("p99_shm_read", Part::Latency, "p99 of NOP during 1 GiB READs of its context over shm", "")
        .less("us")
        .at_most(50.0),
    row("p50_shm_read", Part::Latency, "p50 of the same", "").less("us"),
    row("p99_tcp_write", Part::Latency, "p99 of NOP during 1 GiB WRITEs of its context over tcp", "")
        .less("us")
        .at_most(50.0)
        .first(),
    row("p50_tcp_write", Part::Latency, "p50 of the same", "").less("us"),
    row("p99_tcp_read", Part::Latency, "p99 of NOP during 1 GiB READs of its context over tcp", "")
        .less("us")
        .at_most(50.0),
    row("p50_tcp_read", Part::Latency, "p50 of the same", "").less("us"),
    row("shm_large_memcpy", Part::Shm, SHM_LARGE, "memcpy").target_and_floor(0.9, 0.7).first(),
    row("shm_large_pread", Part::Shm, SHM_LARGE, "pread from a memfd").target_and_floor(0.9, 0.7),
    // NIXL as its users have it: as it comes, told by its notification that the bytes are there. The goal was set by
    // such a figure (2.2 GB/s). Tuned, and for the writer alone, it runs at memcpy's speed.
    row("shm_large_answered_nixl_default", Part::Shm, SHM_LARGE_ANSWERED, NIXL_DEFAULT)
        .target_and_floor(4.0, 3.0)
        .first(),
    row("shm_large_answered_nixl_tuned", Part::Shm, SHM_LARGE_ANSWERED, NIXL_TUNED),
    row("shm_large_answered_nixl_cma", Part::Shm, SHM_LARGE_ANSWERED, NIXL_CMA),
    row("shm_large_nixl_best", Part::Shm, SHM_LARGE, NIXL_BEST).target_and_floor(4.0, 3.0).first(),
    row("shm_large_nixl_default", Part::Shm, SHM_LARGE, NIXL_DEFAULT).target_and_floor(4.0, 3.0).first(),
    row("shm_large_nixl_tuned", Part::Shm, SHM_LARGE, NIXL_TUNED).target_and_floor(4.0, 3.0),
    row("shm_large_nixl_cma", Part::Shm, SHM_LARGE, NIXL_CMA).target_and_floor(4.0, 3.0),
    row("shm_large_cpu_nixl_default", Part::Shm, SHM_LARGE, NIXL_DEFAULT).less(CPU).target(1.0),
    row("shm_large_cpu_nixl_tuned", Part::Shm, SHM_LARGE, NIXL_TUNED).less(CPU).target(1.0),
    row("shm_large_cpu_nixl_cma", Part::Shm, SHM_LARGE, NIXL_CMA).less(CPU).target(1.0),
    row("shm_large_mooncake", Part::Shm, SHM_LARGE, MOONCAKE),
    row("shm_large_cpu_mooncake", Part::Shm, SHM_LARGE, MOONCAKE).less(CPU).target(1.0),
    row("shm_list_nixl_best", Part::Shm, SHM_LIST, NIXL_BEST).target(5.0).first(),
    row("shm_list_nixl_default", Part::Shm, SHM_LIST, NIXL_DEFAULT),
    row("shm_list_nixl_tuned", Part::Shm, SHM_LIST, NIXL_TUNED),
    row("shm_list_nixl_cma", Part::Shm, SHM_LIST, NIXL_CMA),
    row("shm_list_memcpy", Part::Shm, SHM_LIST, "memcpy of 64 MiB in one piece"),
    row("shm_list_cpu_nixl_default", Part::Shm, SHM_LIST, NIXL_DEFAULT).less(CPU).target(1.0),
    row("shm_list_cpu_nixl_tuned", Part::Shm, SHM_LIST, NIXL_TUNED).less(CPU).target(1.0),
    row("shm_list_cpu_nixl_cma", Part::Shm, SHM_LIST, NIXL_CMA).less(CPU).target(1.0),
    row("shm_small_mooncake", Part::Shm, SHM_SMALL, NOTIFIED).less("us").target_and_floor(10.0, 5.0).first(),
    row("shm_small_mooncake_bare", Part::Shm, SHM_SMALL, "Mooncake (tcp), without notification").less("us"),
    row("shm_small_nixl_default", Part::Shm, SHM_SMALL, NIXL_DEFAULT).less("us"),
    row("shm_small_nixl_tuned", Part::Shm, SHM_SMALL, NIXL_TUNED).less("us").first(),
    row("shm_small_nixl_cma", Part::Shm, SHM_SMALL, NIXL_CMA).less("us"),
    row("shm_answered_nixl_default", Part::Shm, SHM_ANSWERED, NIXL_DEFAULT).less("us"),
    row("shm_answered_nixl_tuned", Part::Shm, SHM_ANSWERED, NIXL_TUNED).less("us"),
    row("shm_answered_nixl_cma", Part::Shm, SHM_ANSWERED, NIXL_CMA).less("us"),
    row("tcp_large_iperf3", Part::Tcp, TCP_LARGE, "iperf3, one stream for a second")
        .target_and_floor(0.95, 0.8)
        .first(),
    row("tcp_large_socket", Part::Tcp, TCP_LARGE, "a plain socket between two threads, 64 MiB"),
    row("tcp_large_mooncake", Part::Tcp, TCP_LARGE, "Mooncake (tcp)").target(2.0).first(),
    row("tcp_large_nixl", Part::Tcp, TCP_LARGE, NIXL_TCP).first(),
    row("tcp_large_cpu_nixl", Part::Tcp, TCP_LARGE, NIXL_TCP).less(CPU).target(1.0),
    row("tcp_large_cpu_mooncake", Part::Tcp, TCP_LARGE, "Mooncake (tcp)").less(CPU).target(1.0),
    row("tcp_list_nixl", Part::Tcp, TCP_LIST, NIXL_TCP).first(),
    row("tcp_list_mooncake", Part::Tcp, TCP_LIST, "Mooncake (tcp), one batch").first(),
    row("tcp_list_cpu_nixl", Part::Tcp, TCP_LIST, NIXL_TCP).less(CPU).target(1.0),
    row("tcp_small_nixl", Part::Tcp, TCP_SMALL, NIXL_TCP).less("us"),
    row("tcp_small_mooncake", Part::Tcp, TCP_SMALL, "Mooncake (tcp), with notification").less("us"),
    row("tcp_answered_nixl", Part::Tcp, TCP_ANSWERED, NIXL_TCP).less("us"),
    row("abort_p50_shm", Part::Abort, "abort to reusable memory over shm, p50", "").less("us").at_most(1000.0).first(),
    row("abort_p99_shm", Part::Abort, "abort to reusable memory over shm, p99", "").less("us").first(),
    row("abort_p50_tcp", Part::Abort, "abort to reusable memory over tcp, p50", "").less("us").at_most(1000.0).first(),
    row("abort_p99_tcp", Part::Abort, "abort to reusable memory over tcp, p99", "").less("us").first(),
    row("one_of_64_shm", Part::Abort, "revoke of one of 64 transfers in flight over shm; the other 63 complete", "")
        .less("us"),
    row("one_of_64_tcp", Part::Abort, "revoke of one of 64 transfers in flight over tcp; the other 63 complete", "")
        .less("us"),
    row("scale_nop", Part::Scale, "NOP with 10,000 buffers, 1,000 peers, 64 rings", "with one of each")
        .less("ns")
        .target(1.0 / 1.2)
        .first(),
    row("scale_query", Part::Scale, "CREDIT_QUERY of each peer in turn, as many", "with one of each")
        .less("ns")
        .target(1.0 / 1.2),
    row("scale_write_one", Part::Scale, "64-byte WRITE from one buffer among as many", "with one of each")
        .less("ns")
        .target(1.0 / 1.2)
        .first(),
    // Each of 10,000 pages, and what both sides know of it, has left the caches when its turn comes again.
    row("scale_write", Part::Scale, "64-byte WRITE from each buffer in turn, as many", "with one of each")
        .less("ns")
        .target(1.0 / 1.2)
        .first(),
    row("alloc_memset", Part::Allocation, FRESH, "memset of memory that is there").target(1.0).first(),
    row("alloc_populate", Part::Allocation, FRESH, "mmap with MAP_POPULATE, munmap").target(1.0),
    row("alloc_recycled", Part::Allocation, "allocate, lease, revoke and free 64 MiB, recycled", "the same, fresh")
        .target(5.0)
        .first(),
];

/// The row of a key.
pub fn row_of(key: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.key == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_unique_and_floors_below_targets() {
        for (index, row) in ROWS.iter().enumerate() {
            assert!(ROWS[..index].iter().all(|other| other.key != row.key), "{} twice", row.key);
            if let Goal::Ratio { target, floor: Some(floor) } = row.goal {
                assert!(floor < target, "{}: floor {floor}, target {target}", row.key);
            }
            if let Goal::Ratio { .. } = row.goal {
                assert!(!row.beside.is_empty(), "{} has a ratio to nothing", row.key);
            }
        }
    }

    #[test]
    fn a_ratio_above_one_is_in_our_favour_whichever_way_is_better() {
        assert_eq!(row("k", Part::Shm, "writes", "peer").ratio(4.0, 2.0), 2.0);
        assert_eq!(row("k", Part::Shm, "a write", "peer").less("us").ratio(2.0, 4.0), 2.0);
    }
}
