//! A table on standard error while the service runs, where that is a terminal.

use super::cluster::MEMBERS;
use super::router::Seat;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Instant;

/// Lines that are drawn again and again: a heading, the workers, a summary.
pub struct Table {
    lines: Vec<ProgressBar>,
    /// When it was drawn, and the tokens of each worker then.
    drawn: (Instant, Vec<u64>),
    rates: Vec<f64>,
}

/// Rates are of at least so long a time.
const RATE_SECONDS: f64 = 1.0;

impl Table {
    pub fn new(wanted: bool) -> Table {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(5));
        let is_shown = wanted && std::io::stderr().is_terminal();
        let line = |_| {
            let style = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
            all.add(ProgressBar::new_spinner().with_style(style))
        };
        let lines = if is_shown { (0..MEMBERS.len() + 2).map(line).collect() } else { Vec::new() };
        Table { lines, drawn: (Instant::now(), vec![0; MEMBERS.len()]), rates: vec![0.0; MEMBERS.len()] }
    }

    pub fn show(&mut self, seats: &[Seat], summary: &str) {
        let Some((heading, rows)) = self.lines.split_first() else { return };
        let seconds = self.drawn.0.elapsed().as_secs_f64();
        if seconds >= RATE_SECONDS {
            for ((rate, before), seat) in self.rates.iter_mut().zip(&mut self.drawn.1).zip(seats) {
                *rate = seat.tokens().saturating_sub(*before) as f64 / seconds;
                *before = seat.tokens();
            }
            self.drawn.0 = Instant::now();
        }
        heading.set_message(format!(
            "{:<8}{:>7}{:>10}{:>10}{:>13}{:>11}{:>24}",
            "worker", "shards", "requests", "tokens/s", "blocks free", "transfers", "abort to reuse, p50"
        ));
        for (((row, seat), member), rate) in rows.iter().zip(seats).zip(&MEMBERS).zip(&self.rates) {
            let status = seat.status();
            let requests = if seat.is_ready() { status.jobs.to_string() } else { "starts".to_owned() };
            let blocks = format!("{} of {}", status.blocks_free, status.blocks);
            row.set_message(format!(
                "{:<8}{:>7}{requests:>10}{rate:>10.0}{blocks:>13}{:>11}{:>24}",
                member.name,
                member.shards,
                status.transfers,
                median_us(seat.aborts_ns()),
            ));
        }
        if let Some(last) = rows.last() {
            last.set_message(summary.to_owned());
        }
    }

    /// Takes it away again.
    pub fn end(&self) {
        self.lines.iter().for_each(ProgressBar::finish_and_clear);
    }
}

fn median_us(times_ns: &[u64]) -> String {
    let mut sorted = times_ns.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).map_or("-".to_owned(), |time| format!("{} us", time / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median_us(&[]), "-");
        assert_eq!(median_us(&[9_000, 1_000, 5_000]), "5 us");
    }
}
