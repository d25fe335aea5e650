//! Figures of the embedded host, each beside what it is measured against, alternately in one run.
//!
//! `cargo xtask bench` runs it and writes `bench/REPORT.md`. By hand, `cargo run --release -p dmaplane-bench` prints
//! the same figures. The peers NIXL, Mooncake and iperf3 are measured by programs of their own in `bench/peers`;
//! `cargo xtask setup --bench` installs what these need. What is missing is said, not skipped in silence.

mod abort;
mod allocation;
mod cores;
mod curve;
mod goals;
mod latency;
mod machine;
mod ours;
mod peers;
mod plain;
mod profile;
mod report;
mod results;
mod rings;
mod sample;
mod scale;
mod transfers;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use goals::Part;
use peers::Peers;
use results::{Effort, Results};
use std::path::PathBuf;

#[derive(Parser)]
#[command(about = "Figures, each beside a peer's in one run")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Rounds of each measurement, after one that does not count (5, or 2 with --quick)
    #[arg(long)]
    rounds: Option<usize>,
    /// Fewer rounds, operations and sizes
    #[arg(long)]
    quick: bool,
    /// Measure only these
    #[arg(long, value_enum, value_name = "PART", num_args = 1..)]
    only: Vec<Part>,
    /// Count the instructions of a no-op, too, where valgrind is installed
    #[arg(long)]
    profile: bool,
    /// Write the figures to this file, for the report
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where `cargo xtask setup --bench` put the peers, if not in this tree's target folder
    #[arg(long, value_name = "FOLDER")]
    peers: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Make a report of one or more runs' files
    Report(report::Arguments),
    /// The other process of the transfer measurements
    #[command(hide = true)]
    Receive { address: String, bytes: u64 },
    /// The other process of the revoke measurements
    #[command(hide = true)]
    WriteUntilRevoked { address: String },
    /// The same with many writes at a time
    #[command(hide = true)]
    WriteMany { address: String },
    /// The other process of the measurements at scale
    #[command(hide = true)]
    ConnectMany { address: String, peers: usize },
    /// What callgrind counts
    #[command(hide = true)]
    CountNoOps { operations: u64 },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.command {
        None => measure(&arguments),
        Some(Command::Report(arguments)) => report::run(&arguments),
        Some(Command::Receive { address, bytes }) => ours::receiver::run(&address, bytes),
        Some(Command::WriteUntilRevoked { address }) => abort::write_until_revoked(&address),
        Some(Command::WriteMany { address }) => abort::write_many(&address),
        Some(Command::ConnectMany { address, peers }) => scale::connect_many(&address, peers),
        Some(Command::CountNoOps { operations }) => profile::count_no_ops(operations),
    }
}

fn measure(arguments: &Arguments) -> Result<()> {
    let Arguments { quick, only, .. } = arguments;
    let rounds = arguments.rounds.unwrap_or(if *quick { 2 } else { 5 });
    let parts = if only.is_empty() { Part::value_variants().to_vec() } else { only.clone() };
    let peers = Peers::find(arguments.peers.clone());
    let mut results = Results::new(Effort { quick: *quick, rounds });
    for part in &parts {
        let measured = match part {
            Part::Rings => rings::run(&mut results),
            Part::Latency => latency::run(&mut results),
            Part::Shm => transfers::over_shm(&mut results, &peers),
            Part::Tcp => transfers::over_tcp(&mut results, &peers),
            Part::Abort => abort::run(&mut results),
            Part::Scale => scale::run(&mut results),
            Part::Allocation => allocation::run(&mut results),
            Part::Curve => curve::run(&mut results, &peers),
        };
        // The other parts are measured all the same.
        if let Err(error) = measured {
            results.fail(&format!("the part {part:?}"), &error);
        }
    }
    if arguments.profile {
        results.profile(profile::lines());
    }
    let failed = results.end(&parts, arguments.json.as_deref())?;
    ensure!(failed == 0, "{failed} figures could not be measured; the table and the lines above say why");
    Ok(())
}
