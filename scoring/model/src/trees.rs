//! The native evaluator: gradient-boosted trees in one flat array. No IO.
//!
//! Scores as ONNX Runtime does: comparisons in f32 (`value <= threshold`), NaN goes where the node says, leaf weights are summed
//! in f32 in the order of the trees, then an optional sigmoid. models/train.py rounds leaf weights so that the sums are exact in
//! f32 whatever their order; [`crate::ModelPackage::verify_golden`] is what proves agreement at every load.

use std::collections::BTreeMap;

use crate::onnx::{Graph, Node as OnnxNode};
use crate::{INPUT_NAME, ModelError, OUTPUT_NAME};

const NODES_MAX: usize = 8 << 20;
/// In `Node::column`: this node is a leaf.
const LEAF: u16 = u16::MAX;
/// In `Node::column`: NaN goes to the `true` side.
const MISSING_IS_TRUE: u16 = 1 << 15;

/// 12 bytes. The node for `true` is always the next one, so only the other is named.
#[derive(Debug, Clone, Copy)]
struct Node {
    /// Of a leaf: its weight.
    threshold: f32,
    if_false: u32,
    /// The feature's column, with [`MISSING_IS_TRUE`]; or [`LEAF`].
    column: u16,
}

/// A tree ensemble with one output.
#[derive(Debug, Clone)]
pub struct TreeEnsemble {
    nodes: Vec<Node>,
    roots: Vec<u32>,
    base: f32,
    sigmoid: bool,
    features: usize,
}

impl TreeEnsemble {
    /// How many features a row has.
    pub fn features(&self) -> usize {
        self.features
    }

    pub fn trees(&self) -> usize {
        self.roots.len()
    }

    /// The score of one row. Missing features are NaN; columns beyond a short row count as missing.
    pub fn score(&self, row: &[f32]) -> f32 {
        let sum = self.roots.iter().fold(0.0f32, |sum, &root| sum + self.leaf_weight(root, row)) + self.base;
        if self.sigmoid { logistic(sum) } else { sum }
    }

    /// The scores of row-major `rows`, in their order.
    pub fn score_batch(&self, rows: &[f32]) -> Result<Vec<f32>, ModelError> {
        if !rows.len().is_multiple_of(self.features) {
            return Err(ModelError::BadShape { values: rows.len(), features: self.features });
        }
        Ok(rows.chunks_exact(self.features).map(|row| self.score(row)).collect())
    }

    fn leaf_weight(&self, root: u32, row: &[f32]) -> f32 {
        let mut index = root as usize;
        // Ends: `place` writes every node once and children after their parent, so the index only grows.
        while let Some(node) = self.nodes.get(index) {
            if node.column == LEAF {
                return node.threshold;
            }
            let value = row.get(usize::from(node.column & !MISSING_IS_TRUE)).copied().unwrap_or(f32::NAN);
            let goes_true = if value.is_nan() { node.column & MISSING_IS_TRUE != 0 } else { value <= node.threshold };
            index = if goes_true { index + 1 } else { node.if_false as usize };
        }
        0.0
    }

    pub(crate) fn from_graph(graph: &Graph, features: usize) -> Result<Self, ModelError> {
        let (trees, sigmoid) = recognise(graph)?;
        if features >= usize::from(MISSING_IS_TRUE) {
            return Err(unknown(format!("it has {features} features")));
        }
        let source = SourceTrees::read(trees, features)?;
        let mut ensemble =
            Self { nodes: Vec::with_capacity(source.columns.len()), roots: Vec::new(), base: source.base, sigmoid, features };
        let mut placed = vec![false; source.columns.len()];
        for &root in &source.roots {
            ensemble.roots.push(index_u32(ensemble.nodes.len())?);
            ensemble.place(&source, root, &mut placed)?;
        }
        match placed.iter().filter(|placed| !**placed).count() {
            0 => Ok(ensemble),
            left => Err(broken(format!("{left} nodes cannot be reached from a root"))),
        }
    }

    /// Copies one tree in pre-order, `true` side first; `already` says which nodes of the source have been copied.
    fn place(&mut self, source: &SourceTrees<'_>, root: usize, already: &mut [bool]) -> Result<(), ModelError> {
        // Source node, and the placed parent whose `if_false` it is.
        let mut pending: Vec<(usize, Option<usize>)> = vec![(root, None)];
        while let Some((index, parent)) = pending.pop() {
            if std::mem::replace(&mut already[index], true) {
                return Err(broken("a node has two parents".into()));
            }
            let placed = self.nodes.len();
            if let Some(parent) = parent.and_then(|parent| self.nodes.get_mut(parent)) {
                parent.if_false = index_u32(placed)?;
            }
            match source.branches[index] {
                None => self.nodes.push(Node { threshold: source.weights[index], if_false: 0, column: LEAF }),
                Some((if_true, if_false)) => {
                    self.nodes.push(Node { threshold: source.thresholds[index], if_false: 0, column: source.columns[index] });
                    pending.push((if_false, Some(placed)));
                    pending.push((if_true, None));
                }
            }
        }
        Ok(())
    }
}

