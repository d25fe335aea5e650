//! `dmaplane demo`: one prompt, two processes, the same answer.
//!
//! The parent starts a decode and a prefill process, runs the same generation by itself in one process, and compares:
//! the logits of every step bit for bit, the tokens, and a digest of every block that arrived. Decode never sees the
//! prompt: it gets the cache, its length, and the first generated token.

pub(crate) mod arguments;
mod cache;
mod child;
mod decode;
pub(crate) mod generation;
mod outcome;
mod prefill;
pub(crate) mod protocol;

pub use arguments::{DecodeArguments, DemoArguments, PrefillArguments};
pub use decode::decode;
pub use prefill::prefill;

use anyhow::{Context, Result, anyhow, bail, ensure};
use arguments::{DemoCommand, Fabric, Mode, Sabotage};
use child::Child;
pub(crate) use child::{die_with_parent, listen_to_words};
use outcome::{DecodeReport, Outcome, PrefillReport};
use std::time::Duration;

/// How long decode may take to notice by itself that prefill has failed.
const GRACE: Duration = Duration::from_secs(2);

/// Runs the demo; an error when anything differs.
pub fn run(arguments: &DemoArguments) -> Result<()> {
    match &arguments.command {
        Some(DemoCommand::Serve(serve)) => return crate::serve::run(serve),
        Some(DemoCommand::ServeWorker(worker)) => return crate::serve::run_worker(worker),
        Some(DemoCommand::ServePrompts(prompts)) => return crate::serve::print_prompts(prompts),
        None => {}
    }
    let common = arguments.common.clone();
    ensure!(
        (common.sabotage, common.mode) != (Some(Sabotage::ReplayGeneration), Mode::Pull),
        "--sabotage replay-generation is for --mode push: a pull names no transfer; see replay-lease"
    );
    let directory = tempfile::tempdir().context("making a directory for the socket")?;
    let address = match common.fabric {
        Fabric::Shm => format!("shm:{}", directory.path().join("decode").display()),
        Fabric::Tcp => "tcp:127.0.0.1:0".to_owned(),
        // A name that nobody else has.
        Fabric::Local => format!("local:{}", directory.path().display()),
    };
    let mut decode = Child::spawn("decode", &arguments.decode_command(&address))?;
    let address = decode.read_line()?;
    let address = address.strip_prefix("listening on ").context("decode did not say where it listens")?.to_owned();
    let prefill = Child::spawn("prefill", &arguments.prefill_command(&address))?;

    // Beside the processes, so that one that fails is heard of at once.
    let reference = std::thread::spawn(move || generation::in_one_process(&common));
    let prefill: Result<PrefillReport> = prefill.finish();
    let decode: Result<DecodeReport> = match prefill {
        Ok(_) => decode.finish(),
        Err(_) => decode.finish_within(GRACE),
    };
    let (prefill, decode) = match (prefill, decode) {
        (Ok(prefill), Ok(decode)) => (prefill, decode),
        (Err(prefill), Err(decode)) => bail!("the demo failed: {prefill:#}; {decode:#}"),
        (Err(error), _) | (_, Err(error)) => bail!("the demo failed: {error:#}"),
    };
    let reference = reference.join().map_err(|_| anyhow!("the run in one process panicked"))??;
    let outcome = Outcome::compare(arguments, &reference, &prefill, &decode);
    outcome.print(arguments.json)?;
    if outcome.holds() { Ok(()) } else { bail!("the two runs differ: {}", outcome.differences()) }
}
