//! Permissions: who can read the secrets, and whether this user can write the database.

use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::report::{Finding, Level, Section};
use super::secrets::{clear_secret, secret_files};
use super::settings_files::data_files;
use super::{Examined, parents};
use crate::config::settings::Dsn;

const SECTION: Section = Section::Files;
const GROUP_READ: u32 = 0o040;
const GROUP_WRITE: u32 = 0o020;
const OTHERS_READ: u32 = 0o004;
const OTHERS_WRITE: u32 = 0o002;
/// In a folder with this bit, others cannot replace files.
const STICKY: u32 = 0o1000;

/// Why it matters who can read or write a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// Settings without secrets.
    Settings,
    /// Settings with secrets in clear.
    SettingsWithSecrets,
    /// A list or an identity schema, which decides what is refused.
    Data,
    /// A secret.
    Secret,
    /// Personal data.
    Database,
    /// The folder of the database.
    Folder,
}

/// Examines the settings file, the files that it names, the database file with its folder, and the folders above all.
pub(super) fn examine(examined: &Examined<'_>) -> Vec<Finding> {
    let mut findings = vec![settings_file(examined)];
    let mut paths = vec![examined.file.to_owned()];
    for path in secret_files(examined.tree()) {
        findings.extend(permissions(&path, Content::Secret));
        paths.push(path);
    }
    for path in data_files(examined) {
        findings.extend(permissions(&path, Content::Data));
        paths.push(path);
    }
    let mut folder = None;
    if let Dsn::Sqlite(path) = &examined.settings.dsn {
        findings.extend(database(examined, path));
        folder = Some(folder_of(path));
        paths.push(path.clone());
    }
    findings.extend(parents::examine(&paths, folder.as_deref()));
    findings
}

fn settings_file(examined: &Examined<'_>) -> Finding {
    let clear = clear_secret(examined.tree());
    let content = if clear.is_some() {
        Content::SettingsWithSecrets
    } else {
        Content::Settings
    };
    let found = permissions(examined.file, content);
    let found = found.unwrap_or_else(|| SECTION.not_checked("permissions", "it is not a file"));
    match clear {
        Some(path) if found.level != Level::Ok => {
            let at = examined.place_of(&path);
            found.at(at)
        }
        _ => found,
    }
}

fn database(examined: &Examined<'_>, path: &Path) -> Vec<Finding> {
    let at = examined.place(&["dsn"]);
    let folder = folder_of(path);
    let Some(of_folder) = permissions(&folder, Content::Folder) else {
        let message = "the folder of the database does not exist";
        let help = format!("mkdir -p {}", folder.display());
        let missing = SECTION.problem("permissions", message);
        return vec![
            missing
                .about(folder.display().to_string())
                .at(at)
                .help(help),
        ];
    };
    let mut findings = vec![writable(of_folder, &folder).at(at.clone())];
    if let Some(of_file) = permissions(path, Content::Database) {
        findings.push(writable(of_file, path).at(at));
    }
    findings
}

/// Returns the folder of the database file. A file without a folder is in the working directory. If the path is a symbolic
/// link, the folder is that of its target, where SQLite also creates the files beside the database.
pub(super) fn folder_of(path: &Path) -> PathBuf {
    let target = path.is_symlink().then(|| path.canonicalize().ok());
    let target = target.flatten();
    let path = target.as_deref().unwrap_or(path);
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    folder.unwrap_or(Path::new(".")).to_owned()
}

/// Judges the permissions. `None` if there is no such file.
fn permissions(path: &Path, content: Content) -> Option<Finding> {
    let metadata = std::fs::metadata(path).ok()?;
    // A pipe or a device, such as `/dev/stdin`, has no content that stays.
    let is_lasting = metadata.is_file() || metadata.is_dir();
    let found = if is_lasting {
        judge(metadata.permissions().mode(), content)
    } else {
        SECTION.not_checked("permissions", "it is not a regular file")
    };
    let owned = owner_note(&metadata);
    let path = path.display().to_string();
    let found = Finding {
        message: format!("{}{owned}", found.message),
        help: found.help.map(|help| help.replace("{path}", &path)),
        ..found
    };
    Some(found.about(path))
}

fn owner_note(metadata: &Metadata) -> String {
    let mode = metadata.permissions().mode() & 0o7777;
    format!(" (mode {mode:04o}, user {})", metadata.uid())
}

/// Returns whether this mode of a folder lets every user replace files of others.
pub(super) fn everyone_can_replace_files(mode: u32) -> bool {
    mode & OTHERS_WRITE != 0 && mode & STICKY == 0
}

