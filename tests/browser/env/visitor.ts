// The actions of a visitor at the front-end.
import { expect, type Locator, type Page } from '@playwright/test'
import type { TestEnv } from './test-env'
import { knownVatNumber } from './services'

export interface SignUpFields {
  email: string
  company: string
  vat_number: string
  invite?: string
}

const password = 'a-long-Pa55phrase-of-ours'
let count = 0

/** Valid fields with a unique address. */
export function newFields(): SignUpFields {
  count += 1
  return { email: `ada-${process.pid}-${count}@muster.example`, company: 'As typed', vat_number: knownVatNumber }
}

export class Visitor {
  constructor(
    readonly page: Page,
    readonly env: Pick<TestEnv, 'page'>,
  ) {}

  /** The page after the sign-up. */
  get destination(): string {
    return this.env.page('/welcome?from=the-shop')
  }

  async openSignUp(): Promise<void> {
    await this.page.goto(this.env.page(`/registration?return_to=${encodeURIComponent(this.destination)}`))
    await expect(this.field('email')).toBeVisible()
  }

  field(name: string): Locator {
    return this.page.locator(`input[name="traits.${name}"]`)
  }

  /** The message beside a field, as a screen reader finds it. */
  async fieldMessage(name: string): Promise<string> {
    const id = await this.field(name).getAttribute('aria-describedby')
    return (await this.page.locator(`[id="${id}"]`).innerText()).trim()
  }

  get formMessages(): Locator {
    return this.page.locator('.form-messages')
  }

  async fill(typed: Partial<SignUpFields>): Promise<void> {
    for (const [name, value] of Object.entries(typed)) await this.field(name).fill(value)
  }

  /** The values of the visible fields. */
  async fieldValues(): Promise<Record<string, string>> {
    const fields = await this.page.locator('input[name^="traits."]:not([type=hidden])').all()
    const pairs = fields.map(async (field) => [
      (await field.getAttribute('name'))?.replace('traits.', ''),
      await field.inputValue(),
    ])
    return Object.fromEntries(await Promise.all(pairs)) as Record<string, string>
  }

  /** Submits the form with a password, and waits for the answer of Kratos. */
  async submit(): Promise<void> {
    await this.page.locator('input[name=password]').fill(password)
    await this.press(this.page.locator('button[name=method][value=password]'))
  }

  async press(button: Locator): Promise<void> {
    const answered = this.page.waitForResponse(
      (response) => response.request().method() === 'POST' && response.url().includes('/self-service/'),
    )
    await button.click()
    await answered
  }

  async expectSignedIn(typed: SignUpFields): Promise<void> {
    await this.page.waitForURL(this.destination)
    await expect(this.page.getByRole('status')).toBeVisible()
    await expect(this.page.getByText(typed.email)).toBeVisible()
  }

  async signUp(typed = newFields()): Promise<SignUpFields> {
    await this.openSignUp()
    await this.fill(typed)
    await this.submit()
    await this.expectSignedIn(typed)
    return typed
  }
}