fn logistic(sum: f32) -> f32 {
    // In f64, so that the last step adds no error of its own.
    #[allow(clippy::cast_possible_truncation)]
    let probability = (1.0 / (1.0 + (-f64::from(sum)).exp())) as f32;
    probability
}

/// The graphs that models/train.py writes: `TreeEnsembleRegressor`, then perhaps `Sigmoid`.
fn recognise(graph: &Graph) -> Result<(&OnnxNode, bool), ModelError> {
    let (trees, sigmoid) = match graph.nodes.as_slice() {
        [trees] => (trees, None),
        [trees, sigmoid] => (trees, Some(sigmoid)),
        nodes => return Err(unknown(format!("it has {} nodes", nodes.len()))),
    };
    if trees.operator != "TreeEnsembleRegressor" || trees.domain != "ai.onnx.ml" {
        return Err(unknown(format!("its first node is `{}`, not `TreeEnsembleRegressor` of ai.onnx.ml", trees.operator)));
    }
    if sigmoid.is_some_and(|node| node.operator != "Sigmoid" || !node.domain.is_empty() || node.inputs != trees.outputs) {
        return Err(unknown("its second node is not `Sigmoid` of the first one's output".into()));
    }
    let last = sigmoid.unwrap_or(trees);
    if trees.inputs != [INPUT_NAME] || last.outputs != [OUTPUT_NAME] {
        return Err(unknown(format!("its nodes do not lead from `{INPUT_NAME}` to `{OUTPUT_NAME}`")));
    }
    Ok((trees, sigmoid.is_some()))
}

/// The node's attributes, checked and turned from ids into indices.
struct SourceTrees<'a> {
    columns: Vec<u16>,
    thresholds: &'a [f32],
    /// Indices of the children for `true` and `false`; `None` is a leaf.
    branches: Vec<Option<(usize, usize)>>,
    weights: Vec<f32>,
    roots: Vec<usize>,
    base: f32,
}

impl<'a> SourceTrees<'a> {
    fn read(node: &'a OnnxNode, features: usize) -> Result<Self, ModelError> {
        check_options(node)?;
        let tree_ids = node.ints("nodes_treeids");
        let count = tree_ids.len();
        if count == 0 || count > NODES_MAX {
            return Err(broken(format!("there are {count} nodes, 1 to {NODES_MAX} are allowed")));
        }
        let node_ids = same_length("nodes_nodeids", node.ints("nodes_nodeids"), count)?;
        let index_of = index_by_id(tree_ids, node_ids)?;
        let thresholds = same_length("nodes_values", node.floats("nodes_values"), count)?;
        if let Some(index) = thresholds.iter().position(|threshold| !threshold.is_finite()) {
            return Err(broken(format!("the threshold of node {index} is not a finite number")));
        }
        let branches = read_branches(node, tree_ids, &index_of)?;
        let columns = read_columns(node, &branches, features)?;
        let weights = read_weights(node, &branches, &index_of)?;
        let base = match node.floats("base_values") {
            [] => 0.0,
            [base] if base.is_finite() => *base,
            _ => return Err(broken("`base_values` is not one finite number".into())),
        };
        Ok(Self { columns, thresholds, roots: roots(tree_ids), branches, weights, base })
    }
}

/// Options that would change the meaning of the sum.
fn check_options(node: &OnnxNode) -> Result<(), ModelError> {
    for (name, allowed) in [("aggregate_function", "SUM"), ("post_transform", "NONE")] {
        let given = node.attribute(name).map_or(allowed.as_bytes(), |attribute| &attribute.string);
        if given != allowed.as_bytes() {
            return Err(unknown(format!("`{name}` is {}, not {allowed}", String::from_utf8_lossy(given))));
        }
    }
    match node.attribute("n_targets").map(|attribute| attribute.int) {
        Some(1) => Ok(()),
        other => Err(unknown(format!("`n_targets` is {other:?}, not 1"))),
    }
}

type IndexById = BTreeMap<(i64, i64), usize>;

