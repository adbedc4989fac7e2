// Answers a front-end as a real Kratos was recorded to (recorded/, kept true by specs/recorded.spec.ts), and calls the
// real Vestibule before and after it keeps an account. It knows browser flows and passwords;
// no API flows, no providers, no codes.
import { randomBytes, randomUUID } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Place } from '../house/house'
import { LocalServer } from '../house/http'
import { answer, type Json } from '../house/recording'
import { form, type Flow } from './form'
import { Hooks, type Identity } from './hooks'

interface Account extends Identity {
  password: string
}

const lifespans: Record<string, number> = { s: 1000, m: 60_000, h: 3_600_000 }

function milliseconds(duration: string): number {
  return Number.parseInt(duration) * (lifespans[duration.slice(-1)] ?? Number.NaN)
}

function cookies(request: IncomingMessage): Record<string, string> {
  const pairs = (request.headers.cookie ?? '').split('; ').map((pair) => pair.split('='))
  return Object.fromEntries(pairs) as Record<string, string>
}

/** One request and how it is answered. */
interface Exchange {
  url: URL
  request: IncomingMessage
  body: string
  reply: (status: number, body: Json, headers?: Record<string, string>) => void
  go: (place: string, headers?: Record<string, string>) => void
}

export class StandIn {
  private readonly flows = new Map<string, Flow>()
  private readonly accounts: Account[] = []
  private readonly sessions = new Map<string, Account>()
  private readonly hooks: Hooks
  private server!: LocalServer

  private constructor(private readonly place: Place) {
    this.hooks = new Hooks(place)
  }

  static async start(place: Place): Promise<StandIn> {
    const standIn = new StandIn(place)
    standIn.server = new LocalServer(Number(new URL(place.kratos).port), (request, response, body) =>
      standIn.answers(request, response, body),
    )
    await standIn.server.up()
    return standIn
  }

  stop(): Promise<void> {
    return this.server.down()
  }

  code(_email: string): Promise<string> {
    return Promise.reject(new Error('the stand-in sends no codes'))
  }

  identity(email: string): Promise<{ id: string; traits: Record<string, string> } | undefined> {
    return Promise.resolve(this.accounts.find(({ traits }) => traits.email === email))
  }

  private async answers(request: IncomingMessage, response: ServerResponse, body: string): Promise<void> {
    const cors = {
      'Access-Control-Allow-Origin': this.place.frontEnd,
      'Access-Control-Allow-Credentials': 'true',
      'Access-Control-Allow-Headers': 'Content-Type, Accept-Language',
    }
    if (request.method === 'OPTIONS') {
      response.writeHead(204, cors).end()
      return
    }
    const exchange: Exchange = {
      url: new URL(request.url ?? '/', this.place.kratos),
      request,
      body,
      reply: (status, said, headers = {}) => {
        response.writeHead(status, { ...cors, ...headers, 'Content-Type': 'application/json' }).end(JSON.stringify(said))
      },
      go: (place, headers = {}) => response.writeHead(303, { ...cors, ...headers, Location: place }).end(),
    }
    await this.route(exchange)
  }

  private async route(exchange: Exchange): Promise<void> {
    const { url, request } = exchange
    const [, , kind, action] = url.pathname.split('/') as [string, string, string, string | undefined]
    if (url.pathname === '/sessions/whoami') return this.whoami(exchange)
    if (kind === 'errors') return this.recorded(exchange, 'no-such-error')
    if (kind === 'logout') return this.logout(exchange, action)
    if (kind !== 'registration' && kind !== 'login' && kind !== 'settings') return exchange.reply(404, {})
    if (request.method === 'GET' && action === 'browser') return this.begins(exchange, kind)
    if (request.method === 'GET' && action === 'flows') return this.tells(exchange)
    const flow = this.flows.get(url.searchParams.get('flow') ?? '')
    if (!flow) return exchange.reply(404, {})
    if (flow.kind === 'login') return this.logsIn(exchange, flow)
    if (flow.kind === 'settings') return this.changes(exchange, flow)
    return this.signsUp(exchange, flow)
  }

  private recorded({ reply }: Exchange, name: string): void {
    const { status, body } = answer(name, this.place)
    reply(status, body)
  }

  private session(request: IncomingMessage): Account | undefined {
    return this.sessions.get(cookies(request).session ?? '')
  }

  private make(kind: Flow['kind'], returnTo: string | undefined, csrf: string): Flow {
    const issued = Date.now()
    const step = kind === 'registration' && this.place.wishes.style === 'profile_first' ? 'profile' : 'one'
    const expires = issued + milliseconds(this.place.wishes.lifespan)
    const flow: Flow = { id: randomUUID(), kind, step, csrf, issued, expires, returnTo, traits: {}, said: [] }
    this.flows.set(flow.id, flow)
    return flow
  }

