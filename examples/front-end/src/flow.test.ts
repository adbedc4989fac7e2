import { expect, test } from "vitest"
import { next } from "./flow"

const where = { path: "http://127.0.0.1:4455/settings", returnTo: "http://127.0.0.1:4455/after" }

test.each([
  ["expired", 410, { error: { id: "self_service_flow_expired", details: { return_to: "/x" } } }, { begin: true, returnTo: "/x" }],
  ["replaced", 410, { error: { id: "self_service_flow_replaced" } }, { begin: true }],
  ["unknown", 404, { error: {} }, { begin: true }],
  ["of another visitor", 403, { error: { id: "security_csrf_violation" } }, { begin: true }],
  ["signed in already", 400, { error: { id: "session_already_available" } }, { go: where.returnTo }],
  ["not signed in", 401, { error: { id: "session_inactive" } }, { go: "/login?return_to=http%3A%2F%2F127.0.0.1%3A4455%2Fsettings" }],
  ["a second factor is due", 403, { error: { id: "session_aal2_required" }, redirect_browser_to: "/aal2" }, { go: "/aal2" }],
  ["must continue at another URL", 422, { error: { id: "browser_location_change_required" }, redirect_browser_to: "/there" }, { go: "/there" }],
  ["return_to not allowed", 400, { error: { id: "self_service_flow_return_to_forbidden", reason: "Not there." } }, { fail: "Not there." }],
  ["broken", 500, { error: { message: "Internal" } }, { fail: "Internal" }],
  ["no reason", 502, {}, { fail: "status 502" }],
])("%s", (_, status, body, expected) => {
  expect(next(status, body, where)).toEqual(expected)
})
