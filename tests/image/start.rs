//! Every deployment starts the image with the same command and the same paths.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::dockerfile::Dockerfile;
use crate::read;

/// How a container of Vestibule starts.
#[derive(Debug, PartialEq)]
struct Start {
    /// The arguments of `vestibule`.
    command: Vec<String>,
    /// The path of the settings file.
    settings: String,
    /// The path of the volume with the database.
    data: String,
}

fn words(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => text.split_whitespace().map(ToOwned::to_owned).collect(),
        Value::Array(all) => all
            .iter()
            .map(|one| one.as_str().expect("a text").to_owned())
            .collect(),
        _ => panic!("a command: {value}"),
    }
}

/// The command of the image, its settings file from `VESTIBULE_CONFIG`, and its volume.
fn of_the_image() -> Start {
    let dockerfile = Dockerfile::parse(&read("Dockerfile"));
    assert_eq!(dockerfile.last("ENTRYPOINT"), Some(r#"["vestibule"]"#));
    let last = |keyword| dockerfile.last(keyword).unwrap_or_default();
    let settings = last("ENV")
        .split_whitespace()
        .find_map(|variable| variable.strip_prefix("VESTIBULE_CONFIG="))
        .expect("the image names its settings file");
    assert_eq!(last("WORKDIR"), last("VOLUME"));
    Start {
        command: words(&serde_json::from_str(last("CMD")).expect("a list")),
        settings: settings.to_owned(),
        data: last("VOLUME").to_owned(),
    }
}

/// Fly starts the command of the image unless fly.toml names one.
fn of_fly(image: &Start) -> Start {
    let fly: toml::Table = read("fly.toml").parse().expect("TOML");
    assert_eq!(fly["build"]["dockerfile"].as_str(), Some("Dockerfile"));
    let experimental = fly.get("experimental");
    assert!(
        experimental.is_none_or(|table| table.get("entrypoint").is_none()),
        "fly.toml replaces the image's entry point"
    );
    let command = fly
        .get("processes")
        .and_then(|processes| processes.get("app"))
        .or_else(|| experimental.and_then(|table| table.get("cmd")))
        .map(|command| words(&serde_json::to_value(command).expect("JSON")));
    let database = fly["env"]["VESTIBULE_DSN"].as_str().expect("a text");
    let data = fly["mounts"]["destination"].as_str().expect("a path");
    assert_on_volume("fly.toml", database, data);
    Start {
        command: command.unwrap_or_else(|| image.command.clone()),
        settings: fly["files"][0]["guest_path"]
            .as_str()
            .expect("a path")
            .to_owned(),
        data: data.to_owned(),
    }
}

fn of_kubernetes() -> Start {
    let manifest: Vec<Value> =
        serde_saphyr::from_multiple(&read("examples/kubernetes/vestibule.yaml")).expect("YAML");
    let pod = manifest
        .iter()
        .find(|one| one["kind"] == "StatefulSet")
        .map(|one| &one["spec"]["template"]["spec"])
        .expect("a StatefulSet");
    let container = &pod["containers"][0];
    assert!(
        container["command"].is_null(),
        "the manifest replaces the image's entry point"
    );
    let mounts: BTreeMap<&str, &str> = container["volumeMounts"]
        .as_array()
        .expect("mounts")
        .iter()
        .map(|one| (text(&one["name"]), text(&one["mountPath"])))
        .collect();
    let map = manifest.iter().find(|one| one["kind"] == "ConfigMap");
    let files = map.expect("a ConfigMap")["data"]
        .as_object()
        .expect("files");
    let (file, settings) = files.iter().next().expect("a settings file");
    let database = text(settings)
        .lines()
        .find_map(|line| line.strip_prefix("dsn: "))
        .expect("a dsn");
    assert_on_volume("the manifest", database, mounts["vestibule"]);
    Start {
        command: words(&container["args"]),
        settings: format!("{}/{file}", mounts["settings"]),
        data: mounts["vestibule"].to_owned(),
    }
}

fn of_compose() -> Start {
    let compose: Value = serde_saphyr::from_str(&read("docker-compose.yml")).expect("YAML");
    let service = &compose["services"]["vestibule"];
    assert!(
        service["entrypoint"].is_null(),
        "docker-compose.yml replaces the image's entry point"
    );
    let volumes: Vec<Vec<&str>> = service["volumes"]
        .as_array()
        .expect("volumes")
        .iter()
        .map(|one| text(one).split(':').collect())
        .collect();
    let file = volumes.iter().find(|one| one[0].starts_with("./"));
    let named = volumes.iter().find(|one| one[0] == "vestibule");
    let data = named.expect("a volume")[1];
    let database = text(&service["environment"]["VESTIBULE_DSN"]);
    assert_on_volume("docker-compose.yml", database, data);
    Start {
        command: words(&service["command"]),
        settings: file.expect("a settings file")[1].to_owned(),
        data: data.to_owned(),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn assert_on_volume(file: &str, database: &str, volume: &str) {
    let path = database.strip_prefix("sqlite://").expect("SQLite");
    assert!(
        Path::new(path).starts_with(volume),
        "{file}: the database {path} is not on the volume {volume}"
    );
}

#[test]
fn fly_kubernetes_and_compose_start_the_image_alike() {
    let image = of_the_image();
    assert!(
        image.command.contains(&image.settings),
        "CMD and VESTIBULE_CONFIG name one settings file"
    );
    assert_eq!(of_fly(&image), image, "fly.toml");
    assert_eq!(of_kubernetes(), image, "examples/kubernetes/vestibule.yaml");
    assert_eq!(of_compose(), image, "docker-compose.yml");
}
