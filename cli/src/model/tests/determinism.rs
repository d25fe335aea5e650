//! The same bits at every repetition, in every process, with any number of threads.

use std::env;
use std::process::Command;

use super::super::ModelShape;
use super::{PROMPT_TOKENS, Prefilled, bits};

#[test]
fn the_same_inputs_give_the_same_bits() {
    let run = Prefilled::new(ModelShape::small(), PROMPT_TOKENS);
    let (tokens, logits) = run.decode(|_| ());
    for _ in 0..5 {
        let (tokens_again, logits_again) = run.decode(|_| ());
        assert_eq!(tokens_again, tokens);
        assert_eq!(bits(&logits_again), bits(&logits));
    }
    let again = Prefilled::new(ModelShape::small(), PROMPT_TOKENS);
    assert_eq!(bits(&again.logits), bits(&run.logits));
}

/// The process that the next test starts.
#[test]
#[ignore = "started by another_process_with_other_threads_gives_the_same_bits"]
fn print_the_bits_of_one_run() {
    let run = Prefilled::new(ModelShape::small(), PROMPT_TOKENS);
    let (_, logits) = run.decode(|_| ());
    println!("\nBITS {:?} {:?}", bits(&run.logits), bits(&logits));
}

#[test]
fn another_process_with_other_threads_gives_the_same_bits() {
    let run = |threads: &str| {
        let (_crate, module) = module_path!().split_once("::").unwrap();
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", &format!("{module}::print_the_bits_of_one_run")])
            .args(["--ignored", "--nocapture"])
            .env("RAYON_NUM_THREADS", threads)
            .output()
            .unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        let line = output.lines().find(|line| line.starts_with("BITS"));
        line.unwrap_or_else(|| panic!("no bits in: {output}")).to_owned()
    };
    let alone = run("1");
    for threads in ["2", "3", "8"] {
        assert_eq!(run(threads), alone, "{threads} threads");
    }
}
