//! What an expression may contain. Pure.
//!
//! Expressions run in the decision path without a cost meter, so that their cost has to be bounded by their form: only
//! these functions (none that compiles a pattern or parses a time), few nodes, no loop inside a loop.

use cel::{
    IdedExpr, Program,
    common::ast::{Expr, operators as op},
};

use super::facts::{FEATURES, FeatureNames, VARIABLES};

const EXPRESSION_LENGTH_MAX: usize = 1_000;
const NODES_MAX: usize = 200;
/// Deeper brackets than this are no rule that somebody maintains, and the parser recurses on them.
const BRACKETS_MAX: usize = 16;

const FUNCTIONS: &[&str] = &["size", "contains", "startsWith", "endsWith", "double", "int", "string"];

const OPERATORS: &[&str] = &[
    op::CONDITIONAL,
    op::LOGICAL_AND,
    op::LOGICAL_OR,
    op::LOGICAL_NOT,
    op::SUBSTRACT,
    op::ADD,
    op::MULTIPLY,
    op::DIVIDE,
    op::MODULO,
    op::EQUALS,
    op::NOT_EQUALS,
    op::GREATER_EQUALS,
    op::LESS_EQUALS,
    op::GREATER,
    op::LESS,
    op::NEGATE,
    op::IN,
    op::NOT_STRICTLY_FALSE,
];

/// Compiles `source` if it is a rule that may run; otherwise says what is wrong with it.
pub(super) fn compile(source: &str, features: &FeatureNames, score_is_known: bool) -> Result<Program, String> {
    if source.len() > EXPRESSION_LENGTH_MAX {
        return Err(format!("has {} bytes, at most {EXPRESSION_LENGTH_MAX} are allowed: split it into several rules", source.len()));
    }
    if bracket_depth(source) > BRACKETS_MAX {
        return Err(format!("brackets are nested deeper than {BRACKETS_MAX}: split it into several rules"));
    }
    let program = Program::compile(source).map_err(|errors| format!("does not parse: {}", first_line(&errors.to_string())))?;
    let mut walk = Walk { features, score_is_known, nodes: 0, loops: 0, locals: Vec::new() };
    walk.expression(program.expression())?;
    Ok(program)
}

fn bracket_depth(source: &str) -> usize {
    let mut depth = 0_usize;
    let mut deepest = 0;
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}

struct Walk<'a> {
    features: &'a FeatureNames,
    score_is_known: bool,
    nodes: usize,
    loops: usize,
    /// Names that loops have bound.
    locals: Vec<&'a str>,
}

impl<'a> Walk<'a> {
    fn expression(&mut self, node: &'a IdedExpr) -> Result<(), String> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(format!("has more than {NODES_MAX} parts: split it into several rules"));
        }
        match &node.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) if select.test => {
                Err("has() is not needed: say with onMissing what happens when something is not known".into())
            }
            Expr::Select(select) => match &select.operand.expr {
                Expr::Ident(start) if start == FEATURES => self.feature(&select.field),
                _ => Err(format!(
                    "{:?} is a field of nothing: only features have names with a dot, such as features.x",
                    bounded(&select.field)
                )),
            },
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.expression(element)),
            Expr::Call(call) => {
                if !OPERATORS.contains(&call.func_name.as_str()) && !FUNCTIONS.contains(&call.func_name.as_str()) {
                    return Err(format!(
                        "function {:?} is not available: use operators, in, and {}",
                        bounded(&call.func_name),
                        FUNCTIONS.join(", ")
                    ));
                }
                call.target.iter().try_for_each(|target| self.expression(target))?;
                call.args.iter().try_for_each(|argument| self.expression(argument))
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => Err("maps and structures are not available: use lists and in".into()),
        }
    }

    fn comprehension(&mut self, inner: &'a cel::common::ast::ComprehensionExpr) -> Result<(), String> {
        if self.loops > 0 {
            return Err("has a loop (all, exists, map, filter) inside a loop: its time would not be bounded; use in".into());
        }
        self.expression(&inner.iter_range)?;
        let bound = self.locals.len();
        self.locals.push(&inner.iter_var);
        self.locals.extend(inner.iter_var2.as_deref());
        self.locals.push(&inner.accu_var);
        self.loops += 1;
        for part in [&inner.accu_init, &inner.loop_cond, &inner.loop_step, &inner.result] {
            self.expression(part)?;
        }
        self.loops -= 1;
        self.locals.truncate(bound);
        Ok(())
    }

    fn variable(&self, name: &str) -> Result<(), String> {
        if self.locals.contains(&name) {
            return Ok(());
        }
        if name == "score" && !self.score_is_known {
            return Err("score is not known in phase before: use phase after".into());
        }
        if VARIABLES.contains(&name) {
            return Ok(());
        }
        Err(format!("variable {:?} is not known: use {} or features.<name>", bounded(name), VARIABLES.join(", ")))
    }

    fn feature(&self, name: &str) -> Result<(), String> {
        match self.features.position(name) {
            Some(_) => Ok(()),
            None => {
                Err(format!("feature {:?} is not in the feature schema: see the list under /features of the admin port", bounded(name)))
            }
        }
    }
}

fn bounded(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(source: &str) -> String {
        let features = FeatureNames::new(["card_count_1m"]);
        compile(source, &features, false).err().unwrap_or_else(|| panic!("{source} was accepted"))
    }

    #[test]
    fn useful_expressions_are_accepted() {
        let features = FeatureNames::new(["card_count_1m"]);
        for source in [
            "amount > 100.0 && card_country in ['RU', 'NG']",
            "features.card_count_1m >= 5.0",
            "!(ip_country == '' || ip_country == card_country)",
            "['a.example', 'b.example'].exists(d, email_domain.endsWith(d))",
            "merchant_category == 7995 ? amount > 50.0 : amount > 500.0",
            "score > 0.3",
        ] {
            compile(source, &features, true).unwrap_or_else(|error| panic!("{source}: {error}"));
        }
    }

    #[test]
    fn each_refusal_says_what_is_wrong() {
        for (source, sentence) in [
            ("amount >", "does not parse"),
            ("amonut > 1.0", "variable \"amonut\" is not known"),
            ("features.card_cuont > 1.0", "feature \"card_cuont\" is not in the feature schema"),
            ("score > 0.5", "score is not known in phase before"),
            ("currency.matches('(a+)+')", "function \"matches\" is not available"),
            ("has(features.card_count_1m)", "has() is not needed"),
            ("[1, 2].all(x, [3].all(y, x < y))", "a loop (all, exists, map, filter) inside a loop"),
            ("{'a': 1} == {'a': 1}", "maps and structures"),
            ("card_country.size.x == 1", "field of nothing"),
        ] {
            let error = refusal(source);
            assert!(error.contains(sentence), "{source}: {error}");
        }
    }

    #[test]
    fn deep_and_long_expressions_never_reach_the_parser() {
        assert!(refusal(&"(".repeat(900)).contains("nested"));
        assert!(refusal(&format!("{}amount > 1.0", " ".repeat(2_000))).contains("bytes"));
        assert!(refusal(&format!("amount > {}1.0", "1.0+".repeat(150))).contains("parts"));
        // Recursion without brackets is bounded by the length, and by the parser itself.
        let chain = format!("{}true", "true ? true : ".repeat(70));
        let _ = compile(&chain, &FeatureNames::default(), true);
        let _ = compile(&format!("{}true", "!".repeat(900)), &FeatureNames::default(), true);
    }
}
