//! The demo: both fabrics, both modes, and the controls that must make it fail.

mod common;

use common::{FABRICS, dmaplane};

fn equal(arguments: &[&str]) {
    let mut all = vec!["demo", "--json", "--tokens", "8"];
    all.extend(arguments);
    let outcome = dmaplane(&all).succeeded().json();
    for key in ["tokens_equal", "logits_equal", "blocks_equal", "bytes_as_predicted"] {
        assert_eq!(outcome[key], true, "{key} of {outcome}");
    }
    assert!(outcome["bytes_moved"].as_u64().unwrap() > 0);
    assert!(outcome["fragments"].as_u64().unwrap() > 1);
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

#[test]
fn every_sabotage_is_noticed() {
    for mode in ["push", "pull"] {
        for (sabotage, message) in [
            ("zero-block", "the two runs differ: tokens, logits, block digests"),
            ("swap-blocks", "the two runs differ: tokens, logits, block digests"),
            ("replay-generation", "claiming a lease: the handle is of an earlier generation"),
        ] {
            dmaplane(&["demo", "--mode", mode, "--sabotage", sabotage]).failed_with(message);
        }
    }
}
