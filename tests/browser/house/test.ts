// What every test gets: a house to sign up at, and a picture of what it saw at the end.
import { test as base, type Page } from '@playwright/test'
import { join } from 'node:path'
import { House, type Backend, type Wishes } from './house'
import { Person } from './person'
import { artefacts } from './places'

export interface Options {
  backend: Backend
}

interface Scene {
  wishes: Wishes
  house: House
  person: Person
  /** Takes the picture that belongs to the test; named after it. */
  picture: (page: Page) => Promise<void>
}

interface Worker {
  backend: Backend
  houses: (wishes: Wishes) => Promise<House>
}

export const oneStep: Wishes = { style: 'unified', lifespan: '1h', socialSignUp: false, verification: false }
export const twoSteps: Wishes = { ...oneStep, style: 'profile_first' }

export const test = base.extend<Scene, Worker>({
  backend: ['stand-in', { option: true, scope: 'worker' }],

  // Opening a house takes seconds, so a worker keeps those that it has.
  houses: [
    async ({ backend }, use) => {
      const open = new Map<string, House>()
      await use(async (wishes) => {
        const key = JSON.stringify(wishes)
        const house = open.get(key) ?? (await House.open(backend, wishes))
        open.set(key, house)
        return house
      })
      for (const house of open.values()) await house.close()
    },
    { scope: 'worker', timeout: 120_000 },
  ],

  wishes: [oneStep, { option: true }],

  house: async ({ houses, wishes }, use) => {
    const house = await houses(wishes)
    await house.vatRegister.works()
    await use(house)
  },

  person: async ({ page, house }, use) => {
    await use(new Person(page, house))
  },

  picture: async ({ backend }, use, info) => {
    await use(async (page) => {
      const name = info.title.replaceAll(/[^a-z0-9]+/gi, '-').toLowerCase()
      await page.screenshot({ path: join(artefacts, `${name}.${backend}.png`), fullPage: true })
    })
  },
})

export { expect } from '@playwright/test'
export { somebody } from './person'
