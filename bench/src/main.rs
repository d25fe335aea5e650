//! Figures of the embedded host, each beside what it is measured against, alternately in one run: medians and spread.
//!
//! `cargo run --release -p dmaplane-bench` prints a table. NIXL, Mooncake and iperf3 are not among the peers yet.

mod rings;
mod sample;
mod transfers;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Rounds of each measurement
    #[arg(long, default_value_t = 9)]
    rounds: usize,
}

#[derive(Subcommand)]
enum Command {
    /// The other process of the transfer measurements
    #[command(hide = true)]
    Receive { address: String },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(Command::Receive { address }) = arguments.command {
        return transfers::receive(&address);
    }
    println!("| what | ours | beside it | ratio |");
    println!("|---|---|---|---|");
    rings::run(arguments.rounds)?;
    transfers::run(arguments.rounds, "shm")?;
    transfers::run(arguments.rounds, "tcp")
}
