//! Tar archives (POSIX ustar) with the same bytes for the same content: no times, owners or names of this machine. Pure.

use anyhow::{Result, bail};

const BLOCK: usize = 512;
const NAME_BYTES: usize = 100;
const PREFIX_BYTES: usize = 155;
/// Eleven octal digits.
const SIZE_MAX: u64 = 0o77_777_777_777;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Folder,
    File(Vec<u8>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Relative, without a leading or trailing slash.
    pub(crate) path: String,
    pub(crate) mode: u32,
    pub(crate) content: Content,
}

impl Entry {
    pub(crate) fn folder(path: &str, mode: u32) -> Self {
        Self { path: path.to_string(), mode, content: Content::Folder }
    }

    pub(crate) fn file(path: &str, mode: u32, bytes: Vec<u8>) -> Self {
        Self { path: path.to_string(), mode, content: Content::File(bytes) }
    }
}

/// Entries in the order given, owned by root, dated 1970.
///
/// Errors: a path that is empty, absolute, climbs out, or does not fit the format.
pub(crate) fn archive(entries: &[Entry]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for entry in entries {
        let bytes: &[u8] = match &entry.content {
            Content::Folder => &[],
            Content::File(bytes) => bytes,
        };
        out.extend_from_slice(&header(entry, bytes.len() as u64)?);
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    // Two empty blocks end an archive.
    out.resize(out.len() + 2 * BLOCK, 0);
    Ok(out)
}

fn header(entry: &Entry, size: u64) -> Result<[u8; BLOCK]> {
    if size > SIZE_MAX {
        bail!("{} has {size} bytes: more than a tar entry can hold", entry.path);
    }
    let is_folder = entry.content == Content::Folder;
    let (prefix, name) = split(&entry.path, is_folder)?;
    let mut block = [0; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[345..345 + prefix.len()].copy_from_slice(prefix.as_bytes());
    put_octal(&mut block[100..108], u64::from(entry.mode & 0o7777));
    put_octal(&mut block[108..116], 0);
    put_octal(&mut block[116..124], 0);
    put_octal(&mut block[124..136], size);
    put_octal(&mut block[136..148], 0);
    block[156] = if is_folder { b'5' } else { b'0' };
    block[257..263].copy_from_slice(b"ustar\0");
    block[263..265].copy_from_slice(b"00");
    // The checksum counts its own field as spaces.
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    put_octal(&mut block[148..155], sum);
    Ok(block)
}

/// A name of up to 100 bytes, and a prefix of up to 155 for what does not fit in it, split at a slash.
fn split(path: &str, is_folder: bool) -> Result<(String, String)> {
    if path.is_empty() || path.contains('\0') || path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        bail!("'{path}' is no path for an archive: write it relative, without empty, '.' or '..' parts");
    }
    let full = if is_folder { format!("{path}/") } else { path.to_string() };
    if full.len() <= NAME_BYTES {
        return Ok((String::new(), full));
    }
    let slash = full
        .char_indices()
        .find(|(index, c)| *c == '/' && *index <= PREFIX_BYTES && full.len() - index - 1 <= NAME_BYTES && index + 1 < full.len());
    match slash {
        Some((index, _)) => Ok((full[..index].to_string(), full[index + 1..].to_string())),
        None => bail!("'{path}' is too long for a tar archive"),
    }
}

/// Zero-padded octal digits up to the field's last byte, which stays NUL.
fn put_octal(field: &mut [u8], value: u64) {
    let digits = format!("{value:0width$o}", width = field.len() - 1);
    field[..digits.len()].copy_from_slice(digits.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    fn sample() -> Vec<Entry> {
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(60));
        vec![Entry::folder("tmp", 0o1777), Entry::file("usr/bin/app", 0o755, vec![7; 700]), Entry::file(&long, 0o644, Vec::new())]
    }

    /// Any tar must be able to read what we write.
    #[test]
    fn the_systems_tar_lists_what_was_written() {
        let bytes = archive(&sample()).unwrap();
        let mut tar = Command::new("tar")
            .args(["-tvf", "-", "--numeric-owner", "--utc"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        tar.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = tar.wait_with_output().unwrap();
        assert!(output.status.success());
        let listing = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = listing.lines().collect();
        assert!(lines[0].starts_with("drwxrwxrwt 0/0") && lines[0].ends_with("1970-01-01 00:00 tmp/"), "{listing}");
        assert!(lines[1].starts_with("-rwxr-xr-x 0/0") && lines[1].contains(" 700 1970-01-01"), "{listing}");
        assert!(lines[2].ends_with(&format!("{}/{}", "d".repeat(120), "f".repeat(60))), "{listing}");
    }

    #[test]
    fn the_same_content_gives_the_same_bytes_in_whole_blocks() {
        let bytes = archive(&sample()).unwrap();
        assert_eq!(bytes, archive(&sample()).unwrap());
        assert_eq!(bytes.len(), BLOCK * (1 + 1 + 2 + 1 + 2));
    }

    #[test]
    fn paths_that_could_leave_the_archive_are_refused() {
        for path in ["", "/etc/passwd", "a/../b", "a//b", "a/", "./a", "nul\0"] {
            let error = archive(&[Entry::file(path, 0o644, Vec::new())]).unwrap_err().to_string();
            assert!(error.contains("is no path for an archive"), "{path}: {error}");
        }
        let error = archive(&[Entry::file(&"x".repeat(101), 0o644, Vec::new())]).unwrap_err().to_string();
        assert!(error.contains("too long"), "{error}");
    }
}
