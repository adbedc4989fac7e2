// Remembers what Kratos forgets: the fields of a form whose flow has expired, and the messages that Kratos removes when
// the visitor goes back a step. Kept for this tab only; never a password or a code.

import type { UiNode, UiText } from "@ory/client-fetch"

export interface Memory {
  fields: Record<string, string>
  messages: Record<string, UiText[]>
}

const KEY = "sign-up"
const EMPTY: Memory = { fields: {}, messages: {} }

/** Whether a field is the identity's own data. All other fields are secret, or Kratos's. */
export function mayBeKept(name: string): boolean {
  return name.startsWith("traits.")
}

function nameOf(node: UiNode): string | undefined {
  return node.attributes.node_type === "input" ? node.attributes.name : undefined
}

/** The messages of a form by field, for the fields that may be kept. */
export function messagesOf(nodes: UiNode[]): Memory["messages"] {
  const messages: Memory["messages"] = {}
  for (const node of nodes) {
    const name = nameOf(node)
    if (name && mayBeKept(name) && node.messages.length > 0) messages[name] = node.messages
  }
  return messages
}

/** The form with what is remembered: values in empty fields, messages beside visible fields that have none. */
export function recalled<F extends { ui: { nodes: UiNode[] } }>(flow: F, memory: Memory): F {
  const nodes = flow.ui.nodes.map((node) => {
    const name = nameOf(node)
    if (!name || !mayBeKept(name) || node.attributes.node_type !== "input") return node
    const { value, type } = node.attributes
    const field = memory.fields[name]
    const messages = memory.messages[name]
    return {
      ...node,
      attributes: { ...node.attributes, value: value === undefined || value === "" ? field : value },
      messages: node.messages.length === 0 && type !== "hidden" && messages ? messages : node.messages,
    }
  })
  return { ...flow, ui: { ...flow.ui, nodes } }
}

export function remembered(): Memory {
  try {
    return { ...EMPTY, ...(JSON.parse(sessionStorage.getItem(KEY) ?? "{}") as Partial<Memory>) }
  } catch {
    return EMPTY
  }
}

function keep(memory: Memory): void {
  sessionStorage.setItem(KEY, JSON.stringify(memory))
}

export function rememberField(name: string, value: string): void {
  if (!mayBeKept(name)) return
  const memory = remembered()
  keep({ ...memory, fields: { ...memory.fields, [name]: value } })
}

export function rememberMessages(nodes: UiNode[]): void {
  keep({ ...remembered(), messages: messagesOf(nodes) })
}

export function forget(): void {
  sessionStorage.removeItem(KEY)
}
