//! The free space of the disk that holds the database.

use std::path::Path;

use rustix::fs::statvfs;

use super::report::{Finding, Section};

const SECTION: Section = Section::Database;
const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;
/// Below this, a busy hour can fill the disk.
const TOO_LITTLE: u64 = 100 * MIB;
const LITTLE: u64 = GIB;

/// The free space of a disk.
#[derive(Clone, Copy, Debug)]
struct Space {
    free: u64,
    total: u64,
    /// The free and all file entries. A file system without a limit reports none.
    entries: (u64, u64),
    is_read_only: bool,
}

/// Examines the disk that holds this folder.
pub(super) fn examine(folder: &Path) -> Finding {
    let found = match statvfs(folder) {
        Ok(found) => judge(Space {
            free: found.f_bavail.saturating_mul(found.f_frsize),
            total: found.f_blocks.saturating_mul(found.f_frsize),
            entries: (found.f_favail, found.f_files),
            is_read_only: found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
        }),
        Err(error) => SECTION.not_checked("disk", format!("its space is not known: {error}")),
    };
    found.about(folder.display().to_string())
}

fn judge(space: Space) -> Finding {
    let Space {
        free,
        total,
        entries: (free_entries, all_entries),
        is_read_only,
    } = space;
    let message = format!("{} of {} are free", shown(free), shown(total));
    let help = "free space, or move the database to a larger disk; without space Vestibule cannot store deliveries";
    if is_read_only {
        SECTION
            .problem("disk", "the file system is mounted for reading only")
            .help("mount it for writing, or set `dsn` to a folder on another disk")
    } else if all_entries > 0 && free_entries == 0 {
        SECTION
            .problem("disk", "the file system has no free file entries (inodes)")
            .help("delete files on it, or move the database to another disk")
    } else if free < TOO_LITTLE {
        SECTION.problem("disk", message).help(help)
    } else if free < LITTLE {
        SECTION.warning("disk", message).help(help)
    } else {
        SECTION.ok("disk", message)
    }
}

#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn shown(bytes: u64) -> String {
    if bytes < GIB {
        format!("{} MiB", bytes / MIB)
    } else {
        format!("{:.1} GiB", bytes as f64 / GIB as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Level;

    #[test]
    fn a_full_disk_is_a_problem_and_a_nearly_full_one_a_warning() {
        for (free, entries, is_read_only, expected, part) in [
            (50 * GIB, (9, 10), false, Level::Ok, "50.0 GiB of 100.0 GiB"),
            (50 * GIB, (0, 0), false, Level::Ok, "free"),
            (50 * GIB, (0, 10), false, Level::Problem, "inodes"),
            (50 * GIB, (9, 10), true, Level::Problem, "reading only"),
            (GIB - 1, (9, 10), false, Level::Warning, "1023 MiB of"),
            (99 * MIB, (9, 10), false, Level::Problem, "99 MiB of"),
        ] {
            let found = judge(Space {
                free,
                total: 100 * GIB,
                entries,
                is_read_only,
            });
            assert_eq!(found.level, expected, "{free}");
            assert!(found.message.contains(part), "{}", found.message);
        }
    }
}
