//! The command line of `cargo xtask`. What the commands do is in the library beside it.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, builder::PossibleValuesParser};
use xtask::driver::build::Variation;
use xtask::driver::{self, uapi};
use xtask::engine_object::{self, variants};
use xtask::lab::kernel::{self, Kernel};
use xtask::lab::machine::Machine;
use xtask::lanes::{self, Options};
use xtask::{Workspace, bench, lab, sandbox, setup, test_command};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer commands of dmaplane")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what the tests need (as another user than root: say what is missing)
    Setup {
        /// Install what the figures of the bench are measured beside instead: NIXL, Mooncake, iperf3
        #[arg(long)]
        bench: bool,
    },
    /// Run the tests, all lanes or the named ones; runs setup by itself
    Test {
        /// Lanes to run, in this order; none means all
        #[arg(value_name = "LANE", value_parser = PossibleValuesParser::new(lanes::names()))]
        lanes: Vec<String>,
        /// List the lanes and what each checks
        #[arg(long)]
        list: bool,
        /// Seconds that each fuzz target runs
        #[arg(long, value_name = "SECONDS", default_value_t = Options::default().fuzz_seconds)]
        fuzz_seconds: u64,
        /// Preemptions that loom explores in one execution
        #[arg(long, value_name = "COUNT", default_value_t = Options::default().loom_preemptions)]
        loom_preemptions: u32,
    },
    /// Run a program as Docker runs it by default: its seccomp profile, capabilities, limits and devices
    Sandbox {
        /// The program and its arguments, after `--`
        #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Measure ours beside its peers and write bench/REPORT.md; installs what it needs (20 minutes at most)
    Bench {
        /// A first look in under 5 minutes; the README's figures stay
        #[arg(long)]
        quick: bool,
        /// Whole runs, one after the other: the report says in how many of them a goal is reached
        #[arg(long, value_name = "COUNT", default_value_t = 1)]
        runs: usize,
        /// Count the instructions of a no-op, too, where valgrind is installed
        #[arg(long)]
        profile: bool,
        /// Measure only these parts (`rings`, `shm` and so on); the report is then written to the target folder
        #[arg(long, value_name = "PART", num_args = 1..)]
        only: Vec<String>,
    },
    /// Write the driver's UAPI header anew, of the ring crate's types
    Uapi,
    /// The kernel module
    Driver {
        #[command(subcommand)]
        command: DriverCommand,
    },
    /// Virtual machines for the driver
    Vm {
        #[command(subcommand)]
        command: VmCommand,
    },
    /// Build ring, engine and the driver's Rust object as a kernel object, and check it
    EngineObject {
        /// Variants to build; none means all
        #[arg(long = "variant", value_name = "VARIANT")]
        #[arg(value_parser = PossibleValuesParser::new(variants::names()))]
        variants: Vec<String>,
    },
}

#[derive(Subcommand)]
enum DriverCommand {
    /// Build dmaplane.ko for a kernel; fetches what it is built against
    Build {
        /// The kernel
        #[arg(long, value_name = "KERNEL", value_parser = PossibleValuesParser::new(kernel::names()))]
        kernel: String,
    },
    /// Put the driver's sources and every variant of the Rust object into one folder, for machines without rustc
    Dist,
}

#[derive(Subcommand)]
enum VmCommand {
    /// Run a command in a machine of a kernel; its files are this machine's, and what it writes is forgotten
    Run {
        /// The kernel
        #[arg(long, value_name = "KERNEL", value_parser = PossibleValuesParser::new(kernel::names()))]
        kernel: String,
        /// How long the command may take
        #[arg(long, value_name = "MINUTES", default_value_t = 10)]
        minutes: u64,
        /// Memory; `vm test` gives its machines 1024
        #[arg(long, value_name = "MIB", default_value_t = 2048)]
        memory: u32,
        /// The program and its arguments, after `--`
        #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Measure the driver beside io_uring, and beside a module like the paper's, in one machine: ratios
    Ratios {
        /// The kernel
        #[arg(long, value_name = "KERNEL", value_parser = PossibleValuesParser::new(kernel::names()))]
        kernel: String,
    },
    /// Build the module for a kernel, and run the driver's tests in a machine of it
    Test {
        /// The kernel
        #[arg(long, value_name = "KERNEL", value_parser = PossibleValuesParser::new(kernel::names()))]
        kernel: String,
        /// Instead: modules that are broken on purpose, which the tests must notice
        #[arg(long, conflicts_with = "faults")]
        defects: bool,
        /// Instead: for each operation the n-th call that may fail does, for every n
        #[arg(long)]
        faults: bool,
        /// Only the tests whose names contain this
        #[arg(long, value_name = "NAME", default_value = "", conflicts_with_all = ["defects", "faults"])]
        only: String,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a command. `Ok(false)` is a failure that has already been explained on the terminal.
fn run(command: Command) -> Result<bool> {
    let workspace = Workspace::discover()?;
    match command {
        Command::Setup { bench: true } => setup::bench::run(&workspace).map(|()| true),
        Command::Setup { bench: false } => setup::run(&workspace, None).map(|()| true),
        Command::Test { list: true, .. } => {
            lanes::print_list();
            Ok(true)
        }
        Command::Test { lanes, fuzz_seconds, loom_preemptions, .. } => {
            let options = Options { fuzz_seconds, loom_preemptions };
            test_command::run(workspace, &lanes, options)
        }
        Command::Sandbox { words } => sandbox::run(&words),
        Command::Bench { quick, runs, profile, only } => {
            bench::run(&workspace, &bench::Options { quick, runs, profile, only })
        }
        Command::Uapi => {
            std::fs::write(workspace.root.join(uapi::HEADER), uapi::header())?;
            Ok(true)
        }
        Command::Driver { command: DriverCommand::Build { kernel } } => {
            setup::run(&workspace, Some(&["vm", "engine-object"]))?;
            let kernel = Kernel::named(&kernel).context("no such kernel")?;
            driver::build::build(&workspace, kernel, Variation::None).map(|_| true)
        }
        Command::Driver { command: DriverCommand::Dist } => {
            setup::run(&workspace, Some(&["engine-object"]))?;
            println!("{}", driver::dist::make(&workspace)?.display());
            Ok(true)
        }
        Command::Vm { command: VmCommand::Run { kernel, minutes, memory, words } } => {
            setup::run(&workspace, Some(&["vm"]))?;
            let time = std::time::Duration::from_secs(60 * minutes);
            let machine = Machine { nodes: 2, memory_mib: memory, time, ..Machine::default() };
            lab::run(&workspace, Kernel::named(&kernel).context("no such kernel")?, &machine, &words)
        }
        Command::Vm { command: VmCommand::Ratios { kernel } } => {
            setup::run(&workspace, Some(&["vm"]))?;
            let tally = lab::ratios(&workspace, Kernel::named(&kernel).context("no such kernel")?)?;
            println!("{tally}");
            Ok(tally.failed == 0)
        }
        Command::Vm { command: VmCommand::Test { kernel, defects, faults, only } } => {
            setup::run(&workspace, Some(&["vm"]))?;
            let kernel = Kernel::named(&kernel).context("no such kernel")?;
            let tally = match (defects, faults) {
                (true, _) => lab::test_defects(&workspace, kernel)?,
                (_, true) => lab::test_faults(&workspace, kernel)?,
                _ => lab::test(&workspace, kernel, &only)?,
            };
            println!("{tally}");
            Ok(tally.failed == 0)
        }
        Command::EngineObject { variants } => {
            setup::run(&workspace, Some(&["engine-object"]))?;
            engine_object::run(&workspace, &variants)
        }
    }
}
