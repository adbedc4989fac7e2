//! `vestibule doctor` and `vestibule kratos lint` with a running Kratos.

use serde_json::Value;

use crate::support::TestEnv;

/// A trait that a check is about, and that no visitor must fill in.
const TRAIT: &str = "invite";

pub async fn doctor_is_clean_until_kratos_has_no_such_trait() {
    let env = TestEnv::start().await;
    let examine = || {
        let (code, printed) = env.vestibule.run_to_exit(&["doctor", "--json"]);
        let report: Value = serde_json::from_str(&printed).expect("JSON");
        (code, report)
    };
    let of = |report: &Value, section: &str, name: &str| -> Vec<Value> {
        let findings = report["findings"].as_array().expect("findings").iter();
        let wanted = findings.filter(|one| one["section"] == section && one["name"] == name);
        wanted.cloned().collect()
    };
    let (code, report) = examine();
    assert_eq!(code, Some(0), "{report:#}");
    for (section, name) in [
        ("kratos", "access"),
        ("kratos", "clock"),
        ("kratos", "schemas"),
        ("database", "write"),
        ("database", "migrations"),
        ("services", "connect"),
    ] {
        let found = of(&report, section, name);
        assert!(!found.is_empty(), "{section}.{name}: {report:#}");
        assert!(found.iter().all(|one| one["level"] == "ok"), "{found:#?}");
    }
    for port in of(&report, "ports", "listen") {
        assert_eq!(port["level"], "not_checked", "{port:#}");
    }

    env.kratos.remove_trait(TRAIT);
    let (code, report) = examine();
    assert_eq!(code, Some(1), "{report:#}");
    let found = of(&report, "kratos", "schemas");
    let problems: Vec<&Value> = found
        .iter()
        .filter(|one| one["level"] == "problem")
        .collect();
    assert!(!problems.is_empty(), "{report:#}");
    for problem in problems {
        let path = problem["path"].as_str().expect("keys");
        assert!(path.starts_with("checks.invite"), "{problem:#}");
        assert!(problem["line"].is_number(), "{problem:#}");
    }
}

pub async fn lint_takes_the_identity_schemas_from_a_running_kratos() {
    let env = TestEnv::start().await;
    let settings = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/with_kratos/vestibule.yaml"
    );
    let kratos = env.kratos.settings_file();
    let arguments = [
        "kratos",
        "lint",
        "-c",
        kratos,
        "--kratos-admin",
        &env.kratos.admin,
        "--settings",
        settings,
        "--format",
        "json",
    ];
    let unknown = || {
        let (_, printed) = env.vestibule.run_to_exit(&arguments);
        let report: Value = serde_json::from_str(&printed).expect("JSON");
        let problems = report["problems"].as_array().expect("problems").clone();
        let unknown = problems
            .into_iter()
            .filter(|one| one["rule"] == "unknown-field");
        let messages = unknown.map(|one| one["message"].to_string());
        messages.collect::<Vec<String>>()
    };
    assert!(unknown().is_empty());
    env.kratos.remove_trait(TRAIT);
    let found = unknown();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("`traits.invite`"), "{found:?}");
}
