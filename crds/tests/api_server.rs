//! The definitions on a real API server: what is refused, with which sentence, and what is accepted.
//!
//! `cargo test -p crds --features api-server --test api_server`, with FRAUDPIPELINE_KUBEBOX set to the binary that
//! `cargo xtask tools kubebox` builds.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use support::{Expected, cluster::cluster, expected, plain, repository, yaml_files};

#[test]
fn every_definition_is_established_without_a_complaint() {
    let cluster = cluster();
    for file in yaml_files(&repository().join("crds/yaml")) {
        let name = format!("crd/{}.fraudpipeline.dev", file.file_stem().unwrap().to_str().unwrap());
        let conditions = cluster.must(&["get", &name, "-o", "jsonpath={range .status.conditions[*]}{.type}={.status} {end}"]);
        assert!(conditions.contains("Established=True") && !conditions.contains("NonStructuralSchema=True"), "{name}: {conditions}");
        let again = cluster.send("replace", &fs::read_to_string(&file).unwrap(), &["--dry-run=server"]);
        assert!(again.accepted && !again.text.contains("Warning"), "{name}: {}", again.text);
    }
}

#[test]
fn every_bad_manifest_is_refused_with_a_sentence_that_says_what_to_write() {
    let cluster = cluster();
    let files = yaml_files(&repository().join("crds/tests/bad"));
    assert!(files.len() >= 45, "only {} bad manifests", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let Expected::Refused(sentence) = expected(&text) else { panic!("{}: says accepted", file.display()) };
        let answer = cluster.send("create", &text, &["--dry-run=server"]);
        if answer.accepted || !plain(&answer.text).contains(&sentence) {
            wrong.push(format!("{}\n  expected: {sentence}\n  answered: {}", file.display(), plain(&answer.text)));
        }
    }
    assert!(wrong.is_empty(), "{} of the bad manifests:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_change_is_judged_against_what_is_stored() {
    let cluster = cluster();
    let mut wrong = Vec::new();
    for file in yaml_files(&repository().join("crds/tests/transitions")) {
        let text = fs::read_to_string(&file).unwrap();
        let (before, after) = text.split_once("\n---\n").unwrap_or_else(|| panic!("{}: two documents are needed", file.display()));
        let stored = cluster.send("create", before, &[]);
        assert!(stored.accepted, "{}: the first document must be accepted: {}", file.display(), stored.text);
        let answer = cluster.send("replace", after, &["--dry-run=server"]);
        let right = match expected(&text) {
            Expected::Refused(sentence) => !answer.accepted && plain(&answer.text).contains(&sentence),
            Expected::Accepted => answer.accepted,
        };
        if !right {
            wrong.push(format!("{}\n  answered: {}", file.display(), plain(&answer.text)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_example_is_accepted_and_defaults_become_visible() {
    let cluster = cluster();
    for file in yaml_files(&repository().join("examples")) {
        let answer = cluster.send("create", &fs::read_to_string(&file).unwrap(), &[]);
        assert!(answer.accepted && !answer.text.contains("Warning"), "{}: {}", file.display(), answer.text);
    }
    let stored = cluster.must(&["get", "fraudpipeline", "payments", "-o", "jsonpath={.spec.failover}{.spec.scoring.breakers.inference}"]);
    for default in [r#""cooldown":"10m""#, r#""observersMin":2"#, r#""onIsolation":"Degrade""#, r#""open":"30s""#] {
        assert!(stored.contains(default), "{default} is not in {stored}");
    }
    let listed = cluster.must(&["get", "fraud"]);
    assert!(listed.contains("payments-to-eu-west") && listed.contains("quarterly-region-loss"), "{listed}");
    let columns = listed.lines().find(|line| line.contains("FAILOVER-READY")).unwrap_or_default();
    let columns: Vec<_> = columns.split_whitespace().collect();
    assert_eq!(columns, ["NAME", "ACTIVE", "EPOCH", "PHASE", "FEATURES", "MODEL", "FAILOVER-READY", "READY", "AGE"]);
}

#[test]
fn kubectl_explain_tells_meaning_unit_and_default() {
    let cluster = cluster();
    let failover = plain(&cluster.must(&["explain", "fraudpipeline.spec.failover"]));
    for text in ["When another region takes over", "from 1s to 60s", "Default 3s.", "enum: Automatic, Manual", "Default Manual."] {
        assert!(failover.contains(text), "{text:?} is not in {failover}");
    }
    let shards = plain(&cluster.must(&["explain", "fp.spec.features.shards"]));
    assert!(shards.contains("It cannot be changed later."), "{shards}");
}
