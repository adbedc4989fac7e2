// The fixtures of every test: an environment, a visitor and a screenshot.
import { test as base, type Page } from '@playwright/test'
import { join } from 'node:path'
import { TestEnv, type Backend, type KratosOptions } from './test-env'
import { Visitor } from './visitor'
import { artefacts } from './paths'

export interface Options {
  backend: Backend
}

interface TestFixtures {
  kratosOptions: KratosOptions
  env: TestEnv
  visitor: Visitor
  /** Takes a screenshot with the name of the test. */
  takePicture: (page: Page) => Promise<void>
}

interface WorkerFixtures {
  backend: Backend
  envs: (kratosOptions: KratosOptions) => Promise<TestEnv>
}

export const oneStep: KratosOptions = { style: 'unified', lifespan: '1h', socialSignUp: false, verification: false }
export const twoSteps: KratosOptions = { ...oneStep, style: 'profile_first' }

export const test = base.extend<TestFixtures, WorkerFixtures>({
  backend: ['fake-kratos', { option: true, scope: 'worker' }],

  // Opening an environment takes seconds, so a worker reuses those that it has opened.
  envs: [
    async ({ backend }, use) => {
      const open = new Map<string, TestEnv>()
      await use(async (kratosOptions) => {
        const key = JSON.stringify(kratosOptions)
        const env = open.get(key) ?? (await TestEnv.open(backend, kratosOptions))
        open.set(key, env)
        return env
      })
      for (const env of open.values()) await env.close()
    },
    { scope: 'worker', timeout: 120_000 },
  ],

  kratosOptions: [oneStep, { option: true }],

  env: async ({ envs, kratosOptions }, use) => {
    const env = await envs(kratosOptions)
    await env.vatRegister.recover()
    await use(env)
  },

  visitor: async ({ page, env }, use) => {
    await use(new Visitor(page, env))
  },

  takePicture: async ({ backend }, use, info) => {
    await use(async (page) => {
      const name = info.title.replaceAll(/[^a-z0-9]+/gi, '-').toLowerCase()
      await page.screenshot({ path: join(artefacts, `${name}.${backend}.png`), fullPage: true })
    })
  },
})

export { expect } from '@playwright/test'
export { newFields } from './visitor'