/// Judges what other users of the machine can do. `{path}` in a help is the path of the file.
fn judge(mode: u32, content: Content) -> Finding {
    let can = |bit: u32| mode & bit != 0;
    match content {
        Content::Folder if everyone_can_replace_files(mode) => SECTION
            .problem("permissions", "every user can replace the database")
            .help("chmod o-w {path}; or use a folder of the user that runs Vestibule"),
        Content::Folder if can(OTHERS_WRITE) => SECTION.ok(
            "permissions",
            "every user can add files to it, and none can replace those of others",
        ),
        _ if can(OTHERS_WRITE) => SECTION
            .problem("permissions", "every user can change it")
            .help("chmod o-w {path}"),
        Content::SettingsWithSecrets if can(OTHERS_READ) => SECTION
            .warning("permissions", "it seems to have a secret in clear, and every user can read it")
            .help("chmod o-r {path}; or move the secret out of it, as `${env:NAME}` or `${file:/path}`"),
        Content::Secret if can(OTHERS_READ) => SECTION
            .warning("permissions", "it is a secret, and every user can read it")
            .help("chmod o-r {path}; in Kubernetes set `defaultMode: 0440` and `fsGroup`"),
        Content::Database if can(OTHERS_READ) => SECTION
            .warning("permissions", "it has personal data, and every user can read it")
            .help("chmod o-r {path}"),
        _ => SECTION.ok("permissions", allowed(mode, content)),
    }
}

/// Says who can do what matters for this content, by the mode of the file alone.
fn allowed(mode: u32, content: Content) -> String {
    let who = |bit: u32| {
        if mode & bit == 0 {
            "its mode permits only its owner"
        } else {
            "its mode permits its owner and its group"
        }
    };
    let write = who(GROUP_WRITE);
    match content {
        Content::Settings => format!("no secret in clear was found; {write} to change it"),
        Content::Data => format!("{write} to change it"),
        Content::Folder => format!("{write} to replace the database"),
        Content::SettingsWithSecrets | Content::Secret | Content::Database => {
            format!("{} to read it", who(GROUP_READ))
        }
    }
}

/// Adds that this user cannot write, which is worse than anything that others can do.
fn writable(found: Finding, path: &Path) -> Finding {
    let wanted = if path.is_dir() {
        Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK
    } else {
        Access::READ_OK | Access::WRITE_OK
    };
    let Err(error) = access(path, wanted) else {
        return found;
    };
    let user = rustix::process::geteuid().as_raw();
    let message = format!("the user {user} cannot write to it: {error}");
    SECTION
        .problem("permissions", message)
        .about(path.display().to_string())
        .help("give it to the user that runs Vestibule with `chown`, and run this command as that user")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_can_do_is_judged_by_the_mode() {
        use Content::{Data, Database, Folder, Secret, Settings, SettingsWithSecrets};
        use Level::{Ok, Problem, Warning};
        for (content, mode, expected) in [
            (Settings, 0o644, Ok),
            (Settings, 0o646, Problem),
            (Data, 0o664, Ok),
            (Data, 0o646, Problem),
            (SettingsWithSecrets, 0o640, Ok),
            (SettingsWithSecrets, 0o644, Warning),
            (SettingsWithSecrets, 0o602, Problem),
            (Secret, 0o440, Ok),
            (Secret, 0o444, Warning),
            (Secret, 0o666, Problem),
            (Database, 0o600, Ok),
            (Database, 0o644, Warning),
            (Database, 0o662, Problem),
            (Folder, 0o755, Ok),
            (Folder, 0o1777, Ok),
            (Folder, 0o777, Problem),
        ] {
            let found = judge(mode, content);
            assert_eq!(found.level, expected, "{content:?} {mode:o}");
            assert_eq!(found.help.is_some(), expected != Ok, "{content:?} {mode:o}");
        }
    }

    #[test]
    fn what_is_right_says_whether_the_group_can_do_it() {
        for (content, mode, expected) in [
            (Content::Settings, 0o644, "only its owner to change it"),
            (
                Content::Settings,
                0o664,
                "its owner and its group to change it",
            ),
            (Content::Data, 0o664, "its owner and its group to change it"),
            (Content::Secret, 0o400, "only its owner to read it"),
            (Content::Secret, 0o440, "its owner and its group to read it"),
            (
                Content::Database,
                0o660,
                "its owner and its group to read it",
            ),
            (Content::Folder, 0o775, "its owner and its group to replace"),
            (Content::Folder, 0o1777, "every user can add files"),
        ] {
            let found = judge(mode, content);
            assert!(found.message.contains(expected), "{}", found.message);
        }
    }

    #[test]
    fn the_folder_of_a_link_is_that_of_its_target() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().canonicalize().unwrap().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("v.db"), "").unwrap();
        let link = root.path().join("link.db");
        std::os::unix::fs::symlink(data.join("v.db"), &link).unwrap();
        assert_eq!(folder_of(&link), data);
    }

    #[test]
    fn a_file_without_a_folder_is_in_the_working_directory() {
        for (path, expected) in [
            ("v.db", "."),
            ("data/v.db", "data"),
            ("/var/lib/v.db", "/var/lib"),
        ] {
            assert_eq!(folder_of(Path::new(path)), PathBuf::from(expected));
        }
    }
}
