// A fake Kratos. It replays recorded answers of a real Kratos (recorded/, checked by specs/recorded.spec.ts), and calls the
// real Vestibule before and after it stores an account. It has browser flows and passwords, but no API flows, providers or
// codes.
import { randomBytes, randomUUID } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { EnvConfig } from '../env/test-env'
import { LocalServer } from '../env/http'
import { recordedAnswer, type Json } from '../env/recording'
import { form, type Flow } from './form'
import { Hooks, type Identity } from './hooks'

interface Account extends Identity {
  password: string
}

const unitMilliseconds: Record<string, number> = { s: 1000, m: 60_000, h: 3_600_000 }

function milliseconds(duration: string): number {
  return Number.parseInt(duration) * (unitMilliseconds[duration.slice(-1)] ?? Number.NaN)
}

function cookies(request: IncomingMessage): Record<string, string> {
  const pairs = (request.headers.cookie ?? '').split('; ').map((pair) => pair.split('='))
  return Object.fromEntries(pairs) as Record<string, string>
}

/** A request and the functions that answer it. */
interface Exchange {
  url: URL
  request: IncomingMessage
  body: string
  reply: (status: number, body: Json, headers?: Record<string, string>) => void
  redirect: (location: string, headers?: Record<string, string>) => void
}

export class FakeKratos {
  private readonly flows = new Map<string, Flow>()
  private readonly accounts: Account[] = []
  private readonly sessions = new Map<string, Account>()
  private readonly hooks: Hooks
  private server!: LocalServer

  private constructor(private readonly config: EnvConfig) {
    this.hooks = new Hooks(config)
  }

  static async start(config: EnvConfig): Promise<FakeKratos> {
    const fakeKratos = new FakeKratos(config)
    fakeKratos.server = new LocalServer(Number(new URL(config.kratos).port), (request, response, body) =>
      fakeKratos.handle(request, response, body),
    )
    await fakeKratos.server.up()
    return fakeKratos
  }

  stop(): Promise<void> {
    return this.server.down()
  }

  code(_email: string): Promise<string> {
    return Promise.reject(new Error('the fake Kratos sends no codes'))
  }

  identity(email: string): Promise<{ id: string; traits: Record<string, string> } | undefined> {
    return Promise.resolve(this.accounts.find(({ traits }) => traits.email === email))
  }

  private async handle(request: IncomingMessage, response: ServerResponse, body: string): Promise<void> {
    const cors = {
      'Access-Control-Allow-Origin': this.config.frontEnd,
      'Access-Control-Allow-Credentials': 'true',
      'Access-Control-Allow-Headers': 'Content-Type, Accept-Language',
    }
    if (request.method === 'OPTIONS') {
      response.writeHead(204, cors).end()
      return
    }
    const exchange: Exchange = {
      url: new URL(request.url ?? '/', this.config.kratos),
      request,
      body,
      reply: (status, body, headers = {}) => {
        response.writeHead(status, { ...cors, ...headers, 'Content-Type': 'application/json' }).end(JSON.stringify(body))
      },
      redirect: (location, headers = {}) => response.writeHead(303, { ...cors, ...headers, Location: location }).end(),
    }
    await this.route(exchange)
  }

  private async route(exchange: Exchange): Promise<void> {
    const { url, request } = exchange
    const [, , kind, action] = url.pathname.split('/') as [string, string, string, string | undefined]
    if (url.pathname === '/sessions/whoami') return this.whoami(exchange)
    if (kind === 'errors') return this.replay(exchange, 'no-such-error')
    if (kind === 'logout') return this.logout(exchange, action)
    if (kind !== 'registration' && kind !== 'login' && kind !== 'settings') return exchange.reply(404, {})
    if (request.method === 'GET' && action === 'browser') return this.startFlow(exchange, kind)
    if (request.method === 'GET' && action === 'flows') return this.sendFlow(exchange)
    const flow = this.flows.get(url.searchParams.get('flow') ?? '')
    if (!flow) return exchange.reply(404, {})
    if (flow.kind === 'login') return this.logIn(exchange, flow)
    if (flow.kind === 'settings') return this.saveSettings(exchange, flow)
    return this.signUp(exchange, flow)
  }

  private replay({ reply }: Exchange, name: string): void {
    const { status, body } = recordedAnswer(name, this.config)
    reply(status, body)
  }

  private session(request: IncomingMessage): Account | undefined {
    return this.sessions.get(cookies(request).session ?? '')
  }

  private createFlow(kind: Flow['kind'], opened: URL, csrf: string): Flow {
    const returnTo = opened.searchParams.get('return_to') ?? undefined
    const issued = Date.now()
    const step = kind === 'registration' && this.config.kratosOptions.style === 'profile_first' ? 'profile' : 'one'
    const expires = issued + milliseconds(this.config.kratosOptions.lifespan)
    const flow: Flow = { id: randomUUID(), kind, step, csrf, issued, expires, requestUrl: opened.href, returnTo, traits: {}, messages: [] }
    this.flows.set(flow.id, flow)
    return flow
  }

  private startFlow(exchange: Exchange, kind: Flow['kind']): void {
    const { url, request, reply } = exchange
    const account = this.session(request)
    if (kind === 'registration' && account) return this.replay(exchange, 'session-already-available')
    if (kind === 'settings' && !account) return this.replay(exchange, 'whoami-signed-out')
    const csrf = cookies(request).csrf ?? randomBytes(32).toString('base64url')
    const flow = this.createFlow(kind, url, csrf)
    if (kind === 'settings' && account) flow.traits = account.traits
    reply(200, form(flow, this.config), { 'Set-Cookie': `csrf=${csrf}; Path=/; HttpOnly; SameSite=Lax` })
  }

