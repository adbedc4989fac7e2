// The native client beside the browsers: the same checks by the API flow. Only with a real Kratos.
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import * as places from '../house/places'
import { expect, somebody, test } from '../house/test'
import { unknownVatNumber } from '../house/services'

interface Ended {
  code: number
  out: string
}

async function signUp(...args: string[]): Promise<Ended> {
  const ended = await promisify(execFile)('node', [places.nativeClient, ...args]).then(
    ({ stdout }) => ({ code: 0, out: stdout }),
    (error: { code: number; stdout: string; stderr: string }) => ({ code: error.code, out: error.stdout + error.stderr }),
  )
  return ended
}

test.beforeEach(({ backend }) => {
  test.skip(backend === 'stand-in', 'the stand-in has no API flow')
})

test('a native app is refused and then signed in by a token', async ({ house }) => {
  const { email, company, vat_number } = somebody()
  const who = ['--kratos', house.place.kratos, '--email', email, '--company', company]
  const refused = await signUp(...who, '--vat-number', unknownVatNumber, '--language', 'de')
  expect(refused.code).toBe(1)
  expect(refused.out).toContain('traits.vat_number: Diese USt-IdNr. ist nicht registriert. (4900101)')
  expect(await house.identity(email)).toBeUndefined()

  const signedUp = await signUp(...who, '--vat-number', vat_number)
  expect(signedUp.code).toBe(0)
  expect(signedUp.out).toContain(`Signed up: identity ${(await house.identity(email))?.id}`)
  expect(signedUp.out).toContain(`whoami with X-Session-Token: 200 ${email}`)
  expect(signedUp.out).toContain(`whoami with Authorization: 200 ${email}`)
  expect(signedUp.out).toContain('whoami with neither: 401')
  expect(await house.crm.contact(email)).toMatchObject({ email, vat_number })
})

test('a mix of browser and API flow is refused by Kratos', async ({ house }) => {
  const { code, out } = await signUp('--mix', '--kratos', house.place.kratos)
  expect(code).toBe(0)
  expect(out.match(/^ {2}\d+/gm)).toEqual(['  400', '  400', '  403', '  403'])
})

test('wrong use of the native client is told', async ({ house }) => {
  expect(await signUp()).toMatchObject({ code: 2, out: expect.stringContaining('--email, --company, --vat-number missing') })
  const nobody = await signUp('--mix', '--kratos', house.place.frontEnd)
  expect(nobody).toMatchObject({ code: 2, out: expect.stringContaining('not as Kratos does') })
})
