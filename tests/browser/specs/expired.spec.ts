// The flow expires before the visitor submits it.
import { expect, newFields, test, oneStep } from '../env/test'

test.use({ kratosOptions: { ...oneStep, lifespan: '4s' } })

test('the front-end replaces an expired flow and keeps what the visitor typed', async ({ visitor, env, page, takePicture }) => {
  const typed = { ...newFields(), invite: 'WELCOME-2026' }
  await visitor.openSignUp()
  const first = new URL(page.url()).searchParams.get('flow')
  await visitor.fill(typed)
  await expect(async () => {
    const answer = await page.request.get(`${env.config.kratos}/self-service/registration/flows?id=${first}`)
    expect(answer.status()).toBe(410)
  }).toPass()

  await visitor.submit()
  await expect(page).not.toHaveURL(new RegExp(`flow=${first}`))
  await expect(visitor.field('email')).toHaveValue(typed.email)
  expect(await visitor.fieldValues()).toEqual(typed)
  await expect(page.locator('input[name=password]')).toHaveValue('')
  await expect(page.getByText(/expired/i)).toHaveCount(0)
  await takePicture(page)

  // The new flow is as short, but now the visitor submits in time.
  await visitor.submit()
  await visitor.expectSignedIn(typed)
})

test('the front-end opens a new flow for a link to an expired one', async ({ visitor, env, page }) => {
  await visitor.openSignUp()
  const first = new URL(page.url()).searchParams.get('flow')
  await expect(async () => {
    const answer = await page.request.get(`${env.config.kratos}/self-service/registration/flows?id=${first}`)
    expect(answer.status()).toBe(410)
  }).toPass()
  await page.reload()
  await expect(page).not.toHaveURL(new RegExp(`flow=${first}`))
  await expect(visitor.field('email')).toBeVisible()
})
