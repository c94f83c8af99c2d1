//! How a cluster is reached, as written in a process's configuration file. Reads certificate and password files.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rdkafka::{ClientConfig, error::KafkaError};
use serde::{Deserialize, Serialize};

/// A Kafka cluster and how to talk to it. Holds the names of secret files, never their contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// `host:port` of one or more brokers; the rest are learnt from them.
    pub bootstrap_servers: Vec<String>,
    /// Present: connections are encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// Present: the client logs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<SaslConfig>,
    #[serde(default, skip_serializing_if = "ClientTuning::is_default")]
    pub client: ClientTuning,
}

/// Files in PEM. Without `ca_file` the system's certificate authorities are trusted; the other two go together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaslConfig {
    pub mechanism: SaslMechanism,
    pub username_file: PathBuf,
    pub password_file: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SaslMechanism {
    #[serde(rename = "PLAIN")]
    Plain,
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

/// Limits and waits of the client; the defaults suit a decision service in the brokers' own region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientTuning {
    /// How long a producer waits for more records before it sends a batch.
    #[serde(with = "domain::duration")]
    pub linger: Duration,
    /// A record that is not acknowledged within this time has failed.
    #[serde(with = "domain::duration")]
    pub delivery_timeout: Duration,
    /// Records that wait for acknowledgement; more are refused with `QueueFull`.
    pub queued_records_max: u32,
    pub queued_kib_max: u32,
    /// How often the client reports its state to metrics.
    #[serde(with = "domain::duration")]
    pub statistics_interval: Duration,
}

impl Default for ClientTuning {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(1),
            delivery_timeout: Duration::from_secs(30),
            queued_records_max: 100_000,
            queued_kib_max: 64 * 1024,
            statistics_interval: Duration::from_secs(5),
        }
    }
}

impl ClientTuning {
    fn is_default(&self) -> bool {
        self == &Self::default()
    }
}

/// Why no client can be made from a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("bootstrap_servers is empty: name at least one broker as host:port")]
    NoServers,
    #[error("bootstrap_servers has {0:?}: write host:port with a port from 1 to 65535")]
    BadServer(String),
    #[error("tls has only one of cert_file and key_file: give both, or neither")]
    HalfCertificate,
    #[error("{field}: {} cannot be read: {source}", .path.display())]
    Unreadable { field: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{field}: {} is empty", .path.display())]
    Empty { field: &'static str, path: PathBuf },
    #[error("{field}: {} has a NUL byte: write the secret as text", .path.display())]
    NotText { field: &'static str, path: PathBuf },
    /// Without the value, which may be a secret.
    #[error("Kafka client refused its configuration: {0}")]
    Refused(String),
}

impl From<KafkaError> for ConfigError {
    fn from(error: KafkaError) -> Self {
        match error {
            KafkaError::ClientConfig(_, _, property, _) => Self::Refused(format!("property {property} has a value that is not allowed")),
            other => Self::Refused(other.to_string()),
        }
    }
}

impl KafkaConfig {
    /// What all clients have in common. Reads the files that are named, so a changed secret is seen by the next client.
    ///
    /// # Errors
    /// When an address is malformed, or a file is missing or empty.
    pub fn client_config(&self, client_id: &str) -> Result<ClientConfig, ConfigError> {
        self.check_servers()?;
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.bootstrap_servers.join(","))
            .set("client.id", client_id)
            .set("statistics.interval.ms", self.client.statistics_interval.as_millis().to_string())
            .set("socket.keepalive.enable", "true")
            .set("socket.nagle.disable", "true")
            // librdkafka waits up to 10 s between attempts: too long once a region is back.
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "1000")
            .set("security.protocol", self.security_protocol());
        if let Some(tls) = &self.tls {
            tls.apply(&mut config)?;
        }
        if let Some(sasl) = &self.sasl {
            sasl.apply(&mut config)?;
        }
        Ok(config)
    }

    fn check_servers(&self) -> Result<(), ConfigError> {
        if self.bootstrap_servers.is_empty() {
            return Err(ConfigError::NoServers);
        }
        let valid = |server: &str| match server.rsplit_once(':') {
            // A comma would smuggle in another server, white space is never meant.
            Some((host, port)) => !host.is_empty() && !host.contains([',', ' ']) && port.parse::<u16>().is_ok_and(|number| number > 0),
            None => false,
        };
        match self.bootstrap_servers.iter().find(|server| !valid(server)) {
            Some(bad) => Err(ConfigError::BadServer(bad.chars().take(100).collect())),
            None => Ok(()),
        }
    }

    fn security_protocol(&self) -> &'static str {
        match (&self.tls, &self.sasl) {
            (None, None) => "PLAINTEXT",
            (Some(_), None) => "SSL",
            (None, Some(_)) => "SASL_PLAINTEXT",
            (Some(_), Some(_)) => "SASL_SSL",
        }
    }
}

