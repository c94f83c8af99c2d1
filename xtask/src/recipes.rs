//! What is built outside of cargo, and how: a recipe is data (files, commands, environment), so that its hash says everything that decides what comes out.
//! Pure: `tools` runs the recipes.

use std::time::Duration;

use sha2::{Digest, Sha256};

/// Stands in commands for the folder that the recipe fills.
pub(crate) const OUT: &str = "{out}";
/// Stands in commands for the folder into which the recipe's own files were copied.
pub(crate) const SOURCE: &str = "{source}";

/// The ONNX Runtime whose library the inference image carries.
pub(crate) const ONNXRUNTIME_VERSION: &str = "1.31.1";
pub(crate) const CARGO_DENY: &str = "cargo-deny";

#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    /// How long a first build takes on two cores; only for the progress line.
    pub(crate) expected: Duration,
    /// Copied into `{source}` before the first command.
    pub(crate) files: Vec<(&'static str, Vec<u8>)>,
    pub(crate) commands: Vec<Step>,
    /// Must exist below `{out}` afterwards; the first is what others use.
    pub(crate) products: Vec<String>,
    /// What to do when it fails, beyond reading the log.
    pub(crate) advice: &'static str,
}

#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) words: Vec<String>,
    pub(crate) environment: Vec<(&'static str, String)>,
    /// Relative to the build's working folder: `{out}` or `{source}`.
    pub(crate) folder: &'static str,
}

impl Recipe {
    /// Sixteen hex digits over everything that decides what the recipe makes. Lengths are hashed too, so that no two recipes run together.
    pub(crate) fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        let mut add = |part: &[u8]| {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        };
        add(self.name.as_bytes());
        add(self.version.as_bytes());
        for (name, content) in &self.files {
            add(name.as_bytes());
            add(content);
        }
        for step in &self.commands {
            add(&step.words.len().to_le_bytes());
            step.words.iter().for_each(|word| add(word.as_bytes()));
            add(step.folder.as_bytes());
            for (name, value) in &step.environment {
                add(name.as_bytes());
                add(value.as_bytes());
            }
        }
        self.products.iter().for_each(|product| add(product.as_bytes()));
        hex::encode(&hasher.finalize()[..8])
    }

    pub(crate) fn folder_name(&self) -> String {
        format!("{}-{}", self.name, self.hash())
    }
}

/// What the sandbox and the demo need.
pub(crate) fn sandbox_tools() -> Vec<Recipe> {
    vec![
        kubebox(),
        go_install("helm", "helm.sh/helm/v3/cmd/helm", "v3.19.5", 90),
        go_install("coredns", "github.com/coredns/coredns", "v1.13.2", 150),
        go_install("metrics-server", "sigs.k8s.io/metrics-server/cmd/metrics-server", "v0.9.0", 90),
        kafka(),
        onnxruntime(),
    ]
}

/// Every recipe that needs no input from the checkout's other folders.
pub(crate) fn all() -> Vec<Recipe> {
    let mut recipes = sandbox_tools();
    recipes.extend([cargo_deny(), feast()]);
    recipes
}

const GO_ADVICE: &str =
    "Run the same command again: what was downloaded and compiled so far is kept. Go must be 1.26 or newer (`cargo xtask doctor`).";

/// All Kubernetes processes in one binary, chosen by argv[0]. 1.35 is the last kubelet that works with Debian 12's containerd.
fn kubebox() -> Recipe {
    const VERSION: &str = "1.35.4";
    let stamp = "k8s.io/component-base/version";
    let flags = format!("-s -w -X {stamp}.gitVersion=v{VERSION} -X {stamp}.gitMajor=1 -X {stamp}.gitMinor=35");
    Recipe {
        name: "kubebox",
        version: VERSION.to_string(),
        expected: Duration::from_secs(330),
        files: vec![
            ("go.mod", include_bytes!("../tools/kubebox/go.mod").to_vec()),
            ("go.sum", include_bytes!("../tools/kubebox/go.sum").to_vec()),
            ("main.go", include_bytes!("../tools/kubebox/main.go").to_vec()),
        ],
        commands: vec![Step {
            words: words(&["go", "build", "-trimpath", "-buildvcs=false", "-o", "{out}/kubebox", "-ldflags", &flags, "."]),
            environment: vec![("CGO_ENABLED", "0".to_string())],
            folder: SOURCE,
        }],
        products: vec!["kubebox".to_string()],
        advice: GO_ADVICE,
    }
}

