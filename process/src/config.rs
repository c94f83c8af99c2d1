//! Configuration files: YAML, strict, bounded, with errors that say where.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// A configuration file larger than this is a mistake, not a configuration.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}. Check the path given on the command line and that the volume is mounted", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} has {bytes} bytes, at most {CONFIG_BYTES_MAX} are allowed", path.display())]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error("{} is not a valid configuration: {source}", path.display())]
    Parse { path: PathBuf, source: serde_yaml::Error },
}

/// Reads `path` into `T`. Types should use `deny_unknown_fields`, so that a misspelt field is an error.
///
/// # Errors
/// When the file cannot be read, is too large, or is not what `T` expects (the message names line and field).
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = read_bounded(path)?;
    parse(path, &text)
}

/// Reads a small text file, refusing what is larger than a configuration can be.
///
/// # Errors
/// When the file cannot be read or is too large.
pub fn read_bounded(path: &Path) -> Result<String, ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(read)?.len();
    if bytes > CONFIG_BYTES_MAX {
        return Err(ConfigError::TooLarge { path: path.to_owned(), bytes });
    }
    std::fs::read_to_string(path).map_err(read)
}

/// Parses text that was read from `path`.
///
/// # Errors
/// When the text is not what `T` expects.
pub fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    serde_yaml::from_str(text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        #[allow(dead_code)]
        region: String,
    }

    #[test]
    fn a_misspelt_field_is_an_error_that_names_it() {
        let error = parse::<Example>(Path::new("config.yaml"), "regoin: us-east\n").unwrap_err().to_string();
        assert!(error.contains("config.yaml") && error.contains("regoin"), "{error}");
    }

    #[test]
    fn a_missing_file_says_what_to_check() {
        let error = load::<Example>(Path::new("/does/not/exist.yaml")).unwrap_err().to_string();
        assert!(error.contains("/does/not/exist.yaml") && error.contains("mounted"), "{error}");
    }
}
