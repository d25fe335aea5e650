//! A server and a client whose transfers are futures, dropped at random:
//!
//!     cargo run --release -p dmaplane --features tokio --example tokio_transfers -- both --fabric shm
//!     cargo run --release -p dmaplane --features tokio --example tokio_transfers -- server tcp:127.0.0.1:7411
//!     cargo run --release -p dmaplane --features tokio --example tokio_transfers -- client tcp:127.0.0.1:7411
//!
//! `both` starts a server in a process of its own. The client prints what came of its transfers; flags `--transfers N`,
//! `--dropped PERCENT`, `--seed N`, `--idle-seconds N`.

mod client;
mod server;
mod workload;

use client::{Plan, Report};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;
use workload::Failure;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode, Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let flag = |name: &str| words.iter().position(|word| word == name).and_then(|place| words.get(place + 1));
    let number = |name: &str, otherwise: u64| flag(name).map_or(Ok(otherwise), |text| text.parse());
    let plan = Plan {
        transfers: number("--transfers", 1000)? as u32,
        dropped_percent: number("--dropped", 42)? as u32,
        seed: number("--seed", 1)?,
        idle: Duration::from_secs(number("--idle-seconds", 5)?),
    };
    let runtime = tokio::runtime::Runtime::new()?;
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["server", address, ..] => {
            runtime.block_on(server::serve(address, |address| println!("listening at {address}")))?;
            Ok(ExitCode::SUCCESS)
        }
        ["client", address, ..] => Ok(print(runtime.block_on(client::transfer(address, plan))?)),
        ["both", ..] => {
            let directory = tempfile::tempdir()?;
            let address = match flag("--fabric").map_or("shm", String::as_str) {
                "shm" => format!("shm:{}", directory.path().join("server").display()),
                "tcp" => {
                    // A port that was free a moment ago.
                    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
                    format!("tcp:127.0.0.1:{port}")
                }
                other => return Err(format!("--fabric {other}: shm or tcp").into()),
            };
            let mut server = Command::new(std::env::current_exe()?);
            let mut server = server.args(["server", &address]).stdout(Stdio::null()).spawn()?;
            let report = runtime.block_on(client::transfer(&address, plan));
            if report.is_err() {
                server.kill()?;
            }
            let ended = server.wait()?;
            let code = print(report?);
            Ok(if ended.success() { code } else { ExitCode::FAILURE })
        }
        _ => Err("server ADDRESS, client ADDRESS or both [--fabric shm|tcp]".into()),
    }
}

fn print(report: Report) -> ExitCode {
    let Report { completed, bytes, seconds, wrong, damaged, .. } = report;
    let Report { dropped_before, dropped_in_flight, dropped_late, .. } = report;
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    println!("completed   {completed} transfers, {mebibytes:.0} MiB, {seconds:.2} s; {wrong} with wrong bytes");
    println!(
        "dropped     {dropped_before} before their first poll, {dropped_in_flight} in flight, {dropped_late} late"
    );
    println!("damaged     {damaged} pieces of memory that were used for something else afterwards");
    println!("settled     nothing more in use than before, after {:.1?}", report.settled);
    let percent = |share: f64| share * 100.0;
    println!("idle        {:.3} % of a core, server {:.3} %", percent(report.idle_client), percent(report.idle_server));
    let right = wrong == 0 && damaged == 0 && report.idle_client < 0.01 && report.idle_server < 0.01;
    if right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
