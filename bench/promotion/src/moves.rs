//! The cases `shardsN`: all shards move back and forth between two regions under writes.

use std::time::Duration;

use anyhow::{Result, ensure};
use bench::report::Figures;
use domain::Epoch;
use feature_shards::{Outcome, PlannedOptions, PlannedReport, ShardClient};

use crate::{audit, figures, per_mille, stage::Stage, writer::Writer};

pub(crate) struct Wanted {
    pub(crate) shards: u16,
    pub(crate) runs: u32,
    pub(crate) writes_per_s: u32,
    pub(crate) one_way: Duration,
    /// Time of writing between two promotions.
    pub(crate) between: Duration,
}

/// One promotion.
struct Run {
    /// As the writer saw it, on the shard that stood still for longest.
    writer_gap_ms: f64,
    /// By the controller's clock, from before the first shard was paused until after the last one was writable.
    controller_gap_ms: f64,
    pause_ms: f64,
    catch_up_ms: f64,
    promote_ms: f64,
}

pub(crate) async fn measure(wanted: &Wanted) -> Result<Figures> {
    let stage = Stage::set_up(wanted.shards, wanted.one_way).await?;
    let at_first = stage.resyncs()?;
    let writer = Writer::start([stage.addresses(0, 0), stage.addresses(1, 0)], wanted.writes_per_s).await?;
    let mut runs = Vec::new();
    for number in 0..wanted.runs {
        tokio::time::sleep(wanted.between).await;
        let run = Box::pin(promote(&stage, &writer, number)).await?;
        eprintln!(
            "shards{} run {}: writer's gap {:.0} ms, controller's {:.0} ms",
            wanted.shards,
            number + 1,
            run.writer_gap_ms,
            run.controller_gap_ms
        );
        runs.push(run);
    }
    tokio::time::sleep(wanted.between).await;
    let acknowledged = writer.stop()?;
    let active = usize::try_from(wanted.runs % 2)?;
    let lost = audit::lost(&acknowledged, stage.servers(active))?;
    let (partial, full) = stage.resyncs()?;
    let resyncs = (partial.saturating_sub(at_first.0), full.saturating_sub(at_first.1));
    Ok(figures_of(wanted, &runs, acknowledged.len(), lost, resyncs))
}

async fn promote(stage: &Stage, writer: &Writer, number: u32) -> Result<Run> {
    let from = usize::try_from(number % 2)?;
    let to = 1 - from;
    let pairs = stage.pairs(from, to);
    // What was before does not count.
    writer.longest_gap();
    let epoch = Epoch(u64::from(number) + 2);
    let report = Box::pin(ShardClient::without_login().promote_planned(&pairs, epoch, &PlannedOptions::default())).await;
    ensure!(report.outcome == Outcome::Promoted, "promotion {} did not succeed: {report:?}", number + 1);
    // The writer's last waiting writes are acknowledged within round trips.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let longest = |of: fn(&feature_shards::Timings) -> f64| report.shards.iter().map(|shard| of(&shard.timings)).fold(0.0, f64::max);
    Ok(Run {
        writer_gap_ms: writer.longest_gap().as_secs_f64() * 1_000.0,
        controller_gap_ms: controller_gap_ms(&report),
        pause_ms: longest(|timings| timings.pause_ms),
        catch_up_ms: longest(|timings| timings.catch_up_ms),
        promote_ms: longest(|timings| timings.promote_ms),
    })
}

fn controller_gap_ms(report: &PlannedReport) -> f64 {
    report.write_gap_ms_max.unwrap_or(f64::INFINITY)
}

fn figures_of(wanted: &Wanted, runs: &[Run], acknowledged: usize, lost: u64, (partial, full): (u64, u64)) -> Figures {
    let sorted = |of: fn(&Run) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let (writer, controller) = (sorted(|run| run.writer_gap_ms), sorted(|run| run.controller_gap_ms));
    let all = figures([
        ("write_gap_max_ms", per_mille(&writer, 1_000).max(per_mille(&controller, 1_000))),
        ("write_gap_p50_ms", per_mille(&writer, 500)),
        ("write_gap_p90_ms", per_mille(&writer, 900)),
        ("paused_to_all_writable_max_ms", per_mille(&controller, 1_000)),
        ("paused_to_all_writable_p50_ms", per_mille(&controller, 500)),
        ("lost", lost as f64),
        ("partial_resyncs", partial as f64),
        ("full_resyncs", full as f64),
        ("promotions", runs.len() as f64),
        ("shards", f64::from(wanted.shards)),
        ("writes_acknowledged", acknowledged as f64),
        ("writes_per_s", f64::from(wanted.writes_per_s)),
        ("rtt_ms", wanted.one_way.as_secs_f64() * 2_000.0),
    ]);
    all.into_iter().chain(worst(runs)).collect()
}

/// What was seen in the promotion with the longest gap.
fn worst(runs: &[Run]) -> Figures {
    let Some((number, run)) = (1_u32..).zip(runs).max_by(|(_, a), (_, b)| a.writer_gap_ms.total_cmp(&b.writer_gap_ms)) else {
        return Figures::new();
    };
    figures([
        ("worst_run", f64::from(number)),
        ("worst_run_write_gap_ms", run.writer_gap_ms),
        ("worst_run_paused_to_all_writable_ms", run.controller_gap_ms),
        ("worst_run_pause_ms", run.pause_ms),
        ("worst_run_catch_up_ms", run.catch_up_ms),
        ("worst_run_promote_ms", run.promote_ms),
    ])
}
