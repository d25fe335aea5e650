//! The `dmaplane` command.

mod contexts;
mod demo;
mod host;
mod model;
mod root;
mod rows;
mod send_recv;
mod serve;
mod topology;

use clap::{Parser, Subcommand};
use model::{ModelShape, Transformer};
use std::path::{Path, PathBuf};
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
    /// Send a safetensors file to a `dmaplane recv`
    Send(send_recv::SendArguments),
    /// Receive a safetensors file; it gets its name when it is complete and verified
    ///
    /// One file, from one sender. Who connects and speaks another protocol, has another key, or shakes hands with
    /// memory that could vanish under a reader, is turned away with a warning, and the next is waited for. The first
    /// who is let in is the sender. Whatever it does wrong from then on (it dies, lies about the file, hands over
    /// memory that could vanish, or says nothing for --patience) ends the command with one line, status 1 and no
    /// output. Once everything is here and only the disk is waited for, the sender's end changes nothing any more.
    Recv(send_recv::RecvArguments),
    /// Show NUMA nodes, huge pages, network cards, accelerators, and what is missing
    Topology(topology::TopologyArguments),
    /// Show the kernel driver's contexts: which processes hold them, and what is in use there
    Contexts(contexts::ContextsArguments),
    /// Save the demo's built-in model, for `demo --model`
    #[command(hide = true)]
    DemoSaveModel {
        /// A safetensors file; its config.json goes beside it
        #[arg(long)]
        out: PathBuf,
        /// Weights follow from this number
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    #[command(hide = true)]
    DemoPrefill(demo::PrefillArguments),
    #[command(hide = true)]
    DemoDecode(demo::DecodeArguments),
}

fn save_model(path: &Path, seed: u64) -> anyhow::Result<()> {
    Ok(Transformer::seeded(ModelShape::small(), seed)?.save_safetensors(path)?)
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    // A receiver goes on when it turns a stranger away, and says so.
    let level = if matches!(command, Command::Recv(_)) { "warn" } else { "error" };
    let level = std::env::var("DMAPLANE_LOG").unwrap_or_else(|_| level.to_owned());
    let log = tracing_subscriber::fmt().with_env_filter(level).with_writer(std::io::stderr);
    log.with_target(false).without_time().init();
    let outcome = match command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Send(arguments) => send_recv::send(&arguments),
        Command::Recv(arguments) => send_recv::recv(&arguments),
        Command::Topology(arguments) => topology::run(&arguments),
        Command::Contexts(arguments) => contexts::run(&arguments),
        Command::DemoSaveModel { out, seed } => save_model(&out, seed),
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
