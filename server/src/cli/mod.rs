//! The command line: `tidegate serve | demo | check | acl | certs | passwd | rules | dead-letters | sql | pub | sub | version`.
//!
//! Without a subcommand the demo runs, or the server when a configuration is named (`--config`, `TIDEGATE_CONFIG`).
//! Results go to standard output, everything else to standard error; [`Exit`] lists the exit codes.

mod acl;
mod actions;
mod alarms;
mod backup;
mod certs;
mod check;
mod clients;
mod completions;
mod connectors;
mod dead_letters;
mod diag;
mod exit;
mod format;
mod gateway;
mod health;
mod message;
mod mqtt_flags;
mod output;
mod passwd;
mod password;
mod progress;
mod publish;
mod reload;
mod restore;
mod retained;
mod rules;
mod schema;
mod serve;
mod setup_token;
mod signals;
mod sql;
mod subscribe;
mod table;
mod tail;
mod target;
mod top;
mod trace;
mod users;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub(crate) use self::exit::chain;
pub use self::exit::{Exit, Failure};
pub(crate) use self::format::iso_8601;
pub(crate) use self::output::Output;
pub(crate) use self::serve::cannot_start;
pub(crate) use self::signals::stop_signal;
pub(crate) use self::subscribe::without_control_characters;
use crate::config::{Assignment, Environment, Inputs, Loaded};

/// An MQTT broker with SQL rules, in one process.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, about, disable_help_subcommand = true, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Where the configuration is.
#[derive(Debug, Clone, Default, Args)]
struct ConfigArgs {
    /// Configuration file; without it, the file named by TIDEGATE_CONFIG, else defaults.
    #[arg(short = 'f', long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one key of the configuration, as in limits.max_packet_size=2MiB; wins over file and environment.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<Assignment>,
}

impl ConfigArgs {
    /// The arguments, with what was said before the subcommand where nothing is said after it. Keys are set in the order in
    /// which they were named.
    fn or(self, outer: &Self) -> Self {
        Self {
            config: self.config.or_else(|| outer.config.clone()),
            set: outer.set.iter().cloned().chain(self.set).collect(),
        }
    }

    /// Reads the configuration; what is wrong with it is printed as it should be read.
    fn load(&self, environment: &Environment) -> Result<Loaded, Failure> {
        let path = self.path(environment);
        let inputs = Inputs { flags: &self.set, ..Inputs::new(path.as_deref(), environment) };
        inputs.load().map_err(|errors| Failure::rendered(Exit::Refused, errors.render()))
    }

