//! Every fuzz target for some seconds, as many at once as there are processors. A crash leaves its input under
//! fuzz/artifacts.
//!
//! Built as cargo-fuzz builds them, but without it: installing that takes longer than fuzzing. Instrumentation needs
//! unstable compiler flags: a nightly toolchain where there is one, else the stable one with `RUSTC_BOOTSTRAP=1`.

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, ensure};

use super::LaneContext;
use crate::process::{capture_all, succeeds};
use crate::tally::Tally;
use crate::toolchain::{has_nightly, host_triple};
use crate::workspace::Workspace;

/// Folders of fuzz/ that may hold inputs of a target, in a folder by its name. The first is written to.
const CORPUS_FOLDERS: [&str; 3] = ["corpus", "seeds", "regressions"];

/// An input that takes longer than this is reported as a hang.
const INPUT_SECONDS_MAX: u32 = 10;

/// What makes libFuzzer see where an input leads, and AddressSanitizer see what it breaks.
const INSTRUMENTATION: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address";

pub fn run(context: &LaneContext) -> Result<Tally> {
    let workspace = &context.workspace;
    let seconds = context.options.fuzz_seconds;
    let targets = targets(workspace)?;
    println!("bounds: {} targets, {seconds} s each, {INPUT_SECONDS_MAX} s an input", targets.len());
    let built = build(workspace)?;

    let (next, tally) = (Mutex::new(targets.iter()), Mutex::new(Tally::default()));
    let at_once = thread::available_parallelism().map_or(1, NonZero::get).min(targets.len());
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                let take = || next.lock().expect("no thread panics with it").next();
                while let Some(target) = take() {
                    let passed = fuzz(workspace, &built, target, seconds).unwrap_or_else(|error| {
                        println!("fuzz {target}: {error:#}");
                        false
                    });
                    *tally.lock().expect("no thread panics with it") += Tally::one(passed);
                }
            });
        }
    });
    Ok(tally.into_inner().expect("no thread panics with it"))
}

/// The targets: one file each.
fn targets(workspace: &Workspace) -> Result<Vec<String>> {
    let folder = workspace.root.join("fuzz/fuzz_targets");
    let files = folder.read_dir().with_context(|| format!("reading {}", folder.display()))?;
    let files = files.collect::<Result<Vec<_>, _>>().context("reading fuzz/fuzz_targets")?;
    let names = files.iter().map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "rs"));
    let mut names: Vec<String> = names.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    ensure!(!names.is_empty(), "there is no file in fuzz/fuzz_targets: fuzz targets are expected");
    Ok(names)
}

/// Builds all of them; the folder in which they lie.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    let host = host_triple(workspace)?;
    let mut build = workspace.cargo();
    if has_nightly(workspace) {
        build.arg("+nightly");
    } else {
        build.env("RUSTC_BOOTSTRAP", "1");
    }
    // With a target, build scripts and macros are not instrumented.
    build.args(["build", "--release", "--manifest-path", "fuzz/Cargo.toml", "--bins", "--target", &host]);
    build.env("RUSTFLAGS", INSTRUMENTATION).env("CARGO_TARGET_DIR", workspace.root.join("fuzz/target"));
    ensure!(succeeds(build)?, "the fuzz targets do not build");
    Ok(workspace.root.join("fuzz/target").join(host).join("release"))
}

fn fuzz(workspace: &Workspace, built: &Path, target: &str, seconds: u64) -> Result<bool> {
    let fuzz = workspace.root.join("fuzz");
    let artifacts = fuzz.join("artifacts").join(target);
    fs::create_dir_all(fuzz.join(CORPUS_FOLDERS[0]).join(target)).context("making a folder for inputs")?;
    fs::create_dir_all(&artifacts).context("making a folder for crashes")?;
    let mut command = Command::new(built.join(target));
    command.current_dir(&workspace.root).env("ASAN_OPTIONS", "detect_odr_violation=0");
    let folders = CORPUS_FOLDERS.iter().map(|folder| fuzz.join(folder).join(target));
    command.args(folders.filter(|folder| folder.is_dir()));
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-timeout={INPUT_SECONDS_MAX}"));
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    // Inputs of any length from the start: a script's first bytes lead nowhere by themselves.
    command.args(["-len_control=0", "-print_final_stats=1", "-verbosity=0"]);
    let (status, output) = capture_all(command)?;
    let executions = output.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let executions = executions.map_or("?", str::trim);
    let verdict = if status.success() { "ok" } else { "FAILED" };
    if !status.success() {
        println!("{output}");
    }
    println!("fuzz {target}: {verdict}, {executions} executions in {seconds} s");
    Ok(status.success())
}
