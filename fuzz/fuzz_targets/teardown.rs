//! Programs of operations, deaths, detached rings and closes, eight bytes a step.
#![no_main]

use dmaplane_sim::script::{Start, Step, run};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((seed, script)) = bytes.split_first() else {
        return;
    };
    let script: Vec<Step> =
        script.chunks_exact(8).take(400).map(|step| step.try_into().expect("eight bytes")).collect();
    let start = if seed & 8 == 0 { Start::Furnished } else { Start::Bare };
    if let Err(fault) = run((*seed).into(), start, &script) {
        panic!("{fault}");
    }
});
