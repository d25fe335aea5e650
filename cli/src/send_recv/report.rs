//! What a transfer came to.

use anyhow::Result;
use serde::Serialize;
use std::io::Write;
use std::time::Duration;

#[derive(Debug, Serialize)]
pub struct Report {
    pub role: &'static str,
    pub bytes: u64,
    pub tensors: usize,
    pub pieces: u32,
    pub seconds: f64,
    pub bytes_per_second: f64,
    pub fabric: &'static str,
    pub encrypted: bool,
    pub checksum: String,
    pub checksum_algorithm: &'static str,
}

impl Report {
    pub fn new(role: &'static str, bytes: u64, tensors: usize, pieces: u32, time: Duration) -> Report {
        let seconds = time.as_secs_f64();
        Report {
            role,
            bytes,
            tensors,
            pieces,
            seconds,
            bytes_per_second: bytes as f64 / seconds.max(1e-9),
            fabric: "",
            encrypted: false,
            checksum: String::new(),
            checksum_algorithm: "xxh3-64",
        }
    }

    /// The last line of the output.
    pub fn print(&self, json: bool) -> Result<()> {
        if json {
            return say(&serde_json::to_string(self)?);
        }
        let done = if self.role == "send" { "sent and verified" } else { "received and verified" };
        say(&format!(
            "{done}: {} bytes, {} tensors in {:.3} s ({:.2} GB/s) over {}{}, xxh3 {}",
            self.bytes,
            self.tensors,
            self.seconds,
            self.bytes_per_second / 1e9,
            self.fabric,
            if self.encrypted { ", encrypted" } else { "" },
            self.checksum
        ))
    }
}

/// A line on standard output. A reader that went away is an error, not a panic.
pub fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
