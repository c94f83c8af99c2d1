"""Feast's online store on Redis, through its Python SDK, under the load of `cargo xtask bench features`.

A decision reads the window aggregates of five entities in one call, adds the payment to them, and writes them back, one call a feature view: Feast itself
neither adds nor forgets. Settings are the fastest that the SDK offers: no check of timestamps on writing, a registry that is never read again, one batch a call.

Prints one JSON object a line: first {"at": ...} when a phase begins or ends, so that the caller can read the cost of Redis there, and last the figures.
"""

import argparse
import json
import tempfile
import time
import warnings
from datetime import datetime, timedelta, timezone
from pathlib import Path

warnings.filterwarnings("ignore")

import pandas as pd  # noqa: E402
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType  # noqa: E402
from feast.infra.online_stores.redis import RedisOnlineStoreConfig  # noqa: E402
from feast.repo_config import RegistryConfig  # noqa: E402
from feast.types import Int64  # noqa: E402

KINDS = ["user", "card", "device", "ip", "email"]
WINDOWS = ["5s", "1m", "1h", "24h"]
LIFE_S = 87_000
ROWS_PER_WRITE = 10_000
# Of the highest rate that was reached: nearer to it a queue grows whenever the machine has something else to do.
HELD_SHARE = 0.5


def names(kind):
    return [f"{kind}_{what}_{window}" for window in WINDOWS for what in ("count", "sum")]


def open_store(folder, port):
    config = RepoConfig(
        project="bench",
        provider="local",
        registry=RegistryConfig(path=str(folder / "registry.db"), cache_ttl_seconds=0),
        online_store=RedisOnlineStoreConfig(
            connection_string=f"127.0.0.1:{port}", key_ttl_seconds=LIFE_S, full_scan_for_deletion=False, skip_dedup=True
        ),
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    views, entities = [], []
    for kind in KINDS:
        entity = Entity(name=kind, join_keys=[f"{kind}_id"], value_type=ValueType.STRING)
        source = FileSource(name=f"{kind}_source", path=str(folder / f"{kind}.parquet"), timestamp_field="event_timestamp")
        schema = [Field(name=name, dtype=Int64) for name in names(kind)]
        views.append(FeatureView(name=f"{kind}_windows", entities=[entity], ttl=timedelta(days=1), schema=schema, source=source, online=True))
        entities.append(entity)
    service = FeatureService(name="decision", features=views)
    # Feast reads the columns of a source when it is applied.
    for kind in KINDS:
        columns = {f"{kind}_id": ["x"], "event_timestamp": [datetime.now(timezone.utc)]} | {name: [0] for name in names(kind)}
        pd.DataFrame(columns).to_parquet(folder / f"{kind}.parquet")
    store.apply(entities + views + [service])
    return store, service


def entity_id(kind, customer):
    return f"{kind[0]}{customer:031x}"


def write(store, kind, ids, values, now):
    frame = {f"{kind}_id": ids, "event_timestamp": [now] * len(ids)} | values
    store.write_to_online_store(f"{kind}_windows", df=pd.DataFrame(frame))


def fill(store, customers, events):
    now = datetime.now(timezone.utc)
    for kind in KINDS:
        for first in range(0, customers, ROWS_PER_WRITE):
            ids = [entity_id(kind, customer) for customer in range(first, min(first + ROWS_PER_WRITE, customers))]
            write(store, kind, ids, {name: [events] * len(ids) for name in names(kind)}, now)


def read(store, service, customer):
    row = {f"{kind}_id": entity_id(kind, customer) for kind in KINDS}
    return row, store.get_online_features(features=service, entity_rows=[row]).to_dict()


def decide(store, service, customer, amount):
    row, found = read(store, service, customer)
    now = datetime.now(timezone.utc)
    for kind in KINDS:
        values = {}
        for name in names(kind):
            values[name] = [(found[name][0] or 0) + (amount if "_sum_" in name else 1)]
        write(store, kind, [row[f"{kind}_id"]], values, now)
    return found["card_count_1m"][0]


def say(**what):
    print(json.dumps(what), flush=True)


def customers_in_turn(customers):
    # A full cycle over all customers in an order that looks random.
    step, customer = 48_271 | 1, 0
    while True:
        customer = (customer + step) % customers
        yield customer


def highest_rate(action, customers, seconds):
    """One after the other, as fast as they go."""
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        action(next(customers))
        done += 1
    return done / (time.perf_counter() - began)


def hold_rate(action, customers, rate_per_s, seconds):
    """Actions that are due by the clock; latencies in ms, sorted, count from when each was due."""
    latencies_ms, index = [], 0
    began = time.perf_counter()
    while index < rate_per_s * seconds:
        due = began + index / rate_per_s
        wait = due - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        action(next(customers))
        latencies_ms.append((time.perf_counter() - due) * 1_000)
        index += 1
    return sorted(latencies_ms)


def quantile(sorted_values, share):
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * share))]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--customers", type=int, required=True)
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fraudpipeline-bench-feast-") as folder:
        store, service = open_store(Path(folder), arguments.port)
        say(at="ready")
        fill(store, arguments.customers, arguments.events)
        customers = customers_in_turn(arguments.customers)
        # Also shows that what was filled in is read: a peer that answers nothing would look fast.
        before = decide(store, service, 0, 100)
        after = decide(store, service, 0, 100)
        if (before, after) != (arguments.events, arguments.events + 1):
            raise SystemExit(f"Feast read {before} and {after} events of a card that had {arguments.events}")
        say(at="filled")
        record_and_read = lambda customer: decide(store, service, customer, 100)  # noqa: E731
        read_only = lambda customer: read(store, service, customer)  # noqa: E731
        highest_rate(record_and_read, customers, arguments.seconds / 5)
        rate_max_per_s = highest_rate(record_and_read, customers, arguments.seconds)
        held_per_s = max(1.0, rate_max_per_s * HELD_SHARE)
        say(at="holding")
        cpu_began = time.process_time()
        latencies_ms = hold_rate(record_and_read, customers, held_per_s, arguments.seconds)
        cpu_s = time.process_time() - cpu_began
        say(at="held")
        reads_max_per_s = highest_rate(read_only, customers, arguments.seconds / 3)
        reads_ms = hold_rate(read_only, customers, max(1.0, reads_max_per_s * HELD_SHARE), arguments.seconds / 3)
        say(
            decisions=len(latencies_ms),
            figures={
                "decisions_per_s": held_per_s,
                "max_decisions_per_s": rate_max_per_s,
                "p50_ms": quantile(latencies_ms, 0.5),
                "p99_ms": quantile(latencies_ms, 0.99),
                "client_cpu_us_per_decision": cpu_s / len(latencies_ms) * 1e6,
                "max_reads_only_requests_per_s": reads_max_per_s,
                "reads_only_p50_ms": quantile(reads_ms, 0.5),
                "reads_only_p99_ms": quantile(reads_ms, 0.99),
                "measured_s": arguments.seconds,
            },
        )


if __name__ == "__main__":
    main()
