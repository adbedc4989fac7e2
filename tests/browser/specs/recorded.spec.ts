// What the stand-in answers by is what a real Kratos answers. `UPDATE=1 npx playwright test recorded` keeps it anew.
import type { Page } from '@playwright/test'
import type { House, Wishes } from '../house/house'
import { isAsKept, plain, type Json } from '../house/recording'
import { expect, oneStep, somebody, test, twoSteps } from '../house/test'
import { unknownVatNumber } from '../house/services'

test.beforeEach(({ backend }) => {
  test.skip(backend === 'stand-in', 'this is what the stand-in is made of')
})

const password = 'a-long-Pa55phrase-of-ours'

class Visitor {
  constructor(
    private readonly page: Page,
    private readonly house: House,
  ) {}

  async get(path: string): Promise<Json> {
    return this.told(await this.page.request.get(`${this.house.place.kratos}${path}`, this.headers()))
  }

  async send(flow: Json, data: object): Promise<Json> {
    const csrf_token = flow.body.ui.nodes.find((node: Json) => node.attributes.name === 'csrf_token').attributes.value as string
    return this.told(await this.page.request.post(flow.body.ui.action as string, { ...this.headers(), data: { csrf_token, ...data } }))
  }

  private headers() {
    return { headers: { Accept: 'application/json', Origin: this.house.place.frontEnd } }
  }

  private async told(answer: { status(): number; json(): Promise<Json> }): Promise<Json> {
    return { status: answer.status(), body: await answer.json() }
  }
}

async function same(house: House, answers: Record<string, Json>): Promise<void> {
  for (const [name, answer] of Object.entries(answers)) {
    const { now, kept } = await isAsKept(name, plain(answer, house.place))
    expect.soft(now, name).toEqual(kept)
  }
}

const back = (house: House) => `?return_to=${encodeURIComponent(house.page('/welcome?from=the-shop'))}`

test('one step, settings, login and logout are recorded', async ({ page, house }) => {
  const visitor = new Visitor(page, house)
  const { email, company, vat_number } = somebody()
  const traits = { email, company, vat_number }
  const nobody = await visitor.get('/sessions/whoami')
  const form = await visitor.get(`/self-service/registration/browser${back(house)}`)
  const refused = await visitor.send(form, { method: 'password', password, traits: { ...traits, vat_number: unknownVatNumber } })
  const success = await visitor.send(refused, { method: 'password', password, traits })
  const somebodyIs = await visitor.get('/sessions/whoami')
  const again = await visitor.get('/self-service/registration/browser')
  const settings = await visitor.get('/self-service/settings/browser')
  const settingsRefused = await visitor.send(settings, { method: 'profile', traits: { ...traits, vat_number: unknownVatNumber } })
  const saved = await visitor.send(settings, { method: 'profile', traits: { ...traits, vat_number: 'FR40303265045' } })
  const logout = await visitor.get('/self-service/logout/browser')
  await page.request.get(logout.body.logout_url as string, { maxRedirects: 0 })
  const login = await visitor.get('/self-service/login/browser')
  const signedIn = await visitor.send(login, { method: 'password', identifier: email, password })
  const error = await visitor.get('/self-service/errors?id=00000000-0000-0000-0000-000000000000')
  await same(house, {
    'whoami-nobody': nobody,
    'registration-one-step': form,
    'registration-one-step-refused': refused,
    'registration-success': success,
    whoami: somebodyIs,
    'session-already-available': again,
    settings,
    'settings-refused': settingsRefused,
    'settings-saved': saved,
    logout,
    login,
    'login-success': signedIn,
    'no-such-error': error,
  })
})

test.describe('two steps', () => {
  test.use({ wishes: twoSteps as Wishes })
  test('two steps are recorded', async ({ page, house }) => {
    const visitor = new Visitor(page, house)
    const { email, company, vat_number } = somebody()
    const profile = await visitor.get(`/self-service/registration/browser${back(house)}`)
    const credentials = await visitor.send(profile, { method: 'profile', traits: { email, company, vat_number } })
    const refused = await visitor.send(credentials, { method: 'password', password, traits: { email, company, vat_number: unknownVatNumber } })
    const previous = await visitor.send(refused, { method: 'profile', screen: 'previous', traits: { email, company, vat_number } })
    await same(house, {
      'registration-profile': profile,
      'registration-credentials': credentials,
      'registration-credentials-refused': refused,
      'registration-profile-again': previous,
    })
  })
})

test.describe('short', () => {
  test.use({ wishes: { ...oneStep, lifespan: '2s' } })
  test('an expired flow is recorded', async ({ page, house }) => {
    const visitor = new Visitor(page, house)
    const form = await visitor.get(`/self-service/registration/browser${back(house)}`)
    const flow = `/self-service/registration/flows?id=${form.body.id as string}`
    await expect(async () => expect((await visitor.get(flow)).status).toBe(410)).toPass()
    const { email, company, vat_number } = somebody()
    await same(house, {
      'expired-fetched': await visitor.get(flow),
      'expired-sent': await visitor.send(form, { method: 'password', password, traits: { email, company, vat_number } }),
    })
  })
})
