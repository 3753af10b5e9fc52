//! `tidegate passwd`: users of a file of users.

use std::path::PathBuf;

use access::authentication::{Change, argon2id, edit, scram_sha_256};
use clap::Args;

use super::exit::chain;
use super::output::notice;
use super::password::password;
use super::{Exit, Failure};

#[derive(Debug, Args)]
pub(super) struct PasswdArgs {
    /// File of users; made if it isn't there.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// User to set the password of, or to take out.
    #[arg(value_name = "USER")]
    user: String,
    /// Take the user out.
    #[arg(short = 'D', long, conflicts_with_all = ["scram", "password_file"])]
    delete: bool,
    /// Make a line that serves SCRAM-SHA-256 as well as plain passwords.
    #[arg(long)]
    scram: bool,
    /// Read the password from this file, `-` for standard input, instead of asking for it.
    #[arg(long, value_name = "PATH")]
    password_file: Option<PathBuf>,
}

pub(super) fn run(args: &PasswdArgs) -> Result<Exit, Failure> {
    let left = if args.delete {
        change(args, Change::Delete)?
    } else {
        let password = password(args.password_file.as_deref(), args.scram)?;
        let hash = if args.scram { scram_sha_256(&password) } else { argon2id(&password) };
        let hash = hash.map_err(|error| Failure::new(Exit::Failed, chain(&error)))?;
        change(args, Change::Set(&hash))?
    };
    if left == 0 {
        notice("the file has no user left: a broker takes none without users");
    }
    Ok(Exit::Success)
}

fn change(args: &PasswdArgs, change: Change<'_>) -> Result<usize, Failure> {
    edit(&args.file, &args.user, change).map_err(|error| Failure::new(Exit::Failed, chain(&error)))
}
