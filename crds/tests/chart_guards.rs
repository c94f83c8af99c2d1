//! The chart on a real API server: what its guards refuse, and what its roles allow.
//!
//! `cargo test -p crds --features api-server,helm --test chart_guards`.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use support::{
    cluster::{Answer, Cluster, cluster},
    helm::{NAMESPACE, template},
    plain, repository,
};

const OPERATOR: &str = "--as=system:serviceaccount:fraudpipeline-system:fraudpipeline-operator";

/// The chart and the example pipeline, once for all tests of this target.
fn installed() -> std::sync::Arc<Cluster> {
    let cluster = cluster();
    static INSTALL: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one_at_a_time = INSTALL.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if cluster.kubectl(&["get", "namespace", NAMESPACE]).accepted {
        return cluster;
    }
    for namespace in [NAMESPACE, "elsewhere"] {
        cluster.must(&["create", "namespace", namespace]);
    }
    cluster.must(&["label", "namespace", NAMESPACE, "pod-security.kubernetes.io/warn=restricted"]);
    let manifests = template(&["--set", "region=us-east", "--set", "crds.install=false"]).unwrap();
    let answer = cluster.send("create", &manifests, &[]);
    assert!(answer.accepted, "{}", answer.text);
    assert!(!answer.text.contains("Warning"), "the API server warns, for instance of pods that are not restricted: {}", answer.text);
    let example = cluster.send("create", &fs::read_to_string(repository().join("examples/payments.yaml")).unwrap(), &[]);
    assert!(example.accepted, "{}", example.text);
    cluster
}

/// Repeats until the answer holds: the API server takes up new policies and their parameters after a moment.
fn eventually(what: &str, ask: impl Fn() -> Answer, holds: impl Fn(&Answer) -> bool) {
    let began = Instant::now();
    loop {
        let answer = ask();
        if holds(&answer) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{what}: {}", answer.text);
        thread::sleep(Duration::from_millis(200));
    }
}

fn refused_with(sentence: &str) -> impl Fn(&Answer) -> bool + '_ {
    move |answer| !answer.accepted && plain(&answer.text).contains(sentence)
}

const PLAN: &str = "apiVersion: fraudpipeline.dev/v1alpha1\nkind: RegionPlan\nmetadata: {name: guarded, namespace: fraud}\nspec: {voters: {generation: 1}}\n";

#[test]
fn only_the_operator_writes_a_region_plan() {
    let cluster = installed();
    let sentence = "a RegionPlan is written by the operator only";
    eventually("an administrator", || cluster.send("create", PLAN, &["--dry-run=server"]), refused_with(sentence));
    let written = cluster.send("create", PLAN, &[OPERATOR]);
    assert!(written.accepted, "{}", written.text);
    let deleted = cluster.kubectl(&["delete", "regionplan", "guarded"]);
    assert!(refused_with(sentence)(&deleted), "{}", deleted.text);
    cluster.must(&["delete", "regionplan", "guarded", OPERATOR]);
}

#[test]
fn a_namespace_stays_while_it_holds_a_pipeline() {
    let cluster = installed();
    let delete = |namespace: &str| cluster.kubectl(&["delete", "namespace", namespace, "--dry-run=server"]);
    let sentence = "namespace fraud holds the FraudPipeline payments: delete the pipeline first, then the namespace";
    eventually("the namespace of the pipeline", || delete("fraud"), refused_with(sentence));
    let other = delete("elsewhere");
    assert!(other.accepted, "a namespace that is not watched: {}", other.text);
}

#[test]
fn a_model_role_cannot_hold_failover_and_an_sre_can() {
    let cluster = installed();
    // Nobody aggregates ClusterRoles here, so people are bound to the parts that the aggregated roles are made of.
    for role in ["fraud-model", "fraud-sre"] {
        let (part, user) = (format!("--clusterrole={role}-verbs"), format!("--user={role}"));
        cluster.must(&["create", "rolebinding", role, &part, &user]);
    }
    let action = |name: &str, spec: &str| {
        format!(
            "apiVersion: fraudpipeline.dev/v1alpha1\nkind: PipelineAction\nmetadata: {{name: {name}, namespace: fraud}}\nspec: {{pipelineRef: {{name: payments}}, {spec}}}\n"
        )
    };
    let hold = action("hold", "type: HoldFailover, holdFailover: {until: \"2026-11-27T06:00:00Z\"}");
    let pause = action("pause", "type: ModelPause");
    let send = |manifest: &str, user: &str| cluster.send("create", manifest, &["--dry-run=server", user]);
    eventually("fraud-model", || send(&hold, "--as=fraud-model"), refused_with("so they need the role fraud-sre"));
    for (manifest, user) in [(&pause, "--as=fraud-model"), (&hold, "--as=fraud-sre"), (&pause, "--as=fraud-sre")] {
        let answer = send(manifest, user);
        assert!(answer.accepted, "{user}: {}", answer.text);
    }
}

#[test]
fn the_operator_has_rights_in_watched_namespaces_and_none_elsewhere() {
    let cluster = installed();
    let may =
        |verb: &str, what: &str, namespace: &str| cluster.kubectl(&["auth", "can-i", verb, what, "-n", namespace, OPERATOR, "-q"]).accepted;
    for (verb, what) in
        [("create", "statefulsets.apps"), ("patch", "fraudpipelines.fraudpipeline.dev"), ("get", "secrets"), ("delete", "services")]
    {
        assert!(may(verb, what, "fraud"), "{verb} {what} in fraud");
        assert!(!may(verb, what, "elsewhere"), "{verb} {what} elsewhere");
    }
    for (verb, what) in [
        ("create", "secrets"),
        ("create", "pods"),
        ("create", "pods/exec"),
        ("create", "roles.rbac.authorization.k8s.io"),
        ("delete", "fraudpipelines.fraudpipeline.dev"),
    ] {
        assert!(!may(verb, what, "fraud"), "{verb} {what} in fraud");
    }
    assert!(may("create", "leases.coordination.k8s.io", NAMESPACE));
    assert!(!may("get", "secrets", NAMESPACE), "the operator's own namespace holds its keys as mounted files");
}
