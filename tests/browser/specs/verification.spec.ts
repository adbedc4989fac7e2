// After the sign-up Kratos names the next step in `continue_with`: here, the verification. Only with a real Kratos.
import { expect, oneStep, newFields, test } from '../env/test'
import { unknownVatNumber } from '../env/services'

test.use({ kratosOptions: { ...oneStep, verification: true } })

test('a visitor verifies the address after the sign-up', async ({ backend, visitor, env, page, takePicture }) => {
  test.skip(backend === 'fake-kratos', 'the fake Kratos sends no codes')
  const typed = { ...newFields(), vat_number: unknownVatNumber }
  await visitor.openSignUp()
  await visitor.fill(typed)
  await visitor.submit()
  await expect(visitor.field('vat_number')).toBeFocused()
  await visitor.fill({ vat_number: newFields().vat_number })
  await visitor.submit()

  await page.waitForURL(/\/verification\?flow=/)
  await page.locator('input[name=code]').fill(await env.code(typed.email))
  await takePicture(page)
  await page.locator('button[name=method][value=code]').click()
  await expect(page.getByText('You successfully verified your email address.')).toBeVisible()
  await page.goto(env.page('/welcome'))
  await expect(page.getByText(typed.email)).toBeVisible()
})
