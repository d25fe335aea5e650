//! What a no-op costs in instructions, counted by callgrind: what is in the way, where a target is not reached.

use crate::rings::{ONE, turns};
use anyhow::{Context as _, Result, bail, ensure};
use dmaplane::{Config, Context, RunMode};
use dmaplane_ring::build::Nop;
use std::path::Path;
use std::process::Command;

const FEW: u64 = 10_000;
const MORE: u64 = 30_000;
/// Functions that are shown.
const FUNCTIONS: usize = 12;

/// Lines for the report; one that says why where there is no valgrind.
pub fn lines() -> Vec<String> {
    match counted() {
        Ok(lines) => lines,
        Err(error) => vec![format!("Instructions were not counted: {error:#}.")],
    }
}

/// The difference of two runs, so that what happens once does not count.
fn counted() -> Result<Vec<String>> {
    let folder = tempfile::tempdir()?;
    let (few, more) = (folder.path().join("few"), folder.path().join("more"));
    let instructions = callgrind(MORE, &more)? - callgrind(FEW, &few)?;
    let each = instructions as f64 / (MORE - FEW) as f64;
    let mut lines =
        vec![format!("{each:.0} instructions a NOP, inline, one in flight (callgrind), pushed and reaped.")];
    lines.extend(functions(&more)?);
    Ok(lines)
}

fn callgrind(operations: u64, file: &Path) -> Result<u64> {
    let program = std::env::current_exe()?;
    let mut command = Command::new("valgrind");
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", file.display())).arg(program);
    let output = command.args(["count-no-ops", &operations.to_string()]).output().context("starting valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind: {}", said.lines().last().unwrap_or_default());
    collected(&said)
}

/// `==1== Collected : 123`
fn collected(said: &str) -> Result<u64> {
    let line = said.lines().find_map(|line| line.split_once("Collected :"));
    let Some((_, count)) = line else { bail!("valgrind counted nothing") };
    count.trim().parse().context("valgrind's count")
}

fn functions(file: &Path) -> Result<Vec<String>> {
    let mut command = Command::new("callgrind_annotate");
    let output = command.arg(file).output().context("starting callgrind_annotate")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(function).take(FUNCTIONS).collect())
}

/// `1,234 (12.3%)  path/file.rs:function [object]`, without the path.
fn function(line: &str) -> Option<String> {
    let (count, rest) = line.split_once('(')?;
    let (part, place) = rest.split_once(')')?;
    let name = [".rs:", ".S:", ".c:"].iter().find_map(|end| place.split_once(end)).map_or(place, |(_, name)| name);
    let name = name.split(" [").next().unwrap_or_default().trim();
    let is_count = !count.trim().is_empty() && count.trim().chars().all(|c| c.is_ascii_digit() || c == ',');
    (is_count && !name.is_empty() && !name.contains("PROGRAM TOTALS")).then(|| format!("{part}: `{name}`"))
}

/// What callgrind runs.
pub fn count_no_ops(operations: u64) -> Result<()> {
    let context = Context::open(Config { mode: RunMode::Inline, ..Config::default() })?;
    let mut ring = context.ring(256, 512)?;
    turns(&mut ring, ONE, operations, |n| Nop::new().user_data(n).sqe()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrinds_lines_are_read() {
        assert_eq!(collected("==9== \n==9== Collected : 4711\n").unwrap(), 4711);
        assert!(collected("nothing").is_err());
        let line = "1,234,567 (12.34%)  /somewhere/engine/src/submit.rs:dmaplane_engine::take [/somewhere/bench]";
        assert_eq!(function(line).unwrap(), "12.34%: `dmaplane_engine::take`");
        assert_eq!(function("1,000 ( 9.24%)  ./string/a.S:__memset [/x]").unwrap(), " 9.24%: `__memset`");
        assert_eq!(function("9,999 (100.0%)  PROGRAM TOTALS"), None);
        assert_eq!(function("-- Auto-annotated source (x)"), None);
    }

    #[test]
    fn no_ops_are_counted_by_themselves() {
        count_no_ops(100).unwrap();
    }
}
