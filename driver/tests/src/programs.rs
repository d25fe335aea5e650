//! The main job over the driver: the command and the library's own tests, run as programs (clauses LOC-1 to LOC-8).
//!
//! `cargo xtask vm test` builds them and says by DMAPLANE_PROGRAMS where each is, a line each: a name, a space, a path.

use crate::Test;
use crate::kit::{alloc, command, device, information, slow, succeed};
use crate::peers::built;
use anyhow::{Context as _, Result, bail, ensure};
use dmaplane_ring::abi::Rights;
use dmaplane_ring::build::LeaseGrant;
use std::process::Command;

pub const TESTS: &[Test] = &[
    ("programs_demo_gives_equal_answers_over_the_driver", demo),
    ("programs_topology_and_contexts_tell_of_the_driver", told),
    ("programs_a_file_is_sent_and_received_over_the_driver", send_and_receive),
    ("programs_lse_12_no_late_layer_lands_over_the_driver", late_layers),
    ("programs_many_transfers_and_aborts_at_once_over_the_driver", many),
];

/// Those that take half a minute and more, or want a machine of their own, and say little that is a kernel's own: one
/// of the kernels runs them.
pub const LONG: &[Test] = &[
    ("programs_buf_2_memory_near_a_device_lies_on_its_node_over_the_driver", near),
    ("programs_demo_serve_gives_no_wrong_answer_over_the_driver", serve),
    ("programs_every_shard_count_and_block_size_over_the_driver", shards),
];

/// One kernel's, and the one's with every checker.
pub const RACES: &[Test] = &[("programs_lse_12_nothing_lands_late_over_the_driver", late_writes)];

/// Where a program is.
fn program(name: &str) -> Result<String> {
    let all = std::env::var("DMAPLANE_PROGRAMS").context("DMAPLANE_PROGRAMS does not say where the programs are")?;
    let found = all.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    Ok(found.with_context(|| format!("DMAPLANE_PROGRAMS does not say where {name} is"))?.to_owned())
}

