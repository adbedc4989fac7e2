// After the sign-up Kratos says how to go on (`continue_with`): here, by proving the address. Only with a real Kratos.
import { expect, oneStep, somebody, test } from '../house/test'
import { unknownVatNumber } from '../house/services'

test.use({ wishes: { ...oneStep, verification: true } })

test('after the sign-up one is led to prove the address', async ({ backend, person, house, page, picture }) => {
  test.skip(backend === 'stand-in', 'the stand-in sends no codes')
  const typed = { ...somebody(), vat_number: unknownVatNumber }
  await person.opensTheSignUp()
  await person.types(typed)
  await person.sends()
  await expect(person.field('vat_number')).toBeFocused()
  await person.types({ vat_number: somebody().vat_number })
  await person.sends()

  await page.waitForURL(/\/verification\?flow=/)
  await page.locator('input[name=code]').fill(await house.code(typed.email))
  await picture(page)
  await page.locator('button[name=method][value=code]').click()
  await expect(page.getByText('You successfully verified your email address.')).toBeVisible()
  await page.goto(house.page('/welcome'))
  await expect(page.getByText(typed.email)).toBeVisible()
})
