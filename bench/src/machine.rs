//! What a figure depends on beside the program.

use serde::{Deserialize, Serialize};
use std::path::Path;

/// Facts of the machine at the start of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    /// Level and size, smallest first.
    pub caches: String,
    pub memory_gib: f64,
    pub kernel: String,
    /// Load average of the last minute, and what this process found running beside itself.
    pub load: String,
}

impl Machine {
    pub fn look() -> Machine {
        Machine {
            processor: field("/proc/cpuinfo", "model name"),
            cores: cores(),
            caches: caches(),
            memory_gib: field("/proc/meminfo", "MemTotal").split(' ').next().map_or(0.0, kib_to_gib),
            kernel: first_line("/proc/sys/kernel/osrelease"),
            load: load(),
        }
    }

    pub fn summary(&self) -> String {
        let Machine { processor, cores, caches, memory_gib, kernel, .. } = self;
        format!("{cores} cores ({processor}; caches {caches}), {memory_gib:.0} GiB, Linux {kernel}")
    }
}

/// Cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How busy the machine is: figures of a machine with other work are a first look, not a claim.
pub fn load() -> String {
    let text = first_line("/proc/loadavg");
    let minute = text.split(' ').next().unwrap_or_default();
    if minute.is_empty() { "unknown".to_owned() } else { minute.to_owned() }
}

fn first_line(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

fn field(path: &str, name: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_once(':'))
        .map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
}

fn kib_to_gib(kib: &str) -> f64 {
    kib.parse::<f64>().unwrap_or_default() / f64::from(1 << 20)
}

/// The caches of the first core.
fn caches() -> String {
    let folder = Path::new("/sys/devices/system/cpu/cpu0/cache");
    let read = |index: u32, name: &str| {
        let path = folder.join(format!("index{index}")).join(name);
        std::fs::read_to_string(path).map(|text| text.trim().to_owned()).ok()
    };
    let described = (0..8).filter_map(|index| {
        let kind = read(index, "type").filter(|kind| kind != "Instruction")?;
        let suffix = if kind == "Data" { "d" } else { "" };
        Some(format!("L{}{suffix} {}", read(index, "level")?, read(index, "size")?))
    });
    let described: Vec<String> = described.collect();
    if described.is_empty() { "unknown".to_owned() } else { described.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_cores_memory_and_a_kernel() {
        let machine = Machine::look();
        assert!(machine.cores >= 1 && machine.memory_gib > 0.0 && !machine.kernel.is_empty(), "{machine:?}");
        assert!(machine.load.parse::<f64>().is_ok(), "{machine:?}");
    }
}
