//! `fraud-payments features`: training data as served. IO: files.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use scoring_core::schema::FeatureSchema;
use scoring_core::windows::Windows;
use serde::Serialize;

use super::sending::write_json;
use super::{next_year, parse_rate, parse_share};
use crate::training::Replay;
use crate::{FraudType, Generator, Population};

/// 2026-01-05T00:00:00Z: the same data whenever it is made.
const START_MS: i64 = 1_767_571_200_000;

/// Writes the features of generated payments, exactly as the decision service would compute them.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:
  fraud-payments features --seed 101 --payments 60000 --out data/101

Writes into the folder: features.f32 (little-endian, row-major), labels.u8 (0 honest, 1 to 4 the fraud types in the order of
schema.json), amounts.f32 (US dollars) and schema.json (fingerprints and names of the full and of the light feature schema).")]
pub struct FeaturesArgs {
    #[arg(long)]
    seed: u64,
    /// How many payments.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50_000_000))]
    payments: u32,
    /// Folder to write to; made if it does not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Payments per second of the imagined stream.
    #[arg(long, value_name = "N", default_value_t = 250.0, value_parser = parse_rate)]
    rate: f64,
    /// Share of the payments that are fraud.
    #[arg(long, value_name = "SHARE", default_value_t = 0.015, value_parser = parse_share)]
    fraud_share: f64,
}

#[derive(Debug, Serialize)]
struct DataSet<'a> {
    rows: u32,
    seed: u64,
    rate_per_s: f64,
    fraud_share: f64,
    fraud_types: Vec<&'static str>,
    full: SchemaOf<'a>,
    light: SchemaOf<'a>,
}

/// A feature schema as training needs it. The columns of the light schema are among those of the full one.
#[derive(Debug, Serialize)]
struct SchemaOf<'a> {
    fingerprint: &'a str,
    features: Vec<FeatureOf<'a>>,
}

#[derive(Debug, Serialize)]
struct FeatureOf<'a> {
    name: &'a str,
    group: &'static str,
}

impl FeaturesArgs {
    pub fn run(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.out).with_context(|| format!("cannot make the folder {}", self.out.display()))?;
        let windows = Windows::default();
        let (full, light) = (FeatureSchema::full(&windows), FeatureSchema::light(&windows));
        let mut population = Population::for_rate(self.rate, next_year(START_MS));
        population.fraud_share = self.fraud_share;
        let mut replay = Replay::new(full.clone(), START_MS)?;
        let (mut features, mut labels, mut amounts) = (self.file("features.f32")?, self.file("labels.u8")?, self.file("amounts.f32")?);
        for labelled in Generator::new(self.seed, population).take(self.payments as usize) {
            let vector = replay.vector(&labelled).with_context(|| format!("generated payment {}", labelled.sequence))?;
            features.write_all(&vector.to_le_bytes())?;
            labels.write_all(&[labelled.fraud.map_or(0, |fraud| fraud as u8 + 1)])?;
            #[allow(clippy::cast_possible_truncation)]
            amounts.write_all(&(labelled.amount_usd as f32).to_le_bytes())?;
        }
        for mut file in [features, labels, amounts] {
            file.flush().with_context(|| format!("cannot write to {}", self.out.display()))?;
        }
        let data_set = DataSet {
            rows: self.payments,
            seed: self.seed,
            rate_per_s: self.rate,
            fraud_share: self.fraud_share,
            fraud_types: FraudType::ALL.iter().map(|fraud| fraud.name()).collect(),
            full: schema_of(&full),
            light: schema_of(&light),
        };
        // Last, so that a folder with it is complete.
        write_json(&self.out.join("schema.json"), &data_set)
    }

    fn file(&self, name: &str) -> anyhow::Result<BufWriter<File>> {
        create(&self.out.join(name))
    }
}

fn create(path: &Path) -> anyhow::Result<BufWriter<File>> {
    Ok(BufWriter::new(File::create(path).with_context(|| format!("cannot create {}", path.display()))?))
}

fn schema_of(schema: &FeatureSchema) -> SchemaOf<'_> {
    let features = schema.features().iter().map(|feature| FeatureOf { name: feature.name(), group: feature.group().name() }).collect();
    SchemaOf { fingerprint: schema.fingerprint(), features }
}
