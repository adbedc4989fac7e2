// A person takes longer than a flow lives.
import { expect, somebody, test, oneStep } from '../house/test'

test.use({ wishes: { ...oneStep, lifespan: '4s' } })

test('an expired flow is replaced silently and what was typed is kept', async ({ person, house, page, picture }) => {
  const typed = { ...somebody(), invite: 'WELCOME-2026' }
  await person.opensTheSignUp()
  const first = new URL(page.url()).searchParams.get('flow')
  await person.types(typed)
  await expect(async () => {
    const answer = await page.request.get(`${house.place.kratos}/self-service/registration/flows?id=${first}`)
    expect(answer.status()).toBe(410)
  }).toPass()

  await person.sends()
  await expect(page).not.toHaveURL(new RegExp(`flow=${first}`))
  await expect(person.field('email')).toHaveValue(typed.email)
  expect(await person.typed()).toEqual(typed)
  await expect(page.locator('input[name=password]')).toHaveValue('')
  await expect(page.getByText(/expired/i)).toHaveCount(0)
  await picture(page)

  // The new one is as short; this time they are quick.
  await person.sends()
  await person.isSignedInAtTheDestination(typed)
})

test('a link to an expired flow leads to a new one', async ({ person, house, page }) => {
  await person.opensTheSignUp()
  const first = new URL(page.url()).searchParams.get('flow')
  await expect(async () => {
    const answer = await page.request.get(`${house.place.kratos}/self-service/registration/flows?id=${first}`)
    expect(answer.status()).toBe(410)
  }).toPass()
  await page.reload()
  await expect(page).not.toHaveURL(new RegExp(`flow=${first}`))
  await expect(person.field('email')).toBeVisible()
})
