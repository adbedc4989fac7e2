// Sign-up through a provider that does not know everything. Only with a real Kratos: the stand-in has no provider.
import { expect, somebody, test, oneStep } from '../house/test'
import { unknownVatNumber } from '../house/services'

test.use({ wishes: { ...oneStep, socialSignUp: true } })

test('a social sign-up asks for what the provider does not know, and checks it', async ({ backend, person, house, page, picture }) => {
  test.skip(backend === 'stand-in', 'the stand-in has no provider')
  const typed = somebody()
  if (house.provider) house.provider.email = typed.email
  await person.opensTheSignUp()
  await page.locator('button[name=provider]').click()
  await expect(person.field('email')).toHaveValue(typed.email)
  await expect(person.field('company')).toHaveValue('')
  await picture(page)

  const goOn = page.locator('button[name=provider]')
  await person.types({ company: typed.company, vat_number: unknownVatNumber })
  await goOn.click()
  // The form that asked for it had words beside it, too, until this one came.
  await expect.poll(() => person.besideField('vat_number')).toBe('This VAT number is not registered.')
  await expect(person.field('vat_number')).toHaveAttribute('aria-invalid', 'true')
  expect(await house.identity(typed.email)).toBeUndefined()

  await person.types({ vat_number: typed.vat_number })
  await goOn.click()
  await person.isSignedInAtTheDestination(typed)
  expect(await house.crm.contact(typed.email)).toMatchObject({ email: typed.email, vat_number: typed.vat_number })
})
