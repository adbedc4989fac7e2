// The tests for the containers of docker-compose.yml. tests/compose/run starts the containers and these tests.
import { defineConfig } from '@playwright/test'
import browser from '../playwright.config'

export default defineConfig({
  testDir: '.',
  outputDir: '../../../target/compose/results',
  workers: 1,
  timeout: 240_000,
  globalTimeout: 900_000,
  expect: { timeout: 30_000 },
  reporter: [['list'], ['json', { outputFile: '../../../target/compose/report.json' }]],
  use: { ...browser.use, actionTimeout: 30_000, navigationTimeout: 30_000 },
})