fn index_by_id(tree_ids: &[i64], node_ids: &[i64]) -> Result<IndexById, ModelError> {
    let mut index_of = BTreeMap::new();
    for (index, (&tree, &id)) in tree_ids.iter().zip(node_ids).enumerate() {
        if index_of.insert((tree, id), index).is_some() {
            return Err(broken(format!("tree {tree} has two nodes with the id {id}")));
        }
    }
    Ok(index_of)
}

/// As in ONNX Runtime, a tree's root is its first node.
fn roots(tree_ids: &[i64]) -> Vec<usize> {
    let first_of_tree = |index: usize| index == 0 || tree_ids[index] != tree_ids[index - 1];
    (0..tree_ids.len()).filter(|&index| first_of_tree(index)).collect()
}

fn read_branches(node: &OnnxNode, tree_ids: &[i64], index_of: &IndexById) -> Result<Vec<Option<(usize, usize)>>, ModelError> {
    let count = tree_ids.len();
    let if_true = same_length("nodes_truenodeids", node.ints("nodes_truenodeids"), count)?;
    let if_false = same_length("nodes_falsenodeids", node.ints("nodes_falsenodeids"), count)?;
    let modes = node.attribute("nodes_modes").map_or(&[][..], |attribute| &attribute.strings);
    let modes = same_length("nodes_modes", modes, count)?;
    let child = |tree: i64, id: i64| index_of.get(&(tree, id)).copied().ok_or_else(|| broken(format!("tree {tree} has no node {id}")));
    let branch = |index: usize| match modes[index].as_slice() {
        b"LEAF" => Ok(None),
        b"BRANCH_LEQ" => Ok(Some((child(tree_ids[index], if_true[index])?, child(tree_ids[index], if_false[index])?))),
        mode => Err(unknown(format!("node {index} has the mode {}, not BRANCH_LEQ or LEAF", String::from_utf8_lossy(mode)))),
    };
    (0..count).map(branch).collect()
}

fn read_columns(node: &OnnxNode, branches: &[Option<(usize, usize)>], features: usize) -> Result<Vec<u16>, ModelError> {
    let ids = same_length("nodes_featureids", node.ints("nodes_featureids"), branches.len())?;
    let missing = node.ints("nodes_missing_value_tracks_true");
    // Optional in ONNX: without it, NaN goes to the `false` side.
    let missing = if missing.is_empty() { None } else { Some(same_length("nodes_missing_value_tracks_true", missing, branches.len())?) };
    let column = |index: usize| {
        if branches[index].is_none() {
            return Ok(LEAF);
        }
        let column = u16::try_from(ids[index]).ok().filter(|&column| usize::from(column) < features);
        let column = column.ok_or_else(|| broken(format!("node {index} asks for feature {}, there are {features}", ids[index])))?;
        let missing_is_true = missing.is_some_and(|missing| missing[index] == 1);
        Ok(if missing_is_true { column | MISSING_IS_TRUE } else { column })
    };
    (0..branches.len()).map(column).collect()
}

fn read_weights(node: &OnnxNode, branches: &[Option<(usize, usize)>], index_of: &IndexById) -> Result<Vec<f32>, ModelError> {
    let trees = node.ints("target_treeids");
    let nodes = same_length("target_nodeids", node.ints("target_nodeids"), trees.len())?;
    let targets = same_length("target_ids", node.ints("target_ids"), trees.len())?;
    let values = same_length("target_weights", node.floats("target_weights"), trees.len())?;
    let mut weights = vec![0.0f32; branches.len()];
    for (((&tree, &id), &target), &value) in trees.iter().zip(nodes).zip(targets).zip(values) {
        let index = index_of.get(&(tree, id)).copied().filter(|&index| branches[index].is_none());
        let index = index.ok_or_else(|| broken(format!("a weight belongs to node {id} of tree {tree}, which is not a leaf")))?;
        if target != 0 || !value.is_finite() {
            return Err(broken(format!("the weight of node {id} of tree {tree} is not a finite number for output 0")));
        }
        weights[index] += value;
    }
    Ok(weights)
}

fn same_length<'a, T>(name: &str, values: &'a [T], count: usize) -> Result<&'a [T], ModelError> {
    if values.len() == count {
        return Ok(values);
    }
    Err(broken(format!("`{name}` has {} entries instead of {count}", values.len())))
}

fn index_u32(index: usize) -> Result<u32, ModelError> {
    u32::try_from(index).map_err(|_| broken("there are too many nodes".into()))
}

fn broken(why: String) -> ModelError {
    ModelError::BrokenTrees { why }
}

