//! `tidegate rules test`: cases as data, run through the code that live messages go through.
//!
//! Its exit codes are a promise of the format: 0 everything holds, 1 something does not, 2 a file can't be read.

use std::collections::HashMap;
use std::fs;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use rules_sql::Limits;

use super::junit;
use crate::cli::output::{Output, notice};
use crate::cli::{ConfigArgs, Exit, Failure, serve};
use crate::config::Environment;
use crate::rules::cases::{self, Book, CaseFile, Runner, Shelf, Verdict};
use crate::server;

#[derive(Debug, Args)]
pub(super) struct TestArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Case file, rule file (its cases stand beside it in NAME.cases.json or .jsonl), or folder of case files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print one JSON object a line for each case.
    #[arg(long)]
    json: bool,
    /// Folder or file with the rules that cases name; may be repeated. They come before those beside the cases.
    #[arg(long, value_name = "DIR|FILE")]
    rules: Vec<PathBuf>,
    /// A warning about its rule makes a case fail.
    #[arg(long)]
    deny_warnings: bool,
    /// Name the cases that pass too, and show warnings.
    #[arg(short = 'v', long, conflicts_with = "json")]
    verbose: bool,
    /// Write a report in JUnit's format.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

impl TestArgs {
    /// The arguments, with what was said before the subcommand where nothing is said after it.
    pub(super) fn or(self, outer: &ConfigArgs) -> Self {
        Self { config: self.config.or(outer), ..self }
    }
}

/// The verdicts of one case file.
pub(super) struct Report {
    pub(super) path: PathBuf,
    pub(super) verdicts: Vec<Verdict>,
}

pub(super) fn run(args: &TestArgs, environment: &Environment) -> Result<Exit, Failure> {
    let mut limits = Limits::default();
    let mut configured = Shelf::default();
    if args.config.path(environment).is_some() {
        let loaded = args.config.load(environment)?;
        limits = server::rule_limits(&loaded.config.limits.rules);
        configured = Shelf::of(serve::load_rules(&loaded, environment)?);
    }
    let mut exit = Exit::Success;
    let mut unreadable = |why: &str| {
        notice(why);
        exit = Exit::Usage;
    };
    let mut named = Shelf::default();
    let rule_files = args.files.iter().filter(|path| path.extension().is_some_and(|end| end == "toml"));
    for path in args.rules.iter().chain(rule_files) {
        match Shelf::read(path, &limits) {
            Ok(shelf) => named.append(shelf),
            Err(why) => unreadable(&why),
        }
    }
    let mut files = Vec::new();
    for argument in &args.files {
        let paths = cases::case_files(argument).unwrap_or_else(|why| {
            unreadable(&why);
            Vec::new()
        });
        for path in paths {
            match cases::read_cases(&path) {
                Ok(file) => files.push(file),
                Err(why) => unreadable(&why),
            }
        }
    }
    for fault in named.faults() {
        notice(&fault.to_string());
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    let runner = Runner { limits: &limits, now_ms, deny_warnings: args.deny_warnings };
    let mut bench = Bench { args, runner, named: &named, configured: &configured, beside: HashMap::new() };
    let mut reports = Vec::new();
    for file in &files {
        reports.push(bench.run(file)?);
    }
    if let Some(path) = &args.junit
        && let Err(error) = fs::write(path, junit::report(&reports))
    {
        return Err(Failure::new(Exit::Failed, format!("{} can't be written: {error}", path.display())));
    }
    let count = Count::of(&reports);
    if !args.json {
        Output::stdout().line(&count.words())?;
    }
    let failed = count.failed > 0 || !named.faults().is_empty();
    Ok(if exit == Exit::Success && failed { Exit::Failed } else { exit })
}

/// Runs files one after the other and prints what comes of them.
struct Bench<'s> {
    args: &'s TestArgs,
    runner: Runner<'s>,
    named: &'s Shelf,
    configured: &'s Shelf,
    /// The rules beside case files, by folder.
    beside: HashMap<PathBuf, Shelf>,
}

impl Bench<'_> {
    fn run(&mut self, file: &CaseFile) -> Result<Report, Failure> {
        let folder = folder_of(&file.path);
        let limits = self.runner.limits;
        let beside = self.beside.entry(folder).or_insert_with_key(|folder| {
            // Where there is nothing to be read, no case finds its rule, and says so.
            Shelf::read(folder, limits).unwrap_or_default()
        });
        let shelves = [self.named, &*beside, self.configured];
        let mut verdicts = Vec::with_capacity(file.cases.len());
        for case in &file.cases {
            let verdict = self.runner.run(case, Book(&shelves));
            print(self.args, &file.path, &verdict)?;
            verdicts.push(verdict);
        }
        Ok(Report { path: file.path.clone(), verdicts })
    }
}

fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn print(args: &TestArgs, path: &Path, verdict: &Verdict) -> Result<(), Failure> {
    let out = Output::stdout();
    if args.json {
        let line = cases::line(verdict);
        return out.line(&line.map_err(|error| Failure::new(Exit::Failed, error))?);
    }
    if args.verbose {
        for warning in &verdict.warnings {
            notice(&format!("{}: {}: warning: {warning}", path.display(), verdict.id));
        }
    }
    let word = match verdict.pass {
        Some(false) => "FAIL",
        _ if !args.verbose => return Ok(()),
        Some(true) => "ok",
        None => "ran",
    };
    let why = verdict.why.as_deref().map(|why| format!("\n     {why}")).unwrap_or_default();
    let text = format!("{word:<4} {}: {}{why}", path.display(), verdict.id);
    // Names and values come from files and payloads: a terminal shows their control characters instead of obeying them.
    let mut text = text.into_bytes();
    if std::io::stdout().is_terminal() {
        text = crate::cli::without_control_characters(&text);
    }
    text.push(b'\n');
    out.bytes(&text)
}

/// How many cases came to what.
#[derive(Default)]
pub(super) struct Count {
    pub(super) passed: usize,
    pub(super) failed: usize,
    /// Nothing was expected of them.
    pub(super) open: usize,
}

impl Count {
    pub(super) fn of(reports: &[Report]) -> Self {
        let mut count = Self::default();
        for verdict in reports.iter().flat_map(|report| &report.verdicts) {
            match verdict.pass {
                Some(true) => count.passed += 1,
                Some(false) => count.failed += 1,
                None => count.open += 1,
            }
        }
        count
    }

    pub(super) fn all(&self) -> usize {
        self.passed + self.failed + self.open
    }

    fn words(&self) -> String {
        let mut text = format!("{} cases: {} passed, {} failed", self.all(), self.passed, self.failed);
        if self.open > 0 {
            text.push_str(&format!(", {} without expectation", self.open));
        }
        text
    }
}
