//! Rules of this project that no compiler knows: which crates stay pure, where unsafe code may stand, how files look. Reads the checkout and asks cargo; writes nothing.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::place::Place;
use crate::progress;
use crate::results::Counts;

/// Crates that decide and do no IO. Time and randomness are arguments there, so that a test can try every case.
const PURE_CRATES: &[(&str, &str)] = &[
    ("domain", "domain"),
    ("operator-register", "operator/register"),
    ("operator-planner", "operator/planner"),
    ("scoring-core", "scoring/core"),
    ("replicator-core", "replicator/core"),
];

/// All that a pure crate may link, by itself or through others: data types, hashing and parsing. Macros that only run in the compiler are not counted.
const PURE_DEPENDENCIES: &[&str] = &[
    "block-buffer",
    "bytes",
    "cfg-if",
    "cpufeatures",
    "crypto-common",
    "digest",
    "domain",
    "either",
    "equivalent",
    "generic-array",
    "hashbrown",
    "hex",
    "hmac",
    "indexmap",
    "itertools",
    "itoa",
    "libc",
    "libm",
    "memchr",
    "num-traits",
    "operator-planner",
    "operator-register",
    "prost",
    // Its messages; clients and servers are behind its feature `grpc`.
    "proto",
    "replicator-core",
    "ryu",
    "scoring-core",
    "serde",
    "serde_core",
    "serde_json",
    "sha2",
    "subtle",
    "thiserror",
    "typenum",
    "zmij",
];

/// What a pure crate's clippy.toml forbids; the compiler then refuses it with the reason written there.
const PURE_BANS: &[&str] =
    &["std::time::Instant::now", "std::time::SystemTime::now", "std::collections::HashMap", "std::collections::HashSet"];

const LINES_MAX: usize = 900;
const SOURCE_EXTENSIONS: &[&str] = &["rs", "py", "sh", "go", "md"];
const TEXT_EXTENSIONS: &[&str] = &["rs", "py", "sh", "go", "md", "toml", "yaml", "yml", "json", "proto", "tpl", "txt", "xml"];
const SKIPPED_FOLDERS: &[&str] = &["target", ".git", ".venv", "__pycache__"];
/// The first lines of a generated file hold one of these, so that nobody edits it by hand.
const GENERATED_MARKS: &[&str] = &[concat!("@", "generated"), concat!("Do not ", "edit")];
const MARK_WITHIN_LINES: usize = 5;

/// Written in two halves, so that this file does not hold what it looks for.
const FORBIDDEN_TEXT: &[(&str, &str)] = &[
    (concat!("/ho", "me/"), "a path of one machine"),
    (concat!("/Us", "ers/"), "a path of one machine"),
    (concat!("/ro", "ot/"), "a path of one machine"),
    (concat!("#[ig", "nore"), "a test that nobody runs: make it a stage or a command"),
    (concat!("TO", "DO"), "a note to oneself: open an issue and name it with `issue N`"),
    (concat!("FIX", "ME"), "a note to oneself: open an issue and name it with `issue N`"),
    (concat!("issue ", "#"), "an issue number in another form than `issue N`"),
];

struct SourceFile {
    /// Relative to the checkout.
    path: String,
    text: String,
}

struct Tree {
    files: Vec<SourceFile>,
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: String,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    src_path: String,
}

struct Check {
    name: &'static str,
    problems: fn(&Place, &Tree) -> Result<Vec<String>>,
}

const CHECKS: &[Check] = &[
    Check { name: "pure crates link nothing that does IO", problems: pure_dependencies },
    Check { name: "pure crates ban clocks and unordered maps", problems: pure_bans },
    Check { name: "unsafe code is forbidden, or stands in one file that is marked", problems: unsafe_code },
    Check { name: "every crate takes its lints and versions from the workspace", problems: manifests },
    Check { name: "no text that ties the project to one machine or to one moment", problems: forbidden_text },
    Check { name: "no source file is longer than a person reads", problems: long_files },
    Check { name: "generated files say so", problems: generated_marks },
    Check { name: "README and .ci/run name the commands that exist", problems: entry_points },
];

/// `cargo xtask tidy`.
pub(crate) fn command(place: &Place) -> Result<()> {
    let counts = run(place)?;
    if counts.failed > 0 {
        bail!("{} of {} rules are broken", counts.failed, counts.passed + counts.failed);
    }
    Ok(())
}

/// One line per check, `ok` or `FAILED`, and the problems below a failed one.
pub(crate) fn run(place: &Place) -> Result<Counts> {
    let tree = read_tree(place)?;
    let mut counts = Counts::default();
    for check in CHECKS {
        let problems = (check.problems)(place, &tree).unwrap_or_else(|error| vec![format!("{error:#}")]);
        if problems.is_empty() {
            counts.passed += 1;
            println!("ok      {}", check.name);
        } else {
            counts.failed += 1;
            println!("FAILED  {}", check.name);
            problems.iter().for_each(|problem| println!("        {problem}"));
        }
    }
    Ok(counts)
}

