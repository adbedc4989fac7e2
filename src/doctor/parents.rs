//! The folders above the examined files. Who can write to one of them can replace what is in it.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::files::everyone_can_replace_files;
use super::report::{Finding, Section};

const SECTION: Section = Section::Files;

/// Examines all folders above these paths, but for one that is examined on its own.
pub(super) fn examine(paths: &[PathBuf], except: Option<&Path>) -> Vec<Finding> {
    let except = except.and_then(|folder| folder.canonicalize().ok());
    let findings: Vec<Finding> = folders_above(paths)
        .into_iter()
        .filter(|folder| folder.canonicalize().ok() != except)
        .filter(|folder| is_open_to_everyone(folder))
        .map(|folder| {
            let shown = folder.display().to_string();
            SECTION
                .warning(
                    "folders",
                    "every user can replace the files and folders in it",
                )
                .help(format!("chmod o-w {shown}"))
                .about(shown)
        })
        .collect();
    if findings.is_empty() {
        let message = "in no folder above the examined files can every user replace files";
        return vec![SECTION.ok("folders", message)];
    }
    findings
}

/// Returns the folders of the paths as they are written, and of the files to which symbolic links lead.
fn folders_above(paths: &[PathBuf]) -> BTreeSet<PathBuf> {
    let written = paths
        .iter()
        .filter_map(|path| std::path::absolute(path).ok());
    let real = paths.iter().filter_map(|path| path.canonicalize().ok());
    let mut folders = BTreeSet::new();
    for path in written.chain(real) {
        folders.extend(path.ancestors().skip(1).map(Path::to_owned));
    }
    folders
}

fn is_open_to_everyone(folder: &Path) -> bool {
    let found = folder.metadata();
    found.is_ok_and(|found| everyone_can_replace_files(found.permissions().mode()))
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, create_dir, set_permissions, write};
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::doctor::report::Level;

    #[test]
    fn a_folder_above_a_file_or_the_target_of_a_link_is_examined() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for folder in ["open", "open/inner", "closed"] {
            create_dir(path(folder)).unwrap();
        }
        write(path("open/inner/file"), "").unwrap();
        symlink(path("open/inner/file"), path("closed/link")).unwrap();
        for (mode, file, except, expected) in [
            (0o777, "open/inner/file", "closed", Level::Warning),
            (0o777, "closed/link", "closed", Level::Warning),
            (0o777, "closed/file", "closed", Level::Ok),
            (0o777, "open/inner/file", "open", Level::Ok),
            (0o1777, "open/inner/file", "closed", Level::Ok),
            (0o775, "open/inner/file", "closed", Level::Ok),
        ] {
            set_permissions(path("open"), Permissions::from_mode(mode)).unwrap();
            let found = examine(&[path(file)], Some(&path(except)));
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].level, expected, "{mode:o} {file}");
        }
    }
}
