// Visitors sign up in two steps through all services of docker-compose.yml, also after a restart of each.
import { expect, test as base, type Page } from '@playwright/test'
import { join } from 'node:path'
import { Person, somebody, type Typed } from '../house/person'
import * as places from '../house/places'
import { unknownVatNumber } from '../house/services'
import { deliveriesOf, identityId, mailedCode, restart } from './containers'

const frontEnd = 'http://127.0.0.1:4455'
const notRegistered = 'This VAT number is not registered.'

const test = base.extend<{ person: Person }>({
  person: async ({ page }, use) => {
    await use(new Person(page, { page: (path) => `${frontEnd}${path}` }))
  },
})

async function picture(page: Page, name: string): Promise<void> {
  await page.screenshot({ path: join(places.artefacts, `compose-${name}.png`), fullPage: true })
}

/** Completes the first step: the traits. */
async function sendsTraits(person: Person, typed: Typed): Promise<void> {
  await person.types(typed)
  await person.presses(person.page.locator('button[name=method][value=profile]'))
}

/** Completes the second step with a password. */
async function sendsPassword(person: Person): Promise<void> {
  await person.page.getByTestId('ory/form/auth-picker/password').click()
  await person.sends()
}

/** Signs up with a code that Kratos mails. All services take part. */
async function signsUpWithCode(person: Person, name: string): Promise<void> {
  const typed = somebody()
  await person.opensTheSignUp()
  await sendsTraits(person, typed)
  await person.presses(person.page.getByTestId('ory/form/auth-picker/code'))
  await person.page.locator('input[name=code]').fill(await mailedCode(typed.email))
  await picture(person.page, `${name}-code`)
  await person.presses(person.page.locator('button[name=method][value=code]'))
  await person.isSignedInAtTheDestination(typed)
  await picture(person.page, name)
  await isDelivered(typed)
}

async function isDelivered(typed: Typed): Promise<void> {
  const identity = (await identityId(typed.email)) ?? ''
  await expect
    .poll(() => deliveriesOf(identity), { timeout: 60_000 })
    .toEqual([expect.stringMatching(/crm_contact +identity\.created +delivered/)])
}

test('a refused VAT number is corrected and the visitor is signed in', async ({ person, page }) => {
  const typed = { ...somebody(), vat_number: unknownVatNumber }
  await person.opensTheSignUp()
  await picture(page, 'sign-up')
  await sendsTraits(person, typed)
  await sendsPassword(person)
  await expect(person.aboveTheForm).toContainText(`VAT number: ${notRegistered}`)
  expect(await identityId(typed.email)).toBeUndefined()
  await picture(page, 'refused')

  await page.getByTestId('ory/screen/registration/action/restart').click()
  await expect(person.field('vat_number')).toBeVisible()
  expect(await person.besideField('vat_number')).toBe(notRegistered)
  await picture(page, 'refused-field')

  const corrected = { ...typed, vat_number: somebody().vat_number }
  await sendsTraits(person, corrected)
  await sendsPassword(person)
  await person.isSignedInAtTheDestination(corrected)
  await picture(page, 'signed-in')
  await isDelivered(corrected)
})

test('a visitor signs up with a code from the mail catcher', async ({ person }) => {
  await signsUpWithCode(person, 'mailed')
})

for (const service of ['kratos', 'vestibule', 'services', 'front-end', 'mail']) {
  test(`a visitor signs up after a restart of ${service}`, async ({ person }) => {
    await restart(service)
    await signsUpWithCode(person, `restarted-${service}`)
  })
}
