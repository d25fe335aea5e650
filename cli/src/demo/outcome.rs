//! What the processes report, and what the comparison says.

use super::arguments::{DemoArguments, Fabric, Mode};
use super::generation::{Generated, Reference};
use super::protocol::FirstToken;
use crate::model::decode as text_of;
use anyhow::Result;
use clap::ValueEnum;
use dmaplane_kv::Digest64;
use dmaplane_kv::transfer::Moved;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What prefill says: what it moved, when it is the one who moves.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct PrefillReport {
    pub moved: Option<MovedReport>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct MovedReport {
    pub bytes: u64,
    pub fragments: u64,
    pub seconds: f64,
}

impl MovedReport {
    fn new(moved: Moved, time: Duration) -> MovedReport {
        MovedReport { bytes: moved.bytes, fragments: moved.fragments, seconds: time.as_secs_f64() }
    }
}

impl PrefillReport {
    pub fn new(moved: Moved, time: Duration) -> PrefillReport {
        PrefillReport { moved: Some(MovedReport::new(moved, time)) }
    }
}

/// What decode says.
#[derive(Debug, Serialize, Deserialize)]
pub struct DecodeReport {
    cached_tokens: u32,
    tokens: Vec<u32>,
    prefill_logits: u64,
    logits: u64,
    blocks: Vec<u64>,
    moved: Option<MovedReport>,
}

impl DecodeReport {
    pub fn new(
        cached_tokens: u32,
        first: &FirstToken,
        generated: &Generated,
        blocks: &[Digest64],
        moved: Option<(Moved, Duration)>,
    ) -> DecodeReport {
        DecodeReport {
            cached_tokens,
            tokens: generated.tokens.clone(),
            prefill_logits: first.logits,
            logits: generated.logits,
            blocks: blocks.iter().map(|digest| digest.0).collect(),
            moved: moved.map(|(moved, time)| MovedReport::new(moved, time)),
        }
    }
}

/// The comparison.
#[derive(Debug, Serialize)]
pub struct Outcome {
    tokens_equal: bool,
    logits_equal: bool,
    blocks_equal: bool,
    bytes_as_predicted: bool,
    bytes_moved: u64,
    bytes_predicted: u64,
    fragments: u64,
    transfer_seconds: f64,
    prompt_tokens: usize,
    fabric: String,
    mode: String,
    device: &'static str,
    text: String,
}

fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

impl Outcome {
    pub fn compare(
        arguments: &DemoArguments,
        reference: &Reference,
        prefill: &PrefillReport,
        decode: &DecodeReport,
    ) -> Outcome {
        let moved = prefill.moved.or(decode.moved).unwrap_or(MovedReport { bytes: 0, fragments: 0, seconds: 0.0 });
        // Fragments are of 16 tokens, the smaller of the two block sizes; the last one moves whole.
        let bytes_predicted = reference.bytes_per_token * reference.prompt_tokens.next_multiple_of(16) as u64;
        let blocks: Vec<u64> = reference.blocks.iter().map(|digest| digest.0).collect();
        let (fabric, mode): (Fabric, Mode) = (arguments.common.fabric, arguments.common.mode);
        Outcome {
            tokens_equal: decode.tokens == reference.generated.tokens,
            logits_equal: decode.logits == reference.generated.logits
                && decode.prefill_logits == reference.prefill_logits,
            blocks_equal: decode.blocks == blocks && decode.cached_tokens as usize == reference.prompt_tokens,
            bytes_as_predicted: moved.bytes == bytes_predicted,
            bytes_moved: moved.bytes,
            bytes_predicted,
            fragments: moved.fragments,
            transfer_seconds: moved.seconds,
            prompt_tokens: reference.prompt_tokens,
            fabric: name(fabric),
            mode: name(mode),
            device: "embedded",
            text: text_of(&decode.tokens),
        }
    }

    pub fn holds(&self) -> bool {
        self.tokens_equal && self.logits_equal && self.blocks_equal && self.bytes_as_predicted
    }

    pub fn differences(&self) -> String {
        let checks = [
            (self.tokens_equal, "tokens"),
            (self.logits_equal, "logits"),
            (self.blocks_equal, "block digests"),
            (self.bytes_as_predicted, "bytes moved"),
        ];
        checks.iter().filter(|(equal, _)| !equal).map(|(_, what)| *what).collect::<Vec<_>>().join(", ")
    }

    pub fn print(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        let verdict = |equal: bool| if equal { "equal" } else { "DIFFERENT" };
        let mebibytes = self.bytes_moved as f64 / f64::from(1 << 20);
        println!("prompt        {} tokens, prefilled in one process", self.prompt_tokens);
        println!(
            "cache moved   {mebibytes:.2} MiB in {} fragments over {} ({}), {:.1} ms, {:.2} GB/s",
            self.fragments,
            self.fabric,
            self.mode,
            self.transfer_seconds * 1e3,
            self.bytes_moved as f64 / self.transfer_seconds / 1e9,
        );
        println!("              {} bytes predicted by the model's shape", self.bytes_predicted);
        println!("generated     {:?}, in another process", self.text);
        println!("blocks        {}", verdict(self.blocks_equal));
        println!("logits        {} (bit for bit)", verdict(self.logits_equal));
        println!("tokens        {}", verdict(self.tokens_equal));
        Ok(())
    }
}
