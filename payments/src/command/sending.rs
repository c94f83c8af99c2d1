//! What `stream` and `replay` share: target, pace, progress, results. IO.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use super::{parse_duration, parse_rate};
use crate::send::{Due, Pace, Progress, Recorder, Summary, Target, TargetOptions, ledger::Ledger, send};

#[derive(Debug, Clone, Args)]
pub(super) struct SendingArgs {
    /// Decision service, such as http://127.0.0.1:8443 (plain) or https://198.18.0.10:30443 (TLS).
    #[arg(long, value_name = "URL")]
    target: String,
    /// PEM file of the authority to trust; needed for https.
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Name in the service's certificate, if it differs from the target's host.
    #[arg(long, value_name = "NAME")]
    tls_name: Option<String>,
    /// HTTP/2 connections.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// How long to wait for the service to accept connections.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    ready_within: Duration,
    /// A payment without an answer for this long, from when it was due, counts as unanswered.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    answer_within: Duration,
    /// Most payments that wait for an answer at once; further ones count as unanswered.
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    outstanding_max: u32,
    /// Payments per second.
    #[arg(long, value_name = "N", default_value_t = 250.0, value_parser = parse_rate)]
    pub(super) rate: f64,
    /// Where to write the results (JSON).
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Where to write the ledger: every acknowledged transaction id, one JSON line each.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Progress as JSON lines on standard output instead of text on standard error; ends when nobody reads them any more.
    #[arg(long)]
    progress_json: bool,
}

impl SendingArgs {
    /// Sends everything (or until SIGTERM), writes the results, and prints them.
    pub(super) async fn run(&self, payments: impl Iterator<Item = anyhow::Result<Due>>) -> anyhow::Result<Summary> {
        let reader_gone = Arc::new(Notify::new());
        let mut stop = Box::pin(stop_signal(reader_gone.clone())?);
        let options = self.target_options();
        let target = tokio::select! {
            target = Target::connect(&options) => target?,
            () = &mut stop => anyhow::bail!("stopped before {} accepted a connection", self.target),
        };
        let recorder =
            Recorder { ledger: self.ledger.as_deref().map(Ledger::create).transpose()?, show: self.progress_printer(reader_gone) };
        let (outcomes, received) = mpsc::channel();
        let recording = tokio::task::spawn_blocking(move || recorder.run(&received));
        let began = Instant::now();
        let pace = Pace { answer_within: self.answer_within, outstanding_max: self.outstanding_max as usize };
        let sent = send(&target, pace, payments, outcomes, stop).await;
        let elapsed = began.elapsed();
        let tally = recording.await.context("the recorder ended with a panic")??;
        let summary = tally.summary(elapsed);
        if let Some(path) = &self.out {
            write_json(path, &summary)?;
        }
        sent?;
        Ok(summary)
    }

    fn target_options(&self) -> TargetOptions {
        TargetOptions {
            address: self.target.clone(),
            tls_ca: self.tls_ca.clone(),
            tls_name: self.tls_name.clone(),
            connections: usize::from(self.connections),
            ready_within: self.ready_within,
        }
    }

    fn progress_printer(&self, reader_gone: Arc<Notify>) -> Box<dyn FnMut(&Progress) + Send> {
        if self.progress_json {
            return Box::new(move |progress| {
                let line = serde_json::to_string(progress).unwrap_or_default();
                // The program that started the stream reads this; nobody else would end the stream once it is gone.
                if writeln!(std::io::stdout(), "{line}").is_err() {
                    reader_gone.notify_one();
                }
            });
        }
        Box::new(|progress| {
            let _ = writeln!(std::io::stderr(), "{}", progress_line(progress));
        })
    }
}

fn progress_line(progress: &Progress) -> String {
    let percent = |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.1} %", share * 100.0));
    format!(
        "{:6.0} s  {:8} decisions  {:6.0}/s  p50 {:6.1} ms  p99 {:6.1} ms  errors {}  unanswered {}  full {}  recall {}  false positives {}",
        progress.t_s,
        progress.decisions,
        progress.decisions_per_s,
        progress.p50_ms,
        progress.p99_ms,
        progress.errors,
        progress.unanswered,
        percent(progress.full_share),
        percent(progress.recall),
        percent(progress.false_positive_rate),
    )
}

/// Resolves at the first SIGTERM or SIGINT, or when nobody reads the progress any more.
fn stop_signal(reader_gone: Arc<Notify>) -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = reader_gone.notified() => {}
        }
    })
}

/// Replaces the file as a whole, so that a reader never sees half of it.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let unfinished = path.with_extension("json.unfinished");
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    std::fs::write(&unfinished, text).with_context(|| format!("cannot write {}", unfinished.display()))?;
    std::fs::rename(&unfinished, path).with_context(|| format!("cannot write {}", path.display()))
}
