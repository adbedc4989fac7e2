import { afterEach, beforeEach, expect, test, vi } from "vitest"
import type { UiNode, UiText } from "@ory/client-fetch"
import { forget, mayBeKept, messagesOf, recalled, rememberField, rememberMessages, remembered } from "./memory"

const unknown: UiText = { id: 4900101, text: "This VAT number is not registered.", type: "error" }

function input(name: string, type = "text", value?: string, messages: UiText[] = []): UiNode {
  return {
    type: "input",
    group: "default",
    messages,
    meta: {},
    attributes: { node_type: "input", name, type: type as "text", value, disabled: false },
  }
}

function form(...nodes: UiNode[]) {
  return { id: "flow", ui: { nodes } }
}

beforeEach(() => {
  const kept = new Map<string, string>()
  vi.stubGlobal("sessionStorage", {
    getItem: (key: string) => kept.get(key) ?? null,
    setItem: (key: string, value: string) => kept.set(key, value),
    removeItem: (key: string) => kept.delete(key),
  })
})

afterEach(() => {
  vi.unstubAllGlobals()
})

test("the front-end keeps only the identity's own data", () => {
  const kept = ["traits.email", "traits.name.first", "password", "code", "csrf_token", "method"].filter(mayBeKept)
  expect(kept).toEqual(["traits.email", "traits.name.first"])
  rememberField("password", "secret")
  rememberField("traits.email", "ada@example.org")
  expect(remembered().fields).toEqual({ "traits.email": "ada@example.org" })
  forget()
  expect(remembered()).toEqual({ fields: {}, messages: {} })
})

test("the front-end fills in an empty form and keeps the values of a filled one", () => {
  rememberField("traits.email", "ada@example.org")
  rememberField("traits.company", "Muster")
  const { nodes } = recalled(form(input("traits.email"), input("traits.company", "text", "Kratos's"), input("password")), remembered()).ui
  const values = nodes.map((node) => (node.attributes.node_type === "input" ? (node.attributes.value as unknown) : null))
  expect(values).toEqual(["ada@example.org", "Kratos's", undefined])
})

test("the front-end shows the message of a hidden field again once the field is visible", () => {
  const credentials = form(input("traits.vat_number", "hidden", "DE0", [unknown]), input("password", "password", undefined, [unknown]))
  rememberMessages(credentials.ui.nodes)
  expect(messagesOf(credentials.ui.nodes)).toEqual({ "traits.vat_number": [unknown] })
  const messages = (type: string, own: UiText[] = []) =>
    recalled(form(input("traits.vat_number", type, "DE0", own)), remembered()).ui.nodes[0]?.messages
  expect(messages("text")).toEqual([unknown])
  expect(messages("hidden")).toEqual([])
  const other: UiText = { id: 4000002, text: "Property vat_number is missing.", type: "error" }
  expect(messages("text", [other])).toEqual([other])
})

test("the front-end ignores storage that it cannot read", () => {
  sessionStorage.setItem("sign-up", "{")
  expect(remembered()).toEqual({ fields: {}, messages: {} })
})
