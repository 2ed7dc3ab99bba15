//! Finds the unpacked sources of the package `lua-src`, wherever cargo keeps them: registry, vendor folder or a patch.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGE: &str = "lua-src";

fn main() {
    let manifest = Path::new(&variable("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let package = cargo_metadata(&manifest, true).or_else(|_| cargo_metadata(&manifest, false));
    let (version, folder) = package.unwrap_or_else(|why| {
        panic!("cannot find the sources of the package {PACKAGE}: {why}\n  try: cargo fetch --locked, then build again")
    });
    println!("cargo:rustc-env=SOURCE_TREE_NAME={PACKAGE} {version}");
    println!("cargo:rustc-env=SOURCE_TREE={}", folder.display());
    // Also when they are removed: then cargo unpacks them again, perhaps elsewhere.
    println!("cargo:rerun-if-changed={}", folder.display());
    println!("cargo:rerun-if-changed=../Cargo.lock");
    println!("cargo:rerun-if-changed=build.rs");
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name} for a build script"))
}

/// The version and folder of the package in this workspace's resolved dependencies.
///
/// `offline` needs every dependency unpacked, which a build of one package alone does not ensure; without it cargo fetches them.
fn cargo_metadata(manifest: &Path, offline: bool) -> Result<(String, PathBuf), String> {
    let mut command = Command::new(variable("CARGO"));
    command.args(["metadata", "--format-version", "1", "--locked"]);
    command.args(["--filter-platform", &variable("TARGET")]);
    command.arg("--manifest-path").arg(manifest);
    if offline {
        command.arg("--offline");
    }
    let output = command.output().map_err(|error| format!("cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("cargo metadata: {error}"))?;
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    let package = packages.iter().find(|package| package["name"] == PACKAGE);
    let text = |field: &str| package.and_then(|package| package[field].as_str());
    let folder = text("manifest_path").and_then(|path| Path::new(path).parent());
    match (text("version"), folder) {
        (Some(version), Some(folder)) => Ok((version.to_owned(), folder.to_owned())),
        _ => Err("it is not among the dependencies".into()),
    }
}