fn read_tree(place: &Place) -> Result<Tree> {
    let mut files = Vec::new();
    read_folder(&place.root, &place.root, &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let said = progress::output(place.cargo().args(["metadata", "--locked", "--no-deps", "--format-version", "1"]))?;
    let metadata: Metadata = serde_json::from_str(&said).context("cargo metadata says something else than expected")?;
    let root = format!("{}/", metadata.workspace_root);
    let relative = |path: &str| path.strip_prefix(&root).unwrap_or(path).to_string();
    let mut packages = metadata.packages;
    for package in &mut packages {
        package.manifest_path = relative(&package.manifest_path);
        package.targets.iter_mut().for_each(|target| target.src_path = relative(&target.src_path));
    }
    Ok(Tree { files, packages })
}

fn read_folder(root: &Path, folder: &Path, files: &mut Vec<SourceFile>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        let (name, path, kind) = (entry.file_name(), entry.path(), entry.file_type()?);
        if kind.is_dir() && !SKIPPED_FOLDERS.iter().any(|skipped| name == *skipped) {
            read_folder(root, &path, files)?;
        }
        if kind.is_file() && is_text(&path) {
            let text = std::fs::read_to_string(&path).with_context(|| format!("{} is not readable as UTF-8 text", path.display()))?;
            files.push(SourceFile { path: path.strip_prefix(root)?.to_string_lossy().into_owned(), text });
        }
    }
    Ok(())
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or_default()
}

fn is_text(path: &Path) -> bool {
    TEXT_EXTENSIONS.contains(&extension(path)) || path.ends_with(".ci/run") || path.file_name().is_some_and(|name| name == "Cargo.lock")
}

fn find<'a>(tree: &'a Tree, path: &str) -> Option<&'a str> {
    tree.files.iter().find(|file| file.path == path).map(|file| file.text.as_str())
}

fn is_generated(file: &SourceFile) -> bool {
    file.text.lines().take(MARK_WITHIN_LINES).any(|line| GENERATED_MARKS.iter().any(|mark| line.contains(mark)))
}

fn pure_dependencies(place: &Place, _tree: &Tree) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for (name, _) in PURE_CRATES {
        let said = progress::output(place.cargo().args([
            "tree",
            "--locked",
            "--package",
            name,
            "--edges",
            "normal,no-proc-macro",
            "--prefix",
            "none",
        ]))?;
        let strangers: Vec<&str> = strangers(&said).into_iter().collect();
        if !strangers.is_empty() {
            problems.push(format!(
                "{name} links {}: move what needs them to the crate that does IO, or add them to PURE_DEPENDENCIES if they do none",
                strangers.join(" ")
            ));
        }
    }
    Ok(problems)
}

fn strangers(cargo_tree: &str) -> BTreeSet<&str> {
    cargo_tree.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| !PURE_DEPENDENCIES.contains(name)).collect()
}

fn pure_bans(_place: &Place, tree: &Tree) -> Result<Vec<String>> {
    let missing = |folder: &str| -> Vec<String> {
        let path = format!("{folder}/clippy.toml");
        let Some(text) = find(tree, &path) else { return vec![format!("{path} is missing")] };
        PURE_BANS.iter().filter(|ban| !text.contains(**ban)).map(|ban| format!("{path} does not ban {ban}")).collect()
    };
    Ok(PURE_CRATES.iter().flat_map(|(_, folder)| missing(folder)).collect())
}

/// A crate forbids unsafe code; or it denies it, and one file of it allows it with a comment that begins `Safety:`.
fn unsafe_code(_place: &Place, tree: &Tree) -> Result<Vec<String>> {
    const ALLOW: &str = concat!("allow(un", "safe_code)");
    const FORBID: &str = concat!("#![forbid(un", "safe_code)]");
    const DENY: &str = concat!("#![deny(un", "safe_code)]");
    let mut problems = Vec::new();
    for package in &tree.packages {
        let folder = package.manifest_path.trim_end_matches("Cargo.toml");
        let roots = package.targets.iter().filter(|target| target.kind.iter().any(|kind| kind == "lib" || kind == "bin"));
        for path in roots.map(|target| target.src_path.as_str()) {
            let text = find(tree, path).with_context(|| format!("{path} is named by {} and not there", package.manifest_path))?;
            if !text.contains(FORBID) && !text.contains(DENY) {
                problems.push(format!("{path} ({}) lacks `{FORBID}`", package.name));
            }
        }
        let sources = tree.files.iter().filter(|file| file.path.starts_with(&format!("{folder}src/")));
        let allowing: Vec<&SourceFile> = sources.filter(|file| file.text.contains(ALLOW)).collect();
        if allowing.len() > 1 {
            problems.push(format!("{} allows unsafe code in {} files: gather it in one", package.name, allowing.len()));
        }
        let unmarked = allowing.iter().filter(|file| !file.text.to_lowercase().contains("safety:"));
        problems.extend(unmarked.map(|file| format!("{} allows unsafe code and no comment `Safety:` says why it is sound", file.path)));
    }
    Ok(problems)
}

