// A real Kratos still gives the answers that the fake Kratos replays. `UPDATE=1 npx playwright test recorded` records them again.
import type { Page } from '@playwright/test'
import type { TestEnv, KratosOptions } from '../env/test-env'
import { withRecording, normalise, type Json } from '../env/recording'
import { expect, oneStep, newFields, test, twoSteps } from '../env/test'
import { unknownVatNumber } from '../env/services'

test.beforeEach(({ backend }) => {
  test.skip(backend === 'fake-kratos', 'the fake Kratos replays these recordings')
})

const password = 'a-long-Pa55phrase-of-ours'

class RecordingClient {
  constructor(
    private readonly page: Page,
    private readonly env: TestEnv,
  ) {}

  async get(path: string): Promise<Json> {
    return this.read(await this.page.request.get(`${this.env.config.kratos}${path}`, this.headers()))
  }

  async send(flow: Json, data: object): Promise<Json> {
    const csrf_token = flow.body.ui.nodes.find((node: Json) => node.attributes.name === 'csrf_token').attributes.value as string
    return this.read(await this.page.request.post(flow.body.ui.action as string, { ...this.headers(), data: { csrf_token, ...data } }))
  }

  private headers() {
    return { headers: { Accept: 'application/json', Origin: this.env.config.frontEnd } }
  }

  private async read(answer: { status(): number; json(): Promise<Json> }): Promise<Json> {
    return { status: answer.status(), body: await answer.json() }
  }
}

async function expectRecorded(env: TestEnv, answers: Record<string, Json>): Promise<void> {
  for (const [name, answer] of Object.entries(answers)) {
    const { actual, recorded } = await withRecording(name, normalise(answer, env.config))
    expect.soft(actual, name).toEqual(recorded)
  }
}

const returnTo = (env: TestEnv) => `?return_to=${encodeURIComponent(env.page('/welcome?from=the-shop'))}`

test('Kratos answers one step, settings, login and logout as recorded', async ({ page, env }) => {
  const client = new RecordingClient(page, env)
  const { email, company, vat_number } = newFields()
  const traits = { email, company, vat_number }
  const signedOut = await client.get('/sessions/whoami')
  const form = await client.get(`/self-service/registration/browser${returnTo(env)}`)
  const refused = await client.send(form, { method: 'password', password, traits: { ...traits, vat_number: unknownVatNumber } })
  const success = await client.send(refused, { method: 'password', password, traits })
  const signedIn = await client.get('/sessions/whoami')
  const again = await client.get('/self-service/registration/browser')
  const settings = await client.get('/self-service/settings/browser')
  const settingsRefused = await client.send(settings, { method: 'profile', traits: { ...traits, vat_number: unknownVatNumber } })
  const saved = await client.send(settings, { method: 'profile', traits: { ...traits, vat_number: 'FR40303265045' } })
  const logout = await client.get('/self-service/logout/browser')
  await page.request.get(logout.body.logout_url as string, { maxRedirects: 0 })
  const login = await client.get('/self-service/login/browser')
  const loggedIn = await client.send(login, { method: 'password', identifier: email, password })
  const error = await client.get('/self-service/errors?id=00000000-0000-0000-0000-000000000000')
  await expectRecorded(env, {
    'whoami-signed-out': signedOut,
    'registration-one-step': form,
    'registration-one-step-refused': refused,
    'registration-success': success,
    whoami: signedIn,
    'session-already-available': again,
    settings,
    'settings-refused': settingsRefused,
    'settings-saved': saved,
    logout,
    login,
    'login-success': loggedIn,
    'no-such-error': error,
  })
})

test.describe('two steps', () => {
  test.use({ kratosOptions: twoSteps as KratosOptions })
  test('Kratos answers two steps as recorded', async ({ page, env }) => {
    const client = new RecordingClient(page, env)
    const { email, company, vat_number } = newFields()
    const profile = await client.get(`/self-service/registration/browser${returnTo(env)}`)
    const credentials = await client.send(profile, { method: 'profile', traits: { email, company, vat_number } })
    const refused = await client.send(credentials, { method: 'password', password, traits: { email, company, vat_number: unknownVatNumber } })
    const previous = await client.send(refused, { method: 'profile', screen: 'previous', traits: { email, company, vat_number } })
    await expectRecorded(env, {
      'registration-profile': profile,
      'registration-credentials': credentials,
      'registration-credentials-refused': refused,
      'registration-profile-again': previous,
    })
  })
})

test.describe('short', () => {
  test.use({ kratosOptions: { ...oneStep, lifespan: '2s' } })
  test('Kratos answers an expired flow as recorded', async ({ page, env }) => {
    const client = new RecordingClient(page, env)
    const form = await client.get(`/self-service/registration/browser${returnTo(env)}`)
    const flow = `/self-service/registration/flows?id=${form.body.id as string}`
    await expect(async () => expect((await client.get(flow)).status).toBe(410)).toPass()
    const { email, company, vat_number } = newFields()
    await expectRecorded(env, {
      'expired-fetched': await client.get(flow),
      'expired-sent': await client.send(form, { method: 'password', password, traits: { email, company, vat_number } }),
    })
  })
})
