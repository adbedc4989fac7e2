//! Serves a plain page that shows Kratos's forms, so that a visitor can sign up without another front-end. The page
//! fetches the flow with the visitor's cookies and renders each node. The browser submits the form directly to Kratos.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::TcpListener;

use actix_web::http::header::{COOKIE, LOCATION};
use actix_web::web::{Data, Path, Query};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use anyhow::Context as _;
use serde_json::Value;

/// The address to which kratos.yml sends browsers.
const ADDRESS: &str = "127.0.0.1:4455";

struct Kratos {
    url: String,
    http: reqwest::Client,
}

/// Starts the page for the Kratos at `url`, and returns the page's address.
#[expect(
    clippy::disallowed_methods,
    reason = "calls Kratos, which is not a configured service"
)]
pub fn start(url: &str) -> anyhow::Result<String> {
    let listener = TcpListener::bind(ADDRESS).with_context(|| {
        format!("the sign-up page needs {ADDRESS}; stop the program that uses this address")
    })?;
    let http = reqwest::Client::builder()
        .no_proxy()
        .build()
        .context("cannot build the HTTP client")?;
    let kratos = Data::new(Kratos {
        url: url.to_owned(),
        http,
    });
    let server = HttpServer::new(move || {
        App::new()
            .app_data(kratos.clone())
            .route("/", web::get().to(welcome))
            .route("/welcome", web::get().to(welcome))
            .route("/error", web::get().to(error))
            .route("/{flow}", web::get().to(form))
    })
    .workers(1)
    .shutdown_timeout(1)
    .disable_signals()
    .listen(listener)?
    .run();
    tokio::spawn(server);
    Ok(format!("http://{ADDRESS}"))
}

impl Kratos {
    /// Returns Kratos's response at `path`, with the visitor's cookies in the request.
    async fn get(&self, path: &str, visitor: &HttpRequest) -> Option<(u16, Value)> {
        let mut request = self
            .http
            .get(format!("{}{path}", self.url))
            .header("Accept", "application/json");
        if let Some(cookies) = visitor
            .headers()
            .get(COOKIE)
            .and_then(|cookies| cookies.to_str().ok())
        {
            request = request.header("Cookie", cookies);
        }
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        let body = serde_json::from_slice(&answer.bytes().await.ok()?).ok()?;
        Some((status, body))
    }
}

async fn form(
    request: HttpRequest,
    flow: Path<String>,
    query: Query<HashMap<String, String>>,
    kratos: Data<Kratos>,
) -> HttpResponse {
    if ![
        "registration",
        "login",
        "settings",
        "verification",
        "recovery",
    ]
    .contains(&flow.as_str())
    {
        return HttpResponse::NotFound().finish();
    }
    let begin = format!("{}/self-service/{flow}/browser", kratos.url);
    let Some(id) = query
        .get("flow")
        .and_then(|id| uuid::Uuid::parse_str(id).ok())
    else {
        return elsewhere(&begin);
    };
    match kratos
        .get(&format!("/self-service/{flow}/flows?id={id}"), &request)
        .await
    {
        Some((200, body)) => page(title(&flow), &written(&body["ui"])),
        Some(_) => elsewhere(&begin),
        None => page(
            "Kratos cannot be reached",
            "<p>Check that Kratos is running.</p>",
        ),
    }
}

fn title(flow: &str) -> &'static str {
    match flow {
        "registration" => "Sign up",
        "login" => "Log in",
        "settings" => "Your profile",
        "verification" => "Verify your address",
        _ => "Recover your account",
    }
}

async fn welcome(request: HttpRequest, kratos: Data<Kratos>) -> HttpResponse {
    match kratos.get("/sessions/whoami", &request).await {
        Some((200, session)) => {
            let identity = &session["identity"];
            let shown = serde_json::json!({"id": identity["id"], "traits": identity["traits"], "metadata_public": identity["metadata_public"]});
            let shown = serde_json::to_string_pretty(&shown).unwrap_or_default();
            page(
                "You are logged in",
                &format!(
                    "<pre>{}</pre><p><a href=\"/settings\">Change your profile</a></p>",
                    escaped(&shown)
                ),
            )
        }
        _ => page(
            "You are not logged in",
            "<p><a href=\"/registration\">Sign up</a> or <a href=\"/login\">log in</a></p>",
        ),
    }
}

async fn error(
    request: HttpRequest,
    query: Query<HashMap<String, String>>,
    kratos: Data<Kratos>,
) -> HttpResponse {
    let id = query
        .get("id")
        .and_then(|id| uuid::Uuid::parse_str(id).ok())
        .unwrap_or_default();
    let error = kratos
        .get(&format!("/self-service/errors?id={id}"), &request)
        .await
        .map(|(_, body)| body);
    let shown = serde_json::to_string_pretty(&error).unwrap_or_default();
    page(
        "Kratos reports an error",
        &format!("<pre>{}</pre>", escaped(&shown)),
    )
}

