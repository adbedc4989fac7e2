// The traits in the first step, the password in the second.
import { expect, newFields, test, twoSteps } from '../env/test'
import { unknownVatNumber } from '../env/services'

test.use({ kratosOptions: twoSteps })

test('a visitor goes back from the second step and corrects two fields', async ({ visitor, env, page, takePicture }) => {
  const typed = { ...newFields(), vat_number: unknownVatNumber, invite: 'LET-ME-IN' }
  await visitor.openSignUp()
  await visitor.fill(typed)
  await visitor.press(page.locator('button[name=method][value=profile]'))
  await page.getByTestId('ory/form/auth-picker/registration/password').or(page.getByText('Password', { exact: true })).first().click()
  await visitor.submit()

  // The fields are hidden now, so the messages are above the form, with the titles of the fields.
  await expect(visitor.formMessages).toContainText('VAT number: This VAT number is not registered.')
  await expect(visitor.formMessages).toContainText('Invite code: We do not know this invite code.')
  await expect(page.getByRole('alert').filter({ hasText: 'VAT number' })).toBeVisible()
  await takePicture(page)

  await page.getByTestId('ory/screen/registration/action/restart').click()
  await expect(visitor.field('vat_number')).toBeVisible()
  expect(await visitor.fieldValues()).toEqual(typed)
  expect(await visitor.fieldMessage('vat_number')).toBe('This VAT number is not registered.')
  expect(await visitor.fieldMessage('invite')).toBe('We do not know this invite code.')

  const corrected = { ...typed, vat_number: newFields().vat_number, invite: 'WELCOME-2026' }
  await visitor.fill(corrected)
  await visitor.press(page.locator('button[name=method][value=profile]'))
  await page.getByText('Password', { exact: true }).first().click()
  await visitor.submit()
  await visitor.expectSignedIn(corrected)
  expect((await env.identity(typed.email))?.traits).toMatchObject({ vat_number: corrected.vat_number })
})
