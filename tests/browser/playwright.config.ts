// Each test is told twice: with a real Kratos, if there is one, and with the stand-in that answers as recorded.
import { defineConfig } from '@playwright/test'
import * as places from './house/places'
import type { Options } from './house/test'

if (!places.chromium) {
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
      executablePath: places.chromium,
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
    ...(places.kratos ? [{ name: 'kratos', use: { backend: 'kratos' as const } }] : []),
    { name: 'stand-in', use: { backend: 'stand-in' as const } },
  ],
})
