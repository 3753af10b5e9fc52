//! Backups: what a gateway owns, in one file that another gateway, or the same one later, takes up again.
//!
//! ```text
//! {"tidegate_backup":1,"product":"0.1.0","store":"9f3a…","made_at_ms":1764250000000,"parts":["rules","cases","retained"]}
//! {"rule":{"name":"overheat","definition":{…},"version":3,"author":"ada","changed_at_ms":…}}
//! {"suspended":{"rule":"comfort","by":"ada","at_ms":…}}
//! {"cases":{"rule":"overheat","cases":[{"id":"warm",…}]}}
//! {"retained":{"topic":"hall/1","payload":"b24=","qos":1,…}}
//! {"end":{"entries":4,"sha256":"5d2c…"}}
//! ```
//!
//! One JSON object a line, so that a backup of any size is written and read with one entry in memory, and read by people. The
//! last line counts the entries and has the SHA-256 of every byte before it: what was cut off or damaged is refused. Whoever
//! can write the file can also write that line, so it proves nothing against somebody who means harm; every entry goes
//! through the checks that it would go through if somebody asked for it. docs/decisions/0017 says why it is no archive of files.
//!
//! - `entry.rs`: what lines say; `read.rs`: from bytes to entries, with every refusal; `write.rs`: from entries to bytes;
//!   `files.rs`: files of the configuration.

mod entry;
mod files;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use entry::{
    CasesRecord, Entry, FileRecord, Header, Part, RetainedRecord, RuleRecord, SuspensionRecord, TokenRecord,
    UserRecord,
};
pub use files::{FILE_BYTES_MAX, FILES_MAX, FilesInto, collect, is_file_name};
pub use read::{BackupError, Reader};
pub use write::Writer;

/// Version of the format.
pub const FORMAT: u32 = 1;
/// Largest backup that is restored, in bytes.
pub const BACKUP_BYTES_MAX: u64 = 4 << 30;
/// Most bytes of rules, users and tokens of one backup, which are put in place at once.
pub const RULE_BYTES_MAX: usize = 64 << 20;

/// The longest line of a backup that can be restored where packets may have so many bytes: the largest message fits, its
/// payload in base64, and the largest rule.
#[must_use]
pub const fn line_bytes_max(max_packet_size: usize) -> usize {
    2 * max_packet_size + (2 << 20)
}

/// The same where packets may be as long as MQTT lets them be.
pub const LINE_BYTES_LARGEST: usize = line_bytes_max(256 << 20);
