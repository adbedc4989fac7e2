//! Places messages on the form.

use serde_json::Value;

use super::field::Field;
use super::message::Message;
use super::payload::Node;
use super::reply::PlacedMessages;

/// The pointer of the form level. Front-ends show form-level messages above or below all fields.
pub const FORM_LEVEL: &str = "#/";

/// The nodes of the form that the visitor uses.
#[derive(Clone, Copy, Debug)]
pub struct Form<'a>(Option<&'a [Node]>);

impl<'a> Form<'a> {
    /// Creates the form with these nodes, or with `None` if the nodes are not known.
    #[must_use]
    pub fn new(nodes: Option<&'a [Node]>) -> Self {
        Self(nodes)
    }

    /// Places a `message` about `field` so that the visitor sees it.
    ///
    /// A pointer to a missing node would make Kratos add an input of that name to the form. So a message goes to the
    /// node of the nearest parent (`traits.emails` for `traits.emails.0`), else only to form level. A visible node
    /// gets the message alone. A hidden node keeps its message, because the visitor may return to the node. Form
    /// level then has the message too, with the field's title before it.
    #[must_use]
    pub fn place(&self, field: Option<&Field>, message: Message) -> Vec<PlacedMessages> {
        let node = field.and_then(|field| self.nearest(field.node_name()));
        match node {
            Some(node) if node.hidden => {
                let above = titled(node, message.clone());
                vec![
                    PlacedMessages::new(&pointer(node), message),
                    PlacedMessages::new(FORM_LEVEL, above),
                ]
            }
            Some(node) => vec![PlacedMessages::new(&pointer(node), message)],
            None => vec![PlacedMessages::new(FORM_LEVEL, message)],
        }
    }

    /// Returns the node with this name, or the node of the nearest parent.
    fn nearest(&self, name: &str) -> Option<&'a Node> {
        let nodes = self.0?;
        let mut parents = std::iter::successors(Some(name), |name| {
            name.rsplit_once('.').map(|(parent, _)| parent)
        });
        parents.find_map(|name| nodes.iter().find(|node| node.name == name))
    }
}

/// Returns the node as Kratos expects it in `instance_ptr`: `#/traits/vat_number`.
fn pointer(node: &Node) -> String {
    format!("#/{}", node.name.replace('.', "/"))
}

fn titled(node: &Node, message: Message) -> Message {
    match node.title.as_deref() {
        Some(title) if !title.is_empty() => Message::new(
            message.id,
            &format!("{title}: {}", message.text),
            message.context,
        ),
        _ => message,
    }
}

/// Groups messages by their pointer, in the order of the first message of each group. A text is shown once at each place.
#[must_use]
pub fn group_by_pointer(placed: Vec<PlacedMessages>) -> Vec<PlacedMessages> {
    let mut gathered: Vec<PlacedMessages> = Vec::new();
    for one in placed {
        match gathered
            .iter_mut()
            .find(|other| other.instance_ptr == one.instance_ptr)
        {
            Some(same) => {
                for message in one.messages {
                    if same.messages.iter().all(|known| known.text != message.text) {
                        same.messages.push(message);
                    }
                }
            }
            None => gathered.push(one),
        }
    }
    gathered
}

/// Returns a form-level message without a context, for a form whose nodes are not known.
#[must_use]
pub fn at_form_level(id: u32, text: &str) -> Vec<PlacedMessages> {
    vec![PlacedMessages::new(
        FORM_LEVEL,
        Message::new(id, text, Value::Null),
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, hidden: bool, title: Option<&str>) -> Node {
        Node {
            name: name.to_owned(),
            hidden,
            title: title.map(ToOwned::to_owned),
        }
    }

    type Case = (
        Option<&'static str>,
        &'static [(&'static str, &'static str)],
    );

    #[test]
    fn a_message_is_placed_where_the_visitor_sees_it() {
        let nodes = [
            node("traits.visible", false, Some("Visible")),
            node("traits.hidden", true, Some("VAT <number>")),
            node("traits.untitled", true, None),
            node("traits.emails", false, None),
            node("traits.address.city", false, None),
        ];
        let cases: [Case; 9] = [
            (Some("traits.emails.0"), &[("#/traits/emails", "No.")]),
            (
                Some("traits.address.city.part.0"),
                &[("#/traits/address/city", "No.")],
            ),
            (Some("traits.address.street"), &[("#/", "No.")]),
            (Some("traits.vis"), &[("#/", "No.")]),
            (Some("traits.visible"), &[("#/traits/visible", "No.")]),
            (
                Some("traits.hidden"),
                &[("#/traits/hidden", "No."), ("#/", "VAT ‹number>: No.")],
            ),
            (
                Some("traits.untitled"),
                &[("#/traits/untitled", "No."), ("#/", "No.")],
            ),
            (Some("traits.missing"), &[("#/", "No.")]),
            (None, &[("#/", "No.")]),
        ];
        for (field, expected) in cases {
            let field = field.map(|name| Field::parse(name).unwrap());
            let placed =
                Form::new(Some(&nodes)).place(field.as_ref(), Message::new(1, "No.", Value::Null));
            let seen: Vec<_> = placed
                .iter()
                .map(|placed| {
                    (
                        placed.instance_ptr.as_str(),
                        placed.messages[0].text.as_str(),
                    )
                })
                .collect();
            assert_eq!(seen, expected, "{field:?}");
        }
    }

    #[test]
    fn a_message_is_at_form_level_when_the_nodes_are_not_known() {
        let field = Field::parse("traits.visible").unwrap();
        let placed = Form::new(None).place(Some(&field), Message::new(1, "No.", Value::Null));
        assert_eq!(placed.len(), 1);
        assert_eq!(placed[0].instance_ptr, "#/");
    }
}
