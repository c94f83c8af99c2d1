//! Sends each payment when it is due, and hands what came back to the recorder. IO: network, clock.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use proto::fraud::v1::DecideRequest;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::Code;

use super::tally::{Answer, Label, Outcome};
use super::target::Target;

/// A payment on its way out. The label stays here: the request has no field for it.
#[derive(Debug, Clone)]
pub struct Due {
    pub request: DecideRequest,
    pub label: Option<Label>,
    pub amount_usd: f64,
    pub sequence: u64,
    /// From the beginning of the stream.
    pub at: Duration,
}

#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// A payment without an answer for this long, counted from when it was due, is unanswered.
    pub answer_within: Duration,
    /// Payments that wait for an answer; one more counts as unanswered without being sent.
    pub outstanding_max: usize,
}

/// Sends until the payments or `stop` end, then waits for the answers that are still owed. Returns when the stream began.
pub async fn send(
    target: &Target,
    pace: Pace,
    payments: impl Iterator<Item = anyhow::Result<Due>>,
    outcomes: Sender<Outcome>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let places = Arc::new(Semaphore::new(pace.outstanding_max));
    tokio::pin!(stop);
    for due in payments {
        let due = due?;
        tokio::select! {
            biased;
            () = &mut stop => break,
            () = sleep_until(began + due.at) => {}
        }
        let Ok(place) = places.clone().try_acquire_owned() else {
            // The receiver only goes away when the recorder has failed, which the caller reports.
            let _ = outcomes.send(outcome(&due, began, Answer::Unanswered));
            continue;
        };
        let (mut client, outcomes) = (target.client(due.sequence), outcomes.clone());
        tokio::spawn(async move {
            let bound = began + due.at + pace.answer_within;
            let request = due.request.clone();
            let answer = match timeout_at(bound, client.decide(request)).await {
                Ok(Ok(response)) => Answer::Decision(Box::new(response.into_inner())),
                Ok(Err(status)) => Answer::Error(code_name(status.code()).to_owned()),
                Err(_) => Answer::Unanswered,
            };
            let _ = outcomes.send(outcome(&due, began, answer));
            drop(place);
        });
    }
    // Every task ends within its bound, so all places come back.
    let all = u32::try_from(pace.outstanding_max).unwrap_or(u32::MAX);
    let _ = places.acquire_many(all).await;
    Ok(())
}

fn outcome(due: &Due, began: Instant, result: Answer) -> Outcome {
    let finished_at = began.elapsed();
    Outcome {
        sequence: due.sequence,
        label: due.label,
        amount_usd: due.amount_usd,
        latency: finished_at.saturating_sub(due.at),
        finished_at,
        result,
    }
}

/// As the gRPC specification writes them.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
