// Each test runs twice: with a real Kratos, if there is one, and with the fake Kratos, which replays recorded answers.
import { defineConfig } from '@playwright/test'
import * as paths from './env/paths'
import type { Options } from './env/test'

if (!paths.chromium) {
  throw new Error('no Chromium: install Debian\'s package `chromium`, or name one in CHROMIUM_BIN')
}

export default defineConfig<Options>({
  testDir: 'specs',
  outputDir: '../../target/browser/results',
  workers: 2,
  fullyParallel: true,
  timeout: 60_000,
  expect: { timeout: 15_000 },
  reporter: [['list'], ['json', { outputFile: '../../target/browser/report.json' }]],
  use: {
    locale: 'en-GB',
    launchOptions: {
      executablePath: paths.chromium,
      args: [
        '--no-sandbox',
        '--disable-gpu',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
        '--no-first-run',
      ],
    },
  },
  projects: [
    ...(paths.kratos ? [{ name: 'kratos', use: { backend: 'kratos' as const } }] : []),
    { name: 'fake-kratos', use: { backend: 'fake-kratos' as const } },
  ],
})
