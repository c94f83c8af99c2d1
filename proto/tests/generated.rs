//! The generated code that is checked in is what the `.proto` files say. `BLESS=1` writes it anew.
#![forbid(unsafe_code)]

use std::{fs, path::Path};

#[test]
fn checked_in_code_is_what_the_proto_files_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let include = root.join("proto");
    let files = ["fraud/v1/event.proto", "fraud/v1/scoring.proto", "inference/open_inference.proto"];
    let descriptors = protox::compile(files, [&include]).expect("the .proto files must compile");
    let out = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .client_mod_attribute(".", "#[cfg(feature = \"grpc\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"grpc\")]")
        .out_dir(out.path())
        .bytes(".inference")
        .compile_fds(descriptors)
        .expect("code generation");

    for name in ["fraud.v1.rs", "inference.rs"] {
        let generated = fs::read_to_string(out.path().join(name)).unwrap();
        let checked_in = root.join("src/generated").join(name);
        if std::env::var_os("BLESS").is_some() {
            fs::write(&checked_in, &generated).unwrap();
        }
        let found = fs::read_to_string(&checked_in).unwrap_or_default();
        assert!(found == generated, "{} is out of date: run `cargo xtask proto`", checked_in.display());
    }
}