  private sendFlow(exchange: Exchange): void {
    const { url, request, reply } = exchange
    const flow = this.flows.get(url.searchParams.get('id') ?? '')
    if (!flow || cookies(request).csrf !== flow.csrf) return reply(404, {})
    if (flow.expires < Date.now()) return this.replay(exchange, 'expired-fetched')
    reply(200, form(flow, this.config))
  }

  private whoami(exchange: Exchange): void {
    const account = this.session(exchange.request)
    if (!account) return this.replay(exchange, 'whoami-signed-out')
    exchange.reply(200, this.withIdentity(recordedAnswer('whoami', this.config).body, account))
  }

  /** A recorded answer with this identity. */
  private withIdentity(body: Json, { id, traits, metadata_public }: Identity): Json {
    for (const identity of [body.identity, body.session?.identity]) {
      if (identity) Object.assign(identity, { id, traits, metadata_public })
    }
    return body
  }

  private logout(exchange: Exchange, action: string | undefined): void {
    if (action === 'browser') {
      if (!this.session(exchange.request)) return this.replay(exchange, 'whoami-signed-out')
      return this.replay(exchange, 'logout')
    }
    this.sessions.delete(cookies(exchange.request).session ?? '')
    exchange.redirect(`${this.config.frontEnd}/login`, { 'Set-Cookie': 'session=; Path=/; Max-Age=0' })
  }

  /** The values of a form, sent as JSON or as a browser form. Undefined without the correct CSRF token. */
  private values({ request, body }: Exchange, flow: Flow): Json {
    let values: Json
    if (request.headers['content-type'] === 'application/json') {
      values = JSON.parse(body)
    } else {
      values = { traits: {} }
      for (const [name, value] of new URLSearchParams(body)) {
        if (name.startsWith('traits.')) values.traits[name.slice('traits.'.length)] = value
        else values[name] = value
      }
    }
    return values.csrf_token === flow.csrf && cookies(request).csrf === flow.csrf ? values : undefined
  }

  private startSession(account: Account): Record<string, string> {
    const id = randomUUID()
    this.sessions.set(id, account)
    return { 'Set-Cookie': `session=${id}; Path=/; HttpOnly; SameSite=Lax` }
  }

  private async signUp(exchange: Exchange, flow: Flow): Promise<void> {
    const { request, reply } = exchange
    const values = this.values(exchange, flow)
    if (!values) return reply(403, { error: { id: 'security_csrf_violation' } })
    if (flow.expires < Date.now()) {
      const { status, body } = recordedAnswer('expired-sent', this.config)
      return reply(status, { ...body, use_flow_id: this.createFlow('registration', new URL(flow.requestUrl), flow.csrf).id })
    }
    flow.traits = values.traits
    flow.messages = []
    if (values.screen === 'previous') {
      flow.step = 'profile'
      return exchange.redirect(`${this.config.frontEnd}/registration?flow=${flow.id}`)
    }
    if (values.method === 'profile') {
      flow.step = 'credentials'
      return reply(400, form(flow, this.config))
    }
    const language = request.headers['accept-language'] ?? ''
    const identity: Identity = { id: '', traits: values.traits, metadata_public: {} }
    const result = await this.hooks.pre(flow, identity, undefined, language)
    if (Array.isArray(result)) {
      flow.messages = result
      return reply(400, form(flow, this.config))
    }
    const account: Account = { ...result, id: randomUUID(), password: values.password }
    this.accounts.push(account)
    await this.hooks.post(flow, account, undefined, language)
    const body = this.withIdentity(recordedAnswer('registration-success', this.config).body, account)
    body.continue_with = [{ action: 'redirect_browser_to', redirect_browser_to: flow.returnTo ?? `${this.config.frontEnd}/` }]
    reply(200, body, this.startSession(account))
  }

  private logIn(exchange: Exchange, flow: Flow): void {
    const values = this.values(exchange, flow)
    const account = this.accounts.find(({ traits, password }) => traits.email === values?.identifier && password === values?.password)
    if (!account) return exchange.reply(400, form(flow, this.config))
    exchange.reply(200, this.withIdentity(recordedAnswer('login-success', this.config).body, account), this.startSession(account))
  }

  private async saveSettings(exchange: Exchange, flow: Flow): Promise<void> {
    const { request, reply } = exchange
    const values = this.values(exchange, flow)
    const account = this.session(request)
    if (!values || !account) return reply(403, {})
    const language = request.headers['accept-language'] ?? ''
    const previous: Identity = { ...account }
    flow.traits = values.traits
    flow.messages = []
    const result = await this.hooks.pre(flow, { ...account, traits: values.traits }, previous, language)
    if (Array.isArray(result)) {
      flow.messages = result
      return reply(400, form(flow, this.config))
    }
    Object.assign(account, result)
    await this.hooks.post(flow, account, previous, language)
    const { state, ui, continue_with } = recordedAnswer('settings-saved', this.config).body
    const page = form(flow, this.config)
    page.ui.messages = ui.messages
    reply(200, this.withIdentity({ ...page, state, continue_with, identity: {} }, account))
  }
}
