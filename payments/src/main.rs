//! `fraud-payments`: makes card payments and sends them; see the library.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use payments::command::{FeaturesArgs, ReplayArgs, StreamArgs};
use payments::send::Summary;

/// Labelled card payments for demos, tests and training: nobody's cards, nobody's addresses.
#[derive(Debug, Parser)]
#[command(version, after_help = "Exit codes: 0 done; 1 could not be done; 2 wrong arguments.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Stream(StreamArgs),
    Replay(ReplayArgs),
    Features(FeaturesArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Stream(arguments) => arguments.run().await.and_then(|summary| print(&summary)),
        Command::Replay(arguments) => arguments.run().await.and_then(|summary| print(&summary)),
        Command::Features(arguments) => arguments.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print(summary: &Summary) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{}", serde_json::to_string(summary)?)?;
    Ok(())
}
