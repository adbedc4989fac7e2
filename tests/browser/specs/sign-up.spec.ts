// Sign-ups in one step.
import { expect, newFields, test } from '../env/test'
import { registeredName, unknownVatNumber } from '../env/services'

const notRegistered = 'This VAT number is not registered.'
const unknownInvite = 'We do not know this invite code.'
const tryAgain = 'This could not be checked just now. Please try again in a few minutes.'

test('a visitor corrects a refused VAT number and is signed in at return_to', async ({ visitor, env, page, takePicture }) => {
  const typed = { ...newFields(), vat_number: unknownVatNumber }
  await visitor.openSignUp()
  await visitor.fill(typed)
  await visitor.submit()

  await expect(visitor.field('vat_number')).toHaveAttribute('aria-invalid', 'true')
  expect(await visitor.fieldMessage('vat_number')).toBe(notRegistered)
  expect(await visitor.fieldValues()).toMatchObject(typed)
  await expect(visitor.field('vat_number')).toBeFocused()
  expect(await env.identity(typed.email)).toBeUndefined()
  await takePicture(page)

  const corrected = { ...typed, vat_number: newFields().vat_number }
  await visitor.fill({ vat_number: corrected.vat_number })
  await visitor.submit()
  await visitor.expectSignedIn(corrected)
  await expect(page.getByText(registeredName)).toBeVisible()

  // Vestibule delivers the contact with the id of the account. No script can read a token.
  const identity = await env.identity(typed.email)
  expect(await env.crm.contact(typed.email)).toEqual({ id: identity?.id, email: typed.email, vat_number: corrected.vat_number })
  const readable = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]))
  expect(readable).not.toMatch(/token|ory_st_|session/i)
})

test('Vestibule refuses two fields in one response', async ({ visitor, page, takePicture }) => {
  await visitor.openSignUp()
  await visitor.fill({ ...newFields(), vat_number: unknownVatNumber, invite: 'LET-ME-IN' })
  await visitor.submit()
  await expect(visitor.field('vat_number')).toBeFocused()
  expect(await visitor.fieldMessage('vat_number')).toBe(notRegistered)
  expect(await visitor.fieldMessage('invite')).toBe(unknownInvite)
  expect(await visitor.fieldMessage('company')).toBe('')
  await takePicture(page)
})

test('a visitor signs up after an outage of the VAT register', async ({ visitor, env, page, takePicture }) => {
  const typed = newFields()
  await env.vatRegister.goDown()
  await visitor.openSignUp()
  await visitor.fill(typed)
  await visitor.submit()
  await expect(visitor.field('vat_number')).toHaveAttribute('aria-invalid', 'true')
  expect(await visitor.fieldMessage('vat_number')).toBe(tryAgain)
  expect(await env.identity(typed.email)).toBeUndefined()
  await takePicture(page)

  await env.vatRegister.recover()
  await visitor.submit()
  await visitor.expectSignedIn(typed)
})

test('the visitor is asked to try again when the VAT register fails', async ({ visitor, env, page, takePicture }) => {
  env.vatRegister.fail()
  await visitor.openSignUp()
  await visitor.fill(newFields())
  await visitor.submit()
  await expect(visitor.field('vat_number')).toHaveAttribute('aria-invalid', 'true')
  expect(await visitor.fieldMessage('vat_number')).toBe(tryAgain)
  await takePicture(page)
})

test('a visitor signs up with the keyboard alone', async ({ visitor, page, takePicture }) => {
  const typed = { ...newFields(), vat_number: unknownVatNumber }
  await visitor.openSignUp()
  await expect(visitor.field('email')).toBeFocused()
  for (const value of [typed.email, typed.company, typed.vat_number, '']) {
    await page.keyboard.type(value)
    await page.keyboard.press('Tab')
  }
  await expect(page.locator('input[name=password]')).toBeFocused()
  await page.keyboard.type('a-long-Pa55phrase-of-ours')
  await page.keyboard.press('Enter')

  await expect(visitor.field('vat_number')).toBeFocused()
  expect(await visitor.fieldMessage('vat_number')).toBe(notRegistered)
  await takePicture(page)
  await page.keyboard.press('Control+A')
  const corrected = { ...typed, vat_number: newFields().vat_number }
  await page.keyboard.type(corrected.vat_number)
  await page.keyboard.press('Tab')
  await page.keyboard.press('Tab')
  await page.keyboard.type('a-long-Pa55phrase-of-ours')
  await page.keyboard.press('Enter')
  await visitor.expectSignedIn(corrected)
})

test.describe('in German', () => {
  test.use({ locale: 'de-DE' })
  test('Kratos and Vestibule show German messages', async ({ visitor, page, takePicture }) => {
    await visitor.openSignUp()
    await expect(page.locator('html')).toHaveAttribute('lang', 'de')
    await expect(page.getByLabel('USt-IdNr.')).toBeVisible()
    await visitor.fill({ ...newFields(), vat_number: unknownVatNumber })
    await visitor.submit()
    await expect(visitor.field('vat_number')).toBeFocused()
    expect(await visitor.fieldMessage('vat_number')).toBe('Diese USt-IdNr. ist nicht registriert.')
    await takePicture(page)
    await page.getByRole('button', { name: 'English' }).click()
    await expect(page.getByLabel('VAT number')).toBeVisible()
    await visitor.submit()
    await expect(visitor.field('vat_number')).toBeFocused()
    expect(await visitor.fieldMessage('vat_number')).toBe(notRegistered)
  })
})

test.describe('on a phone', () => {
  test.use({ viewport: { width: 375, height: 667 }, hasTouch: true, isMobile: true })
  test('a visitor sees the whole form on a phone', async ({ visitor, page, takePicture }) => {
    await visitor.openSignUp()
    await visitor.fill({ ...newFields(), vat_number: unknownVatNumber, invite: 'LET-ME-IN' })
    await visitor.submit()
    await expect(visitor.field('vat_number')).toBeFocused()
    await expect(visitor.field('vat_number')).toBeInViewport()
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
    expect(overflow).toBe(0)
    for (const target of await page.locator('main button:visible, main input:visible').all()) {
      const box = await target.boundingBox()
      expect(box?.height ?? 0, await target.innerText()).toBeGreaterThanOrEqual(32)
    }
    await takePicture(page)
  })
})
