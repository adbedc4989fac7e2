// The native client gets the same checks with the API flow. Only with a real Kratos.
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import * as paths from '../env/paths'
import { expect, newFields, test } from '../env/test'
import { unknownVatNumber } from '../env/services'

interface Result {
  code: number
  out: string
}

async function signUp(...args: string[]): Promise<Result> {
  const result = await promisify(execFile)('node', [paths.nativeClient, ...args]).then(
    ({ stdout }) => ({ code: 0, out: stdout }),
    (error: { code: number; stdout: string; stderr: string }) => ({ code: error.code, out: error.stdout + error.stderr }),
  )
  return result
}

test.beforeEach(({ backend }) => {
  test.skip(backend === 'fake-kratos', 'the fake Kratos has no API flow')
})

test('Vestibule refuses a native app and Kratos then signs it in with a token', async ({ env }) => {
  const { email, company, vat_number } = newFields()
  const options = ['--kratos', env.config.kratos, '--email', email, '--company', company]
  const refused = await signUp(...options, '--vat-number', unknownVatNumber, '--language', 'de')
  expect(refused.code).toBe(1)
  expect(refused.out).toContain('traits.vat_number: Diese USt-IdNr. ist nicht registriert. (4900101)')
  expect(await env.identity(email)).toBeUndefined()

  const signedUp = await signUp(...options, '--vat-number', vat_number)
  expect(signedUp.code).toBe(0)
  expect(signedUp.out).toContain(`Signed up: identity ${(await env.identity(email))?.id}`)
  expect(signedUp.out).toContain(`whoami with X-Session-Token: 200 ${email}`)
  expect(signedUp.out).toContain(`whoami with Authorization: 200 ${email}`)
  expect(signedUp.out).toContain('whoami with neither: 401')
  expect(await env.crm.contact(email)).toMatchObject({ email, vat_number })
})

test('Kratos refuses a mix of browser and API flow', async ({ env }) => {
  const { code, out } = await signUp('--mix', '--kratos', env.config.kratos)
  expect(code).toBe(0)
  expect(out.match(/^ {2}\d+/gm)).toEqual(['  400', '  400', '  403', '  403'])
})

test('the native client reports wrong use', async ({ env }) => {
  expect(await signUp()).toMatchObject({ code: 2, out: expect.stringContaining('--email, --company, --vat-number missing') })
  const unreachable = await signUp('--mix', '--kratos', env.config.frontEnd)
  expect(unreachable).toMatchObject({ code: 2, out: expect.stringContaining('not as Kratos does') })
})
