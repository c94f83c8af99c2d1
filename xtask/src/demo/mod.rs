//! `cargo xtask demo`: from a checkout to a scored payment stream in three regions, as a list of steps. Everything it starts beyond the stream stays up
//! afterwards, and a second run uses what is there.

pub(crate) mod conclude;
mod install;
mod lag;
mod live;
pub(crate) mod ready;
pub(crate) mod regions;
mod settle;
pub(crate) mod stream;
pub(crate) mod summary;

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::regions::Sandbox;
use self::stream::{Files, Stream};
use self::summary::Criterion;
use crate::place::Place;
use crate::{doctor, images, interrupt, progress, tools};

/// Handed on to the half of the demo that runs as root: what it cannot find out itself.
const STARTED_VARIABLE: &str = "FRAUDPIPELINE_DEMO_STARTED_S";
const DEFAULT_INSTANCE: &str = "default";
const FIRST_RUN_VARIABLE: &str = "FRAUDPIPELINE_DEMO_FIRST_RUN";
/// Without `--for`, the stream ends when somebody ends it, or after a day.
const STREAM_MAX: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask demo                          until you type quit\n  cargo xtask demo --headless --for 120s    two minutes, then target/demo/summary.json\n\n\
    Ends 0 only if every criterion holds. The sandbox stays up; `cargo xtask sandbox down --delete` takes it down."
)]
pub(crate) struct Arguments {
    /// No screen and no keyboard: a line now and then.
    #[arg(long)]
    headless: bool,
    /// How long the stream lasts, such as 120s or 5m.
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    lasting: Option<Duration>,
    /// Payments per second.
    #[arg(long, default_value_t = 220, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Build the tools again, and begin with empty clusters.
    #[arg(long)]
    fresh: bool,
    /// Report latency, lag and start time without judging them: for tests, which may share the machine.
    #[arg(long)]
    ignore_speed: bool,
    /// Which sandbox; several can stand side by side.
    #[arg(long, default_value = DEFAULT_INSTANCE)]
    instance: String,
}

/// Where the demo leaves its files.
struct Folder {
    root: PathBuf,
    credentials: PathBuf,
    stream: Files,
}

pub(crate) fn command(place: &Place, arguments: &Arguments) -> Result<()> {
    let started = Instant::now().checked_sub(earlier_half()).unwrap_or_else(Instant::now);
    if arguments.headless && arguments.lasting.is_none() {
        bail!("--headless needs --for: nobody would end the stream");
    }
    doctor::require(place)?;
    progress::heading("tools: Kubernetes, Helm, Kafka and ONNX Runtime");
    let to_build = tools::expected_build_time(place);
    let first_run = arguments.fresh || std::env::var_os(FIRST_RUN_VARIABLE).is_some() || !to_build.is_zero();
    if !to_build.is_zero() {
        progress::note(&format!(
            "building them takes about {} once; they are kept in {}",
            progress::seconds(to_build),
            place.cache.display()
        ));
    }
    let is_second_half = std::env::var_os(STARTED_VARIABLE).is_some();
    let tools = tools::ensure_sandbox_tools(place, arguments.fresh && !is_second_half)?;
    progress::heading("images: our own binaries");
    images::ensure(place, &tools)?;
    if !place.is_root {
        return become_root(place, started, first_run);
    }
    let folder = Folder::make(place, &arguments.instance)?;
    interrupt::watch()?;
    let result = run(place, arguments, &tools, &folder, started, first_run);
    place.give_to_user(&folder.root)?;
    eprintln!(
        "\nThe sandbox stays up: `cargo xtask sandbox --instance {0} status`; `cargo xtask sandbox --instance {0} down --delete` takes it down.",
        arguments.instance
    );
    result
}

