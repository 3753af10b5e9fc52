//! Runs rumqttd as a process of its own: an independent broker for bridges, comparisons and the measurements in
//! `docs/decisions/0001-own-broker-core.md`.
//!
//! Usage: `rumqttd-peer CONFIG.toml`. The file is rumqttd's own format; `rumqttd.example.toml` beside this package is
//! one that listens on loopback only. The process runs until it is killed. What rumqttd reports goes to stderr.

use std::{env, fs};

use anyhow::{Context, bail};

fn main() -> anyhow::Result<()> {
    let mut arguments = env::args_os().skip(1);
    let (Some(path), None) = (arguments.next(), arguments.next()) else {
        bail!("usage: rumqttd-peer CONFIG.toml");
    };
    let path = std::path::PathBuf::from(path);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let config: rumqttd::Config =
        toml::from_str(&text).with_context(|| format!("{} is no rumqttd configuration", path.display()))?;
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    rumqttd::Broker::new(config).start().context("rumqttd stopped")?;
    Ok(())
}
