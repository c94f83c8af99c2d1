//! A region's certificates and kubeconfigs. IO: writes the region's `pki` folder once; keys never leave it but in kubeconfigs.
//!
//! Two authorities, as Kubernetes wants them: one for the cluster, one for the aggregation layer's front proxy.

use std::fs;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::instance::{Region, private_folder, write_private};

/// Written last: a folder without it was left half made and is made again.
const COMPLETE: &str = "pki/complete";

/// Who has a client certificate and a kubeconfig: file name, common name, organisation.
const USERS: [(&str, &str, &str); 5] = [
    ("admin", "admin", "system:masters"),
    ("controller-manager", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("proxy", "system:kube-proxy", ""),
    // How the API server proves itself to the kubelet.
    ("kubelet-client", "kube-apiserver-kubelet-client", "system:masters"),
];

type Authority = Issuer<'static, KeyPair>;

pub(crate) fn ensure(region: &Region) -> Result<()> {
    if region.path(COMPLETE).exists() {
        return Ok(());
    }
    private_folder(&region.path("pki"))?;
    let cluster = authority(region, "ca", "kubernetes")?;
    let front_proxy = authority(region, "front-proxy-ca", "front-proxy")?;
    let node_user = format!("system:node:{}", region.name);
    let node = region.addresses.node.to_string();
    let api_names: Vec<String> = [
        node.clone(),
        Ipv4Addr::LOCALHOST.to_string(),
        region.addresses.api_service().to_string(),
        "localhost".to_owned(),
        format!("node.{}", region.name),
    ]
    .into_iter()
    .chain(["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"].map(str::to_owned))
    .collect();
    leaf(region, "api-server", "kube-apiserver", "", api_names, &cluster)?;
    leaf(region, "kubelet", &node_user, "system:nodes", vec![node, region.name.clone()], &cluster)?;
    leaf(region, "front-proxy-client", "front-proxy-client", "", Vec::new(), &front_proxy)?;
    for (file, name, organisation) in USERS {
        leaf(region, file, name, organisation, Vec::new(), &cluster)?;
    }
    let service_accounts = KeyPair::generate()?;
    write_private(&region.path("pki/service-account.key"), service_accounts.serialize_pem().as_bytes())?;
    write_private(&region.path("pki/service-account.pub"), service_accounts.public_key_pem().as_bytes())?;
    for file in USERS.iter().map(|user| user.0).chain(["kubelet"]) {
        write_private(&region.path(&format!("{file}.kubeconfig")), kubeconfig_of(region, file).as_bytes())?;
    }
    write_private(&region.path(COMPLETE), b"")
}

fn names(common_name: &str, organisation: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    if !organisation.is_empty() {
        name.push(DnType::OrganizationName, organisation);
    }
    name
}

fn params(common_name: &str, organisation: &str, subject_names: Vec<String>) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(subject_names)?;
    params.distinguished_name = names(common_name, organisation);
    // Wide on purpose: a bench machine's clock may be far off.
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2060, 1, 1);
    Ok(params)
}

fn authority(region: &Region, file: &str, common_name: &str) -> Result<Authority> {
    let mut params = params(&format!("{common_name} of {} in {}", region.name, region.instance), "", Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    write_private(&region.path(&format!("pki/{file}.crt")), certificate.pem().as_bytes())?;
    Ok(Issuer::new(params, key))
}

fn leaf(
    region: &Region,
    file: &str,
    common_name: &str,
    organisation: &str,
    subject_names: Vec<String>,
    authority: &Authority,
) -> Result<()> {
    let mut params = params(common_name, organisation, subject_names)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;
    write_private(&region.path(&format!("pki/{file}.crt")), certificate.pem().as_bytes())?;
    write_private(&region.path(&format!("pki/{file}.key")), key.serialize_pem().as_bytes())
}

/// For a process of the region itself: names the files.
fn kubeconfig_of(region: &Region, user: &str) -> String {
    let pki = region.path("pki");
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: {name}\n\
         clusters: [{{name: {name}, cluster: {{server: '{server}', certificate-authority: '{pki}/ca.crt'}}}}]\n\
         users: [{{name: {user}, user: {{client-certificate: '{pki}/{user}.crt', client-key: '{pki}/{user}.key'}}}}]\n\
         contexts: [{{name: {name}, context: {{cluster: {name}, user: {user}}}}}]\n",
        name = region.name,
        server = region.api_server(),
        pki = pki.display(),
    )
}

/// One file with a context for each region and everything inside, so that it can be copied.
pub(crate) fn joint_kubeconfig(regions: &[Region]) -> Result<String> {
    use base64::Engine;
    let encoded = |region: &Region, file: &str| -> Result<String> {
        let path = region.path("pki").join(file);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
    };
    let (mut clusters, mut users, mut contexts) = (Vec::new(), Vec::new(), Vec::new());
    for region in regions {
        let name = &region.name;
        clusters.push(serde_json::json!({"name": name, "cluster": {"server": region.api_server(), "certificate-authority-data": encoded(region, "ca.crt")?}}));
        users.push(serde_json::json!({"name": name, "user": {
            "client-certificate-data": encoded(region, "admin.crt")?, "client-key-data": encoded(region, "admin.key")?}}));
        contexts.push(serde_json::json!({"name": name, "context": {"cluster": name, "user": name}}));
    }
    let first = regions.first().map(|region| region.name.as_str()).unwrap_or_default();
    Ok(serde_yaml::to_string(&serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": first, "clusters": clusters, "users": users, "contexts": contexts
    }))?)
}
