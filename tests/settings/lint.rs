//! `vestibule kratos lint`: each rule has a folder in tests/fixtures/kratos-lint/ with files that break exactly this rule,
//! and the report beside them. `UPDATE=1 cargo test --test settings` writes the reports.

use std::fs;
use std::path::Path;

use vestibule::lint::address::Mapping;
use vestibule::lint::rules::NAMES;
use vestibule::lint::{File, Input, Report, Severity, lint};

use crate::file;
use crate::problems::updating;

fn read(path: &Path, name: &str) -> Option<File> {
    let text = fs::read_to_string(path.join(name)).ok()?;
    let name = name.to_owned();
    Some(File { name, text })
}

/// Checks a folder: kratos.yml, and the other files that it has.
fn checked(folder: &Path) -> Report {
    let layers = ["kratos.yml", "hooks.yml"];
    lint(&Input {
        layers: layers
            .iter()
            .filter_map(|name| read(folder, name))
            .collect(),
        environment: read(folder, "kratos.env"),
        mappings: vec![Mapping {
            container: "/etc/config/kratos".to_owned(),
            local: folder.to_owned(),
        }],
        schemas: Vec::new(),
        settings: read(folder, "vestibule.yaml"),
    })
}

#[test]
fn lint_reports_exactly_the_broken_rule_of_each_fixture() {
    let mut stale = Vec::new();
    for name in NAMES {
        let folder = file("tests/fixtures/kratos-lint").join(name);
        assert!(folder.join("kratos.yml").exists(), "{name} has no fixture");
        let report = checked(&folder);
        let rules: Vec<&str> = report.findings.iter().map(|finding| finding.rule).collect();
        let text = report
            .to_string()
            .replace(&folder.display().to_string(), "FOLDER");
        if rules.is_empty() || rules.iter().any(|rule| *rule != name) {
            stale.push(format!("{name} reports {rules:?}\n{text}"));
        }
        let expected = folder.join("report.txt");
        if updating() {
            fs::write(&expected, &text).unwrap();
        }
        let known = fs::read_to_string(&expected).unwrap_or_default();
        if known != text {
            stale.push(format!(
                "{name}\n--- expected\n{known}\n--- reported\n{text}"
            ));
        }
        assert!(!text.contains("canary"), "{name} prints a key:\n{text}");
    }
    assert!(stale.is_empty(), "{}", stale.join("\n"));
}

#[test]
fn lint_has_no_fixture_without_a_rule() {
    for entry in fs::read_dir(file("tests/fixtures/kratos-lint")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_clean = name.starts_with("clean");
        assert!(is_clean || NAMES.contains(&name.as_str()), "{name}");
    }
}

#[test]
fn lint_documents_every_rule() {
    let document = fs::read_to_string(file("docs/kratos-lint.md")).unwrap();
    for name in NAMES {
        let row = format!("| `{name}` |");
        assert_eq!(document.matches(&row).count(), 1, "{row}");
    }
    let rows = document
        .lines()
        .filter(|line| line.starts_with("| `"))
        .count();
    assert_eq!(rows, NAMES.len());
}

/// Files that look wrong, but are not.
#[test]
fn lint_finds_nothing_in_clean_files() {
    let mut seen = 0;
    for entry in fs::read_dir(file("tests/fixtures/kratos-lint")).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("clean") {
            seen += 1;
            let report = checked(&folder);
            assert!(report.findings.is_empty(), "{name}\n{report}");
        }
    }
    assert!(seen >= 1);
}

#[test]
fn lint_finds_nothing_in_the_kratos_of_this_repository() {
    let layer = |name: &str| read(&file(""), name).unwrap();
    for (layers, settings) in [
        (vec!["kratos-config/kratos.yml"], None),
        (
            vec!["kratos-config/kratos.yml", "compose/kratos-hooks.yml"],
            None,
        ),
        (
            vec!["kratos-config/kratos.yml", "compose/kratos-hooks.yml"],
            Some("examples/settings/company.yaml"),
        ),
    ] {
        let report = lint(&Input {
            layers: layers.iter().map(|name| layer(name)).collect(),
            settings: settings.map(layer),
            ..Input::default()
        });
        assert_eq!(report.count(Severity::Problem), 0, "{report}");
        assert!(report.findings.is_empty(), "{layers:?}\n{report}");
        let expected = if settings.is_some() { 1 } else { 2 };
        assert_eq!(report.not_checked.len(), expected, "{report}");
    }
}
