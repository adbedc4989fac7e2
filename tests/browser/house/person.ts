// What a person does at the front-end.
import { expect, type Locator, type Page } from '@playwright/test'
import type { House } from './house'
import { knownVatNumber } from './services'

export interface Typed {
  email: string
  company: string
  vat_number: string
  invite?: string
}

const password = 'a-long-Pa55phrase-of-ours'
let people = 0

/** Somebody nobody has heard of yet, who types nothing wrong. */
export function somebody(): Typed {
  people += 1
  return { email: `ada-${process.pid}-${people}@muster.example`, company: 'As typed', vat_number: knownVatNumber }
}

export class Person {
  constructor(
    readonly page: Page,
    readonly house: Pick<House, 'page'>,
  ) {}

  /** Where they want to be after the sign-up. */
  get destination(): string {
    return this.house.page('/welcome?from=the-shop')
  }

  async opensTheSignUp(): Promise<void> {
    await this.page.goto(this.house.page(`/registration?return_to=${encodeURIComponent(this.destination)}`))
    await expect(this.field('email')).toBeVisible()
  }

  field(name: string): Locator {
    return this.page.locator(`input[name="traits.${name}"]`)
  }

  /** The words beside a field, as a screen reader finds them. */
  async besideField(name: string): Promise<string> {
    const id = await this.field(name).getAttribute('aria-describedby')
    return (await this.page.locator(`[id="${id}"]`).innerText()).trim()
  }

  get aboveTheForm(): Locator {
    return this.page.locator('.form-messages')
  }

  async types(typed: Partial<Typed>): Promise<void> {
    for (const [name, value] of Object.entries(typed)) await this.field(name).fill(value)
  }

  /** What stands in the fields. */
  async typed(): Promise<Record<string, string>> {
    const fields = await this.page.locator('input[name^="traits."]:not([type=hidden])').all()
    const pairs = fields.map(async (field) => [
      (await field.getAttribute('name'))?.replace('traits.', ''),
      await field.inputValue(),
    ])
    return Object.fromEntries(await Promise.all(pairs)) as Record<string, string>
  }

  /** Sends the form with a password, and waits for the answer. */
  async sends(): Promise<void> {
    await this.page.locator('input[name=password]').fill(password)
    await this.presses(this.page.locator('button[name=method][value=password]'))
  }

  async presses(button: Locator): Promise<void> {
    const answered = this.page.waitForResponse(
      (response) => response.request().method() === 'POST' && response.url().includes('/self-service/'),
    )
    await button.click()
    await answered
  }

  async isSignedInAtTheDestination(typed: Typed): Promise<void> {
    await this.page.waitForURL(this.destination)
    await expect(this.page.getByRole('status')).toBeVisible()
    await expect(this.page.getByText(typed.email)).toBeVisible()
  }

  async signsUp(typed = somebody()): Promise<Typed> {
    await this.opensTheSignUp()
    await this.types(typed)
    await this.sends()
    await this.isSignedInAtTheDestination(typed)
    return typed
  }
}
