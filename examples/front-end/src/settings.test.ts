import { expect, test } from "vitest"
import { parseSettings } from "./settings"

test("the address is read, without a slash at its end", () => {
  expect(parseSettings('{"kratos": "http://127.0.0.1:4433/"}')).toEqual({ kratos: "http://127.0.0.1:4433" })
})

test.each(["", "{", "{}", "null", '{"kratos": 1}', '{"kratos": "127.0.0.1:x"}'])("%s is reported with a fix", (text) => {
  expect(() => parseSettings(text)).toThrow(/config\.json .* Put /)
})
