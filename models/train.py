#!/usr/bin/env python3
"""Trains the full and the light fraud model and writes them as ONNX, with manifest and metrics. See README.md beside this file.

Computes no features: `fraud-payments features` replays generated payments in arrival order through the code that serves.
Deterministic: fixed seeds, one thread, pinned libraries (requirements.txt).
"""

import argparse
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import lightgbm
import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper

import evaluate
import trees

# (seed, payments, payments per second). Seeds make the populations: none occurs twice, and the demo's is not among them.
TRAINING = [(101, 60_000, 250), (102, 60_000, 250), (103, 30_000, 250), (104, 30_000, 250), (105, 30_000, 150), (106, 60_000, 400),
            (107, 90_000, 250), (108, 30_000, 250), (109, 20_000, 100), (110, 60_000, 250), (111, 30_000, 250), (112, 60_000, 500)]
CALIBRATION = [(201, 30_000, 250), (202, 30_000, 250), (203, 60_000, 250), (204, 30_000, 200)]
HELD_OUT = [(301, 30_000, 250), (302, 30_000, 250), (303, 60_000, 250), (304, 30_000, 200)]

# The customers' day is compressed, so the hour by the clock says nothing about them; it would only tell one stream from another.
IGNORED = ["hour_of_day"]
EVENT_GROUP = "event"
AMOUNT_FEATURES = ["amount_log", "card_sum_1h", "card_sum_24h", "user_sum_24h", "user_amount_over_mean"]

GOLDEN_VECTORS = 48
MODEL_BYTES_MAX = 900_000
MANIFEST_KEY = "fraudpipeline.manifest"


@dataclass(frozen=True)
class Recipe:
    """One model. `band` is where the tiers of examples/payments.yaml use it; its scores are placed for that band."""

    kind: str
    trees: int
    leaves: int
    learning_rate: float
    band: tuple
    review_false_positives: float
    decline_false_positives: float


RECIPES = [
    Recipe("full", 300, 31, 0.05, (100.0, float("inf")), 0.006, 0.0015),
    Recipe("light", 100, 15, 0.1, (10.0, 100.0), 0.0045, 0.001),
]


@dataclass
class Data:
    features: numpy.ndarray
    fraud_type: numpy.ndarray
    amounts: numpy.ndarray
    schema: dict

    @property
    def fraud(self):
        return self.fraud_type > 0


def load(streams, binary, folder):
    """Generates what is not there yet, and joins the streams in the order of the list."""
    parts = [load_stream(stream, binary, folder) for stream in streams]
    joined = [numpy.concatenate(columns) for columns in zip(*[(p.features, p.fraud_type, p.amounts) for p in parts])]
    return Data(*joined, parts[0].schema)


def load_stream(stream, binary, folder):
    seed, payments, rate = stream
    place = folder / f"{seed}-{payments}-{rate}"
    if not (place / "schema.json").exists():
        print(f"generating seed {seed}: {payments} payments at {rate}/s", flush=True)
        command = [binary, "features", "--seed", seed, "--payments", payments, "--rate", rate, "--out", place]
        subprocess.run([str(part) for part in command], check=True)
    schema = json.loads((place / "schema.json").read_text())
    features = numpy.fromfile(place / "features.f32", "<f4").reshape(payments, -1)
    return Data(features, numpy.fromfile(place / "labels.u8", "u1"), numpy.fromfile(place / "amounts.f32", "<f4"), schema)


def columns_of(data, recipe):
    """The schema of this model, and the columns of the full data that belong to it."""
    schema = data.schema[recipe.kind]
    full = [feature["name"] for feature in data.schema["full"]["features"]]
    return schema, [full.index(feature["name"]) for feature in schema["features"]]


def groups_of(schema):
    """Feature groups that may be missing in service, with their columns."""
    groups = {}
    for column, feature in enumerate(schema["features"]):
        if feature["group"] != EVENT_GROUP:
            groups.setdefault(feature["group"], []).append(column)
    return groups


def masked(rows, schema, generator):
    """What degraded service looks like: a tenth of the rows without any history, a fifth without some groups, some without amounts."""
    rows = rows.copy()
    groups = groups_of(schema)
    lot = generator.random(len(rows))
    for columns in groups.values():
        missing = (lot < 0.1) | ((lot < 0.3) & (generator.random(len(rows)) < 0.35))
        rows[numpy.ix_(missing, columns)] = numpy.nan
    names = [feature["name"] for feature in schema["features"]]
    amounts = [names.index(name) for name in AMOUNT_FEATURES if name in names]
    rows[numpy.ix_(generator.random(len(rows)) < 0.02, amounts)] = numpy.nan
    return rows, sorted(groups)


def train(recipe, data):
    schema, columns = columns_of(data, recipe)
    rows, groups = masked(data.features[:, columns], schema, numpy.random.default_rng(7))
    names = [feature["name"] for feature in schema["features"]]
    for name in IGNORED:
        rows[:, names.index(name)] = 0.0
    parameters = {
        "objective": "binary", "num_leaves": recipe.leaves, "learning_rate": recipe.learning_rate, "min_data_in_leaf": 60,
        "feature_fraction": 0.6, "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 10.0, "max_bin": 255,
        "seed": 7, "deterministic": True, "force_row_wise": True, "num_threads": 1, "verbose": -1,
    }
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows, data.fraud.astype("f4"), feature_name=names), recipe.trees)
    return booster, groups


