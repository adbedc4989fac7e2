// Every page, as somebody meets it who reads with their ears, or who comes by a strange way.
import AxeBuilder from '@axe-core/playwright'
import type { Page } from '@playwright/test'
import { expect, somebody, test } from '../house/test'
import { unknownVatNumber } from '../house/services'

async function nothingSerious(page: Page): Promise<void> {
  const { violations } = await new AxeBuilder({ page }).analyze()
  const serious = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical')
  expect(serious.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`)).toEqual([])
}

test('a screen reader finds nothing serious on any page', async ({ person, house, page }) => {
  await page.goto(house.page('/welcome'))
  await expect(page.getByRole('link', { name: 'Sign up' })).toBeVisible()
  await nothingSerious(page)
  await page.goto(house.page('/login'))
  await expect(page.locator('input[name=identifier]')).toBeVisible()
  await nothingSerious(page)
  await page.goto(house.page('/error?id=00000000-0000-0000-0000-000000000000'))
  await expect(page.getByRole('alert')).toBeVisible()
  await nothingSerious(page)

  const typed = { ...somebody(), vat_number: unknownVatNumber }
  await person.opensTheSignUp()
  await nothingSerious(page)
  await person.types(typed)
  await person.sends()
  await expect(person.field('vat_number')).toBeFocused()
  await nothingSerious(page)
  await person.types({ vat_number: somebody().vat_number })
  await person.sends()
  await person.isSignedInAtTheDestination(typed)
  await nothingSerious(page)
  await page.goto(house.page('/settings'))
  await expect(person.field('vat_number')).toBeVisible()
  await nothingSerious(page)
})

test('who is signed in can log out and in again', async ({ person, house, page, picture }) => {
  const typed = await person.signsUp()
  await picture(page)
  await page.getByRole('link', { name: 'Log out' }).click()
  await expect(page.locator('input[name=identifier]')).toBeVisible()
  await page.goto(house.page('/welcome'))
  await expect(page.getByText('You are not signed in.')).toBeVisible()
  await page.goto(house.page('/login'))
  await page.locator('input[name=identifier]').fill(typed.email)
  await page.locator('input[name=password]').fill('a-long-Pa55phrase-of-ours')
  await person.presses(page.locator('button[name=method][value=password]'))
  await expect(page.getByText(typed.email)).toBeVisible()
})

test('who is signed in already is not asked to sign up', async ({ person, house, page }) => {
  await person.signsUp()
  await page.goto(house.page('/registration'))
  await expect(page.getByRole('status')).toHaveText('You are signed in.')
})

test('a wrong config.json is told with how to mend it', async ({ house, page }) => {
  await page.route('**/config.json', (route) => route.fulfill({ body: '{}' }))
  await page.goto(house.page('/registration'))
  await expect(page.getByRole('alert')).toContainText('config.json does not say where Kratos is.')
})

test('Kratos cannot be reached', async ({ person, house, page, picture }) => {
  await person.opensTheSignUp()
  await person.types(somebody())
  await page.route(`${house.place.kratos}/**`, (route) => route.abort())
  await page.locator('input[name=password]').fill('a-long-Pa55phrase-of-ours')
  await page.locator('button[name=method][value=password]').click()
  await expect(page.getByText('The account service cannot be reached.')).toBeVisible()
  await picture(page)
  await page.goto(house.page('/registration'))
  await expect(page.getByText('The account service cannot be reached.')).toBeVisible()
})