    fn path(&self, environment: &Environment) -> Option<PathBuf> {
        self.config.clone().or_else(|| environment.get("TIDEGATE_CONFIG").map(PathBuf::from))
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker.
    Serve(serve::ServeArgs),
    /// Show in the terminal what the broker does: simulated devices, rules, a receiver.
    Demo(crate::demo::DemoArgs),
    /// Check the configuration and the rules without starting anything.
    Check(check::CheckArgs),
    /// Work on rules: try them, test them, see what they have done.
    Rules(rules::RulesArgs),
    /// Have a running gateway read its configuration and its rules again.
    Reload(reload::ReloadArgs),
    /// Say whether a running gateway lets clients in.
    Health(health::HealthArgs),
    /// Look at what a running gateway could not deliver, send it again, drop it.
    DeadLetters(dead_letters::DeadLettersArgs),
    /// See how the actions of a running gateway do; stop them, empty their queues.
    Actions(actions::ActionsArgs),
    /// See where the connectors of a running gateway lead; try the way there.
    Connectors(connectors::ConnectorsArgs),
    /// See what somebody should look at on a running gateway; the exit code is 1 while there is something.
    Alarms(alarms::AlarmsArgs),
    /// Watch messages go through a running gateway.
    Tail(tail::TailArgs),
    /// Put what is needed to find a fault of a running gateway into a file, without secrets and payloads.
    Diag(diag::DiagArgs),
    /// Follow single messages through a running gateway.
    Trace(trace::TraceArgs),
    /// See who is connected to a running gateway, and whose sessions it keeps.
    Clients(clients::ClientsArgs),
    /// See what a running gateway is busy with.
    Top(top::TopArgs),
    /// See what a running gateway retains.
    Retained(retained::RetainedArgs),
    /// Users who may administer a running gateway.
    Users(users::UsersArgs),
    /// Tokens of programs that may administer a running gateway.
    Tokens(users::TokensArgs),
    /// Write what a running gateway owns into a file.
    Backup(backup::BackupArgs),
    /// Have a running gateway take up a backup, after showing what that changes.
    Restore(restore::RestoreArgs),
    /// Make certificates for development; show what certificates say.
    Certs(certs::CertsArgs),
    /// Print what a configuration may hold as JSON Schema, for editors.
    Schema(schema::SchemaArgs),
    /// Evaluate one SQL statement on one message, without a server.
    Sql(sql::SqlArgs),
    /// Publish messages; flags as in mosquitto_pub.
    Pub(publish::PublishArgs),
    /// Subscribe and print messages; flags as in mosquitto_sub.
    Sub(subscribe::SubscribeArgs),
    /// Ask what access rules decide; take over another broker's.
    Acl(acl::AclArgs),
    /// Set or take out a user's password in a file of users.
    Passwd(passwd::PasswdArgs),
    /// Print a token with which an administrator of a running gateway can be made; it is good once, for an hour.
    SetupToken(setup_token::SetupTokenArgs),
    /// Print a script with which a shell completes this command line.
    Completions(completions::CompletionsArgs),
    /// Print the version.
    Version,
}

/// Runs the program: arguments and environment in, exit code out.
pub fn run(arguments: impl IntoIterator<Item = OsString>, environment: &Environment) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version were asked for and go to standard output; clap knows which is which.
            drop(error.print());
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Success.into() };
        }
    };
    let outcome = match cli.command {
        Some(Command::Serve(args)) => serve::run(&args.or(&cli.config), environment),
        Some(Command::Demo(args)) => crate::demo::run(&args, environment),
        Some(Command::Check(args)) => check::run(&args.or(&cli.config), environment),
        Some(Command::Rules(args)) => rules::run(args, &cli.config, environment),
        Some(Command::Reload(args)) => reload::run(&args, &cli.config, environment),
        Some(Command::Health(args)) => health::run(&args, &cli.config, environment),
        Some(Command::DeadLetters(args)) => dead_letters::run(&args, &cli.config, environment),
        Some(Command::Actions(args)) => actions::run(&args, &cli.config, environment),
        Some(Command::Alarms(args)) => alarms::run(&args, &cli.config, environment),
        Some(Command::Tail(args)) => tail::run(&args, &cli.config, environment),
        Some(Command::Diag(args)) => diag::run(&args, &cli.config, environment),
        Some(Command::Trace(args)) => trace::run(&args, &cli.config, environment),
        Some(Command::Connectors(args)) => connectors::run(&args, &cli.config, environment),
        Some(Command::Clients(args)) => clients::run(&args, &cli.config, environment),
        Some(Command::Top(args)) => top::run(&args, &cli.config, environment),
        Some(Command::Retained(args)) => retained::run(&args, &cli.config, environment),
        Some(Command::Users(args)) => users::run(&args, &cli.config, environment),
        Some(Command::Tokens(args)) => users::run_tokens(&args, &cli.config, environment),
        Some(Command::Backup(args)) => backup::run(&args, &cli.config, environment),
        Some(Command::Restore(args)) => restore::run(&args, &cli.config, environment),
        Some(Command::Certs(args)) => certs::run(&args, &cli.config, environment),
        Some(Command::Schema(args)) => schema::run(&args),
        Some(Command::Sql(args)) => sql::run(&args),
        Some(Command::Pub(args)) => publish::run(&args, environment),
        Some(Command::Sub(args)) => subscribe::run(&args, environment),
        Some(Command::Acl(args)) => acl::run(&args, &cli.config, environment),
        Some(Command::Passwd(args)) => passwd::run(&args),
        Some(Command::SetupToken(args)) => setup_token::run(&args, &cli.config, environment),
        Some(Command::Completions(args)) => completions::run(&args),
        Some(Command::Version) => version(),
        None if cli.config.path(environment).is_some() => {
            serve::run(&serve::ServeArgs::default().or(&cli.config), environment)
        }
        None => crate::demo::run(&crate::demo::DemoArgs::default(), environment),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            // Nothing is left to do when standard error is gone.
            drop(std::io::stderr().write_all(failure.text().as_bytes()));
            failure.exit().into()
        }
    }
}

fn version() -> Result<Exit, Failure> {
    Output::stdout().line(&format!("tidegate {}", env!("CARGO_PKG_VERSION")))?;
    Ok(Exit::Success)
}

/// Runs asynchronous work to its end on as many threads as asked for; work left behind, such as a read from standard
/// input that nobody waits for any more, doesn't hold up the exit.
pub(crate) fn block_on<T>(
    threads: Threads,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut builder = match threads {
        Threads::One => tokio::runtime::Builder::new_current_thread(),
        Threads::PerCore => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, format!("the runtime can't be started: {error}")))?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_background();
    outcome
}

/// How many threads do the work.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Threads {
    /// All on the calling thread.
    One,
    /// A worker for each core.
    PerCore,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