def place_scores(ensemble, recipe, data):
    """Moves and stretches the log-odds so that 0.5 and 0.9 are the review and decline thresholds with the recipe's false positives.

    The order of the payments stays the same. The result is a score, not the probability of fraud in a population.
    """
    _, columns = columns_of(data, recipe)
    in_band = (data.amounts >= recipe.band[0]) & (data.amounts < recipe.band[1])
    honest = ensemble.log_odds(data.features[in_band & ~data.fraud][:, columns])
    review = numpy.quantile(honest, 1.0 - recipe.review_false_positives)
    decline = numpy.quantile(honest, 1.0 - recipe.decline_false_positives)
    factor = numpy.log(9.0) / (decline - review)
    return ensemble.scaled(factor, -factor * review)


def onnx_model(ensemble, recipe, width):
    inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", width])]
    outputs = [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N", 1])]
    nodes = [
        helper.make_node("TreeEnsembleRegressor", ["features"], ["log_odds"], domain="ai.onnx.ml", **ensemble.onnx_attributes()),
        # A node of its own: a tree that is only a leaf makes some runtimes skip the ensemble's own transform.
        helper.make_node("Sigmoid", ["log_odds"], ["score"]),
    ]
    graph = helper.make_graph(nodes, f"fraud-{recipe.kind}", inputs, outputs)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, ir_version=8, opset_imports=opsets, producer_name="fraudpipeline")


def runtime_scores(model, rows):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(["score"], {"features": numpy.ascontiguousarray(rows, "f4")})[0][:, 0]


def golden_rows(data, schema, columns):
    """Honest and fraudulent rows, whole and with groups missing, and one with nothing at all."""
    generator = numpy.random.default_rng(11)
    half = GOLDEN_VECTORS // 2
    chosen = [generator.choice(numpy.flatnonzero(wanted), half, replace=False) for wanted in (data.fraud, ~data.fraud)]
    rows = data.features[numpy.concatenate(chosen)][:, columns].copy()
    for place, group in enumerate(groups_of(schema).values()):
        rows[place::7, group[0]:group[-1] + 1] = numpy.nan
    rows[-1] = numpy.nan
    return rows


def manifest(recipe, schema, groups, rows, scores, metrics, training):
    golden = [{"features": [None if numpy.isnan(value) else float(value) for value in row], "score": float(score)} for row, score in zip(rows, scores)]
    return {
        "format": 1,
        "name": f"fraud-{recipe.kind}",
        "version": "1",
        "kind": recipe.kind,
        "schema_fingerprint": schema["fingerprint"],
        "features": [feature["name"] for feature in schema["features"]],
        "masked_groups": groups,
        "golden": golden,
        "metrics": metrics,
        "training": training,
    }


def build(recipe, training, calibration, held_out, folder):
    print(f"training {recipe.kind}", flush=True)
    schema, columns = columns_of(training, recipe)
    booster, groups = train(recipe, training)
    ensemble = place_scores(trees.Ensemble.of(booster), recipe, calibration)
    model = onnx_model(ensemble, recipe, len(columns))
    rows = held_out.features[:, columns]
    scores = runtime_scores(model, rows)
    trees.check_agreement(ensemble, rows, scores)
    report = evaluate.model_report(scores, held_out, recipe.band)
    report["without"] = evaluate.recall_without_groups(lambda changed: runtime_scores(model, changed), rows, groups_of(schema), held_out)
    flat = {name: value for name, value in report.items() if isinstance(value, float)}
    about = {"trees": recipe.trees, "leaves": recipe.leaves, "seeds": [seed for seed, _, _ in TRAINING], "rows": len(training.features),
             "lightgbm": lightgbm.__version__, "onnxruntime": onnxruntime.__version__}
    golden = golden_rows(held_out, schema, columns)
    contents = manifest(recipe, schema, groups, golden, runtime_scores(model, golden), flat, about)
    helper.set_model_props(model, {MANIFEST_KEY: json.dumps(contents)})
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    if len(data) > MODEL_BYTES_MAX:
        raise SystemExit(f"{recipe.kind}.onnx has {len(data)} bytes, more than {MODEL_BYTES_MAX}: use fewer trees or leaves")
    (folder / f"{recipe.kind}.onnx").write_bytes(data)
    return scores, report


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fraud-payments", type=Path, required=True, help="the binary, such as target/debug/fraud-payments")
    parser.add_argument("--data", type=Path, required=True, help="folder for the generated data; what is there is used again")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write the models")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    training, calibration, held_out = (load(streams, arguments.fraud_payments, arguments.data) for streams in (TRAINING, CALIBRATION, HELD_OUT))
    metrics = {"data": evaluate.data_report(held_out, IGNORED), "models": {}}
    scores = {}
    for recipe in RECIPES:
        scores[recipe.kind], metrics["models"][recipe.kind] = build(recipe, training, calibration, held_out, arguments.out)
    metrics["by_tiers"] = evaluate.tiers_report(scores, held_out)
    (arguments.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(json.dumps(metrics["by_tiers"], indent=2))


if __name__ == "__main__":
    main()
