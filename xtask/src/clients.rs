//! The foreign clients and servers that the integration tests run, and how they get onto the machine.
//!
//! Debian packages are installed with apt, as its owner would; what comes from PyPI and npm goes into folders under
//! `target/clients` and touches nothing else. What is present is used as it is, so that all of it works offline.
//! `integration-tests/src/tools.rs` looks in the same places.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process::{self, Program};

/// Whether packages may be installed without asking.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Consent {
    /// Ask on the terminal.
    Ask,
    /// `--yes`, or the variable `CI` is set.
    Given,
}

impl Consent {
    pub(crate) fn from_arguments(arguments: &[String]) -> Result<Self> {
        match arguments {
            [] if std::env::var_os("CI").is_some_and(|value| !value.is_empty()) => Ok(Self::Given),
            [] => Ok(Self::Ask),
            [argument] if argument == "--yes" || argument == "-y" => Ok(Self::Given),
            [argument, ..] => bail!("unexpected argument \"{argument}\" (known: --yes)"),
        }
    }
}

/// A program that comes with a Debian package.
struct DebianProgram {
    /// Arguments of a call that succeeds when the program works.
    probe: &'static [&'static str],
    package: &'static str,
}

const DEBIAN: &[DebianProgram] = &[
    // Asked for its version it says it and ends with 1.
    DebianProgram { probe: &["sh", "-c", "command -v mosquitto_pub"], package: "mosquitto-clients" },
    // Its own help ends with status 3, so the shell is asked for it. /usr/sbin is not on every user's PATH.
    DebianProgram { probe: &["sh", "-c", "PATH=$PATH:/usr/sbin command -v mosquitto"], package: "mosquitto" },
    DebianProgram { probe: &["/usr/sbin/nats-server", "--version"], package: "nats-server" },
    // Other users than root and its own are told to go away by the script on PATH.
    DebianProgram {
        probe: &["sh", "-c", "test -x /usr/lib/rabbitmq/bin/rabbitmq-server"],
        package: "rabbitmq-server",
    },
    DebianProgram { probe: &["redis-server", "--version"], package: "redis-server" },
    DebianProgram { probe: &["redis-cli", "--version"], package: "redis-tools" },
    // Both are in it: what reads the numbers, and what checks them.
    DebianProgram {
        probe: &["sh", "-c", "command -v prometheus && command -v promtool"],
        package: "prometheus",
    },
    // Judges the unit, and what of the machine it leaves open.
    DebianProgram { probe: &["systemd-analyze", "--version"], package: "systemd" },
    // A network of its own for the package that is installed in a test.
    DebianProgram { probe: &["sh", "-c", "PATH=$PATH:/usr/sbin ip -Version"], package: "iproute2" },
    // librdkafka, the foreign far side of the Kafka action, is built from its source.
    DebianProgram { probe: &["make", "--version"], package: "make" },
    DebianProgram { probe: &["c++", "--version"], package: "g++" },
    DebianProgram { probe: &["python3", "--version"], package: "python3" },
    DebianProgram { probe: &["python3", "-m", "pip", "--version"], package: "python3-pip" },
    DebianProgram { probe: &["node", "--version"], package: "nodejs" },
    DebianProgram { probe: &["npm", "--version"], package: "npm" },
    // Shows the console to its tests.
    DebianProgram { probe: &["/usr/bin/chromium", "--version"], package: "chromium" },
];

/// A library that is installed into a folder of its own under `target/clients`.
struct Library {
    folder: &'static str,
    from: Registry,
    /// Name and version as the registry's client takes them.
    requirement: &'static str,
}

enum Registry {
    Pypi,
    Npm,
}