fn go_install(name: &'static str, package: &str, version: &str, expected_s: u64) -> Recipe {
    Recipe {
        name,
        version: version.to_string(),
        expected: Duration::from_secs(expected_s),
        files: Vec::new(),
        commands: vec![Step {
            words: words(&["go", "install", "-trimpath", "-ldflags", "-s -w", &format!("{package}@{version}")]),
            environment: vec![("CGO_ENABLED", "0".to_string()), ("GOBIN", OUT.to_string())],
            folder: OUT,
        }],
        products: vec![name.to_string()],
        advice: GO_ADVICE,
    }
}

pub(crate) fn kafka() -> Recipe {
    Recipe {
        name: "kafka",
        version: "4.1.1".to_string(),
        expected: Duration::from_secs(30),
        files: vec![("pom.xml", include_bytes!("../tools/kafka/pom.xml").to_vec())],
        commands: vec![Step {
            words: words(&["mvn", "--batch-mode", "dependency:copy-dependencies", "-DoutputDirectory={out}/lib", "-DincludeScope=runtime"]),
            environment: Vec::new(),
            folder: SOURCE,
        }],
        products: vec!["lib".to_string(), "lib/kafka_2.13-4.1.1.jar".to_string(), "lib/connect-mirror-4.1.1.jar".to_string()],
        advice: "Run the same command again: what was downloaded so far is kept. Maven needs a JDK 17 or newer (`cargo xtask doctor`).",
    }
}

/// The wheel is unpacked and not installed, so it need not match this machine's Python; only its shared library is kept.
fn onnxruntime() -> Recipe {
    let library = format!("{SOURCE}/unpacked/onnxruntime/capi/libonnxruntime.so.{ONNXRUNTIME_VERSION}");
    let step = |list: &[&str]| Step { words: words(list), environment: Vec::new(), folder: SOURCE };
    Recipe {
        name: "onnxruntime",
        version: ONNXRUNTIME_VERSION.to_string(),
        expected: Duration::from_secs(20),
        files: vec![("requirements.txt", include_bytes!("../tools/onnxruntime/requirements.txt").to_vec())],
        commands: vec![
            step(&[
                "python3",
                "-m",
                "pip",
                "download",
                "--disable-pip-version-check",
                "--no-deps",
                "--only-binary=:all:",
                "--python-version=3.13",
                "--implementation=cp",
                "--platform=manylinux_2_28_x86_64",
                "--require-hashes",
                "--requirement=requirements.txt",
                "--dest=wheel",
            ]),
            step(&["sh", "-c", "python3 -m zipfile -e wheel/*.whl unpacked"]),
            step(&["cp", &library, "{out}/libonnxruntime.so"]),
            step(&["rm", "-r", "wheel", "unpacked"]),
        ],
        products: vec!["libonnxruntime.so".to_string()],
        advice: "Install pip (`apt-get install python3-pip`) and run the same command again.",
    }
}