/// Runs a library's tests over the driver, all whose names end so.
fn library_tests(name: &str, tests: &str, rounds: &str) -> Result<()> {
    let mut run = Command::new(program(name)?);
    run.args([tests, "--ignored", "--test-threads=1"]).env("DMAPLANE_ROUNDS", rounds);
    let output = run.output().with_context(|| format!("starting {name}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{name}: {said}\n{}", String::from_utf8_lossy(&output.stderr));
    ensure!(said.contains("test result: ok") && !said.contains(" 0 passed"), "{name} has run nothing: {said}");
    Ok(())
}

fn demo() -> Result<()> {
    // Under every checker half a minute goes into the model's own arithmetic.
    for &mode in if slow() { &["push"][..] } else { &["push", "pull"] } {
        let said = command(&program("dmaplane")?, &["demo", "--device", "/dev/dmaplane", "--mode", mode])?;
        let equal = ["blocks", "logits", "tokens"].iter().all(|what| {
            said.lines().any(|line| line.split_whitespace().take(2).collect::<Vec<_>>() == [*what, "equal"])
        });
        ensure!(equal && said.contains(&format!("over local ({mode})")), "{said}");
    }
    Ok(())
}

/// What the command says of the driver, and of who has what there.
fn told() -> Result<()> {
    let dmaplane = program("dmaplane")?;
    let topology = command(&dmaplane, &["topology"])?;
    let line = topology.lines().find(|line| line.starts_with("/dev/dmaplane")).context("no line of the driver")?;
    ensure!(line.contains("found") && line.contains("--device"), "{line}");
    ensure!(topology.contains("2 nodes; place buffers near their device"), "{topology}");
    ensure!(command(&dmaplane, &["contexts"])?.contains("0 contexts"), "contexts that nobody has made");
    let (device, mut ring) = device()?;
    let (buffer, _) = alloc(&mut ring, 3 << 20)?;
    succeed(&mut ring, built(LeaseGrant::range(buffer, 0, 4096, Rights::READ))?)?;
    let said = command(&dmaplane, &["contexts", "--json"])?;
    let context = information(&device, "context")?;
    for words in [
        format!("\"context\": {context}"),
        format!("\"process\": {}", std::process::id()),
        "\"buffers\": 1".to_owned(),
        "\"leases\": 1".to_owned(),
        format!("\"memory-bytes\": {}", 3 << 20),
    ] {
        ensure!(said.contains(&words), "{words} is not in {said}");
    }
    crate::observing::debugfs()?;
    let objects = command(&dmaplane, &["contexts", "--objects"])?;
    ensure!(objects.contains(&format!("context {context}, leases:")) && objects.contains("unclaimed"), "{objects}");
    ensure!(objects.contains("bytes=3145728") && objects.ends_with("1 contexts\n"), "{objects}");
    Ok(())
}

fn serve() -> Result<()> {
    for mode in ["push", "pull"] {
        // In the emulator a run in one process answers two of the 48 prompts a second.
        let size = ["--seconds", "4", "--requests", "12", "--prompts", "12"];
        let flags = [&["demo", "serve", "--device", "/dev/dmaplane", "--json"], &size[..]].concat();
        let said = command(&program("dmaplane")?, &[&flags[..], &["--mode", mode]].concat())?;
        let number = |name: &str| {
            let rest = said.split(&format!("\"{name}\":")).nth(1)?;
            rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse::<u64>().ok()
        };
        ensure!(number("wrong_answers") == Some(0) && number("unexpected_failures") == Some(0), "{said}");
        ensure!(number("requests_completed").is_some_and(|completed| completed > 0), "{said}");
    }
    Ok(())
}

fn send_and_receive() -> Result<()> {
    let folder = std::env::temp_dir().join("send-and-receive");
    std::fs::create_dir_all(&folder)?;
    let (source, target) = (folder.join("source.safetensors"), folder.join("target.safetensors"));
    let header = br#"{"t":{"dtype":"U8","shape":[5000003],"data_offsets":[0,5000003]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header);
    bytes.extend((0..5_000_003u64).map(|n| ((n * n) >> 7) as u8));
    std::fs::write(&source, &bytes)?;
    let dmaplane = program("dmaplane")?;
    let place = "--listen=files";
    let out = format!("--out={}", target.display());
    let mut receiver = Command::new(&dmaplane).args(["recv", "--device", "/dev/dmaplane", place, &out]).spawn()?;
    let mut sent = Ok(String::new());
    for _ in 0..100 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let source = source.display().to_string();
        sent = command(&dmaplane, &["send", "--device", "/dev/dmaplane", "--to=files", &source]);
        match &sent {
            Err(error) if error.to_string().contains("nobody listens") => {}
            _ => break,
        }
    }
    if let Err(error) = sent {
        receiver.kill()?;
        bail!("{error:#}");
    }
    ensure!(receiver.wait()?.success(), "the receiver has failed");
    ensure!(std::fs::read(&target)? == bytes, "what was received is something else");
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// On a slow kernel without those of LSE-10, which tests of the driver's own have there; nor where the module is broken
/// on purpose, with which they wait for minutes.
fn late_writes() -> Result<()> {
    let asked = std::env::var("DMAPLANE_ROUNDS").ok();
    let is_broken = std::env::var_os("DMAPLANE_BROKEN").is_some();
    let tests = if slow() || is_broken { "written_over_local" } else { "over_local" };
    library_tests("late_writes", tests, asked.as_deref().unwrap_or(if slow() { "60" } else { "1000" }))
}

fn near() -> Result<()> {
    library_tests("near", "over_local", "")
}

fn late_layers() -> Result<()> {
    library_tests("late_layers", "over_local", "")
}

fn many() -> Result<()> {
    library_tests("many", "over_local", "")
}

fn shards() -> Result<()> {
    library_tests("shards", "over_local", "")
}
