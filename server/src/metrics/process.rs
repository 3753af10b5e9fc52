//! What the system knows of the process.

use super::families::{CPU, FILES, MEMORY};
use super::page::Page;

/// Adds processor time, memory and open files, as far as the system tells.
pub(super) fn add(page: &mut Page) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    if let Some(used) = used(&stat) {
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        #[expect(clippy::cast_precision_loss, reason = "hundredths of seconds since the start")]
        page.add(&CPU, &[], used.ticks as f64 / per_second as f64);
        page.add(&MEMORY, &[], used.pages.saturating_mul(page_bytes()));
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        // The folder itself is open meanwhile.
        page.add(&FILES, &[], u64::try_from(files.count()).unwrap_or(u64::MAX).saturating_sub(1));
    }
}

/// Memory of the process that is in use, if the system tells.
pub(super) fn resident_bytes() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    used(&stat)?.pages.checked_mul(page_bytes())
}

fn page_bytes() -> u64 {
    u64::try_from(rustix::param::page_size()).unwrap_or(4096)
}

#[derive(Debug, PartialEq, Eq)]
struct Used {
    ticks: u64,
    pages: u64,
}

/// Reads /proc/PID/stat: the name of the program stands in parentheses and may hold anything, so numbers count from behind it.
fn used(stat: &str) -> Option<Used> {
    let (_, rest) = stat.rsplit_once(')')?;
    let number = |place: usize| rest.split_ascii_whitespace().nth(place)?.parse::<u64>().ok();
    Some(Used { ticks: number(11)?.checked_add(number(12)?)?, pages: number(21)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_misleads_nobody() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 25 17 0 0 20 0 9 0 100 1000000 512 18446744073709551615 1";
        assert_eq!(used(stat), Some(Used { ticks: 42, pages: 512 }));
        for broken in ["", "7 (a", "7 (a) S 1"] {
            assert_eq!(used(broken), None, "{broken}");
        }
    }

    #[test]
    fn this_process_is_there() {
        let mut page = Page::default();
        add(&mut page);
        assert!(page.sum(&MEMORY) > 0.0 && page.sum(&FILES) > 0.0 && page.has(&CPU));
    }
}