/// Built in the development profile: it runs for a second and would take three times as long to build optimised.
pub(crate) fn cargo_deny() -> Recipe {
    const VERSION: &str = "0.20.2";
    Recipe {
        name: CARGO_DENY,
        version: VERSION.to_string(),
        expected: Duration::from_secs(240),
        files: Vec::new(),
        commands: vec![
            Step {
                words: words(&["cargo", "install", "--locked", "--debug", "--root", OUT, "--version", VERSION, CARGO_DENY]),
                environment: vec![("CARGO_TARGET_DIR", "{source}/target".to_string()), ("CARGO_PROFILE_DEV_DEBUG", "0".to_string())],
                folder: OUT,
            },
            Step { words: words(&["rm", "-r", "{source}/target"]), environment: Vec::new(), folder: OUT },
        ],
        products: vec!["bin/cargo-deny".to_string()],
        advice: "Run the same command again: what was compiled so far is kept.",
    }
}

/// The Python of `models/train.py`, locked by the requirements file given.
pub(crate) fn python(requirements: Vec<u8>) -> Recipe {
    python_environment("python", requirements)
}

/// The Python of a peer of `cargo xtask bench features`.
pub(crate) fn feast() -> Recipe {
    python_environment("feast", include_bytes!("../tools/feast/requirements.txt").to_vec())
}

/// A virtual environment with locked packages. It refers to this machine's python3 by its path.
fn python_environment(name: &'static str, requirements: Vec<u8>) -> Recipe {
    let step = |list: &[&str]| Step { words: words(list), environment: Vec::new(), folder: SOURCE };
    Recipe {
        name,
        version: "1".to_string(),
        expected: Duration::from_secs(120),
        files: vec![("requirements.txt", requirements)],
        commands: vec![
            step(&["python3", "-m", "venv", "{out}/venv"]),
            step(&["{out}/venv/bin/python", "-m", "pip", "install", "--disable-pip-version-check", "--requirement=requirements.txt"]),
        ],
        products: vec!["venv/bin/python".to_string()],
        advice: "Install venv (`apt-get install python3-venv`) and run the same command again.",
    }
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_changed_input_changes_the_hash() {
        let base = kubebox();
        let mut seen = std::collections::BTreeSet::from([base.hash()]);
        let mut changed = |edit: fn(&mut Recipe)| {
            let mut recipe = base.clone();
            edit(&mut recipe);
            assert!(seen.insert(recipe.hash()), "an edit left the hash as it was");
        };
        changed(|recipe| recipe.version.push('x'));
        changed(|recipe| recipe.files[1].1.push(b'\n'));
        changed(|recipe| recipe.commands[0].words.push("-race".to_string()));
        changed(|recipe| recipe.commands[0].environment[0].1 = "1".to_string());
        changed(|recipe| recipe.commands[0].folder = OUT);
        changed(|recipe| recipe.products.push("kubectl".to_string()));
    }

    #[test]
    fn the_hash_ignores_what_decides_nothing() {
        let base = kubebox();
        let patient = Recipe { expected: Duration::from_secs(1), advice: "", ..base.clone() };
        assert_eq!(base.hash(), patient.hash());
    }

    #[test]
    fn words_do_not_run_together() {
        let with = |list: &[&str]| {
            let mut recipe = kubebox();
            recipe.commands[0].words = words(list);
            recipe.hash()
        };
        assert_ne!(with(&["go", "build"]), with(&["gob", "uild"]));
        assert_ne!(with(&["go", "build"]), with(&["go", "build", ""]));
    }

    #[test]
    fn recipes_have_names_of_their_own_and_say_what_they_make() {
        let recipes = all();
        let names: std::collections::BTreeSet<_> = recipes.iter().map(|recipe| recipe.name).collect();
        assert_eq!(names.len(), recipes.len());
        assert!(recipes.iter().all(|recipe| !recipe.products.is_empty() && !recipe.advice.is_empty()));
    }

    #[test]
    fn the_library_named_by_the_recipe_is_the_version_that_the_requirements_lock() {
        let requirements = String::from_utf8(onnxruntime().files[0].1.clone()).unwrap();
        assert!(requirements.contains(&format!("onnxruntime=={ONNXRUNTIME_VERSION} --hash=sha256:")));
    }
}
