// One form, everything on it.
import { expect, somebody, test } from '../house/test'
import { registeredName, unknownVatNumber } from '../house/services'

const notRegistered = 'This VAT number is not registered.'
const unknownInvite = 'We do not know this invite code.'
const tryAgain = 'This could not be checked just now. Please try again in a few minutes.'

test('a refused VAT number is told beside the field, corrected, and one is signed in at return_to', async ({ person, house, page, picture }) => {
  const typed = { ...somebody(), vat_number: unknownVatNumber }
  await person.opensTheSignUp()
  await person.types(typed)
  await person.sends()

  await expect(person.field('vat_number')).toHaveAttribute('aria-invalid', 'true')
  expect(await person.besideField('vat_number')).toBe(notRegistered)
  expect(await person.typed()).toMatchObject(typed)
  await expect(person.field('vat_number')).toBeFocused()
  expect(await house.identity(typed.email)).toBeUndefined()
  await picture(page)

  const corrected = { ...typed, vat_number: somebody().vat_number }
  await person.types({ vat_number: corrected.vat_number })
  await person.sends()
  await person.isSignedInAtTheDestination(corrected)
  await expect(page.getByText(registeredName)).toBeVisible()

  // Told to the CRM, with the id that the account really has; and no token where a script could read it.
  const identity = await house.identity(typed.email)
  expect(await house.crm.contact(typed.email)).toEqual({ id: identity?.id, email: typed.email, vat_number: corrected.vat_number })
  const readable = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]))
  expect(readable).not.toMatch(/token|ory_st_|session/i)
})

test('two fields are refused at once', async ({ person, page, picture }) => {
  await person.opensTheSignUp()
  await person.types({ ...somebody(), vat_number: unknownVatNumber, invite: 'LET-ME-IN' })
  await person.sends()
  await expect(person.field('vat_number')).toBeFocused()
  expect(await person.besideField('vat_number')).toBe(notRegistered)
  expect(await person.besideField('invite')).toBe(unknownInvite)
  expect(await person.besideField('company')).toBe('')
  await picture(page)
})

test('the register is down and then up again', async ({ person, house, page, picture }) => {
  const typed = somebody()
  await house.vatRegister.goesDown()
  await person.opensTheSignUp()
  await person.types(typed)
  await person.sends()
  await expect(person.field('vat_number')).toHaveAttribute('aria-invalid', 'true')
  expect(await person.besideField('vat_number')).toBe(tryAgain)
  expect(await house.identity(typed.email)).toBeUndefined()
  await picture(page)

  await house.vatRegister.works()
  await person.sends()
  await person.isSignedInAtTheDestination(typed)
})

test('the register breaks', async ({ person, house, page, picture }) => {
  house.vatRegister.breaks()
  await person.opensTheSignUp()
  await person.types(somebody())
  await person.sends()
  await expect(person.field('vat_number')).toHaveAttribute('aria-invalid', 'true')
  expect(await person.besideField('vat_number')).toBe(tryAgain)
  await picture(page)
})

test('by keyboard alone', async ({ person, page, picture }) => {
  const typed = { ...somebody(), vat_number: unknownVatNumber }
  await person.opensTheSignUp()
  await expect(person.field('email')).toBeFocused()
  for (const value of [typed.email, typed.company, typed.vat_number, '']) {
    await page.keyboard.type(value)
    await page.keyboard.press('Tab')
  }
  await expect(page.locator('input[name=password]')).toBeFocused()
  await page.keyboard.type('a-long-Pa55phrase-of-ours')
  await page.keyboard.press('Enter')

  await expect(person.field('vat_number')).toBeFocused()
  expect(await person.besideField('vat_number')).toBe(notRegistered)
  await picture(page)
  await page.keyboard.press('Control+A')
  const corrected = { ...typed, vat_number: somebody().vat_number }
  await page.keyboard.type(corrected.vat_number)
  await page.keyboard.press('Tab')
  await page.keyboard.press('Tab')
  await page.keyboard.type('a-long-Pa55phrase-of-ours')
  await page.keyboard.press('Enter')
  await person.isSignedInAtTheDestination(corrected)
})

test.describe('in German', () => {
  test.use({ locale: 'de-DE' })
  test('the words are German, Kratos\'s and ours', async ({ person, page, picture }) => {
    await person.opensTheSignUp()
    await expect(page.locator('html')).toHaveAttribute('lang', 'de')
    await expect(page.getByLabel('USt-IdNr.')).toBeVisible()
    await person.types({ ...somebody(), vat_number: unknownVatNumber })
    await person.sends()
    await expect(person.field('vat_number')).toBeFocused()
    expect(await person.besideField('vat_number')).toBe('Diese USt-IdNr. ist nicht registriert.')
    await picture(page)
    await page.getByRole('button', { name: 'English' }).click()
    await expect(page.getByLabel('VAT number')).toBeVisible()
    await person.sends()
    await expect(person.field('vat_number')).toBeFocused()
    expect(await person.besideField('vat_number')).toBe(notRegistered)
  })
})

test.describe('on a phone', () => {
  test.use({ viewport: { width: 375, height: 667 }, hasTouch: true, isMobile: true })
  test('nothing is cut off on a phone', async ({ person, page, picture }) => {
    await person.opensTheSignUp()
    await person.types({ ...somebody(), vat_number: unknownVatNumber, invite: 'LET-ME-IN' })
    await person.sends()
    await expect(person.field('vat_number')).toBeFocused()
    await expect(person.field('vat_number')).toBeInViewport()
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
    expect(overflow).toBe(0)
    for (const target of await page.locator('main button:visible, main input:visible').all()) {
      const box = await target.boundingBox()
      expect(box?.height ?? 0, await target.innerText()).toBeGreaterThanOrEqual(32)
    }
    await picture(page)
  })
})
