//! How much memory there is: the machine's, or less where a control group says so.

use std::path::Path;

/// Taken where nobody tells.
const UNKNOWN: u64 = 4 * 1024 * 1024 * 1024;

/// A quarter of the memory that this process may have, in bytes.
pub(crate) fn quarter() -> u64 {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    available(read).unwrap_or(UNKNOWN) / 4
}

/// The least of what the machine has, and what the control groups above the process allow (both versions of them).
fn available(read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| total(&text));
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let mut limits: Vec<u64> = machine.into_iter().collect();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // In a container the group's own name may not be there, and its limit is the root's.
        for above in Path::new(group.trim_start_matches('/')).ancestors() {
            // "max" is no number, and no limit.
            let text = read(&Path::new(root).join(above).join(file));
            limits.extend(text.and_then(|text| text.trim().parse::<u64>().ok()));
        }
    }
    limits.into_iter().min()
}

/// Bytes of all memory, from /proc/meminfo.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(files: &[(&str, &str)]) -> Option<u64> {
        available(|path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    const MACHINE: (&str, &str) = ("/proc/meminfo", "MemTotal:        8000000 kB\nMemFree: 1 kB\n");

    #[test]
    fn the_least_limit_counts() {
        assert_eq!(with(&[MACHINE]), Some(8_192_000_000));
        let group = ("/proc/self/cgroup", "0::/system.slice/tidegate.service\n");
        let own = |text| ("/sys/fs/cgroup/system.slice/tidegate.service/memory.max", text);
        let slice = ("/sys/fs/cgroup/system.slice/memory.max", "1000\n");
        assert_eq!(with(&[MACHINE, group, own("max\n")]), Some(8_192_000_000));
        assert_eq!(with(&[MACHINE, group, own("2000\n")]), Some(2000));
        assert_eq!(with(&[MACHINE, group, own("2000\n"), slice]), Some(1000));
        let container = ("/sys/fs/cgroup/memory.max", "500");
        assert_eq!(with(&[MACHINE, ("/proc/self/cgroup", "0::/"), container]), Some(500));
        let old = ("/proc/self/cgroup", "5:cpu:/x\n4:memory:/docker/abc\n");
        let limit = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "700");
        assert_eq!(with(&[MACHINE, old, limit]), Some(700));
    }

    #[test]
    fn what_makes_no_sense_is_no_limit() {
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[("/proc/meminfo", "MemTotal: many kB"), ("/proc/self/cgroup", "x\n0:\n")]), None);
        assert_eq!(
            with(&[MACHINE, ("/proc/self/cgroup", "0::/../.."), ("/sys/fs/cgroup/memory.max", "-1")]),
            Some(8_192_000_000)
        );
        assert!(quarter() > 0);
    }
}
