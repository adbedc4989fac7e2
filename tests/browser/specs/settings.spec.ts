// Somebody who has an account changes it.
import { expect, test } from '../house/test'
import { knownVatNumber, unknownVatNumber } from '../house/services'

test('a bad change in settings is refused beside the field, and nothing is saved', async ({ person, house, page, picture }) => {
  const typed = await person.signsUp()
  await page.goto(house.page('/settings'))
  await expect(person.field('vat_number')).toHaveValue(typed.vat_number)
  const save = page.locator('button[name=method][value=profile]')
  for (let tries = 0; tries < 2; tries += 1) {
    await person.field('vat_number').fill(unknownVatNumber)
    await person.presses(save)
    await expect(person.field('vat_number')).toHaveAttribute('aria-invalid', 'true')
    expect(await person.besideField('vat_number')).toBe('This VAT number is not registered.')
  }
  await picture(page)
  expect((await house.identity(typed.email))?.traits.vat_number).toBe(knownVatNumber)

  await person.field('vat_number').fill('FR40303265045')
  await person.presses(save)
  await expect(person.field('vat_number')).not.toHaveAttribute('aria-invalid', 'true')
  await expect.poll(async () => (await house.identity(typed.email))?.traits.vat_number).toBe('FR40303265045')
})
