//! What an instance is: its name, block of addresses, regions and files. IO on the state folder and the table of instances.
//!
//! `<state>/<instance>/instance.json` says everything that a later command needs, so only `up` takes the list of tools. The table
//! `/run/fraudpipeline/instances.json` says which block of addresses is held by whom; it vanishes with the machine's memory, like
//! everything that the blocks are used for.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::address::{self, Cidr, SiteAddresses};
use crate::toolbox::Toolbox;

pub(crate) const STATE_DEFAULT: &str = "/var/lib/fraudpipeline";
const TABLE_FOLDER: &str = "/run/fraudpipeline";
/// Cgroups of all instances lie below this one.
pub(crate) const CGROUP_ROOT: &str = "/fraudpipeline";
pub(crate) const HOST_NAME: &str = "host";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Instance {
    pub name: String,
    pub index: u32,
    pub regions: Vec<String>,
    pub toolbox: Toolbox,
    /// `<state>/<instance>`.
    pub folder: PathBuf,
}

/// One region of an instance, with all that its processes and files derive from.
#[derive(Clone, Debug)]
pub(crate) struct Region {
    pub instance: String,
    pub name: String,
    pub addresses: SiteAddresses,
    pub folder: PathBuf,
    /// Every region of the instance with its node address, this one included.
    pub peers: Vec<(String, Ipv4Addr)>,
}

/// A place that the router forwards to.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub name: String,
    pub addresses: SiteAddresses,
    pub device: String,
    /// The host's site is in no namespace.
    pub netns: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Table {
    /// Folder of the instance that holds the block, by index.
    holders: std::collections::BTreeMap<u32, PathBuf>,
}

impl Instance {
    pub(crate) fn region_list(&self) -> Vec<Region> {
        let numbered = || self.regions.iter().zip(0..);
        let peers: Vec<(String, Ipv4Addr)> =
            numbered().map(|(name, site)| (name.clone(), address::site_addresses(self.index, site).node)).collect();
        numbered()
            .map(|(name, site)| Region {
                instance: self.name.clone(),
                name: name.clone(),
                addresses: address::site_addresses(self.index, site),
                folder: self.folder.join(name),
                peers: peers.clone(),
            })
            .collect()
    }

    pub(crate) fn region(&self, name: &str) -> Result<Region> {
        self.region_list()
            .into_iter()
            .find(|region| region.name == name)
            .with_context(|| format!("instance {:?} has no region {name:?}; its regions are {}", self.name, self.regions.join(", ")))
    }

    pub(crate) fn sites(&self) -> Vec<Site> {
        let regions = self.region_list().into_iter().map(|region| Site {
            netns: Some(region.netns()),
            name: region.name,
            addresses: region.addresses,
            device: crate::net::WAN_DEVICE.to_owned(),
        });
        let host = Site {
            name: HOST_NAME.to_owned(),
            addresses: address::site_addresses(self.index, address::HOST_SITE),
            device: self.host_device(),
            netns: None,
        };
        regions.chain([host]).collect()
    }

    pub(crate) fn block(&self) -> Cidr {
        address::instance_block(self.index)
    }

    pub(crate) fn host_address(&self) -> Ipv4Addr {
        address::site_addresses(self.index, address::HOST_SITE).node
    }

    pub(crate) fn host_device(&self) -> String {
        format!("fp{}", self.index)
    }

    pub(crate) fn cgroup(&self) -> String {
        format!("{CGROUP_ROOT}/{}", self.name)
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// One name of the multi-call Kubernetes binary.
    pub(crate) fn tool(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    pub(crate) fn load(state: &Path, name: &str) -> Result<Self> {
        Self::load_if_any(state, name)?
            .with_context(|| format!("there is no instance {name:?} in {}; `sandbox up --instance {name}` makes it", state.display()))
    }

    pub(crate) fn load_if_any(state: &Path, name: &str) -> Result<Option<Self>> {
        check_name("instance", name)?;
        read_json(&state.join(name).join("instance.json"))
    }

    pub(crate) fn save(&self) -> Result<()> {
        write_json(&self.folder.join("instance.json"), self)
    }

    /// Serialises commands that change the instance. Held until the file is dropped, also by a killed command.
    pub(crate) fn lock(state: &Path, name: &str) -> Result<File> {
        check_name("instance", name)?;
        private_folder(state)?;
        let path = state.join(format!(".{name}.lock"));
        let file = private_file(&path)?;
        if file.try_lock().is_err() {
            eprintln!("waiting for another command on instance {name:?} to end (lock {})", path.display());
            file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        }
        Ok(file)
    }
}

impl Region {
    pub(crate) fn netns(&self) -> String {
        format!("fp-{}-{}", self.instance, self.name)
    }

    pub(crate) fn cgroup(&self) -> String {
        format!("{CGROUP_ROOT}/{}/{}", self.instance, self.name)
    }

    /// The CNI network's name, which is also the start of the file names that CNI keeps outside of the state folder.
    pub(crate) fn network_name(&self) -> String {
        format!("fp.{}.{}", self.instance, self.name)
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.folder.join(relative)
    }

    pub(crate) fn containerd_socket(&self) -> PathBuf {
        self.path("run/containerd.sock")
    }

    pub(crate) fn api_server(&self) -> String {
        format!("https://{}:6443", self.addresses.node)
    }

    pub(crate) fn kafka(&self) -> String {
        format!("{}:9092", self.addresses.node)
    }

    pub(crate) fn models_endpoint(&self) -> String {
        format!("http://{}:9000", self.addresses.node)
    }
}

/// Names become parts of device, namespace, cgroup and network names, where a separator would make two of them alike.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    let letters = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    ensure!(
        letters && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.len() <= 16,
        "{what} name {name:?} must be 1 to 16 lower-case letters and digits that start with a letter"
    );
    Ok(())
}