  private begins(exchange: Exchange, kind: Flow['kind']): void {
    const { url, request, reply } = exchange
    const account = this.session(request)
    if (kind === 'registration' && account) return this.recorded(exchange, 'session-already-available')
    if (kind === 'settings' && !account) return this.recorded(exchange, 'whoami-nobody')
    const csrf = cookies(request).csrf ?? randomBytes(32).toString('base64url')
    const flow = this.make(kind, url.searchParams.get('return_to') ?? undefined, csrf)
    if (kind === 'settings' && account) flow.traits = account.traits
    reply(200, form(flow, this.place), { 'Set-Cookie': `csrf=${csrf}; Path=/; HttpOnly; SameSite=Lax` })
  }

  private tells(exchange: Exchange): void {
    const { url, request, reply } = exchange
    const flow = this.flows.get(url.searchParams.get('id') ?? '')
    if (!flow || cookies(request).csrf !== flow.csrf) return reply(404, {})
    if (flow.expires < Date.now()) return this.recorded(exchange, 'expired-fetched')
    reply(200, form(flow, this.place))
  }

  private whoami(exchange: Exchange): void {
    const account = this.session(exchange.request)
    if (!account) return this.recorded(exchange, 'whoami-nobody')
    exchange.reply(200, this.seenBy(answer('whoami', this.place).body, account))
  }

  /** A recorded answer with this account in place of the recorded one. */
  private seenBy(said: Json, { id, traits, metadata_public }: Identity): Json {
    for (const identity of [said.identity, said.session?.identity]) {
      if (identity) Object.assign(identity, { id, traits, metadata_public })
    }
    return said
  }

  private logout(exchange: Exchange, action: string | undefined): void {
    if (action === 'browser') {
      if (!this.session(exchange.request)) return this.recorded(exchange, 'whoami-nobody')
      return this.recorded(exchange, 'logout')
    }
    this.sessions.delete(cookies(exchange.request).session ?? '')
    exchange.go(`${this.place.frontEnd}/login`, { 'Set-Cookie': 'session=; Path=/; Max-Age=0' })
  }

  /** The values of a form, sent as JSON or by the browser itself; undefined without the right CSRF token. */
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

  private isSignedIn(account: Account): Record<string, string> {
    const id = randomUUID()
    this.sessions.set(id, account)
    return { 'Set-Cookie': `session=${id}; Path=/; HttpOnly; SameSite=Lax` }
  }

  private async signsUp(exchange: Exchange, flow: Flow): Promise<void> {
    const { request, reply } = exchange
    const values = this.values(exchange, flow)
    if (!values) return reply(403, { error: { id: 'security_csrf_violation' } })
    if (flow.expires < Date.now()) {
      const { status, body } = answer('expired-sent', this.place)
      return reply(status, { ...body, use_flow_id: this.make('registration', flow.returnTo, flow.csrf).id })
    }
    flow.traits = values.traits
    flow.said = []
    if (values.screen === 'previous') {
      flow.step = 'profile'
      return exchange.go(`${this.place.frontEnd}/registration?flow=${flow.id}`)
    }
    if (values.method === 'profile') {
      flow.step = 'credentials'
      return reply(400, form(flow, this.place))
    }
    const language = request.headers['accept-language'] ?? ''
    const wanted: Identity = { id: '', traits: values.traits, metadata_public: {} }
    const judged = await this.hooks.pre(flow, wanted, undefined, language)
    if (Array.isArray(judged)) {
      flow.said = judged
      return reply(400, form(flow, this.place))
    }
    const account: Account = { ...judged, id: randomUUID(), password: values.password }
    this.accounts.push(account)
    await this.hooks.post(flow, account, undefined, language)
    const said = this.seenBy(answer('registration-success', this.place).body, account)
    said.continue_with = [{ action: 'redirect_browser_to', redirect_browser_to: flow.returnTo ?? `${this.place.frontEnd}/` }]
    reply(200, said, this.isSignedIn(account))
  }

  private logsIn(exchange: Exchange, flow: Flow): void {
    const values = this.values(exchange, flow)
    const account = this.accounts.find(({ traits, password }) => traits.email === values?.identifier && password === values?.password)
    if (!account) return exchange.reply(400, form(flow, this.place))
    exchange.reply(200, this.seenBy(answer('login-success', this.place).body, account), this.isSignedIn(account))
  }

  private async changes(exchange: Exchange, flow: Flow): Promise<void> {
    const { request, reply } = exchange
    const values = this.values(exchange, flow)
    const account = this.session(request)
    if (!values || !account) return reply(403, {})
    const language = request.headers['accept-language'] ?? ''
    const previous: Identity = { ...account }
    flow.traits = values.traits
    flow.said = []
    const judged = await this.hooks.pre(flow, { ...account, traits: values.traits }, previous, language)
    if (Array.isArray(judged)) {
      flow.said = judged
      return reply(400, form(flow, this.place))
    }
    Object.assign(account, judged)
    await this.hooks.post(flow, account, previous, language)
    const { state, ui, continue_with } = answer('settings-saved', this.place).body
    const said = form(flow, this.place)
    said.ui.messages = ui.messages
    reply(200, this.seenBy({ ...said, state, continue_with, identity: {} }, account))
  }
}
