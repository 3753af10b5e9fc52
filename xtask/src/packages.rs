//! `cargo xtask deb` and `cargo xtask image`: what is installed on machines, made from the release binary.
//!
//! The tests make the same Debian package from the binary that they have anyway (`--binary FILE`), so that none waits for a
//! release build.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::console;
use crate::process::{self, Program};
use crate::tools;

/// Scripts of the shells in the package, and where its assets in server/Cargo.toml look for them.
const COMPLETIONS: &[&str] = &["bash", "zsh", "fish"];

/// What a static binary is built for.
const MUSL: &str = "x86_64-unknown-linux-musl";

/// Engines that build an image, in the order in which they are looked for.
const ENGINES: &[&str] = &["podman", "buildah", "docker"];

/// Makes the Debian package, from a release build or from a binary that is there.
///
/// # Errors
/// When something can't be built, or an argument is unknown.
pub(crate) fn deb(arguments: &[String]) -> Result<()> {
    let given = match arguments {
        [] => None,
        [flag, path] if flag == "--binary" => Some(PathBuf::from(path)),
        _ => bail!("usage: cargo xtask deb [--binary FILE]"),
    };
    let cargo_deb = tools::CARGO_DEB.ensure()?;
    let root = process::root();
    let built = root.join("target/release/tidegate");
    let binary = match &given {
        Some(binary) => binary.clone(),
        None => {
            console::run()?;
            process::cargo().args(["build", "--release", "--locked", "--package", "tidegate"]).run()?;
            built
        }
    };
    completions(&binary, &root.join("target/packaging"))?;
    // It takes the binary from the folder of a target: the one that is given is put into a folder of its own.
    let deb =
        Program::new(&cargo_deb).args(["--package", "tidegate", "--no-build", "--no-dbgsym", "--locked"]);
    match given {
        None => deb.run(),
        Some(binary) => {
            let target = root.join("target/packaging/given");
            let release = target.join("release");
            fs::create_dir_all(&release).with_context(|| format!("cannot create {}", release.display()))?;
            fs::copy(&binary, release.join("tidegate"))
                .with_context(|| format!("cannot copy {}", binary.display()))?;
            // For tests: made fast, not small.
            deb.args(["--fast", "--output", "target/packaging/tidegate.deb"])
                .env("CARGO_TARGET_DIR", target)
                .run()
        }
    }
}

fn completions(binary: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for shell in COMPLETIONS {
        let output = std::process::Command::new(binary)
            .args(["completions", shell])
            .output()
            .with_context(|| format!("cannot run {}", binary.display()))?;
        if !output.status.success() {
            bail!("{} printed no completions for {shell}", binary.display());
        }
        let path = folder.join(format!("tidegate.{shell}"));
        fs::write(&path, output.stdout).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Builds the static binary, tries it where there is nothing but it, and makes the image where an engine for it is installed.
///
/// # Errors
/// When something can't be built, the binary fails, or no engine is there.
pub(crate) fn image() -> Result<()> {
    if !Program::new("musl-gcc").arg("--version").succeeds() {
        bail!("musl-gcc is missing: on Debian, install the package musl-tools");
    }
    if !Program::new("rustc").args(["--print", "target-libdir", "--target", MUSL]).succeeds() {
        Program::new("rustup").args(["target", "add", MUSL]).run()?;
    }
    console::run()?;
    process::cargo()
        .args(["build", "--release", "--locked", "--package", "tidegate", "--target", MUSL])
        .run()?;
    let root = process::root();
    let binary = root.join("target").join(MUSL).join("release/tidegate");
    try_alone(&binary)?;
    let context = root.join("target/packaging/image");
    lay_out(&context, &binary)?;
    let Some(engine) = ENGINES.iter().find(|engine| Program::new(engine).arg("info").succeeds()) else {
        bail!(
            "the static binary is built and tried, but there is no image: none of {} works here",
            ENGINES.join(", ")
        );
    };
    Program::new(engine)
        .args(["build", "--file", "packaging/Containerfile", "--tag", "tidegate"])
        .arg(&context)
        .run()
}

/// Runs the binary as an image would: an empty root that is read-only, a user without rights, one folder to write to.
fn try_alone(binary: &Path) -> Result<()> {
    let is_root = Program::new("sh").args(["-c", "test \"$(id -u)\" = 0"]).succeeds();
    let unshare = if is_root { Program::new("unshare") } else { Program::new("sudo").arg("unshare") };
    unshare
        .args(["--mount", "--net", "--pid", "--fork"])
        .arg(process::root().join("packaging/try-alone.sh"))
        .arg(binary)
        .arg(process::root().join("packaging/tidegate.toml"))
        .run()
}

/// Puts into a folder what the image is made of.
fn lay_out(context: &Path, binary: &Path) -> Result<()> {
    if context.exists() {
        fs::remove_dir_all(context).with_context(|| format!("cannot clear {}", context.display()))?;
    }
    let place = |from: &Path, to: &str| -> Result<()> {
        let to = context.join(to);
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        fs::copy(from, &to).map(drop).with_context(|| format!("cannot copy {}", from.display()))
    };
    place(binary, "root/usr/bin/tidegate")?;
    place(&process::root().join("packaging/tidegate.toml"), "root/etc/tidegate/tidegate.toml")?;
    // Whom HTTPS actions trust. Without it the connectors have to name their authorities.
    let authorities = Path::new("/etc/ssl/certs/ca-certificates.crt");
    if authorities.exists() {
        place(authorities, "root/etc/ssl/certs/ca-certificates.crt")?;
    }
    let data = context.join("data");
    fs::create_dir_all(&data).with_context(|| format!("cannot create {}", data.display()))
}
