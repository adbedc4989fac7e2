// Accessibility of all pages, login, logout, and errors.
import AxeBuilder from '@axe-core/playwright'
import type { Page } from '@playwright/test'
import { expect, newFields, test } from '../env/test'
import { unknownVatNumber } from '../env/services'

async function expectNoSeriousViolation(page: Page): Promise<void> {
  const { violations } = await new AxeBuilder({ page }).analyze()
  const serious = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical')
  expect(serious.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`)).toEqual([])
}

test('axe finds no serious accessibility violation on any page', async ({ visitor, env, page }) => {
  await page.goto(env.page('/welcome'))
  await expect(page.getByRole('link', { name: 'Sign up' })).toBeVisible()
  await expectNoSeriousViolation(page)
  await page.goto(env.page('/login'))
  await expect(page.locator('input[name=identifier]')).toBeVisible()
  await expectNoSeriousViolation(page)
  await page.goto(env.page('/error?id=00000000-0000-0000-0000-000000000000'))
  await expect(page.getByRole('alert')).toBeVisible()
  await expectNoSeriousViolation(page)

  const typed = { ...newFields(), vat_number: unknownVatNumber }
  await visitor.openSignUp()
  await expectNoSeriousViolation(page)
  await visitor.fill(typed)
  await visitor.submit()
  await expect(visitor.field('vat_number')).toBeFocused()
  await expectNoSeriousViolation(page)
  await visitor.fill({ vat_number: newFields().vat_number })
  await visitor.submit()
  await visitor.expectSignedIn(typed)
  await expectNoSeriousViolation(page)
  await page.goto(env.page('/settings'))
  await expect(visitor.field('vat_number')).toBeVisible()
  await expectNoSeriousViolation(page)
})

test('a visitor logs out and in again', async ({ visitor, env, page, takePicture }) => {
  const typed = await visitor.signUp()
  await takePicture(page)
  await page.getByRole('link', { name: 'Log out' }).click()
  await expect(page.locator('input[name=identifier]')).toBeVisible()
  await page.goto(env.page('/welcome'))
  await expect(page.getByText('You are not signed in.')).toBeVisible()
  await page.goto(env.page('/login'))
  await page.locator('input[name=identifier]').fill(typed.email)
  await page.locator('input[name=password]').fill('a-long-Pa55phrase-of-ours')
  await visitor.press(page.locator('button[name=method][value=password]'))
  await expect(page.getByText(typed.email)).toBeVisible()
})

test('the front-end does not ask a signed-in visitor to sign up', async ({ visitor, env, page }) => {
  await visitor.signUp()
  await page.goto(env.page('/registration'))
  await expect(page.getByRole('status')).toHaveText('You are signed in.')
})

test('the front-end reports a wrong config.json', async ({ env, page }) => {
  await page.route('**/config.json', (route) => route.fulfill({ body: '{}' }))
  await page.goto(env.page('/registration'))
  await expect(page.getByRole('alert')).toContainText('config.json does not say where Kratos is.')
})

test('the front-end reports that Kratos is unreachable', async ({ visitor, env, page, takePicture }) => {
  await visitor.openSignUp()
  await visitor.fill(newFields())
  await page.route(`${env.config.kratos}/**`, (route) => route.abort())
  await page.locator('input[name=password]').fill('a-long-Pa55phrase-of-ours')
  await page.locator('button[name=method][value=password]').click()
  await expect(page.getByText('The account service cannot be reached.')).toBeVisible()
  await takePicture(page)
  await page.goto(env.page('/registration'))
  await expect(page.getByText('The account service cannot be reached.')).toBeVisible()
})
