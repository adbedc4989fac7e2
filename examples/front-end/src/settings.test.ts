import { expect, test } from "vitest"
import { parseSettings } from "./settings"

test("the front-end reads the address and removes a slash at its end", () => {
  expect(parseSettings('{"kratos": "http://127.0.0.1:4433/"}')).toEqual({ kratos: "http://127.0.0.1:4433" })
})

test.each(["", "{", "{}", "null", '{"kratos": 1}', '{"kratos": "127.0.0.1:x"}'])("the front-end reports %s and a fix", (text) => {
  expect(() => parseSettings(text)).toThrow(/config\.json .* Put /)
})
