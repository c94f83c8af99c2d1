//! `fraud-payments replay`: payments from a CSV file at a set rate. IO.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use super::now_ms;
use super::sending::SendingArgs;
use crate::replay::{MappedRow, Mapping, RowError, Rows};
use crate::send::tally::Label;
use crate::send::{Due, Summary};

/// Bad rows that are shown; all are counted.
const SHOWN_MAX: usize = 20;

/// Sends the payments of a CSV file; a mapping says which column is which field.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:
  fraud-payments replay --csv card_payments.csv --map mapping.yaml --target http://127.0.0.1:8443 --rate 100

mapping.yaml:
  columns:                      # field of the payment: column of the CSV
    transaction_id: trans_num
    user_id: customer
    card.number: card
    amount: amt
    merchant.id: shop
  constants:                    # the same in every row
    currency: USD
    card.expiry_month: \"12\"
    card.expiry_year: \"2035\"
  amount_unit: major            # major (12.50) or minor (1250)
  card_numbers: derived         # given, or derived: test card numbers made from any text that tells cards apart
  label: {column: is_fraud, fraud: [\"1\"]}   # optional; for judging the verdicts, never sent

The whole file is checked before the first payment is sent. With --skip-bad, bad rows are left out and counted.")]
pub struct ReplayArgs {
    #[command(flatten)]
    sending: SendingArgs,
    /// CSV file with a header line.
    #[arg(long, value_name = "FILE")]
    csv: PathBuf,
    /// Mapping (YAML); see the example below.
    #[arg(long, value_name = "FILE")]
    map: PathBuf,
    /// Leave bad rows out instead of refusing the file.
    #[arg(long)]
    skip_bad: bool,
}

impl ReplayArgs {
    pub async fn run(&self) -> anyhow::Result<Summary> {
        let yaml = std::fs::read_to_string(&self.map).with_context(|| format!("cannot read the mapping {}", self.map.display()))?;
        let mapping = Mapping::parse(&yaml).with_context(|| format!("mapping {}", self.map.display()))?;
        self.check(&mapping)?;
        let interval_s = 1.0 / self.sending.rate;
        let good = self.rows(&mapping)?.filter_map(Result::ok).enumerate();
        self.sending.run(good.map(|(index, row)| Ok(due(row, index, interval_s)))).await
    }

    fn rows(&self, mapping: &Mapping) -> anyhow::Result<Rows<BufReader<File>>> {
        let file = File::open(&self.csv).with_context(|| format!("cannot read the CSV {}", self.csv.display()))?;
        Ok(Rows::new(mapping.clone(), BufReader::new(file), now_ms())?)
    }

    /// Reads the file once without sending anything.
    fn check(&self, mapping: &Mapping) -> anyhow::Result<()> {
        let (mut good, mut bad) = (0u64, Vec::<RowError>::new());
        let mut bad_rows = 0u64;
        for row in self.rows(mapping)? {
            match row {
                Ok(_) => good += 1,
                Err(error) => {
                    bad_rows += 1;
                    bad.extend((bad.len() < SHOWN_MAX).then_some(error));
                }
            }
        }
        for error in &bad {
            writeln!(std::io::stderr(), "{error}")?;
        }
        let shown = bad.len();
        match (good, bad_rows) {
            (0, 0) => bail!("{} has no rows", self.csv.display()),
            (0, bad_rows) => bail!("all {bad_rows} rows are bad (the first {shown} are above): correct the mapping or the file"),
            (_, 0) => Ok(()),
            (good, bad_rows) if self.skip_bad => {
                writeln!(std::io::stderr(), "{bad_rows} bad rows are left out (the first {shown} are above), {good} are sent")?;
                Ok(())
            }
            (good, bad_rows) => {
                bail!("{bad_rows} of {} rows are bad (the first {shown} are above): correct them, or give --skip-bad", good + bad_rows)
            }
        }
    }
}

fn due(row: MappedRow, index: usize, interval_s: f64) -> Due {
    Due {
        label: row.fraud.map(|fraud| Label { fraud, kind: None }),
        // In the file's own currency: right for comparing amounts if the file has one currency.
        amount_usd: row.payment.amount_minor as f64 / 100.0,
        sequence: index as u64,
        at: Duration::from_secs_f64(index as f64 * interval_s),
        request: row.payment,
    }
}
