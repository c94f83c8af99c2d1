"""What the models are worth on held-out payments of other populations."""

import numpy

FALSE_POSITIVE_RATES = (0.002, 0.005, 0.01)
REVIEW, DECLINE = 0.5, 0.9
# As in examples/payments.yaml: below 10 no model, below 100 the light one.
NO_MODEL_BELOW, LIGHT_BELOW = 10.0, 100.0


def recall_at(scores, fraud, rate):
    """Recall of the lowest threshold with at most this share of false positives."""
    honest = numpy.sort(scores[~fraud])[::-1]
    threshold = honest[int(rate * len(honest))]
    return float((scores[fraud] > threshold).mean())


def pr_auc(scores, fraud):
    """Average precision."""
    order = numpy.argsort(-scores, kind="stable")
    found = numpy.cumsum(fraud[order])
    precision = found / numpy.arange(1, len(order) + 1)
    return float(precision[fraud[order]].mean())


def roc_auc(values, fraud):
    """Ties count half."""
    _, inverse, counts = numpy.unique(values, return_inverse=True, return_counts=True)
    ranks = (numpy.cumsum(counts) - (counts - 1) / 2)[inverse]
    frauds = int(fraud.sum())
    return float((ranks[fraud].sum() - frauds * (frauds + 1) / 2) / (frauds * (len(fraud) - frauds)))


def single_feature_auc(values, fraud):
    """The better direction, with missing values at the better end."""
    missing = numpy.isnan(values)
    filled = [roc_auc(numpy.where(missing, end, values), fraud) for end in (-numpy.inf, numpy.inf)]
    return max(max(auc, 1.0 - auc) for auc in filled)


def amount_only_recall(data, rate):
    return max(recall_at(data.amounts, data.fraud, rate), recall_at(-data.amounts, data.fraud, rate))


def data_report(data, ignored):
    """How hard the data is."""
    names = [feature["name"] for feature in data.schema["full"]["features"]]
    aucs = {name: single_feature_auc(data.features[:, column], data.fraud) for column, name in enumerate(names) if name not in ignored}
    best = max(aucs, key=aucs.get)
    return {
        "payments": len(data.fraud),
        "frauds": int(data.fraud.sum()),
        "fraud_types": {kind: int((data.fraud_type == number + 1).sum()) for number, kind in enumerate(data.schema["fraud_types"])},
        "best_single_feature": best,
        "best_single_feature_auc": aucs[best],
        "amount_only_recall": {str(rate): amount_only_recall(data, rate) for rate in FALSE_POSITIVE_RATES},
    }


def model_report(scores, data, band):
    """Ranking over all payments, and the verdicts at the thresholds inside the model's own band of amounts."""
    report = {"pr_auc": pr_auc(scores, data.fraud), "roc_auc": roc_auc(scores, data.fraud)}
    for rate in FALSE_POSITIVE_RATES:
        report[f"recall_at_{rate}"] = recall_at(scores, data.fraud, rate)
    inside = (data.amounts >= band[0]) & (data.amounts < band[1])
    for name, threshold in (("review", REVIEW), ("decline", DECLINE)):
        report[f"{name}_recall_in_band"] = float((scores[inside & data.fraud] >= threshold).mean())
        report[f"{name}_false_positive_rate_in_band"] = float((scores[inside & ~data.fraud] >= threshold).mean())
    return report


def recall_without_groups(score, rows, groups, data):
    """Recall at 0.5 % false positives when one feature group, or all of them, are missing."""
    report = {}
    for name, columns in [*groups.items(), ("all", sum(groups.values(), []))]:
        changed = rows.copy()
        changed[:, columns] = numpy.nan
        report[name] = recall_at(score(changed), data.fraud, 0.005)
    return report


def tiers_report(scores, data):
    """The verdicts of the example pipeline: which model scores which amount, at its thresholds."""
    light = (data.amounts >= NO_MODEL_BELOW) & (data.amounts < LIGHT_BELOW)
    full = data.amounts >= LIGHT_BELOW
    report = {}
    for name, threshold in (("review", REVIEW), ("decline", DECLINE)):
        flagged = (light & (scores["light"] >= threshold)) | (full & (scores["full"] >= threshold))
        rate = float(flagged[~data.fraud].mean())
        report[name] = {
            "recall": float(flagged[data.fraud].mean()),
            "false_positive_rate": rate,
            "amount_only_recall": amount_only_recall(data, rate),
            "recall_by_type": {kind: float(flagged[data.fraud_type == number + 1].mean()) for number, kind in enumerate(data.schema["fraud_types"])},
        }
    return report
