//! Does with the help of a finding what an operator does: pastes it into kratos.yml.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::test_env::KEY;

/// The texts in a snippet that an operator replaces: the key, and the folder of the template.
const PLACEHOLDERS: [&str; 2] = ["PUT-YOUR-KEY-HERE", "file:///etc/config/kratos/"];

/// Pastes the help of a finding into kratos.yml.
pub fn paste(settings: &mut Value, finding: &Value, folder: &Path) {
    let folder = format!("file://{}/", folder.display());
    let help = finding["help"].as_str().expect("a help");
    let help = help
        .replace(PLACEHOLDERS[0], KEY)
        .replace(PLACEHOLDERS[1], &folder);
    if let Some((before, list)) = help.split_once("`:\n") {
        return paste_hooks(settings, before, list);
    }
    let config = config_of(finding);
    if let Some(what) = help.strip_prefix("remove ") {
        let config = at(settings, &config);
        return backticked(what).for_each(|text| match yaml(text) {
            Value::Object(entries) => merge(config, entries.into()),
            _ => {
                config.as_object_mut().expect("a section").remove(text);
            }
        });
    }
    let whole = yaml(&help);
    let is_section = whole
        .as_object()
        .is_some_and(|entries| entries.contains_key("clients"));
    merge(
        if is_section {
            settings
        } else {
            at(settings, &config)
        },
        whole,
    );
}

/// Pastes `add to <path>:`, a list, and perhaps `and the same for <methods>`.
fn paste_hooks(settings: &mut Value, before: &str, list: &str) {
    let (start, path) = before.rsplit_once('`').expect("the path of a list");
    let is_first = start.contains("before other hooks");
    let (list, others) = list.split_once("\nand the same for ").unwrap_or((list, ""));
    let own = path.rsplit('.').nth(1).expect("the section of a list");
    let others = backticked(others).filter(|name| !name.contains('='));
    for method in std::iter::once(own).chain(others) {
        let path = path.replace(&format!(".{own}.hooks"), &format!(".{method}.hooks"));
        let list = list.replace(&format!("method={own}"), &format!("method={method}"));
        let place = at(settings, &path);
        if place.is_null() {
            *place = json!([]);
        }
        let place = place.as_array_mut().expect("a list");
        for hook in yaml(&list).as_array().expect("a list") {
            let index = if is_first { 0 } else { place.len() };
            place.insert(index, hook.clone());
        }
    }
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The texts between backticks.
fn backticked(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The path of the section `config` in which a finding is.
fn config_of(finding: &Value) -> String {
    let path = finding["path"].as_str().expect("a path");
    let end = path
        .find("].config")
        .map_or(path.len(), |at| at + "].config".len());
    path[..end].to_owned()
}

/// The value at a path such as `a.b[0].c`. Sections are added.
fn at<'s>(settings: &'s mut Value, path: &str) -> &'s mut Value {
    path.split('.').fold(settings, |value, step| {
        let mut parts = step.split('[');
        let value = &mut value[parts.next().unwrap_or_default()];
        parts.fold(value, |list, index| {
            let index = index.trim_end_matches(']');
            &mut list[index.parse::<usize>().expect("an index")]
        })
    })
}

/// Puts sections into a section. Everything else is replaced.
fn merge(into: &mut Value, entries: Value) {
    match (into, entries) {
        (Value::Object(into), Value::Object(entries)) => {
            for (key, value) in entries {
                let is_hook_setting = key == "response" || key == "auth";
                let place = into.entry(key).or_insert(Value::Null);
                if is_hook_setting {
                    *place = value;
                } else {
                    merge(place, value);
                }
            }
        }
        (into, value) => *into = value,
    }
}
