//! Where things are: the checkout, the build folder, the tool cache; and on whose behalf we run. Reads the environment and the password file, writes nothing.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// Everything a command needs to know about this machine and this checkout.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) cache: PathBuf,
    pub(crate) is_root: bool,
    /// The person behind `sudo`, when there is one: builds run as that user, so that a checkout never fills with files of root.
    behind_sudo: Option<User>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: PathBuf,
}

impl Place {
    pub(crate) fn find() -> Result<Self> {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().context("xtask stands in no workspace: start it as `cargo xtask` inside the checkout")?.to_path_buf();
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
        let is_root =
            std::fs::metadata("/proc/self").context("cannot read /proc/self: the sandbox needs Linux with /proc mounted")?.uid() == 0;
        let behind_sudo = if is_root { user_behind_sudo()? } else { None };
        let home = behind_sudo.as_ref().map(|user| user.home.clone()).or_else(std::env::home_dir);
        let cache = match std::env::var_os("FRAUDPIPELINE_CACHE") {
            Some(dir) if !dir.is_empty() => PathBuf::from(dir),
            _ => home.context("no home folder: set FRAUDPIPELINE_CACHE to a folder for the built tools")?.join(".cache/fraudpipeline"),
        };
        Ok(Self { root, target, cache, is_root, behind_sudo })
    }

    /// A command that runs in the checkout without root's rights if somebody stands behind `sudo`. For everything that builds or downloads.
    pub(crate) fn unprivileged(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        if let Some(user) = &self.behind_sudo {
            command.uid(user.uid).gid(user.gid).env("HOME", &user.home).env("USER", &user.name).env("LOGNAME", &user.name);
        }
        command
    }

    pub(crate) fn cargo(&self) -> Command {
        // Cargo tells a program that it runs which cargo it was; outside of cargo the one on the PATH will do.
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = self.unprivileged(cargo);
        // These describe the xtask package; a nested cargo must not inherit them.
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            if name_text.starts_with("CARGO_PKG_") || name_text.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&name);
            }
        }
        command
    }

    /// A command that needs root: as it is when we are root, else through `sudo`, which keeps the one variable the sandbox reads.
    pub(crate) fn privileged(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = if self.is_root {
            Command::new(program)
        } else {
            let mut sudo = Command::new("sudo");
            sudo.arg("--preserve-env=FRAUDPIPELINE_CACHE").arg(program);
            sudo
        };
        command.current_dir(&self.root).env("FRAUDPIPELINE_CACHE", &self.cache);
        command
    }

    /// Makes a folder that the unprivileged commands may write to.
    pub(crate) fn make_folder(&self, path: &Path) -> Result<()> {
        std::fs::create_dir_all(path).with_context(|| format!("cannot make the folder {}", path.display()))?;
        self.give_to_user(path)
    }

    /// `sudo cargo xtask` has already made folders of root's; cargo, run as the person behind sudo, could not write there.
    pub(crate) fn give_to_user(&self, path: &Path) -> Result<()> {
        let Some(user) = &self.behind_sudo else { return Ok(()) };
        let owner = format!("{}:{}", user.uid, user.gid);
        let status = Command::new("chown").args(["-R", "--from=root", &owner]).arg(path).status().context("cannot run chown")?;
        anyhow::ensure!(
            status.success(),
            "cannot give {} to {}: run `sudo chown -R {owner} {}`",
            path.display(),
            user.name,
            path.display()
        );
        Ok(())
    }

    /// A program of ours, built by `cargo build` in the one profile that demo, tests and images share.
    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        self.target.join("debug").join(name)
    }
}

fn user_behind_sudo() -> Result<Option<User>> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let (Some(uid), Some(gid)) = (number("SUDO_UID"), number("SUDO_GID")) else { return Ok(None) };
    if uid == 0 {
        return Ok(None);
    }
    let accounts = std::fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    let (name, home) = account(&accounts, uid)
        .with_context(|| format!("the user {uid} behind sudo is not in /etc/passwd: run `cargo xtask` without sudo"))?;
    Ok(Some(User { name, uid, gid, home }))
}

/// The name and the home folder of a user, from the text of the password file.
fn account(accounts: &str, uid: u32) -> Option<(String, PathBuf)> {
    accounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, line_uid, _, _, home, ..] = fields.as_slice() else { return None };
        (line_uid.parse() == Ok(uid)).then(|| ((*name).to_string(), PathBuf::from(home)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_person_behind_sudo_is_found_in_the_password_file() {
        let accounts = "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\nbroken line\nada:x:1000:1000:Ada,,,:/srv/ada:/bin/zsh\n";
        assert_eq!(account(accounts, 1000), Some(("ada".to_string(), PathBuf::from("/srv/ada"))));
        assert_eq!(account(accounts, 1001), None);
    }
}
