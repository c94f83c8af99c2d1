//! Status as a page of text.

use crds::FraudPipelineStatus;

use super::View;

const UNKNOWN: &str = "Unknown";

pub(super) fn render(pipeline: &str, views: &[View]) -> String {
    let mut rows =
        vec![["CONTEXT", "REGION", "ACTIVE", "EPOCH", "PHASE", "FEATURES", "MODEL", "READY", "FAILOVER-READY"].map(str::to_owned)];
    rows.extend(views.iter().map(row));
    let mut out = format!("Pipeline {pipeline}\n\n{}", table(&rows));
    for view in views {
        explain(view, &mut out);
    }
    out
}

fn row(view: &View) -> [String; 9] {
    let Some(status) = &view.status else {
        return [
            view.context.clone(),
            UNKNOWN.into(),
            UNKNOWN.into(),
            "-".into(),
            "-".into(),
            UNKNOWN.into(),
            "-".into(),
            UNKNOWN.into(),
            UNKNOWN.into(),
        ];
    };
    let text = |value: Option<String>| value.unwrap_or_else(|| UNKNOWN.to_owned());
    [
        view.context.clone(),
        text(status.local_region.as_ref().map(ToString::to_string)),
        text(status.active_region.as_ref().map(ToString::to_string)),
        text(status.epoch.map(|epoch| epoch.to_string())),
        text(status.phase.map(|phase| format!("{phase:?}"))),
        text(status.features.map(|features| format!("{features:?}"))),
        text(status.model.clone()),
        condition(status, crds::conditions::READY),
        condition(status, crds::conditions::FAILOVER_READY),
    ]
}

fn condition(status: &FraudPipelineStatus, type_: &str) -> String {
    status.conditions.iter().find(|condition| condition.type_ == type_).map_or_else(|| UNKNOWN.into(), |condition| condition.status.clone())
}

/// Why a region is not as it should be, one line each.
fn explain(view: &View, out: &mut String) {
    let mut line = |text: &str| out.push_str(&format!("{}: {text}\n", view.context));
    if let Some(problem) = &view.problem {
        line(problem);
    }
    let Some(status) = &view.status else { return };
    if let Some(waiting_on) = &status.waiting_on {
        line(&format!("waiting on {waiting_on}"));
    }
    for condition in &status.conditions {
        let bad = match condition.type_.as_str() {
            crds::conditions::RECONCILING | crds::conditions::STALLED => condition.status == "True",
            _ => condition.status == "False",
        };
        if bad {
            line(&format!("{}={} ({}): {}", condition.type_, condition.status, condition.reason, condition.message));
        }
    }
}

fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: [usize; N] = std::array::from_fn(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0));
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_region_is_unknown_and_the_others_are_shown() {
        let reachable = FraudPipelineStatus { epoch: Some(3), waiting_on: Some("Kafka. Unblock: start it".into()), ..Default::default() };
        let views = [
            View { context: "us-east".into(), status: None, problem: Some("no answer from the API server within 5 s".into()) },
            View { context: "eu-west".into(), status: Some(Box::new(reachable)), problem: None },
        ];
        let text = render("payments", &views);
        assert!(text.contains("us-east: no answer"), "{text}");
        assert!(text.contains("eu-west: waiting on Kafka"), "{text}");
        let row = text.lines().find(|line| line.starts_with("eu-west ")).unwrap();
        assert!(row.contains(" 3 ") && row.contains("Unknown"), "{row}");
    }
}
