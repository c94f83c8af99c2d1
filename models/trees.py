"""LightGBM's trees as ONNX, such that every engine computes the same sums."""

from dataclasses import dataclass

import numpy

# Leaf weights are whole multiples of 2^-16 and their sums stay below 2^7: every partial sum fits the 24 bits of a float32, so
# it is exact in any order, in any engine, with any number of threads. The rounding changes log-odds by less than 0.001.
WEIGHT_STEP = 2.0**-16
SUM_MAX = 2.0**7


@dataclass(frozen=True)
class Ensemble:
    """Flat arrays over all nodes of all trees, in pre-order; a leaf has the feature -1 and its weight as value."""

    tree: numpy.ndarray
    node: numpy.ndarray
    feature: numpy.ndarray
    value: numpy.ndarray
    if_true: numpy.ndarray
    if_false: numpy.ndarray
    missing_is_true: numpy.ndarray
    base: float

    @staticmethod
    def of(booster):
        rows, base = [], 0.0
        for tree, info in enumerate(booster.dump_model()["tree_info"]):
            root = info["tree_structure"]
            if "split_feature" in root:
                add_node(rows, tree, root)
            else:
                base += root["leaf_value"]
        columns = [numpy.array(column) for column in zip(*rows)]
        return Ensemble(*columns, base)

    def scaled(self, factor, shift):
        """The same trees with log-odds `factor * x + shift`, rounded to exact steps."""
        value = numpy.where(self.feature < 0, rounded(self.value * factor), self.value)
        return Ensemble(self.tree, self.node, self.feature, value, self.if_true, self.if_false, self.missing_is_true,
                        float(rounded(self.base * factor + shift)))

    def log_odds(self, rows):
        """Plain and slow: the reference for what the engines compute."""
        total = numpy.full(len(rows), self.base)
        starts = numpy.flatnonzero(self.node == 0)
        for start in starts:
            at = numpy.full(len(rows), start)
            while True:
                inner = self.feature[at] >= 0
                if not inner.any():
                    break
                places = at[inner]
                values = rows[inner, self.feature[places]]
                goes_true = numpy.where(numpy.isnan(values), self.missing_is_true[places] == 1, values <= self.value[places].astype("f4"))
                at[inner] = start + numpy.where(goes_true, self.if_true[places], self.if_false[places])
            total += self.value[at]
        return total

    def onnx_attributes(self):
        leaf = self.feature < 0
        return {
            "n_targets": 1,
            "aggregate_function": "SUM",
            "post_transform": "NONE",
            "base_values": [self.base],
            "nodes_treeids": self.tree.tolist(),
            "nodes_nodeids": self.node.tolist(),
            "nodes_featureids": numpy.where(leaf, 0, self.feature).tolist(),
            "nodes_modes": ["LEAF" if is_leaf else "BRANCH_LEQ" for is_leaf in leaf],
            "nodes_values": numpy.where(leaf, 0.0, self.value).tolist(),
            "nodes_truenodeids": self.if_true.tolist(),
            "nodes_falsenodeids": self.if_false.tolist(),
            "nodes_missing_value_tracks_true": self.missing_is_true.tolist(),
            "target_treeids": self.tree[leaf].tolist(),
            "target_nodeids": self.node[leaf].tolist(),
            "target_ids": [0] * int(leaf.sum()),
            "target_weights": self.value[leaf].tolist(),
        }


def add_node(rows, tree, node):
    """Adds a subtree and gives its node id. A row: tree, node, feature, value, if_true, if_false, missing_is_true."""
    identity = rows[-1][1] + 1 if rows and rows[-1][0] == tree else 0
    place = len(rows)
    if "split_feature" not in node:
        rows.append((tree, identity, -1, node["leaf_value"], 0, 0, 0))
        return identity
    if node["decision_type"] != "<=":
        raise SystemExit(f"a tree decides by {node['decision_type']}, which is not exported: train without categorical features")
    rows.append(None)
    rows[place] = (tree, identity, node["split_feature"], rounded_down(node["threshold"]), 0, 0, int(missing_goes_true(node)))
    if_true = add_node(rows, tree, node["left_child"])
    if_false = add_node(rows, tree, node["right_child"])
    rows[place] = (*rows[place][:4], if_true, if_false, rows[place][6])
    return identity


def missing_goes_true(node):
    """LightGBM takes NaN for 0 where training saw none."""
    if node["missing_type"] == "NaN":
        return node["default_left"]
    if node["missing_type"] == "None":
        return 0.0 <= node["threshold"]
    raise SystemExit("a tree takes zero for missing, which is not exported: train with zero_as_missing=false")


def rounded_down(threshold):
    """For every float32 x: x <= threshold exactly when x <= the result."""
    with numpy.errstate(over="ignore"):
        nearest = numpy.float32(threshold)
    return float(numpy.nextafter(nearest, numpy.float32(-numpy.inf)) if float(nearest) > threshold else nearest)


def rounded(weights):
    return numpy.round(numpy.asarray(weights) / WEIGHT_STEP) * WEIGHT_STEP


def check_agreement(ensemble, rows, scores):
    """ONNX Runtime's scores against the plain reference."""
    log_odds = ensemble.log_odds(rows[:4096])
    if numpy.abs(log_odds).max() >= SUM_MAX:
        raise SystemExit("log-odds are too large for exact sums: use a smaller learning rate")
    difference = numpy.abs(1.0 / (1.0 + numpy.exp(-log_odds)) - scores[:4096]).max()
    if difference > 5e-7:
        raise SystemExit(f"ONNX Runtime differs from the trees by {difference}")