impl TlsConfig {
    fn apply(&self, config: &mut ClientConfig) -> Result<(), ConfigError> {
        if self.cert_file.is_some() != self.key_file.is_some() {
            return Err(ConfigError::HalfCertificate);
        }
        let files = [
            ("tls.ca_file", "ssl.ca.location", &self.ca_file),
            ("tls.cert_file", "ssl.certificate.location", &self.cert_file),
            ("tls.key_file", "ssl.key.location", &self.key_file),
        ];
        for (field, property, file) in files {
            if let Some(path) = file {
                // Read here only so that a missing file is named by its field.
                read_text(field, path)?;
                config.set(property, path.to_string_lossy());
            }
        }
        Ok(())
    }
}

impl SaslConfig {
    fn apply(&self, config: &mut ClientConfig) -> Result<(), ConfigError> {
        let mechanism = match self.mechanism {
            SaslMechanism::Plain => "PLAIN",
            SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
            SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
        };
        config
            .set("sasl.mechanism", mechanism)
            .set("sasl.username", read_text("sasl.username_file", &self.username_file)?)
            .set("sasl.password", read_text("sasl.password_file", &self.password_file)?);
        Ok(())
    }
}

/// The text of a mounted secret, without the newline that editors leave at its end.
fn read_text(field: &'static str, path: &Path) -> Result<String, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { field, path: path.to_owned(), source })?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(ConfigError::Empty { field, path: path.to_owned() });
    }
    if text.contains('\0') {
        return Err(ConfigError::NotText { field, path: path.to_owned() });
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<KafkaConfig, String> {
        serde_yaml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_minimal_configuration_gets_the_defaults() {
        let config = parse("bootstrap_servers: ['kafka:9092']").unwrap();
        assert_eq!(config.client, ClientTuning::default());
        let client = config.client_config("test").unwrap();
        assert_eq!(client.get("security.protocol"), Some("PLAINTEXT"));
        assert_eq!(serde_yaml::to_string(&config).unwrap().trim(), "bootstrap_servers:\n- kafka:9092");
    }

    #[test]
    fn a_misspelt_field_is_refused_by_name() {
        let error = parse("bootstrap_servers: ['a:1']\nbootstrap: x").unwrap_err();
        assert!(error.contains("bootstrap"), "{error}");
        let error = parse("bootstrap_servers: ['a:1']\nclient: {linger: 1}").unwrap_err();
        assert!(error.contains("500ms") && error.contains("line 2"), "{error}");
    }

    #[test]
    fn servers_without_a_port_are_refused() {
        for bad in ["kafka", "kafka:", "kafka:0", "kafka:99999", ":9092", "a:1,b:2", "a b:1"] {
            let config = parse(&format!("bootstrap_servers: ['{bad}']")).unwrap();
            assert!(matches!(config.client_config("test"), Err(ConfigError::BadServer(_))), "{bad}");
        }
        assert!(matches!(parse("bootstrap_servers: []").unwrap().client_config("test"), Err(ConfigError::NoServers)));
    }

    #[test]
    fn passwords_are_read_from_files_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let (user, password) = (folder.path().join("user"), folder.path().join("password"));
        fs::write(&user, "mirror\n").unwrap();
        let text = format!(
            "bootstrap_servers: ['a:1']\nsasl: {{mechanism: SCRAM-SHA-512, username_file: {}, password_file: {}}}",
            user.display(),
            password.display()
        );
        let config = parse(&text).unwrap();
        let error = config.client_config("test").unwrap_err().to_string();
        assert!(error.contains("sasl.password_file") && error.contains("cannot be read"), "{error}");
        fs::write(&password, "").unwrap();
        assert!(matches!(config.client_config("test"), Err(ConfigError::Empty { field: "sasl.password_file", .. })));
        fs::write(&password, "correct horse\n").unwrap();
        let client = config.client_config("test").unwrap();
        assert_eq!(client.get("sasl.username"), Some("mirror"));
        assert!(!format!("{client:?} {config:?}").contains("horse"));
    }

    #[test]
    fn a_certificate_needs_its_key() {
        let config = parse("bootstrap_servers: ['a:1']\ntls: {cert_file: /x}").unwrap();
        assert!(matches!(config.client_config("test"), Err(ConfigError::HalfCertificate)));
    }
}
