//! Several files of kratos.yml, and environment variables of Kratos.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::methods::sign_up_by_code;
use super::scene::{Report, Scene, Seen, hooks, remove_hooks};
use crate::support::fields::{VAT_NUMBER, company_with_unknown_number};
use crate::support::test_env::KEY;
use crate::support::{Client, company};

fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// Writes a second file, starts Kratos with both, and returns the arguments of lint.
async fn start_with_second_file(scene: &mut Scene, content: &str) -> [String; 4] {
    let first = scene.env.kratos.file().to_owned();
    let second = scene.env.kratos.folder.join("vestibule-hooks.yml");
    std::fs::write(&second, content).expect("the file is written");
    scene.env.kratos.restart(&[&first, &second], &[]).await;
    ["-c", text(&first), "-c", text(&second)].map(str::to_owned)
}

/// A second file replaces lists and merges sections. YAML merge keys work, and a relative address starts in the folder in which Kratos
/// was started.
pub async fn a_second_file_replaces_lists_and_merges_sections() {
    let mut scene = Scene::start().await;
    let only_session =
        "selfservice: {flows: {registration: {after: {password: {hooks: [{hook: session}]}}}}}\n";
    let files = start_with_second_file(&mut scene, only_session).await;
    let report = scene.lint(&files.each_ref().map(String::as_str));
    let said = report.assert_reports("unhooked-method");
    assert!(said.contains("`password`"), "{said}");
    let typed = company_with_unknown_number();
    let mut visitor = scene.env.visitor(Client::Api);
    visitor.sign_up(&typed.clone().by_password()).await;
    assert_eq!(scene.calls("registration").await, [0, 0]);
    // The section `settings` is that of the first file.
    report.assert_clean_of("unhooked-profile");
    let other = company_with_unknown_number();
    let change = typed.with(VAT_NUMBER, other.text(VAT_NUMBER)).by_profile();
    let response = visitor.settings().await.submit(&change).await;
    assert_eq!(Seen::of(&response), Seen::unknown_number());

    let url = format!("{}/hooks/registration", scene.env.vestibule.hooks);
    let own_hooks = format!(
        r#"
selfservice:
  flows:
    registration:
      after:
        password:
          hooks:
            - hook: web_hook
              config: &post
                url: "{url}/post?method=password"
                method: POST
                body: "file://vestibule.jsonnet"
                auth: {{type: api_key, config: {{in: header, name: X-Vestibule-Key, value: {KEY}}}}}
            - hook: web_hook
              config:
                <<: *post
                url: "{url}/pre?method=password"
                response: {{parse: true}}
            - hook: session
"#
    );
    let files = start_with_second_file(&mut scene, &own_hooks).await;
    scene
        .lint(&files.each_ref().map(String::as_str))
        .assert_clean();
    let before = scene.calls("registration").await;
    assert_eq!(
        scene.sign_up_with_unknown_number().await,
        Seen::unknown_number()
    );
    assert_eq!(scene.sign_up_with_known_number().await, Seen::Accepted);
    assert_eq!(
        scene.calls("registration").await,
        [before[0] + 2, before[1] + 1]
    );
}

/// Environment variables override the file, also by list position. Without its key, Kratos does not start.
pub async fn environment_variables_of_kratos_override_the_file_by_list_position() {
    let mut scene = Scene::start().await;
    let mut settings = scene.correct.clone();
    // Not a Kratos for development, except for the address in the environment of Kratos.
    let local = scene.env.kratos.public.clone();
    let address = ("SERVE_PUBLIC_BASE_URL".to_owned(), format!("{local}/"));
    settings["serve"]["public"]["base_url"] = json!("https://auth.example.com/");
    scene.env.kratos.replace_settings(&settings);
    let report = scene.report();
    report.assert_reports("key-in-clear");
    let keys = key_variables(&report);
    assert_eq!(keys.len(), 2, "{keys:?}");
    for hook in &mut hooks(&mut settings, "registration", "password")[..2] {
        let config = hook["config"]["auth"]["config"].as_object_mut();
        config.expect("a section").remove("value");
    }
    settings["selfservice"]["methods"]["code"] = json!({"enabled": false});
    remove_hooks(&mut settings, "registration", "code");

    // One of the two variables is missing.
    does_not_start(&mut scene, &settings, &keys[..1]);
    // Another hook is in front of Vestibule's.
    let mut shifted = settings.clone();
    hooks(&mut shifted, "registration", "password").rotate_right(1);
    does_not_start(&mut scene, &shifted, &keys);

    scene.env.kratos.replace_settings(&settings);
    let enabled = (
        "SELFSERVICE_METHODS_CODE_ENABLED".to_owned(),
        "true".to_owned(),
    );
    let variables = [&keys[..], &[enabled]].concat();
    let file = scene.env.kratos.file().to_owned();
    let all = [&variables[..], &[address]].concat();
    scene.env.kratos.restart(&[&file], &all).await;
    scene.report().assert_clean_of("unhooked-method");
    let report = lint_with(&scene, &variables);
    report.assert_clean_of("key-missing");
    assert_eq!(key_variables(&report), []);
    let said = report.assert_reports("unhooked-method");
    assert!(said.contains("`code`"), "{said}");
    assert_eq!(
        scene.sign_up_with_unknown_number().await,
        Seen::unknown_number()
    );
    assert_eq!(scene.sign_up(&company()).await, Seen::Accepted);
    let typed = company_with_unknown_number();
    assert_eq!(sign_up_by_code(&scene, &typed).await, Seen::Accepted);
    assert!(scene.has_account(&typed).await);
}

/// The variables that lint names for the keys at sign-ups by password, with the key.
fn key_variables(report: &Report) -> Vec<(String, String)> {
    let found = report.of_rule("key-in-clear").into_iter();
    let found = found.filter(|finding| {
        let path = finding["path"].as_str().unwrap_or_default();
        path.contains("registration.after.password")
    });
    found
        .filter_map(|finding| {
            finding["help"]
                .as_str()?
                .rsplit(' ')
                .next()
                .map(str::to_owned)
        })
        .map(|name| (name, KEY.to_owned()))
        .collect()
}

/// Asserts that lint reports a hook without a key, and that Kratos does not start.
fn does_not_start(scene: &mut Scene, settings: &Value, environment: &[(String, String)]) {
    scene.env.kratos.replace_settings(settings);
    lint_with(scene, environment).assert_reports("key-missing");
    let printed = scene.env.kratos.refusal_to_start(environment);
    assert!(printed.contains("value"), "{printed}");
}

/// The report of lint with an environment file.
fn lint_with(scene: &Scene, environment: &[(String, String)]) -> Report {
    let file = scene.env.kratos.folder.join("kratos.env");
    let mut lines = String::new();
    for (name, value) in environment {
        writeln!(lines, "{name}={value}").expect("a text");
    }
    std::fs::write(&file, lines).expect("the file is written");
    let kratos = text(scene.env.kratos.file());
    scene.lint(&["-c", kratos, "--env-file", text(&file)])
}
