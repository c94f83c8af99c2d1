//! `fraud-features`: looks at the feature store's shards and changes their roles, from outside of a cluster.
//!
//! For operations by hand and for scripts; in a cluster the operator does all this itself, with the same library.
#![forbid(unsafe_code)]

mod addresses;
mod arguments;
mod promote;
mod roles;
mod show;
mod snapshots;

use std::{path::Path, process::ExitCode};

use anyhow::Context;
use clap::{CommandFactory, Parser};
use feature_shards::ShardClient;
use scoring_dial::Tls;

use self::arguments::{Arguments, Command, Login};

/// Something is not as it should be, or is left to do: the output says what.
const NOT_ALL_WELL: u8 = 3;
/// A rule forbade it, such as a newer epoch: nothing was changed.
const REFUSED: u8 = 4;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            let refused = error.downcast_ref::<feature_shards::ShardError>().is_some_and(feature_shards::ShardError::is_refusal)
                || error.downcast_ref::<feature_snapshots::SnapshotError>().is_some_and(feature_snapshots::SnapshotError::is_refusal);
            if refused { ExitCode::from(REFUSED) } else { ExitCode::FAILURE }
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Command::Completion { shell } = &arguments.command {
        clap_complete::generate(*shell, &mut Arguments::command(), "fraud-features", &mut std::io::stdout());
        return Ok(ExitCode::SUCCESS);
    }
    // Two TLS implementations are linked; whoever connects first would have to guess.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = client(&arguments.login)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(Box::pin(act(arguments, &client)))
}

async fn act(arguments: &Arguments, client: &ShardClient) -> anyhow::Result<ExitCode> {
    let addresses = addresses::Addresses::read(arguments.addresses.as_deref())?;
    let output = arguments.output;
    match &arguments.command {
        Command::Status(status) => show::status(client, &addresses, status, output).await,
        Command::Lag(lag) => show::lag(client, &addresses, lag, output).await,
        Command::Follow(follow) => roles::follow(client, &addresses, follow, output).await,
        Command::Hold(hold) => roles::hold(client, &addresses, hold, output).await,
        Command::Promote(promote) => promote::run(client, &addresses, promote, output).await,
        Command::Snapshot(snapshot) => snapshots::take(client, &addresses, snapshot, output).await,
        Command::Snapshots(list) => snapshots::list(list, output).await,
        Command::Restore(restore) => snapshots::restore(client, &addresses, restore, output).await,
        Command::Rebuild(rebuild) => snapshots::rebuild(client, &addresses, rebuild, output).await,
        Command::Completion { .. } => Ok(ExitCode::SUCCESS),
    }
}

fn client(login: &Login) -> anyhow::Result<ShardClient> {
    let read =
        |option: &str, path: &Path| std::fs::read_to_string(path).with_context(|| format!("{option} {} cannot be read", path.display()));
    let mut client = ShardClient::without_login();
    if let Some(path) = &login.password_file {
        let password = read("--password-file", path)?;
        client = ShardClient::with_user(login.user.clone(), password.trim_end_matches(['\r', '\n']).to_owned());
    }
    if let Some(path) = &login.ca_file {
        let ca_pem = read("--ca-file", path)?.into_bytes();
        client = client.with_tls(Tls { ca_pem, server_name: login.server_name.clone() });
    }
    Ok(client)
}
