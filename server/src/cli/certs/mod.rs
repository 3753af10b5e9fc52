//! `tidegate certs`: certificates for development, and what a certificate says.

mod dev;
mod show;

use clap::{Args, Subcommand};

use super::{ConfigArgs, Exit, Failure};
use crate::config::Environment;

#[derive(Debug, Args)]
pub(super) struct CertsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an authority, a server's and a client's certificate for development.
    Dev(dev::DevArgs),
    /// Show what certificates say: subject, names, issuer, fingerprint, for how long they hold, whether a key is theirs.
    Show(show::ShowArgs),
}

pub(super) fn run(args: &CertsArgs, outer: &ConfigArgs, environment: &Environment) -> Result<Exit, Failure> {
    match &args.command {
        Command::Dev(args) => dev::run(args),
        Command::Show(args) => show::run(args, outer, environment),
    }
}
