//! The demo: both fabrics, both modes, and the controls that must make it fail.

mod common;

use common::{Ended, FABRICS, Running, dmaplane};
use std::time::Duration;

/// What the comparison says.
fn equal(arguments: &[&str]) -> serde_json::Value {
    let mut all = vec!["demo", "--json"];
    all.extend(arguments);
    if !arguments.contains(&"--tokens") {
        all.extend(["--tokens", "8"]);
    }
    let outcome = dmaplane(&all).succeeded().json();
    for key in ["tokens_equal", "logits_equal", "blocks_equal", "bytes_as_predicted"] {
        assert_eq!(outcome[key], true, "{key} of {outcome}");
    }
    assert!(outcome["bytes_moved"].as_u64().unwrap() > 0);
    assert!(outcome["fragments"].as_u64().unwrap() > 1);
    outcome
}

#[test]
fn push_and_pull_over_both_fabrics_give_the_same_text() {
    for fabric in FABRICS {
        for mode in ["push", "pull"] {
            equal(&["--fabric", fabric, "--mode", mode]);
        }
    }
}

#[test]
fn a_saved_model_serves_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let path = path.to_str().unwrap();
    dmaplane(&["demo-save-model", "--out", path]).succeeded();
    equal(&["--model", path]);
    dmaplane(&["demo", "--model", "/nonexistent.safetensors"]).failed_with("nonexistent");
}

/// As large as acceptance asks for; the sizes by hand, not by the code that the demo predicts them with.
#[test]
fn a_cache_of_256_mib_moves_too() {
    const LAYERS: u64 = 16;
    const KEYS_AND_VALUES: u64 = 2;
    const KV_HEADS: u64 = 16;
    const HEAD_NUMBERS: u64 = 128;
    const NUMBER_BYTES: u64 = 4;
    const PROMPT_TOKENS: u64 = 1024;
    let bytes = PROMPT_TOKENS * LAYERS * KEYS_AND_VALUES * KV_HEADS * HEAD_NUMBERS * NUMBER_BYTES;
    assert_eq!(bytes, 256 << 20);
    // The smaller of the two block sizes.
    let fragments = LAYERS * KEYS_AND_VALUES * PROMPT_TOKENS / 16;
    for fabric in FABRICS {
        for mode in ["push", "pull"] {
            let wide =
                ["--shape", "wide", "--prompt-tokens", "1024", "--tokens", "2", "--fabric", fabric, "--mode", mode];
            let outcome = equal(&wide);
            assert_eq!(outcome["bytes_moved"], bytes, "{outcome}");
            assert_eq!(outcome["fragments"], fragments, "{outcome}");
            println!("{fabric}, {mode}: {bytes} bytes in {} s", outcome["transfer_seconds"]);
        }
    }
}

#[test]
fn every_sabotage_is_noticed() {
    for fabric in FABRICS {
        for (mode, sabotage, message) in [
            ("push", "zero-block", "the two runs differ: tokens, logits, block digests"),
            ("pull", "zero-block", "the two runs differ: tokens, logits, block digests"),
            ("push", "swap-blocks", "the two runs differ: tokens, logits, block digests"),
            ("pull", "swap-blocks", "the two runs differ: tokens, logits, block digests"),
            // An old transfer's name under a live lease: what the transfer slot's generation is for.
            ("push", "replay-generation", "transfer 0.1 is over, its slot is at generation 2"),
            // An old lease: what the lease's generation is for.
            ("push", "replay-lease", "claiming a lease: the handle is of an earlier generation"),
            ("pull", "replay-lease", "claiming a lease: the handle is of an earlier generation"),
        ] {
            let arguments = ["demo", "--fabric", fabric, "--mode", mode, "--sabotage", sabotage];
            dmaplane(&arguments).failed_with(message);
        }
    }
}

#[test]
fn a_prefill_that_never_connects_is_not_waited_for() {
    for fabric in FABRICS {
        let ended = dmaplane(&["demo", "--fabric", fabric, "--sabotage", "no-prefill"]);
        assert!(ended.took < Duration::from_secs(10), "{ended:?}");
        ended.failed_with("the prefill process: ended before it connected");
    }
}

/// The demo's process of that kind.
fn child_of(demo: &Running, kind: &str) -> Option<String> {
    let tasks = format!("/proc/{0}/task/{0}/children", demo.id());
    let children = std::fs::read_to_string(tasks).unwrap_or_default();
    let of_kind = |child: &&str| {
        let command = std::fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
        command.split('\0').any(|word| word == kind)
    };
    children.split_whitespace().find(of_kind).map(str::to_owned)
}

#[test]
fn a_process_that_is_killed_in_the_middle_ends_the_demo_with_one_line() {
    for fabric in FABRICS {
        for (kind, words) in [("demo-prefill", "the prefill process"), ("demo-decode", "the decode process")] {
            let wide = ["demo", "--fabric", fabric, "--shape", "wide", "--prompt-tokens", "256"];
            let mut demo = Running::start_with(&wide, &[("DMAPLANE_LOG", "debug")]);
            demo.log("prefill is connected");
            let child = child_of(&demo, kind).expect("it is still there");
            assert!(std::process::Command::new("kill").args(["-9", &child]).status().unwrap().success());
            let ended = demo.end();
            assert!(ended.took < Duration::from_secs(30), "{ended:?}");
            ended.failed_with(words);
        }
    }
}

#[test]
fn a_prompt_may_begin_with_a_dash() {
    equal(&["--prompt=-x is what it says, --to begin with"]);
}

/// It says no before it does anything.
fn refused(arguments: &[&str], part: &str) -> Ended {
    let ended = dmaplane(arguments);
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    assert!(ended.stderr.contains(part), "no '{part}' in {ended:?}");
    ended
}

#[test]
fn numbers_of_tokens_that_cannot_be_are_named() {
    refused(&["demo", "--tokens", "0"], "0 is not in 1..=65536");
    refused(&["demo", "--tokens", "4294967295"], "4294967295 is not in 1..=65536");
    refused(&["demo", "--prompt-tokens", "0"], "0 is not in 1..=65536");
    let long = dmaplane(&["demo", "--tokens", "65536"]);
    long.failed_with("decode has room for 65536 tokens of this model: shorten the prompt");
    let wide = dmaplane(&["demo", "--shape", "wide", "--prompt-tokens", "3000", "--tokens", "100"]);
    wide.failed_with("decode has room for 3072 tokens of this model: shorten the prompt of 3000");
    dmaplane(&["demo", "--prompt="]).failed_with("the prompt is empty");
    let pull = dmaplane(&["demo", "--mode", "pull", "--sabotage", "replay-generation"]);
    pull.failed_with("a pull names no transfer");
}

#[test]
fn the_log_says_what_the_two_processes_do() {
    let demo = Running::start_with(&["demo", "--tokens", "2"], &[("DMAPLANE_LOG", "debug")]).end().succeeded();
    for line in ["decode: DEBUG prefill is connected", "prefill: DEBUG the cache is written bytes="] {
        assert!(demo.stderr.contains(line), "no '{line}' in {demo:?}");
    }
}
