//! The hooks in kratos.yml: where each is, whether Kratos waits for it, and which are Vestibule's.

use super::document::Node;
use crate::kratos::snippet::KEY_HEADER;
use crate::kratos::{Flow, Stage};

/// One list of hooks.
pub struct List<'k> {
    /// The flow in whose section the list is.
    pub flow: Flow,
    /// Whether the list is under `before`.
    pub is_before: bool,
    /// The method; `None` is the list for all methods.
    pub method: Option<&'k str>,
    /// The list.
    pub node: &'k Node,
    /// Its hooks, in order.
    pub hooks: Vec<Hook<'k>>,
}

/// One hook.
pub struct Hook<'k> {
    /// The entry of the list.
    pub node: &'k Node,
    /// The section `config`, or the entry if it has none.
    pub config: &'k Node,
    /// `web_hook`, `session`, …
    pub name: &'k str,
    /// How the hook calls Vestibule; `None` if it is not a hook of Vestibule.
    pub call: Option<Call>,
}

/// The parts of the URL of one of Vestibule's hooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Whether the path ends with `/hooks/<flow>/<stage>`.
    pub has_path: bool,
    /// The flow in the path, if Vestibule has it.
    pub flow: Option<Flow>,
    /// The stage in the path, if Vestibule has it in this flow.
    pub stage: Option<Stage>,
    /// The value of `?method=`.
    pub method: Option<String>,
}

impl<'k> List<'k> {
    /// Returns whether a hook of Vestibule in this list has this stage.
    #[must_use]
    pub fn has(&self, stage: Stage) -> bool {
        self.hooks.iter().any(|hook| hook.is(self.flow, stage))
    }

    /// Returns the hooks of Vestibule.
    pub fn ours(&self) -> impl Iterator<Item = (&Hook<'k>, &Call)> {
        let hooks = self.hooks.iter();
        hooks.filter_map(|hook| Some((hook, hook.call.as_ref()?)))
    }
}

impl<'k> Hook<'k> {
    fn of(node: &'k Node) -> Self {
        let config = node.get("config").unwrap_or(node);
        let name = node.text_at(&["hook"]).unwrap_or_default();
        let call = (name == "web_hook").then(|| call(config)).flatten();
        Self {
            node,
            config,
            name,
            call,
        }
    }

    /// Returns whether Kratos lets the answer decide: `response.parse` or `can_interrupt`.
    #[must_use]
    pub fn is_blocking(&self) -> bool {
        self.is_parsed() || self.config.bool_at(&["can_interrupt"]) == Some(true)
    }

    /// Returns whether `response.parse` is true.
    #[must_use]
    pub fn is_parsed(&self) -> bool {
        self.config.bool_at(&["response", "parse"]) == Some(true)
    }

    /// Returns whether `response.ignore` is true.
    #[must_use]
    pub fn is_ignored(&self) -> bool {
        self.config.bool_at(&["response", "ignore"]) == Some(true)
    }

    /// Returns the URL without its query.
    #[must_use]
    pub fn address(&self) -> &'k str {
        let url = self.config.text_at(&["url"]).unwrap_or_default();
        url.split('?').next().unwrap_or_default()
    }

    /// Returns whether this is a hook of Vestibule for this flow and stage.
    #[must_use]
    pub fn is(&self, flow: Flow, stage: Stage) -> bool {
        self.call
            .as_ref()
            .is_some_and(|call| call.flow == Some(flow) && call.stage == Some(stage))
    }
}

/// Returns all lists of hooks.
#[must_use]
pub fn lists(kratos: &Node) -> Vec<List<'_>> {
    let mut lists = Vec::new();
    for flow in Flow::ALL {
        let section = |key| kratos.find(&["selfservice", "flows", flow.as_str(), key]);
        lists.extend(section("before").and_then(|before| list(flow, true, None, before)));
        let Some(after) = section("after") else {
            continue;
        };
        lists.extend(list(flow, false, None, after));
        for (method, section) in after.entries() {
            lists.extend(list(flow, false, Some(method), section));
        }
    }
    lists
}

fn list<'k>(
    flow: Flow,
    is_before: bool,
    method: Option<&'k str>,
    section: &'k Node,
) -> Option<List<'k>> {
    let node = section.get("hooks")?;
    Some(List {
        flow,
        is_before,
        method,
        node,
        hooks: node.items().iter().map(Hook::of).collect(),
    })
}

/// Returns how a web hook calls Vestibule, if its URL or its key header is Vestibule's.
fn call(config: &Node) -> Option<Call> {
    let url = config.text_at(&["url"]).unwrap_or_default();
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let path = address.split_once("://").map_or(address, |(_, rest)| rest);
    let mut segments = path.rsplit('/');
    let [stage, flow, folder] = [(); 3].map(|()| segments.next().unwrap_or_default());
    let known = (
        Flow::named(flow),
        [Stage::Pre, Stage::Post]
            .into_iter()
            .find(|known| known.as_str() == stage),
    );
    let is_near = matches!(folder, "hooks" | "hook") && known != (None, None);
    if !is_near && !has_key_header(config) {
        return None;
    }
    let has_path = folder == "hooks";
    let (flow, stage) = if has_path { known } else { (None, None) };
    let method = query
        .split('&')
        .find_map(|parameter| parameter.strip_prefix("method="));
    Some(Call {
        has_path,
        flow,
        stage: stage.filter(|stage| flow.is_none_or(|flow| flow.stages().contains(stage))),
        method: method.map(ToOwned::to_owned),
    })
}

/// Returns whether the hook sends a header with the name of Vestibule's key.
fn has_key_header(config: &Node) -> bool {
    let is_key = |name: &str| name.eq_ignore_ascii_case(KEY_HEADER);
    let headers = config.get("headers").map(Node::entries).unwrap_or_default();
    config
        .text_at(&["auth", "config", "name"])
        .is_some_and(is_key)
        || headers.iter().any(|(name, _)| is_key(name))
}