pub(crate) fn check_regions(regions: &[String]) -> Result<()> {
    ensure!(
        (1..=address::REGIONS_MAX).contains(&regions.len()),
        "--regions names {} regions; an instance has room for 1 to {}",
        regions.len(),
        address::REGIONS_MAX
    );
    for (position, name) in regions.iter().enumerate() {
        let well_formed =
            name.split('-').all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()));
        ensure!(well_formed && name.len() <= 20, "region name {name:?} must be at most 20 lower-case letters, digits and single dashes");
        ensure!(
            name != HOST_NAME && name != "bin" && name != "images",
            "region name {name:?} is taken by the sandbox itself; choose another"
        );
        ensure!(!regions.iter().take(position).any(|other| other == name), "--regions names {name:?} twice");
    }
    Ok(())
}

/// Takes a block of addresses for the folder: the one it had, or the smallest free one.
pub(crate) fn claim_index(folder: &Path, wanted: Option<u32>) -> Result<u32> {
    with_table(|table| {
        table.holders.retain(|_, holder| holder.join("instance.json").exists() || holder == folder);
        let index = match wanted {
            Some(index) => index,
            None => address::smallest_free_index(&table.holders.keys().copied().collect::<Vec<_>>()).with_context(|| {
                format!("all {} address blocks are held; take one instance down: {:?}", address::INSTANCES_MAX, table.holders.values())
            })?,
        };
        if let Some(holder) = table.holders.get(&index).filter(|holder| *holder != folder) {
            bail!(
                "address block {index} of {} is now held by {}; take that instance down, or start this one with --fresh",
                folder.display(),
                holder.display()
            );
        }
        table.holders.insert(index, folder.to_owned());
        Ok(index)
    })
}

pub(crate) fn release_index(folder: &Path) -> Result<()> {
    with_table(|table| {
        table.holders.retain(|_, holder| holder != folder);
        Ok(())
    })
}

fn with_table<T>(change: impl FnOnce(&mut Table) -> Result<T>) -> Result<T> {
    let folder = Path::new(TABLE_FOLDER);
    private_folder(folder)?;
    let lock = private_file(&folder.join("lock"))?;
    lock.lock().context("cannot lock the table of instances")?;
    let path = folder.join("instances.json");
    let mut table: Table = read_json(&path)?.unwrap_or_default();
    let result = change(&mut table)?;
    write_json(&path, &table)?;
    Ok(result)
}

/// Makes a folder that only root can look into: keys and Redis data lie in it.
pub(crate) fn private_folder(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| format!("cannot make folder {}", path.display()))
}

fn private_file(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).with_context(|| format!("cannot open {}", path.display()))
}

/// Nothing when the file does not exist. A file that cannot be understood is an error that names it.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    serde_json::from_str(&text).map(Some).with_context(|| format!("{} is not what the sandbox writes there", path.display()))
}

pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    write_private(path, &serde_json::to_vec_pretty(value)?)
}

/// Replaces a file as a whole, so that a reader sees the old or the new one. Readable for root only.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).with_context(|| format!("{} is no file name", path.display()))?;
    // Threads of one command may write the same file.
    static DRAFTS: AtomicU32 = AtomicU32::new(0);
    let draft = path.with_file_name(format!(".{name}.{}.{}", std::process::id(), DRAFTS.fetch_add(1, Ordering::Relaxed)));
    let write = || {
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(bytes)?;
        fs::rename(&draft, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_run_together_in_a_cgroup_or_device_name_are_refused() {
        assert!(check_name("instance", "default").is_ok());
        for bad in ["", "a-b", "../x", "9a", "Default", "a.b", "seventeenletterss"] {
            assert!(check_name("instance", bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn region_lists_are_checked_with_the_reason() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(check_regions(&list(&["us-east", "eu-west", "ap-south"])).is_ok());
        assert!(check_regions(&list(&["us-east", "us-east"])).is_err_and(|error| error.to_string().contains("twice")));
        assert!(check_regions(&list(&["a", "b", "c", "d"])).is_err_and(|error| error.to_string().contains("room for 1 to 3")));
        for bad in ["host", "us--east", "-a", "us/east", "US"] {
            assert!(check_regions(&list(&[bad])).is_err(), "{bad:?} was accepted");
        }
    }
}
