//! The definitions in `crds/yaml`, and their copies in the chart, are those of the types. `BLESS=1` writes them.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use crds::Kind;

fn generated(kind: Kind) -> String {
    format!(
        "# Generated from crds/src/v1alpha1. Do not edit: BLESS=1 cargo test -p crds --test definitions\n{}",
        serde_yaml::to_string(&kind.definition().unwrap()).unwrap()
    )
}

fn compare(path: &Path, generated: &str) {
    if std::env::var_os("BLESS").is_some() {
        fs::write(path, generated).unwrap();
    }
    assert!(
        fs::read_to_string(path).unwrap_or_default() == generated,
        "{} is not what the types say; run BLESS=1 cargo test -p crds --test definitions and look at the difference",
        path.display()
    );
}

#[test]
fn the_files_in_crds_yaml_are_what_the_types_say() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("yaml");
    for kind in Kind::ALL {
        compare(&folder.join(format!("{}.yaml", kind.plural())), &generated(kind));
    }
}

#[test]
fn the_chart_carries_the_same_files() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../charts/fraudpipeline/files/crds");
    for kind in Kind::ALL {
        compare(&folder.join(format!("{}.yaml", kind.plural())), &generated(kind));
    }
}