const LIBRARIES: &[Library] = &[
    Library { folder: "paho-1", from: Registry::Pypi, requirement: "paho-mqtt==1.6.1" },
    Library { folder: "paho-2", from: Registry::Pypi, requirement: "paho-mqtt==2.2.0" },
    // A SCRAM client that somebody else wrote.
    Library { folder: "scramp", from: Registry::Pypi, requirement: "scramp==1.5.0" },
    // Holds the HTTP interface of administration against its OpenAPI document; its validator, TOML against our schemas.
    Library { folder: "schemathesis", from: Registry::Pypi, requirement: "schemathesis==4.32.5" },
    Library { folder: "mqttjs", from: Registry::Npm, requirement: "mqtt@5.16.0" },
];

impl Library {
    fn path(&self) -> PathBuf {
        process::root().join("target/clients").join(self.folder)
    }

    /// A file that is written after the installation succeeded and says what was installed.
    fn stamp(&self) -> PathBuf {
        self.path().join("installed.txt")
    }

    fn is_present(&self) -> bool {
        fs::read_to_string(self.stamp()).is_ok_and(|text| text == self.requirement)
    }

    fn install(&self) -> Result<()> {
        let path = self.path();
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("cannot clear {}", path.display()))?;
        }
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        match self.from {
            Registry::Pypi => Program::new("python3")
                .args(["-m", "pip", "install", "--quiet", "--no-warn-script-location", "--target"])
                .arg(&path)
                .arg(self.requirement),
            Registry::Npm => Program::new("npm")
                .args([
                    "install",
                    "--no-audit",
                    "--no-fund",
                    "--ignore-scripts",
                    "--loglevel=error",
                    "--prefix",
                ])
                .arg(&path)
                .arg(self.requirement),
        }
        .run()?;
        fs::write(self.stamp(), self.requirement)
            .with_context(|| format!("cannot write in {}", path.display()))
    }
}

/// Installs what is missing.
///
/// # Errors
/// When the user says no, or a package manager fails.
pub(crate) fn ensure(consent: Consent) -> Result<()> {
    let packages: Vec<&str> =
        DEBIAN.iter().filter(|program| !works(program.probe)).map(|program| program.package).collect();
    let libraries: Vec<&Library> = LIBRARIES.iter().filter(|library| !library.is_present()).collect();
    if packages.is_empty() && libraries.is_empty() {
        return Ok(());
    }
    if consent == Consent::Ask {
        let mut question = String::from("The tests run foreign clients and servers, and some are missing:\n");
        if !packages.is_empty() {
            question.push_str(&format!(
                "  Debian packages, installed with apt (no service is started): {}\n",
                packages.join(" ")
            ));
        }
        for library in &libraries {
            question.push_str(&format!("  {} into target/clients/{}\n", library.requirement, library.folder));
        }
        question.push_str("Install them?");
        process::confirm(&question)?;
    }
    if !packages.is_empty() {
        install_debian(&packages)?;
    }
    libraries.iter().try_for_each(|library| library.install())
}

fn works(probe: &[&str]) -> bool {
    probe.split_first().is_some_and(|(program, arguments)| Program::new(program).args(arguments).succeeds())
}

/// Installs Debian packages and lets no service of theirs start, now or at the next boot.
///
/// One shell does it all with the rights it needs: the script puts policy-rc.d back by a trap, however it ends.
fn install_debian(packages: &[&str]) -> Result<()> {
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("this is no Debian: install by hand what these packages hold: {}", packages.join(" "));
    }
    let is_root = Program::new("sh").args(["-c", "test \"$(id -u)\" = 0"]).succeeds();
    let shell = if is_root { Program::new("sh") } else { Program::new("sudo").arg("sh") };
    shell.arg(process::root().join("xtask/src/install-debian.sh")).args(packages).run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yes_is_consent_and_anything_else_is_refused() {
        assert_eq!(Consent::from_arguments(&["--yes".to_owned()]).unwrap(), Consent::Given);
        assert!(Consent::from_arguments(&["--no".to_owned()]).is_err());
    }

    #[test]
    fn a_program_that_does_not_exist_does_not_work() {
        assert!(works(&["sh", "-c", "exit 0"]));
        assert!(!works(&["sh", "-c", "exit 1"]));
        assert!(!works(&["tidegate-no-such-program"]));
    }
}
