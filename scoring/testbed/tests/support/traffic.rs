//! Payments, and writers that make them until they are told to stop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use domain::Epoch;
use scoring_core::{
    codes::Country,
    event::{DecisionState, EntityId, EntityKind, Event, EventKind, Merchant, Money},
};
use tokio::task::JoinHandle;

use super::{Region, now_ms};

const WRITERS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(35);
/// How many users, cards, devices, addresses and mailboxes there are: not the same, so that entities are shared. With a
/// minute's traffic of two regions none of them comes near to its cap, and no user has more devices than a profile knows.
const HOW_MANY: [u32; 5] = [53, 61, 16, 71, 59];
/// Beyond the exact horizon of an hour; those are summed up where there are many.
const OLD_MS: i64 = 7_200_000;
/// Payments with these numbers are sent to both regions, as by a client that got no answer from the first.
const RETRIED_EVERY: u32 = 10;

/// The payment of a number, made now. Two of three tell of hours ago: whatever is folded twice is seen in the sums.
pub(crate) fn payment(transaction_id: &str, number: u32, region: &Region, epoch: u64) -> Event {
    let is_old = !number.is_multiple_of(3) && !is_retried(number);
    let age_ms = if is_old { OLD_MS + i64::from(number % 600) * 60_000 } else { 0 };
    let amount = i64::from(number % 9_000) + 1;
    let country = |which: u32| Country::from_letters(["US", "BR", "DE"][usize::try_from(which % 3).unwrap()]);
    let entity = |(&kind, how_many): (&EntityKind, u32)| {
        let mut id = [7; 16];
        id[0] = u8::try_from(number % how_many).unwrap();
        (kind, EntityId(id))
    };
    Event {
        transaction_id: transaction_id.into(),
        tenant: "default".into(),
        event_time_ms: now_ms() - age_ms,
        client_time_ms: None,
        origin_region: region.name.clone(),
        epoch: Epoch(epoch),
        kind: EventKind::PaymentAttempt,
        decision: DecisionState::Made,
        entities: EntityKind::ALL.iter().zip(HOW_MANY).map(entity).collect(),
        pii_key_id: "k1".into(),
        amount: Some(Money { amount_minor: amount, currency: "USD".into(), amount_base_minor: Some(amount), rate_version: String::new() }),
        merchant: Some(Merchant { id: format!("m-{}", number % 43), category_code: None, country: None }),
        card_country: None,
        ip_country: country(number),
        billing_country: None,
        bin8: String::new(),
        email_domain: String::new(),
        ip_prefix: String::new(),
        channel: None,
        card_entry: None,
        outcome: None,
    }
}

/// As another region gets it: with its own time and exchange rate.
pub(crate) fn retry(event: &Event, region: &Region, epoch: u64) -> Event {
    let mut again = event.clone();
    again.event_time_ms = now_ms();
    again.origin_region = region.name.clone();
    again.epoch = Epoch(epoch);
    again.amount.as_mut().unwrap().amount_base_minor = event.amount_base_minor().map(|amount| amount + 1);
    again
}

pub(crate) fn is_retried(number: u32) -> bool {
    number.is_multiple_of(RETRIED_EVERY)
}

/// Whether an event is younger than the exact horizon.
pub(crate) fn is_young(event: &Event) -> bool {
    now_ms() - event.event_time_ms < OLD_MS / 2
}

/// Some clients at once.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<Vec<Event>>>,
}

impl Traffic {
    /// Transactions are called `<name>-<number>`.
    pub(crate) fn start(region: &Arc<Region>, name: &'static str, epoch: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let writer = |first| {
            let (region, stop) = (region.clone(), stop.clone());
            tokio::spawn(async move { write(&region, name, epoch, first, &stop).await })
        };
        Self { writers: (0..WRITERS).map(writer).collect(), stop }
    }

    /// All events that were acknowledged by the region's log; every one that was sent is among them.
    pub(crate) async fn stop(self) -> Vec<Event> {
        self.stop.store(true, Ordering::SeqCst);
        let mut acknowledged = Vec::new();
        for writer in self.writers {
            acknowledged.extend(writer.await.unwrap());
        }
        acknowledged
    }
}

async fn write(region: &Region, name: &str, epoch: u64, first: u32, stop: &AtomicBool) -> Vec<Event> {
    let mut acknowledged = Vec::new();
    for number in (first..).step_by(usize::try_from(WRITERS).unwrap()) {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        // In a split the other region gets the same transaction, from the same client.
        let transaction = if is_retried(number) { format!("retried-{number}") } else { format!("{name}-{number}") };
        let mut event = payment(&transaction, number, region, epoch);
        if is_retried(number) && epoch > 1 {
            event = retry(&event, region, epoch);
        }
        assert!(region.accept(&event).await, "Kafka in {} did not acknowledge {transaction}", region.name);
        acknowledged.push(event);
        tokio::time::sleep(PAUSE).await;
    }
    acknowledged
}
