//! What is asked, and what has to be answered.

use super::arguments::PromptArguments;
use super::cluster;
use super::message::Answer;
use crate::demo::die_with_parent;
use crate::demo::generation::LogitsDigest;
use crate::model::{MemoryCache, Transformer, encode, greedy};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::process::{Command, Stdio};

/// Beginnings that they share, so that their caches are equal for a while and differ behind that.
const PREFIXES: usize = 6;
const PREFIX_TOKENS: std::ops::RangeInclusive<usize> = 24..=96;
const PROMPT_TOKENS: std::ops::RangeInclusive<usize> = 40..=200;
const GENERATED_TOKENS: std::ops::RangeInclusive<u32> = 4..=12;
/// The most tokens of a prompt and its answer together.
#[cfg(test)]
pub const TOKENS_MAX: usize = *PROMPT_TOKENS.end() + *GENERATED_TOKENS.end() as usize;
/// Draws for each prompt, until there are enough whose answers differ.
const DRAWS_MAX: usize = 10;

/// A question with its answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Prompt {
    pub tokens: Vec<u32>,
    pub generate: u32,
    pub answer: Answer,
}

/// Prompts drawn from a seed, with the answers of a run in this process alone. No two have the same answer, neither the
/// tokens nor the logits: a cache that was mixed up could not be seen otherwise.
pub fn prompts(&PromptArguments { seed, prompts: wanted }: &PromptArguments) -> Result<Vec<Prompt>> {
    let wanted = wanted as usize;
    let model = cluster::model()?;
    let mut random = fastrand::Rng::with_seed(seed);
    let prefixes: Vec<String> = (0..PREFIXES).map(|_| text(&mut random, PREFIX_TOKENS)).collect();
    let mut prompts: Vec<Prompt> = Vec::new();
    let (mut tokens_seen, mut logits_seen) = (HashSet::new(), HashSet::new());
    for draw in 0..DRAWS_MAX * wanted {
        if prompts.len() == wanted {
            break;
        }
        let prefix = &prefixes[draw % PREFIXES];
        let rest = *PROMPT_TOKENS.start().max(&(prefix.len() + 8)) - prefix.len();
        let tokens = encode(&(prefix.clone() + &text(&mut random, rest..=PROMPT_TOKENS.end() - prefix.len())));
        let generate = random.u32(GENERATED_TOKENS);
        let answer = answer(&model, &tokens, generate)?;
        // All are told apart by the shortest answer's tokens alone.
        let head = answer.tokens[..*GENERATED_TOKENS.start() as usize].to_vec();
        if tokens_seen.insert(head) && logits_seen.insert(answer.first_logits) {
            prompts.push(Prompt { tokens, generate, answer });
        }
    }
    ensure!(
        prompts.len() == wanted,
        "seed {seed} gives only {} different answers: use another, or fewer prompts",
        prompts.len()
    );
    Ok(prompts)
}

/// The same, from a process of its own: one thread is faster with so small a model, and what decides on that is its
/// environment. Beside it the workers start.
pub fn ask_for_prompts(arguments: &PromptArguments) -> Result<Vec<Prompt>> {
    let program = std::env::current_exe().context("finding this program")?;
    let [seed, prompts] = [format!("--seed={}", arguments.seed), format!("--prompts={}", arguments.prompts)];
    let mut command = Command::new(program);
    command.args(["demo", "serve-prompts", &seed, &prompts]).env("RAYON_NUM_THREADS", "1").stdin(Stdio::null());
    let output = command.output().context("starting the run in one process")?;
    if !output.status.success() {
        bail!("the run in one process: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// That process.
pub fn print_prompts(arguments: &PromptArguments) -> Result<()> {
    die_with_parent()?;
    println!("{}", serde_json::to_string(&prompts(arguments)?)?);
    Ok(())
}

/// Some random words.
fn text(random: &mut fastrand::Rng, lengths: std::ops::RangeInclusive<usize>) -> String {
    let length = random.usize(lengths);
    (0..length).map(|_| if random.u8(0..6) == 0 { ' ' } else { random.lowercase() }).collect()
}

/// Prefill and decode in this process, in plain memory, without dmaplane.
fn answer(model: &Transformer, prompt: &[u32], generate: u32) -> Result<Answer> {
    let mut cache = MemoryCache::new(model.shape());
    let logits = model.forward(prompt, 0, &mut cache)?;
    let mut first_logits = LogitsDigest::default();
    first_logits.add(&logits);
    let mut tokens = vec![greedy(&logits)];
    let mut others = LogitsDigest::default();
    for step in 1..generate as usize {
        let logits = model.forward(&tokens[step - 1..], prompt.len() + step - 1, &mut cache)?;
        others.add(&logits);
        tokens.push(greedy(&logits));
    }
    Ok(Answer { tokens, first_logits: first_logits.value(), logits: others.value() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMPTS: u32 = 48;

    fn of(seed: u64) -> Vec<Prompt> {
        prompts(&PromptArguments { seed, prompts: PROMPTS }).unwrap()
    }

    #[test]
    fn prompts_are_of_all_lengths_share_beginnings_and_have_answers_of_their_own() {
        let prompts = of(1);
        assert_eq!(prompts.len() as u32, PROMPTS);
        for prompt in &prompts {
            assert!(PROMPT_TOKENS.contains(&prompt.tokens.len()), "{}", prompt.tokens.len());
            assert_eq!(prompt.answer.tokens.len() as u32, prompt.generate);
        }
        let beginnings: HashSet<_> = prompts.iter().map(|prompt| &prompt.tokens[..*PREFIX_TOKENS.start()]).collect();
        assert_eq!(beginnings.len(), PREFIXES);
        let lengths: Vec<_> = prompts.iter().map(|prompt| prompt.tokens.len()).collect();
        assert!(lengths.iter().min() < Some(&80) && lengths.iter().max() > Some(&150), "{lengths:?}");
        let logits: HashSet<_> = prompts.iter().map(|prompt| prompt.answer.logits).collect();
        assert_eq!(logits.len() as u32, PROMPTS);
    }

    #[test]
    fn the_same_seed_asks_the_same() {
        let [one, other] = [3, 3].map(of);
        let same = |(one, other): (&Prompt, &Prompt)| one.tokens == other.tokens && one.answer == other.answer;
        assert!(one.iter().zip(&other).all(same));
        assert!(of(4)[0].tokens != one[0].tokens);
    }
}
