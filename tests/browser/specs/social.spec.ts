// Sign-up with a provider that knows only the address. Only with a real Kratos: the fake Kratos has no provider.
import { expect, newFields, test, oneStep } from '../env/test'
import { unknownVatNumber } from '../env/services'

test.use({ kratosOptions: { ...oneStep, socialSignUp: true } })

test('Vestibule checks the fields that a visitor adds to a social sign-up', async ({ backend, visitor, env, page, takePicture }) => {
  test.skip(backend === 'fake-kratos', 'the fake Kratos has no provider')
  const typed = newFields()
  if (env.provider) env.provider.email = typed.email
  await visitor.openSignUp()
  await page.locator('button[name=provider]').click()
  await expect(visitor.field('email')).toHaveValue(typed.email)
  await expect(visitor.field('company')).toHaveValue('')
  await takePicture(page)

  const continueButton = page.locator('button[name=provider]')
  await visitor.fill({ company: typed.company, vat_number: unknownVatNumber })
  await continueButton.click()
  // The first form also had a message beside the field, until this message replaced it.
  await expect.poll(() => visitor.fieldMessage('vat_number')).toBe('This VAT number is not registered.')
  await expect(visitor.field('vat_number')).toHaveAttribute('aria-invalid', 'true')
  expect(await env.identity(typed.email)).toBeUndefined()

  await visitor.fill({ vat_number: typed.vat_number })
  await continueButton.click()
  await visitor.expectSignedIn(typed)
  expect(await env.crm.contact(typed.email)).toMatchObject({ email: typed.email, vat_number: typed.vat_number })
})