fn manifests(_place: &Place, tree: &Tree) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for package in &tree.packages {
        let text = find(tree, &package.manifest_path).with_context(|| format!("{} is not there", package.manifest_path))?;
        problems.extend(manifest_problems(text).into_iter().map(|problem| format!("{}: {problem}", package.manifest_path)));
    }
    Ok(problems)
}

fn manifest_problems(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    if !lines.windows(2).any(|pair| pair == ["[lints]", "workspace = true"]) {
        problems.push("add `[lints]` with `workspace = true`".to_string());
    }
    let mut in_dependencies = false;
    for line in lines {
        if line.starts_with('[') {
            in_dependencies = line.trim_matches(['[', ']']).ends_with("dependencies");
        } else if in_dependencies && !line.is_empty() && !line.starts_with('#') && !line.replace(' ', "").contains("workspace=true") {
            problems.push(format!("`{line}` does not take its version from the workspace: write `name.workspace = true`"));
        }
    }
    problems
}

fn forbidden_text(_place: &Place, tree: &Tree) -> Result<Vec<String>> {
    Ok(tree.files.iter().flat_map(forbidden_lines).collect())
}

fn forbidden_lines(file: &SourceFile) -> Vec<String> {
    let mut problems = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        let found = FORBIDDEN_TEXT.iter().filter(|(text, _)| line.contains(text));
        problems.extend(found.map(|(text, why)| format!("{}:{}: `{text}` is {why}", file.path, number + 1)));
    }
    problems
}

fn long_files(_place: &Place, tree: &Tree) -> Result<Vec<String>> {
    let sources = tree.files.iter().filter(|file| SOURCE_EXTENSIONS.contains(&extension(Path::new(&file.path))) && !is_generated(file));
    let long = sources.map(|file| (file, file.text.lines().count())).filter(|(_, lines)| *lines > LINES_MAX);
    Ok(long.map(|(file, lines)| format!("{} has {lines} lines, of {LINES_MAX}: divide it by subject", file.path)).collect())
}

/// Files whose place says that a program wrote them.
fn generated_marks(_place: &Place, tree: &Tree) -> Result<Vec<String>> {
    let unmarked = tree.files.iter().filter(|file| is_generated_place(&file.path) && !is_generated(file));
    Ok(unmarked.map(|file| format!("{}: write `{}` and how to make it anew into its first lines", file.path, GENERATED_MARKS[1])).collect())
}

fn is_generated_place(path: &str) -> bool {
    let in_kubernetes =
        path.starts_with("crds/yaml/") || path.starts_with("charts/fraudpipeline/files/crds/") || path.starts_with("charts/tests/golden/");
    in_kubernetes || (path.starts_with("proto/") && path.contains("/generated/"))
}

fn entry_points(_place: &Place, tree: &Tree) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let mut expect = |path: &str, text: &str| {
        if !find(tree, path).is_some_and(|content| content.contains(text)) {
            problems.push(format!("{path} does not name `{text}`"));
        }
    };
    expect("README.md", "cargo xtask demo");
    expect("README.md", "cargo xtask test");
    expect(".ci/run", "cargo xtask test");
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pure_crate_that_links_a_runtime_is_found() {
        let tree = "domain v0.1.0 (folder)\nserde v1.0.2\ntokio v1.54.0\nserde v1.0.2 (*)\n";
        assert_eq!(strangers(tree), BTreeSet::from(["tokio"]));
    }

    #[test]
    fn versions_outside_the_workspace_table_are_found() {
        let good = "[package]\nname = \"x\"\n[lints]\nworkspace = true\n\n[dependencies]\n# why\nserde.workspace = true\ntokio = { workspace = true, features = [\"rt\"] }\n";
        assert_eq!(manifest_problems(good), Vec::<String>::new());
        let problems = manifest_problems("[package]\nversion = \"1\"\n[dev-dependencies]\nserde = \"1\"\n");
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].contains("[lints]") && problems[1].contains("`serde = \"1\"`"), "{problems:?}");
    }

    #[test]
    fn forbidden_text_is_reported_with_its_line() {
        let text = format!("fine\nsee {}\n", concat!("/ho", "me/ada/x"));
        let problems = forbidden_lines(&SourceFile { path: "a.rs".to_string(), text });
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("a.rs:2: "), "{problems:?}");
    }

    #[test]
    fn a_file_is_generated_only_if_its_first_lines_say_so() {
        let file = |text: String| SourceFile { path: "a.rs".to_string(), text };
        assert!(is_generated(&file(format!("// {} by cargo xtask proto\n", GENERATED_MARKS[0]))));
        assert!(!is_generated(&file(format!("{}// {}\n", "\n".repeat(MARK_WITHIN_LINES), GENERATED_MARKS[0]))));
    }
}
