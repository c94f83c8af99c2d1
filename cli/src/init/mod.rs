//! `kubectl fraud init`: everything secret that a set of regions needs, made once, on the machine of whoever runs it.
//!
//! Nothing is sent anywhere. Every region gets a folder with one manifest to apply in its cluster; the CA's key stays out
//! of all of them.

mod pki;
mod redis_users;
mod rotate;
mod secrets;

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use domain::{PipelineName, RegionName};

pub(crate) use self::rotate::{RotateArguments, run as rotate};
use self::secrets::Shared;

#[derive(Args)]
#[command(
    after_help = "Example:\n  kubectl fraud init --regions us-east,eu-west,ap-south --out ./credentials\n  kubectl --context us-east apply -f credentials/us-east/secrets.yaml\n\nKeep credentials/ca.key offline; it is not needed by any cluster."
)]
pub(crate) struct InitArguments {
    /// All regions of the pipeline, separated by commas
    #[arg(long, value_delimiter = ',', required = true)]
    regions: Vec<RegionName>,
    /// A folder that does not exist yet
    #[arg(long)]
    out: PathBuf,
    /// The pipeline's name
    #[arg(long, default_value = "payments")]
    pipeline: PipelineName,
    /// The pipeline's namespace
    #[arg(long, default_value = "fraud")]
    namespace: String,
    /// The operator's namespace
    #[arg(long, default_value = "fraudpipeline-system")]
    operator_namespace: String,
    /// How long the certificates are valid
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=3650))]
    days: u16,
}

pub(crate) fn run(arguments: &InitArguments) -> anyhow::Result<()> {
    let regions: BTreeSet<_> = arguments.regions.iter().collect();
    ensure!(regions.len() == arguments.regions.len(), "--regions names a region twice: each region is given once");
    ensure!(arguments.regions.len() <= 7, "--regions: a pipeline has at most 7 regions");
    if arguments.out.exists() {
        bail!(
            "{} exists: new credentials would not fit the ones in use. Choose another folder, or delete this one if no cluster uses it",
            arguments.out.display()
        );
    }

    let authority = pki::Authority::new(arguments.days)?;
    let shared = Shared::generate();
    create_folder(&arguments.out)?;
    write_secret(&arguments.out.join("ca.key"), &authority.key_pem())?;
    write_secret(&arguments.out.join("ca.crt"), &authority.certificate_pem())?;
    for region in &arguments.regions {
        let manifest = secrets::manifest(arguments, region, &authority, &shared)?;
        let folder = arguments.out.join(region.as_str());
        create_folder(&folder)?;
        write_secret(&folder.join("secrets.yaml"), &manifest)?;
    }
    report(arguments);
    Ok(())
}

fn report(arguments: &InitArguments) {
    let out = arguments.out.display();
    println!("Wrote credentials of {} regions to {out}. Apply each region's file in its own cluster:", arguments.regions.len());
    for region in &arguments.regions {
        println!("  kubectl --context {region} apply -f {out}/{region}/secrets.yaml");
    }
    println!("Keep {out}/ca.key offline: whoever holds it can issue certificates for every region.");
}

fn create_folder(path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path).with_context(|| format!("cannot create folder {}", path.display()))
}

/// Creates the file readable by its owner only, from the first byte on.
fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn arguments(out: PathBuf) -> InitArguments {
        InitArguments {
            regions: ["us-east", "eu-west"].map(|name| RegionName::new(name).unwrap()).to_vec(),
            out,
            pipeline: PipelineName::new("payments").unwrap(),
            namespace: "fraud".into(),
            operator_namespace: "fraudpipeline-system".into(),
            days: 30,
        }
    }

    #[test]
    fn every_region_gets_the_same_shared_secrets_and_none_gets_the_key_of_the_ca() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("credentials");
        run(&arguments(out.clone())).unwrap();

        let read = |path: &str| fs::read_to_string(out.join(path)).unwrap();
        let (east, west, ca_key) = (read("us-east/secrets.yaml"), read("eu-west/secrets.yaml"), read("ca.key"));
        let line = |text: &str, start: &str| text.lines().find(|line| line.trim_start().starts_with(start)).map(str::to_owned);
        assert!(line(&east, "operator.password:").is_some());
        assert_eq!(line(&east, "operator.password:"), line(&west, "operator.password:"));
        let body = ca_key.lines().nth(1).unwrap();
        assert!(!east.contains(body) && !west.contains(body));
        assert_eq!(fs::metadata(out.join("us-east/secrets.yaml")).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_rotation_gives_all_regions_the_same_new_passwords_and_changes_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("credentials");
        run(&arguments(out.clone())).unwrap();
        let read = |region: &str| fs::read_to_string(out.join(region).join("secrets.yaml")).unwrap();
        let line =
            |text: &str, start: &str| text.lines().find(|line| line.trim_start().starts_with(start)).map(str::trim).map(str::to_owned);
        let before = read("us-east");
        rotate::run(&rotate::RotateArguments::of(out.clone())).unwrap();
        let (east, west) = (read("us-east"), read("eu-west"));
        assert_eq!(line(&east, "decision.password:"), line(&west, "decision.password:"));
        let next = line(&before, "decision.next:").unwrap();
        assert!(line(&east, "decision.password:").unwrap().ends_with(next.trim_start_matches("decision.next: ")));
        for unchanged in ["k1.key:", "tls.key:", "ca.crt:"] {
            assert_eq!(line(&east, unchanged), line(&before, unchanged));
        }
        assert_eq!(fs::metadata(out.join("us-east/secrets.yaml")).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn credentials_in_use_are_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("credentials");
        run(&arguments(out.clone())).unwrap();
        let before = fs::read_to_string(out.join("ca.crt")).unwrap();
        let error = run(&arguments(out.clone())).unwrap_err().to_string();
        assert!(error.contains("Choose another folder"), "{error}");
        assert_eq!(fs::read_to_string(out.join("ca.crt")).unwrap(), before);
    }
}
