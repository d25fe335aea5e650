//! What a peer's program prints, a JSON object a line: first what it can, then one answer for each figure asked for.

use crate::sample::Measurement;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The first line.
#[derive(Debug, Deserialize)]
pub struct Introduction {
    pub peer: String,
    pub version: String,
    pub settings: BTreeMap<String, String>,
    pub figures: Vec<Figure>,
    pub cannot: Vec<Cannot>,
}

#[derive(Debug, Deserialize)]
pub struct Figure {
    pub key: String,
    pub unit: String,
}

#[derive(Debug, Deserialize)]
pub struct Cannot {
    pub what: String,
    pub why: String,
}

#[derive(Deserialize)]
struct Answer {
    value: Option<f64>,
    cpu_seconds_per_gigabyte: Option<f64>,
    cannot: Option<String>,
}

pub fn introduction(line: &str) -> Result<Introduction> {
    serde_json::from_str(line).with_context(|| format!("a peer's program introduced itself with {line:?}"))
}

pub fn measurement(line: &str) -> Result<Measurement> {
    let answer: Answer = serde_json::from_str(line).with_context(|| format!("a peer's program answered {line:?}"))?;
    match (answer.value, answer.cannot) {
        (_, Some(why)) => bail!("it cannot: {why}"),
        (Some(value), None) if value.is_finite() && value > 0.0 => {
            Ok(Measurement { value, cpu_seconds_per_gigabyte: answer.cpu_seconds_per_gigabyte })
        }
        _ => bail!("a peer's program answered without a figure: {line:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_and_its_cpu_time_are_read() {
        let line =
            r#"{"peer":"NIXL","what":"w","value":2.5,"unit":"GB/s","samples":[2.5],"cpu_seconds_per_gigabyte":1}"#;
        let read = measurement(line).unwrap();
        assert_eq!(read, Measurement { value: 2.5, cpu_seconds_per_gigabyte: Some(1.0) });
    }

    #[test]
    fn what_is_no_figure_is_an_error_that_says_why() {
        for (line, why) in [
            (r#"{"peer":"p","what":"w","cannot":"no hardware"}"#, "no hardware"),
            (r#"{"value":0}"#, "without a figure"),
            (r#"{"value":null}"#, "without a figure"),
            ("Traceback", "Traceback"),
        ] {
            let error = format!("{:#}", measurement(line).unwrap_err());
            assert!(error.contains(why), "{error}");
        }
    }
}
