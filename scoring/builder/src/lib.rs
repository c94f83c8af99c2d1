//! The feature builder: folds the logs of events and of profile values, this region's own and the mirrors of the others, into
//! the feature store.
//!
//! It folds only while the plan makes this region the active one, because the shards of the others are read-only. Elsewhere it
//! follows the logs for their heartbeats, ready. For each plan it runs one session: resume from the positions that the shards
//! hold, then batch after batch, in this order: unreadable records to the dead-letter topic, acknowledged; the batch into all
//! shards, with its positions; the new features to `<prefix>.features`.
//!
//! **One writer.** Each shard checks that it stands where the batch begins, so batches are folded one after the other; two
//! groups of partitions with a writer each would only refuse each other at the shards. More than one processor is used by
//! doing different things at once: a thread fetches and decodes the next batch (`log`), the shards' parts of this one are
//! computed beside each other (`RedisStore::fold`), and the features of the batch before are published (`publish`). Between
//! them are channels with room for one or two batches. A shard that is slow or full holds the batch back; the reader then
//! stands still, the client's bounded queues fill up, and nothing more is fetched.
//!
//! **Positions** count records where they were first written: one entry for each partition of an origin's own log, whichever
//! copy was read. They are stored by the shards and change only together with the data. When a shard goes back (it was
//! promoted and had less), the session begins anew from the minimum over the shards; a shard that stands further takes nothing
//! twice. Where a log does not reach back to the position, folding stands still and says so (`start`). Of a log without a
//! position is read what the longest window needs, or from where whoever emptied the shards has asked for (`fp:read_from`).
//!
//! **Freshness.** Every region's builder writes heartbeats into its own log (`heartbeat`). Those that come back through the
//! logs tell how old the folded data of every region is (`watermarks`); which regions have lost authority is in `authority`.
//! Both are published in the shards for the decision services (`announce`).
//!
//! Guarantees: an acknowledged record is folded once; a position never claims more than what has been folded. After a crash
//! the last batch is folded again into those shards that did not take it. Its feature updates may be missing:
//! `<prefix>.features` can be recomputed from the events and is no source of truth.
#![forbid(unsafe_code)]

mod announce;
pub mod app;
mod authority;
mod batch;
mod clock;
pub mod config;
mod dead_letter;
mod decode;
mod heartbeat;
mod lag;
mod log;
mod measuring;
mod metrics;
mod probe;
mod publish;
mod session;
mod start;
mod watermarks;
