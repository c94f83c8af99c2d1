//! The list of programs and images that an instance is made of. xtask builds or finds them and writes the file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Toolbox {
    /// Multi-call binary: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kube-proxy, kubelet, kubectl.
    pub kubebox: PathBuf,
    pub coredns: PathBuf,
    pub metrics_server: PathBuf,
    /// Folder with Kafka's jars.
    pub kafka_libs: PathBuf,
    pub java: PathBuf,
    /// Imported into every region.
    #[serde(default)]
    pub images: Vec<Image>,
    /// The two tools that others use and the sandbox itself does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helm: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onnxruntime: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Image {
    /// With its tag, which must change when the content does: an image whose name is there already is not imported again.
    pub name: String,
    /// A docker-archive.
    pub archive: PathBuf,
}

impl Toolbox {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read the list of tools {}", path.display()))?;
        let toolbox: Self =
            serde_json::from_str(&text).with_context(|| format!("{} is not a list of tools (see `sandbox up --help`)", path.display()))?;
        toolbox.check().with_context(|| format!("in the list of tools {}", path.display()))?;
        Ok(toolbox)
    }

    /// Every path must be absolute (the supervisor runs elsewhere) and be there.
    fn check(&self) -> Result<()> {
        let tools = [
            ("kubebox", &self.kubebox),
            ("coredns", &self.coredns),
            ("metrics_server", &self.metrics_server),
            ("kafka_libs", &self.kafka_libs),
            ("java", &self.java),
        ];
        for (field, path) in tools.into_iter().chain(self.images.iter().map(|image| ("images.archive", &image.archive))) {
            ensure!(path.is_absolute(), "{field}: {} must be an absolute path", path.display());
            ensure!(path.exists(), "{field}: {} does not exist; `cargo xtask sandbox up` builds what is missing", path.display());
        }
        for image in &self.images {
            let tag = image.name.rsplit('/').next().unwrap_or_default();
            ensure!(tag.contains(':') && image.name.contains('/'), "images.name: {:?} must be a full name with a tag", image.name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toolbox(java: &str, image: &str) -> Toolbox {
        let here = PathBuf::from("/");
        Toolbox {
            kubebox: here.clone(),
            coredns: here.clone(),
            metrics_server: here.clone(),
            kafka_libs: here.clone(),
            java: PathBuf::from(java),
            images: vec![Image { name: image.to_owned(), archive: here }],
            helm: None,
            onnxruntime: None,
        }
    }

    #[test]
    fn a_tool_that_is_not_there_is_named_with_its_field() {
        let missing = toolbox("/no/such/java", "docker.io/fraudpipeline/x:1").check().unwrap_err().to_string();
        assert!(missing.starts_with("java: /no/such/java does not exist"), "{missing}");
        let relative = toolbox("java", "docker.io/fraudpipeline/x:1").check().unwrap_err().to_string();
        assert_eq!(relative, "java: java must be an absolute path");
    }

    #[test]
    fn an_image_without_a_tag_is_refused_because_its_content_could_not_be_told_apart() {
        assert!(toolbox("/", "docker.io/fraudpipeline/x:1").check().is_ok());
        assert!(toolbox("/", "docker.io:5000/fraudpipeline/x").check().is_err());
    }
}
