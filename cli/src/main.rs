//! The `dmaplane` command.

mod demo;
mod model;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "dmaplane", version, about = "Moves buffers between processes and hosts, safely and fast")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Prefill in one process, decode in another, and compare with a run in one process
    Demo(demo::DemoArguments),
    #[command(hide = true)]
    DemoPrefill(demo::PrefillArguments),
    #[command(hide = true)]
    DemoDecode(demo::DecodeArguments),
}

fn main() -> ExitCode {
    let level = std::env::var("DMAPLANE_LOG").unwrap_or_else(|_| "error".to_owned());
    tracing_subscriber::fmt().with_env_filter(level).with_writer(std::io::stderr).with_target(false).init();
    let outcome = match Arguments::parse().command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::DemoPrefill(arguments) => demo::prefill(&arguments),
        Command::DemoDecode(arguments) => demo::decode(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dmaplane: {error:#}");
            ExitCode::FAILURE
        }
    }
}
