//! Whether a live object already is what it should be, so that nothing is written when nothing differs. Pure.
//!
//! An object holds more than was applied: the API server's defaults, other owners' fields, entries that others added to
//! lists with names. So the question is whether everything that was asked for is there, in the live object's own
//! spelling. What was asked for earlier and is not any more cannot be seen this way; the digest of what was applied
//! last, an annotation, tells that.

use serde_json::Value;

/// Members that have one owner and no defaults: one entry more would change what they mean.
const WHOLE: &[&str] = &["selector", "matchLabels", "nodeSelector", "podSelector", "namespaceSelector", "ingress", "egress"];

/// Whether `live` has everything that `wanted` says.
pub(crate) fn covers(live: &Value, wanted: &Value) -> bool {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => wanted.iter().all(|(key, wanted)| match live.get(key) {
            Some(live) if WHOLE.contains(&key.as_str()) => live == wanted,
            Some(live) => covers(live, wanted),
            // The API server leaves out what is empty.
            None => is_empty(wanted),
        }),
        (Value::Array(wanted), Value::Array(live)) => covers_list(live, wanted),
        (Value::String(wanted), Value::String(live)) => wanted == live || same_quantity(wanted, live),
        (Value::Number(wanted), Value::Number(live)) => wanted == live || wanted.as_f64() == live.as_f64(),
        (wanted, live) => wanted == live,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(members) => members.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// Lists whose items have names are merged by name when they are applied; others are replaced as a whole.
fn covers_list(live: &[Value], wanted: &[Value]) -> bool {
    let name = |item: &Value| item.get("name").and_then(Value::as_str).map(str::to_owned);
    if !wanted.is_empty() && wanted.iter().all(|item| name(item).is_some()) {
        return wanted.iter().all(|wanted| live.iter().any(|live| name(live) == name(wanted) && covers(live, wanted)));
    }
    live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| covers(live, wanted))
}

/// The API server rewrites quantities: `1000m` is stored as `1`, `0.5Gi` as `512Mi`.
fn same_quantity(a: &str, b: &str) -> bool {
    match (quantity(a), quantity(b)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

/// A quantity in thousandths of a unit.
fn quantity(text: &str) -> Option<u128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let scale: u128 = match suffix {
        "m" => 1,
        "" => 1_000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "Ki" => 1_000 << 10,
        "Mi" => 1_000 << 20,
        "Gi" => 1_000 << 30,
        "Ti" => 1_000 << 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 9 {
        return None;
    }
    let divisor = fraction.bytes().fold(1_u128, |divisor, _| divisor * 10);
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    digits.checked_mul(scale)?.checked_div(divisor)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_and_foreign_fields_do_not_matter_and_changed_ones_do() {
        let wanted = json!({"spec": {"type": "NodePort", "selector": {"a": "b"}, "extra": {}}});
        assert!(covers(&json!({"spec": {"type": "NodePort", "selector": {"a": "b"}, "clusterIP": "1.2.3.4"}}), &wanted));
        assert!(!covers(&json!({"spec": {"type": "ClusterIP", "selector": {"a": "b"}}}), &wanted));
        assert!(!covers(&json!({"spec": {"selector": {"a": "b"}}}), &wanted));
    }

    #[test]
    fn an_entry_more_in_a_selector_is_drift() {
        let wanted = json!({"spec": {"selector": {"a": "b"}}, "metadata": {"labels": {"a": "b"}}});
        assert!(!covers(&json!({"spec": {"selector": {"a": "b", "x": "y"}}, "metadata": {"labels": {"a": "b"}}}), &wanted));
        assert!(covers(&json!({"spec": {"selector": {"a": "b"}}, "metadata": {"labels": {"a": "b", "x": "y"}}}), &wanted));
    }

    #[test]
    fn lists_with_names_are_compared_by_name_and_others_as_a_whole() {
        let wanted = json!({"containers": [{"name": "a", "image": "x"}]});
        assert!(covers(&json!({"containers": [{"name": "sidecar"}, {"name": "a", "image": "x", "imagePullPolicy": "Always"}]}), &wanted));
        assert!(!covers(&json!({"containers": [{"name": "a", "image": "y"}]}), &wanted));
        let plain = json!({"args": ["a", "b"]});
        assert!(!covers(&json!({"args": ["a", "b", "c"]}), &plain));
        assert!(!covers(&json!({"args": ["b", "a"]}), &plain));
        let rules = json!({"ports": [{"protocol": "TCP", "port": 1}]});
        assert!(covers(&json!({"ports": [{"protocol": "TCP", "port": 1, "endPort": 2}]}), &rules));
        assert!(!covers(&json!({"ports": [{"protocol": "TCP", "port": 1}, {"protocol": "TCP", "port": 2}]}), &rules));
    }

    #[test]
    fn quantities_are_compared_by_what_they_say() {
        for (a, b) in [("1000m", "1"), ("0.5Gi", "512Mi"), ("1Gi", "1024Mi"), ("1.5", "1500m")] {
            assert!(covers(&json!(a), &json!(b)), "{a} {b}");
        }
        for (a, b) in [("1", "2"), ("1Mi", "1M"), ("a", "b"), ("1.", "x")] {
            assert!(!covers(&json!(a), &json!(b)), "{a} {b}");
        }
    }
}
