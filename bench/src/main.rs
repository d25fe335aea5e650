//! Figures of the embedded host, each beside what it is measured against, alternately in one run.
//!
//! `cargo run --release -p dmaplane-bench` prints a table of medians. The peers NIXL, Mooncake and iperf3 are measured
//! by programs of their own in `bench/peers`; `cargo xtask setup --bench` installs what these need. What is missing is
//! said, not skipped in silence.

mod ours;
mod peers;
mod plain;
mod rings;
mod sample;
mod table;
mod transfers;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use peers::Peers;
use std::path::PathBuf;
use table::Table;

#[derive(Parser)]
#[command(about = "Figures, each beside a peer's in one run")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Rounds of each measurement, after one that does not count
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measure only these
    #[arg(long, value_enum, value_name = "PART", num_args = 1..)]
    only: Vec<Part>,
    /// Where `cargo xtask setup --bench` put the peers, if not in this tree's target folder
    #[arg(long, value_name = "FOLDER")]
    peers: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// The other process of the transfer measurements
    #[command(hide = true)]
    Receive { address: String },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Rings,
    Shm,
    Tcp,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(Command::Receive { address }) = arguments.command {
        return ours::receiver::run(&address);
    }
    let wanted = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    let peers = Peers::find(arguments.peers.clone());
    let mut table = Table::new(arguments.rounds);
    table.begin();
    if wanted(Part::Rings) {
        rings::run(&mut table)?;
    }
    if wanted(Part::Shm) {
        transfers::over_shm(&mut table, &peers)?;
    }
    if wanted(Part::Tcp) {
        transfers::over_tcp(&mut table, &peers)?;
    }
    let failed = table.end();
    ensure!(failed == 0, "{failed} figures could not be measured; the table and the lines above say why");
    Ok(())
}
