//! The certificate authority of a set of regions, and the certificates that it signs.

use anyhow::Context;
use domain::RegionName;
use jiff::{ToSpan, Zoned, civil::Date};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};

pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    validity: Validity,
}

/// A certificate with its private key, both as PEM.
pub(super) struct Identity {
    pub(super) certificate_pem: String,
    pub(super) key_pem: String,
}

#[derive(Clone, Copy)]
struct Validity {
    first: Date,
    last: Date,
}

impl Validity {
    /// From yesterday, so that a peer whose clock is a little behind accepts it.
    fn days(days: u16) -> anyhow::Result<Self> {
        let today = Zoned::now().date();
        Ok(Self { first: today.checked_sub(1.day())?, last: today.checked_add(i32::from(days).days())? })
    }

    fn apply(self, params: &mut CertificateParams) {
        let time = |date: Date| date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs());
        params.not_before = time(self.first);
        params.not_after = time(self.last);
    }
}

impl Authority {
    /// The authority itself is valid for ten years; what it signs, for `days`.
    pub(super) fn new(days: u16) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.distinguished_name.push(DnType::CommonName, "fraudpipeline regions CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Validity::days(3650)?.apply(&mut params);
        let key = KeyPair::generate().context("cannot generate the key of the CA")?;
        let certificate_pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate_pem, validity: Validity::days(days)? })
    }

    pub(super) fn certificate_pem(&self) -> String {
        self.certificate_pem.clone()
    }

    pub(super) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate for both ends of mutual TLS. `names` are DNS names; peers learn the region from them.
    pub(super) fn issue(&self, common_name: &str, region: &RegionName, names: Vec<String>) -> anyhow::Result<Identity> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.distinguished_name.push(DnType::OrganizationalUnitName, region.as_str());
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.validity.apply(&mut params);
        let key = KeyPair::generate().with_context(|| format!("cannot generate a key for {common_name}"))?;
        let certificate = params.signed_by(&key, &self.issuer).with_context(|| format!("cannot sign the certificate of {common_name}"))?;
        Ok(Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}
