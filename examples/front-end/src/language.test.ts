import { expect, test } from "vitest"
import { languageOf } from "./language"

test.each([
  [null, ["de-AT", "en"], "de"],
  [null, ["fr", "EN-GB"], "en"],
  [null, ["fr"], "en"],
  [null, [], "en"],
  ["de", ["en"], "de"],
  ["xx", ["de"], "de"],
])("chosen %s, preferred %j: %s", (chosen, preferred, expected) => {
  expect(languageOf(chosen, preferred)).toBe(expected)
})