fn run(place: &Place, arguments: &Arguments, tools: &tools::Tools, folder: &Folder, started: Instant, first_run: bool) -> Result<()> {
    progress::heading("sandbox: three regions");
    let sandbox = Sandbox::up(place, &arguments.instance, arguments.fresh)?;
    interrupt::check()?;
    progress::heading("credentials and namespaces");
    install::credentials(&sandbox, &folder.credentials, arguments.fresh)?;
    progress::heading("operator: helm install in each region");
    install::operator(&sandbox, &tools.helm, &folder.root)?;
    interrupt::check()?;
    progress::heading("pipeline: models, rules and examples/payments.yaml in each region");
    let manifest = install::read_example(&sandbox)?;
    install::models(&sandbox, &manifest)?;
    install::example(&sandbox)?;
    let active = ready::wait(&sandbox)?;
    settle::wait()?;

    progress::heading(&format!("stream: {} payments/s to {active}", arguments.rate));
    let lasting = arguments.lasting.unwrap_or(STREAM_MAX);
    let mut stream = Stream::start(place, sandbox.region(&active)?, arguments.rate, lasting, folder.stream.clone())?;
    let start_s = (stream.started - started).as_secs_f64();
    let shards =
        manifest.pointer("/spec/features/shards").and_then(serde_json::Value::as_u64).context("the example has no spec.features.shards")?;
    let lag = lag::Watch::start(&sandbox, &active, u16::try_from(shards)?)?;
    live::watch(&sandbox, &mut stream, arguments.headless)?;
    let ended = stream.end()?;
    let feature_lag_s = lag.stop();
    if interrupt::asked_to_end() {
        bail!("interrupted: nothing is judged");
    }

    progress::heading("audit: the logs of all regions");
    let audit = conclude::audit(&sandbox, &folder.stream, &folder.root.join("audit.json"))?;
    let summary = conclude::summarize(&sandbox, &ended, &audit, feature_lag_s, start_s);
    let path = folder.root.join("summary.json");
    images::write_json(&path, &summary)?;
    let criteria = [summary::criteria(&summary, first_run), conclude::audit_criteria(&audit)].concat();
    let judged = |criterion: &Criterion| !(arguments.ignore_speed && criterion.is_about_speed);
    criteria.iter().for_each(|criterion| println!("{}", if judged(criterion) { criterion.line() } else { criterion.note() }));
    println!("{}", path.display());
    let failed = criteria.iter().filter(|criterion| judged(criterion) && !criterion.holds).count();
    if failed > 0 {
        bail!("{failed} of {} criteria do not hold", criteria.len());
    }
    Ok(())
}

impl Folder {
    fn make(place: &Place, instance: &str) -> Result<Self> {
        // The summary of the demo itself has a fixed place; other instances, such as the tests', stay out of its way.
        let root = place.target.join(if instance == DEFAULT_INSTANCE { "demo".to_string() } else { format!("demo-{instance}") });
        place.make_folder(&root)?;
        let files = Files { summary: root.join("stream.json"), ledger: root.join("ledger.jsonl") };
        Ok(Self { credentials: root.join("credentials"), stream: files, root })
    }
}

/// Starts this program again as root, once. What an ordinary user's environment has and `sudo` would drop is handed on by name.
fn become_root(place: &Place, started: Instant, first_run: bool) -> Result<()> {
    progress::note("the sandbox needs root: handing over to sudo");
    let mut command = Command::new("sudo");
    command
        .arg("env")
        .arg(format!("{STARTED_VARIABLE}={}", started.elapsed().as_secs_f64()))
        .arg(format!("FRAUDPIPELINE_CACHE={}", place.cache.display()));
    command.args(first_run.then(|| format!("{FIRST_RUN_VARIABLE}=1")));
    for name in ["PATH", "CARGO", "CARGO_HOME", "CARGO_MANIFEST_DIR", "CARGO_TARGET_DIR", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"] {
        command.args(std::env::var(name).ok().map(|value| format!("{name}={value}")));
    }
    command.arg(std::env::current_exe().context("cannot find this program's own file")?).args(std::env::args_os().skip(1));
    Err(command.exec()).context("cannot start sudo")
}

/// How long the half before `sudo` took.
fn earlier_half() -> Duration {
    let seconds = std::env::var(STARTED_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(0.0);
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// `90s`, `2m`, `1h`.
fn parse_duration(text: &str) -> std::result::Result<Duration, String> {
    let wrong = || format!("'{text}' is no duration: write it like 90s, 2m or 1h");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    let duration = Duration::from_secs(number.saturating_mul(seconds));
    if duration.is_zero() || duration > STREAM_MAX {
        return Err(format!("'{text}' is out of range: from 1s to 24h"));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_whole_seconds_minutes_or_hours() {
        assert_eq!(parse_duration("120s"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        for bad in ["", "120", "s", "1d", "0s", "25h", "-1s", "99999999999999999999s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