fn unknown(why: String) -> ModelError {
    ModelError::NotATreeEnsemble { why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::Attribute;

    fn ints(name: &str, ints: &[i64]) -> Attribute {
        Attribute { name: name.into(), ints: ints.to_vec(), ..Default::default() }
    }

    fn floats(name: &str, floats: &[f32]) -> Attribute {
        Attribute { name: name.into(), floats: floats.to_vec(), ..Default::default() }
    }

    /// One tree: `feature 1 <= 2.5` gives 0.25, else -0.5; missing goes to the first. Base 1.
    fn stump() -> OnnxNode {
        let modes = ["BRANCH_LEQ", "LEAF", "LEAF"].map(|mode| mode.as_bytes().to_vec()).to_vec();
        OnnxNode {
            inputs: vec![INPUT_NAME.into()],
            outputs: vec![OUTPUT_NAME.into()],
            operator: "TreeEnsembleRegressor".into(),
            domain: "ai.onnx.ml".into(),
            attributes: vec![
                Attribute { name: "n_targets".into(), int: 1, ..Default::default() },
                Attribute { name: "nodes_modes".into(), strings: modes, ..Default::default() },
                floats("base_values", &[1.0]),
                ints("nodes_treeids", &[0, 0, 0]),
                ints("nodes_nodeids", &[0, 1, 2]),
                ints("nodes_featureids", &[1, 0, 0]),
                floats("nodes_values", &[2.5, 0.0, 0.0]),
                ints("nodes_truenodeids", &[1, 0, 0]),
                ints("nodes_falsenodeids", &[2, 0, 0]),
                ints("nodes_missing_value_tracks_true", &[1, 0, 0]),
                ints("target_treeids", &[0, 0]),
                ints("target_nodeids", &[1, 2]),
                ints("target_ids", &[0, 0]),
                floats("target_weights", &[0.25, -0.5]),
            ],
        }
    }

    fn with(replaced: Attribute) -> Result<TreeEnsemble, ModelError> {
        let mut node = stump();
        node.attributes.retain(|attribute| attribute.name != replaced.name);
        node.attributes.push(replaced);
        TreeEnsemble::from_graph(&Graph { nodes: vec![node], ..Default::default() }, 2)
    }

    #[test]
    fn a_value_on_the_threshold_goes_to_the_true_side_and_nan_where_the_node_says() {
        let trees = with(floats("base_values", &[1.0])).unwrap();
        for (value, score) in [(2.5, 1.25), (2.500_000_2, 0.5), (f32::NEG_INFINITY, 1.25), (f32::INFINITY, 0.5), (f32::NAN, 1.25)] {
            assert_eq!(trees.score(&[9.0, value]), score, "{value}");
        }
        let missing_is_false = with(ints("nodes_missing_value_tracks_true", &[0, 0, 0])).unwrap();
        assert_eq!(missing_is_false.score(&[9.0, f32::NAN]), 0.5);
    }

    #[test]
    fn broken_trees_are_refused_and_never_walked() {
        for (broken, expected) in [
            (ints("nodes_truenodeids", &[0, 0, 0]), "two parents"),
            (ints("nodes_falsenodeids", &[1, 0, 0]), "two parents"),
            (ints("nodes_truenodeids", &[7, 0, 0]), "has no node 7"),
            (ints("nodes_nodeids", &[0, 1, 1]), "two nodes with the id 1"),
            (ints("nodes_treeids", &[0, 0, 1]), "has no node 2"),
            (ints("nodes_featureids", &[2, 0, 0]), "asks for feature 2"),
            (ints("nodes_featureids", &[1]), "has 1 entries instead of 3"),
            (floats("nodes_values", &[f32::NAN, 0.0, 0.0]), "threshold of node 0"),
            (floats("target_weights", &[f32::INFINITY, 0.0]), "is not a finite number"),
            (ints("target_nodeids", &[0, 2]), "is not a leaf"),
            (ints("nodes_treeids", &[]), "there are 0 nodes"),
        ] {
            let name = broken.name.clone();
            let error = with(broken).unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }
    }

    #[test]
    fn graphs_of_other_kinds_are_left_to_onnx_runtime() {
        let text = |name: &str, value: &str| Attribute { name: name.into(), string: value.into(), ..Default::default() };
        let graph_of = |operator: &str| Graph { nodes: vec![OnnxNode { operator: operator.into(), ..stump() }], ..Default::default() };
        let errors = [
            with(text("aggregate_function", "AVERAGE")).unwrap_err(),
            with(text("post_transform", "PROBIT")).unwrap_err(),
            TreeEnsemble::from_graph(&graph_of("MatMul"), 2).unwrap_err(),
            TreeEnsemble::from_graph(&Graph::default(), 2).unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error, ModelError::NotATreeEnsemble { .. }) && error.to_string().contains("inference service"), "{error}");
        }
    }
}
