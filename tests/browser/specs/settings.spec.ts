// A visitor changes an account.
import { expect, test } from '../env/test'
import { knownVatNumber, unknownVatNumber } from '../env/services'

test('Vestibule refuses a bad change in settings and Kratos saves nothing', async ({ visitor, env, page, takePicture }) => {
  const typed = await visitor.signUp()
  await page.goto(env.page('/settings'))
  await expect(visitor.field('vat_number')).toHaveValue(typed.vat_number)
  const save = page.locator('button[name=method][value=profile]')
  for (let tries = 0; tries < 2; tries += 1) {
    await visitor.field('vat_number').fill(unknownVatNumber)
    await visitor.press(save)
    await expect(visitor.field('vat_number')).toHaveAttribute('aria-invalid', 'true')
    expect(await visitor.fieldMessage('vat_number')).toBe('This VAT number is not registered.')
  }
  await takePicture(page)
  expect((await env.identity(typed.email))?.traits.vat_number).toBe(knownVatNumber)

  await visitor.field('vat_number').fill('FR40303265045')
  await visitor.press(save)
  await expect(visitor.field('vat_number')).not.toHaveAttribute('aria-invalid', 'true')
  await expect.poll(async () => (await env.identity(typed.email))?.traits.vat_number).toBe('FR40303265045')
})
