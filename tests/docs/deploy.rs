//! The files for deployments, as far as they can be checked without the platform.

use std::path::Path;

use serde_json::Value;
use vestibule::config::{self, Environment};

use crate::{read, root};

fn environment(variables: &[(&str, &str)]) -> Environment {
    let always = [
        ("VESTIBULE_KEY", "a-key-for-the-tests-only"),
        ("VAT_REGISTER", "http://services:9400/vat"),
        ("CRM", "http://services:9400/crm"),
    ];
    Environment::of(
        always
            .iter()
            .chain(variables)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    )
}

#[test]
fn the_kubernetes_manifest_holds_valid_settings() {
    let manifest: Vec<Value> =
        serde_saphyr::from_multiple(&read("examples/kubernetes/vestibule.yaml")).expect("YAML");
    let of_kind = |kind: &str| {
        let mut found = manifest.iter().filter(|one| one["kind"] == kind);
        found.next().unwrap_or_else(|| panic!("a {kind}"))
    };
    let settings = of_kind("ConfigMap")["data"]["vestibule.yaml"]
        .as_str()
        .expect("a text");
    let settings = config::read(settings, Path::new("vestibule.yaml"), &environment(&[]))
        .unwrap_or_else(|problems| panic!("{problems}"));

    assert!(
        settings.kratos.admin.is_some(),
        "lost sign-ups are looked up"
    );

    let pod = &of_kind("StatefulSet")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    for (name, port) in [
        ("hooks", settings.hooks_address.port),
        ("admin", settings.admin_address.port),
    ] {
        let ports = container["ports"].as_array().expect("ports");
        assert!(
            ports
                .iter()
                .any(|one| one["name"] == name && one["containerPort"] == port),
            "{name}"
        );
    }
    let grace = pod["terminationGracePeriodSeconds"]
        .as_u64()
        .expect("a number");
    assert!(
        grace > settings.shutdown_delay.as_secs() + 20,
        "enough time to stop"
    );
    // The requirements of the Pod Security Standard `restricted`.
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        pod["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    let security = &container["securityContext"];
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["capabilities"]["drop"][0], "ALL");
    assert_eq!(security["readOnlyRootFilesystem"], true);
}

#[test]
fn the_fly_settings_listen_on_the_private_network_only() {
    let fly: toml::Table = read("fly.toml").parse().expect("TOML");
    assert!(
        !fly.contains_key("services") && !fly.contains_key("http_service"),
        "no service is public"
    );
    let variables: Vec<(&str, &str)> = fly["env"]
        .as_table()
        .expect("a table")
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str().expect("a text")))
        .collect();
    let file = fly["files"][0]["local_path"].as_str().expect("a path");
    let settings = config::read(&read(file), &root().join(file), &environment(&variables))
        .unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(settings.hooks_address.host.to_string(), "::");
    assert!(
        variables.iter().any(|(name, _)| *name == "KRATOS_ADMIN"),
        "lost sign-ups are looked up"
    );
    let check = &fly["checks"]["ready"];
    assert_eq!(
        check["port"].as_integer(),
        Some(settings.hooks_address.port.into())
    );
    let config::settings::Dsn::Sqlite(database) = settings.dsn else {
        panic!("a file")
    };
    let volume = fly["mounts"]["destination"].as_str().expect("a path");
    assert!(
        database.starts_with(volume),
        "the database is on the volume"
    );
}

#[test]
fn docker_compose_publishes_to_this_machine_only_and_its_settings_are_valid() {
    let compose: Value = serde_saphyr::from_str(&read("docker-compose.yml")).expect("YAML");
    let services = compose["services"].as_object().expect("services");
    for (name, service) in services {
        for port in service["ports"].as_array().into_iter().flatten() {
            let port = port.as_str().expect("a text");
            assert!(port.starts_with("127.0.0.1:"), "{name} publishes {port}");
        }
    }
    let vestibule = &services["vestibule"];
    let variables: Vec<(&str, &str)> = vestibule["environment"]
        .as_object()
        .expect("variables")
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str().expect("a text")))
        .collect();
    let file = vestibule["volumes"][0]
        .as_str()
        .and_then(|volume| volume.strip_prefix("./")?.split(':').next())
        .expect("a file");
    let settings = config::read(&read(file), &root().join(file), &environment(&variables))
        .unwrap_or_else(|problems| panic!("{problems}"));
    let admin = settings.kratos.admin.expect("Kratos's admin API");
    assert_eq!(
        admin.url.host_str(),
        Some("kratos"),
        "lost sign-ups are looked up"
    );
    assert!(services.contains_key("kratos"));
}
