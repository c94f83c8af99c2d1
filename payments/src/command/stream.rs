//! `fraud-payments stream`: generated payments at a set rate. IO.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::sending::SendingArgs;
use super::{next_year, now_ms, parse_duration, parse_share};
use crate::send::tally::Label;
use crate::send::{Due, Summary};
use crate::{Generator, LabelledPayment, Population};

/// Sends generated payments and judges the verdicts by their labels, which are never sent.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  fraud-payments stream --target http://127.0.0.1:8443 --for 120s --out stream.json
  fraud-payments stream --target https://198.18.0.10:30443 --tls-ca ca.pem --rate 500 --for 10m --seed 7 --ledger ledger.jsonl

Recall is the share of frauds that were reviewed or declined; amount_only_recall is what the best threshold on the amount alone
would have found with as many false positives.")]
pub struct StreamArgs {
    #[command(flatten)]
    sending: SendingArgs,
    /// How long to send; without it, until SIGTERM.
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    length: Option<Duration>,
    /// For so long the rate rises to its full height, as traffic does that is moved to a service; every payment is measured.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    ramp: Duration,
    /// Another seed gives other customers, merchants and thieves.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Customers in the population [default: 30 for each payment per second].
    #[arg(long, value_name = "N")]
    customers: Option<usize>,
    /// Share of the payments that are fraud.
    #[arg(long, value_name = "SHARE", default_value_t = 0.015, value_parser = parse_share)]
    fraud_share: f64,
    /// Transaction ids are this and a number [default: the seed, the time of the start, and this process].
    #[arg(long, value_name = "TEXT", value_parser = parse_prefix)]
    transaction_prefix: Option<String>,
    /// Where to write transaction ids with their labels (CSV).
    #[arg(long, value_name = "FILE")]
    labels_out: Option<PathBuf>,
}

fn parse_prefix(text: &str) -> Result<String, String> {
    // 64 characters are allowed, and the number takes at least 8 of them.
    if text.len() <= 48 && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err("at most 48 printable ASCII characters without spaces".to_owned())
}

impl StreamArgs {
    pub async fn run(&self) -> anyhow::Result<Summary> {
        let now_ms = now_ms();
        let mut population = Population::for_rate(self.sending.rate, next_year(now_ms));
        population.fraud_share = self.fraud_share;
        if let Some(customers) = self.customers {
            population.customers = customers;
        }
        let prefix = self.transaction_prefix.clone().unwrap_or_else(|| format!("s{}-{now_ms:x}-{:x}-", self.seed, std::process::id()));
        let length = self.length.unwrap_or(Duration::MAX);
        let ramp = self.ramp;
        let payments = Generator::new(self.seed, population)
            .with_transaction_prefix(&prefix)
            .map(move |payment| LabelledPayment { at: ramped(payment.at, ramp), ..payment })
            .take_while(|payment| payment.at < length);
        match &self.labels_out {
            None => self.sending.run(payments.map(|payment| Ok(due(payment)))).await,
            Some(path) => {
                let mut labels = LabelFile::create(path)?;
                self.sending.run(payments.map(|payment| labels.append(&payment).map(|()| due(payment)))).await
            }
        }
    }
}

/// When a payment is due that would be due `at` without a ramp. While the rate rises from nothing to its full height within `ramp`, half
/// as many payments come as otherwise: those of the first half of it, spread so that by time t there are t² / (2 ramp) of them.
fn ramped(at: Duration, ramp: Duration) -> Duration {
    if at >= ramp / 2 {
        return at + ramp / 2;
    }
    Duration::from_secs_f64((2.0 * ramp.as_secs_f64() * at.as_secs_f64()).sqrt())
}

fn due(labelled: LabelledPayment) -> Due {
    Due {
        label: Some(Label { fraud: labelled.fraud.is_some(), kind: labelled.fraud }),
        amount_usd: labelled.amount_usd,
        sequence: labelled.sequence,
        at: labelled.at,
        request: labelled.payment,
    }
}

struct LabelFile(std::io::BufWriter<std::fs::File>);

impl LabelFile {
    fn create(path: &Path) -> anyhow::Result<Self> {
        let file =
            std::fs::File::create(path).with_context(|| format!("cannot create {}: give --labels-out a writable path", path.display()))?;
        let mut file = std::io::BufWriter::new(file);
        writeln!(file, "transaction_id,fraud,type")?;
        Ok(Self(file))
    }

    fn append(&mut self, payment: &LabelledPayment) -> anyhow::Result<()> {
        let kind = payment.fraud.map_or("", crate::FraudType::name);
        writeln!(self.0, "{},{},{kind}", payment.payment.transaction_id, u8::from(payment.fraud.is_some())).context("cannot write labels")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_rises_evenly_and_loses_no_payment() {
        let seconds = Duration::from_secs_f64;
        let ramp = seconds(10.0);
        // Of 100 payments per second: 5 in the first second (to 10 per second), 500 until the ramp ends, 100 in each second after it.
        let due_by = |t: f64| (0..1_000).filter(|n| ramped(seconds(f64::from(*n) / 100.0), ramp) < seconds(t)).count();
        assert_eq!([due_by(1.0), due_by(5.0), due_by(10.0), due_by(11.0)], [5, 125, 500, 600]);
        assert_eq!(ramped(seconds(3.0), Duration::ZERO), seconds(3.0));
    }
}