fn elsewhere(url: &str) -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((LOCATION, url))
        .finish()
}

fn page(title: &str, body: &str) -> HttpResponse {
    let title = escaped(title);
    HttpResponse::Ok().content_type("text/html; charset=utf-8").insert_header(("Cache-Control", "no-store")).body(format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title} – Vestibule demo</title><style>body{{font:1rem/1.5 system-ui;max-width:28rem;margin:2rem auto;padding:0 1rem}}\
         label,input,button{{display:block;width:100%;box-sizing:border-box;font:inherit}}input,button{{padding:.5rem;margin:.2rem 0 1rem}}\
         .message{{color:#a00;margin:-.8rem 0 1rem}}.info{{color:#333}}pre{{overflow:auto;background:#f4f4f4;padding:1rem}}</style>\
         <h1>{title}</h1>{body}"
    ))
}

/// Renders the nodes and messages of a form as HTML.
fn written(ui: &Value) -> String {
    let mut html = messages(&ui["messages"]);
    let _ = write!(
        html,
        "<form action=\"{}\" method=\"{}\">",
        escaped(ui["action"].as_str().unwrap_or_default()),
        escaped(ui["method"].as_str().unwrap_or("post"))
    );
    for node in ui["nodes"].as_array().into_iter().flatten() {
        html.push_str(&input(node));
    }
    html + "</form>"
}

fn input(node: &Value) -> String {
    let attributes = &node["attributes"];
    let text = |name: &str| escaped(attributes[name].as_str().unwrap_or_default());
    let value = match &attributes["value"] {
        Value::String(text) => escaped(text),
        Value::Null => String::new(),
        other => escaped(&other.to_string()),
    };
    let label = escaped(node["meta"]["label"]["text"].as_str().unwrap_or_default());
    let (name, kind) = (text("name"), text("type"));
    let required = if attributes["required"] == true {
        " required"
    } else {
        ""
    };
    match (node["type"].as_str(), kind.as_str()) {
        (Some("input"), "hidden") => {
            format!("<input type=\"hidden\" name=\"{name}\" value=\"{value}\">")
        }
        // A step back and the other methods do not need the fields that this method requires.
        (Some("input"), "submit" | "button") => {
            format!(
                "<button type=\"submit\" formnovalidate name=\"{name}\" value=\"{value}\">{label}</button>"
            )
        }
        (Some("input"), _) => format!(
            "<label for=\"{name}\">{label}</label><input id=\"{name}\" type=\"{kind}\" name=\"{name}\" value=\"{value}\" autocomplete=\"{}\"{required}>{}",
            text("autocomplete"),
            messages(&node["messages"])
        ),
        _ => String::new(),
    }
}

fn messages(messages: &Value) -> String {
    let mut html = String::new();
    for message in messages.as_array().into_iter().flatten() {
        let kind = if message["type"] == "error" {
            "message"
        } else {
            "message info"
        };
        let _ = write!(
            html,
            "<p class=\"{kind}\">{}</p>",
            escaped(message["text"].as_str().unwrap_or_default())
        );
    }
    html
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_form_is_rendered_with_its_messages_and_escapes_html() {
        let ui = json!({
            "action": "http://127.0.0.1:4433/x?flow=1&a=2", "method": "POST",
            "messages": [{"type": "error", "text": "VAT number: <no>"}],
            "nodes": [
                {"type": "input", "attributes": {"name": "csrf_token", "type": "hidden", "value": "t\"k"}, "messages": [], "meta": {}},
                {"type": "input", "attributes": {"name": "traits.vat_number", "type": "text", "value": "DE1", "required": true},
                 "messages": [{"type": "error", "text": "Not registered."}], "meta": {"label": {"text": "VAT number"}}},
                {"type": "input", "attributes": {"name": "method", "type": "submit", "value": "password"}, "messages": [], "meta": {"label": {"text": "Sign up"}}},
            ],
        });
        let html = written(&ui);
        for part in [
            "<p class=\"message\">VAT number: &lt;no&gt;</p>",
            "action=\"http://127.0.0.1:4433/x?flow=1&amp;a=2\"",
            "name=\"csrf_token\" value=\"t&quot;k\"",
            "<label for=\"traits.vat_number\">VAT number</label>",
            "required><p class=\"message\">Not registered.</p>",
            "<button type=\"submit\" formnovalidate name=\"method\" value=\"password\">Sign up</button>",
        ] {
            assert!(html.contains(part), "{part} in {html}");
        }
    }
}
