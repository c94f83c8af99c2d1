//! The chart, rendered by the real helm: manifests are what the goldens say, wrong values are refused with a sentence.
//!
//! `cargo test -p crds --features helm --test chart`, with FRAUDPIPELINE_HELM set to the program that
//! `cargo xtask tools helm` builds. BLESS=1 writes the goldens.
#![allow(clippy::unwrap_used)]

mod support;

use std::{fs, path::Path};

use serde_yaml::Value;
use support::{Expected, expected, helm::template, plain, repository, yaml_files};

/// Arguments after `# helm: ` in the first line of a case.
fn arguments(text: &str) -> Vec<&str> {
    text.lines().next().and_then(|first| first.strip_prefix("# helm: ")).map(|rest| rest.split_whitespace().collect()).unwrap_or_default()
}

fn rendered(case: &Path) -> Result<String, String> {
    let text = fs::read_to_string(case).unwrap();
    let mut all = vec!["--values", case.to_str().unwrap()];
    all.extend(arguments(&text));
    template(&all)
}

fn documents(manifests: &str) -> Vec<Value> {
    use serde::Deserialize;
    let documents = serde_yaml::Deserializer::from_str(manifests).map(|document| Value::deserialize(document).unwrap());
    documents.filter(|document| !document.is_null()).collect()
}

#[test]
fn the_manifests_of_every_case_are_what_its_golden_says() {
    for case in yaml_files(&repository().join("charts/tests/cases")) {
        let manifests = rendered(&case).unwrap_or_else(|error| panic!("{}: {error}", case.display()));
        let golden = repository().join("charts/tests/golden").join(case.file_name().unwrap());
        let text = format!(
            "# Rendered from the case of the same name. Do not edit: BLESS=1 cargo test -p crds --features helm --test chart\n{manifests}"
        );
        if std::env::var_os("BLESS").is_some() {
            fs::write(&golden, &text).unwrap();
        }
        assert!(
            fs::read_to_string(&golden).unwrap_or_default() == text,
            "{} is not what helm renders; run BLESS=1 cargo test -p crds --features helm --test chart and look at the difference",
            golden.display()
        );
    }
}

#[test]
fn wrong_values_are_refused_with_a_sentence_that_names_the_value() {
    let mut wrong = Vec::new();
    for case in yaml_files(&repository().join("charts/tests/bad")) {
        let Expected::Refused(sentence) = expected(&fs::read_to_string(&case).unwrap()) else {
            panic!("{}: says accepted", case.display())
        };
        let answer = rendered(&case).err().map_or_else(|| "accepted".to_owned(), |error| plain(&error));
        if !answer.contains(&sentence) {
            wrong.push(format!("{}\n  answered: {answer}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_chart_installs_the_definitions_of_crds_yaml_and_keeps_them() {
    let rendered = documents(&template(&["--set", "region=us-east", "--show-only", "templates/crds.yaml"]).unwrap());
    let files = yaml_files(&repository().join("crds/yaml"));
    assert_eq!(rendered.len(), files.len());
    for (mut installed, file) in rendered.into_iter().zip(files) {
        let metadata = installed["metadata"].as_mapping_mut().unwrap();
        let annotations = metadata.remove("annotations").unwrap();
        assert_eq!(annotations["helm.sh/resource-policy"], "keep", "{}", file.display());
        metadata.remove("labels").unwrap();
        let generated: Value = serde_yaml::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        assert!(installed == generated, "{} is not what the chart installs", file.display());
    }
}

#[test]
fn every_value_is_explained_above_it() {
    let text = fs::read_to_string(repository().join("charts/fraudpipeline/values.yaml")).unwrap();
    let schema: Value =
        serde_yaml::from_str(&fs::read_to_string(repository().join("charts/fraudpipeline/values.schema.json")).unwrap()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut group = String::new();
    let mut explained = 0;
    for (number, line) in lines.iter().enumerate() {
        let Some((name, _)) = line.trim_start().split_once(':').filter(|_| !line.trim_start().starts_with('#')) else { continue };
        let depth = line.len() - line.trim_start().len();
        let property = match depth {
            0 => {
                group = name.to_owned();
                &schema["properties"][name]
            }
            2 => &schema["properties"][group.as_str()]["properties"][name],
            _ => continue,
        };
        // Entries of maps, such as a version of the data plane, and amounts of resources speak for themselves.
        if depth == 2 && ["resources", "images"].contains(&group.as_str()) {
            continue;
        }
        assert!(property.is_mapping(), "values.schema.json does not have {group} {name}");
        assert!(lines[number - 1].trim_start().starts_with('#'), "values.yaml has no comment above {group} {name}");
        explained += 1;
    }
    assert!(explained > 25, "only {explained} values were found");
}
