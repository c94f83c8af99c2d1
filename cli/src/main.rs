//! `kubectl fraud`: credentials for all regions, and one view of a pipeline over the clusters that can be reached.
//!
//! It reads and writes Kubernetes objects only: no exec, no port-forward.
#![forbid(unsafe_code)]

mod init;
mod status;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "kubectl-fraud",
    bin_name = "kubectl fraud",
    version,
    about = "Operate FraudPipeline: credentials, status",
    after_help = "Examples:\n  kubectl fraud init --regions us-east,eu-west,ap-south --out ./credentials\n  kubectl fraud rotate --credentials ./credentials\n  kubectl fraud status payments -n fraud\n  kubectl fraud status payments -n fraud --contexts us-east,eu-west,ap-south -o json\n\nExit codes: 0 done; 1 the command failed; 2 wrong arguments; 3 the pipeline is not ready everywhere."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the CA, certificates, Redis users and the PII key for all regions
    Init(init::InitArguments),
    /// Give the feature store's users new passwords; nothing restarts
    Rotate(init::RotateArguments),
    /// Show a pipeline in all regions whose clusters can be reached
    Status(status::StatusArguments),
    /// Print a shell completion script
    Completion {
        /// The shell: bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Init(arguments) => init::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Rotate(arguments) => init::rotate(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Status(arguments) => tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(status::run(&arguments)),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "kubectl-fraud", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}
