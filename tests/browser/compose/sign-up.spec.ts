// Visitors sign up in two steps through all services of docker-compose.yml, also after a restart of each.
import { expect, test as base, type Page } from '@playwright/test'
import { join } from 'node:path'
import { Visitor, newFields, type SignUpFields } from '../env/visitor'
import * as paths from '../env/paths'
import { unknownVatNumber } from '../env/services'
import { deliveriesOf, identityId, mailedCode, restart } from './containers'

const frontEnd = 'http://127.0.0.1:4455'
const notRegistered = 'This VAT number is not registered.'

const test = base.extend<{ visitor: Visitor }>({
  visitor: async ({ page }, use) => {
    await use(new Visitor(page, { page: (path) => `${frontEnd}${path}` }))
  },
})

async function takePicture(page: Page, name: string): Promise<void> {
  await page.screenshot({ path: join(paths.artefacts, `compose-${name}.png`), fullPage: true })
}

/** Completes the first step: the traits. */
async function submitTraits(visitor: Visitor, typed: SignUpFields): Promise<void> {
  await visitor.fill(typed)
  await visitor.press(visitor.page.locator('button[name=method][value=profile]'))
}

/** Completes the second step with a password. */
async function submitPassword(visitor: Visitor): Promise<void> {
  await visitor.page.getByTestId('ory/form/auth-picker/password').click()
  await visitor.submit()
}

/** Signs up with a code that Kratos mails. All services take part. */
async function signUpWithCode(visitor: Visitor, name: string): Promise<void> {
  const typed = newFields()
  await visitor.openSignUp()
  await submitTraits(visitor, typed)
  await visitor.press(visitor.page.getByTestId('ory/form/auth-picker/code'))
  await visitor.page.locator('input[name=code]').fill(await mailedCode(typed.email))
  await takePicture(visitor.page, `${name}-code`)
  await visitor.press(visitor.page.locator('button[name=method][value=code]'))
  await visitor.expectSignedIn(typed)
  await takePicture(visitor.page, name)
  await expectDelivered(typed)
}

async function expectDelivered(typed: SignUpFields): Promise<void> {
  const identity = (await identityId(typed.email)) ?? ''
  await expect
    .poll(() => deliveriesOf(identity), { timeout: 60_000 })
    .toEqual([expect.stringMatching(/crm_contact +identity\.created +delivered/)])
}

test('a visitor corrects a refused VAT number and is signed in', async ({ visitor, page }) => {
  const typed = { ...newFields(), vat_number: unknownVatNumber }
  await visitor.openSignUp()
  await takePicture(page, 'sign-up')
  await submitTraits(visitor, typed)
  await submitPassword(visitor)
  await expect(visitor.formMessages).toContainText(`VAT number: ${notRegistered}`)
  expect(await identityId(typed.email)).toBeUndefined()
  await takePicture(page, 'refused')

  await page.getByTestId('ory/screen/registration/action/restart').click()
  await expect(visitor.field('vat_number')).toBeVisible()
  expect(await visitor.fieldMessage('vat_number')).toBe(notRegistered)
  await takePicture(page, 'refused-field')

  const corrected = { ...typed, vat_number: newFields().vat_number }
  await submitTraits(visitor, corrected)
  await submitPassword(visitor)
  await visitor.expectSignedIn(corrected)
  await takePicture(page, 'signed-in')
  await expectDelivered(corrected)
})

test('a visitor signs up with a code from the mail catcher', async ({ visitor }) => {
  await signUpWithCode(visitor, 'mailed')
})

for (const service of ['kratos', 'vestibule', 'services', 'front-end', 'mail']) {
  test(`a visitor signs up after a restart of ${service}`, async ({ visitor }) => {
    await restart(service)
    await signUpWithCode(visitor, `restarted-${service}`)
  })
}
