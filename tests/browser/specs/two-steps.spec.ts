// First who one is, then the password.
import { expect, somebody, test, twoSteps } from '../house/test'
import { unknownVatNumber } from '../house/services'

test.use({ wishes: twoSteps })

test('two steps, there and back', async ({ person, house, page, picture }) => {
  const typed = { ...somebody(), vat_number: unknownVatNumber, invite: 'LET-ME-IN' }
  await person.opensTheSignUp()
  await person.types(typed)
  await person.presses(page.locator('button[name=method][value=profile]'))
  await page.getByTestId('ory/form/auth-picker/registration/password').or(page.getByText('Password', { exact: true })).first().click()
  await person.sends()

  // The fields are hidden now, so the words are above the form, with the fields' names.
  await expect(person.aboveTheForm).toContainText('VAT number: This VAT number is not registered.')
  await expect(person.aboveTheForm).toContainText('Invite code: We do not know this invite code.')
  await expect(page.getByRole('alert').filter({ hasText: 'VAT number' })).toBeVisible()
  await picture(page)

  await page.getByTestId('ory/screen/registration/action/restart').click()
  await expect(person.field('vat_number')).toBeVisible()
  expect(await person.typed()).toEqual(typed)
  expect(await person.besideField('vat_number')).toBe('This VAT number is not registered.')
  expect(await person.besideField('invite')).toBe('We do not know this invite code.')

  const corrected = { ...typed, vat_number: somebody().vat_number, invite: 'WELCOME-2026' }
  await person.types(corrected)
  await person.presses(page.locator('button[name=method][value=profile]'))
  await page.getByText('Password', { exact: true }).first().click()
  await person.sends()
  await person.isSignedInAtTheDestination(corrected)
  expect((await house.identity(typed.email))?.traits).toMatchObject({ vat_number: corrected.vat_number })
})
