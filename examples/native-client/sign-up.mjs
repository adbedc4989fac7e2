#!/usr/bin/env node
// Signs up as a native app does: with the API flow, without a browser, a cookie or an SDK. Needs only Node 20.
//
//   node examples/native-client/sign-up.mjs --email ada@example.org --company Muster --vat-number DE811115368
//
// Exit code 0: signed up. 1: refused. 2: wrong arguments, or Kratos cannot be reached.

import { parseArgs } from 'node:util'

const usage = `node sign-up.mjs --email ADDRESS --company NAME --vat-number NUMBER [--invite CODE]
    [--password PASSWORD] [--language de] [--kratos http://127.0.0.1:4433]   sign up
node sign-up.mjs --mix [--kratos …]   see what Kratos answers to a mix of browser and API flow`

class UsageError extends Error {}
class Unreachable extends Error {}

const options = {
  kratos: { type: 'string', default: 'http://127.0.0.1:4433' },
  language: { type: 'string', default: 'en' },
  email: { type: 'string' },
  company: { type: 'string' },
  'vat-number': { type: 'string' },
  invite: { type: 'string' },
  password: { type: 'string', default: 'a-long-Pa55phrase-of-ours' },
  mix: { type: 'boolean', default: false },
}

function read(argv) {
  try {
    const { values } = parseArgs({ args: argv, options })
    const missing = ['email', 'company', 'vat-number'].filter((name) => !values[name])
    if (!values.mix && missing.length > 0) throw new Error(`--${missing.join(', --')} missing`)
    if (!URL.canParse(values.kratos)) throw new Error(`--kratos: ${values.kratos} is not a URL like http://127.0.0.1:4433`)
    return { ...values, kratos: values.kratos.replace(/\/+$/, '') }
  } catch (error) {
    throw new UsageError(error.message)
  }
}

/** Sends one request. Never with an Origin or a cookie: Kratos refuses an API flow that has either. */
async function call(method, url, { body, headers = {} } = {}) {
  let answer
  try {
    answer = await fetch(url, {
      method,
      headers: { Accept: 'application/json', 'Content-Type': 'application/json', ...headers },
      body: body && JSON.stringify(body),
      redirect: 'manual',
    })
  } catch (error) {
    throw new Unreachable(`${new URL(url).origin} cannot be reached (${error.cause?.code ?? error.message}); is Kratos running, is --kratos its public address?`)
  }
  const text = await answer.text()
  try {
    return { status: answer.status, headers: answer.headers, body: JSON.parse(text) }
  } catch {
    throw new Unreachable(`${new URL(url).origin} answers, but not as Kratos does (status ${answer.status})`)
  }
}

/** The error messages of a form, with their fields. */
function messages(flow) {
  const above = flow.ui.messages ?? []
  const beside = flow.ui.nodes.flatMap((node) => node.messages.map((message) => ({ ...message, field: node.attributes.name })))
  return [...above, ...beside].filter((message) => message.type === 'error')
}

async function signUp({ kratos, language, email, company, 'vat-number': vatNumber, invite, password }) {
  const headers = { 'Accept-Language': language }
  const { body: flow } = await call('GET', `${kratos}/self-service/registration/api`, { headers })
  console.log(`API flow ${flow.id}, valid until ${flow.expires_at}`)

  // With one step and with two, traits and password may be sent together; then the checks run.
  const traits = { email, company, vat_number: vatNumber, ...(invite && { invite }) }
  const answer = await call('POST', flow.ui.action, { headers, body: { method: 'password', password, traits } })
  if (answer.status === 400 && answer.body.ui) {
    console.log('Refused. The same flow can be submitted again:')
    // With two steps the fields are hidden now, so each message is also at form level, with the field's title.
    for (const { field, id, text } of messages(answer.body)) console.log(`  ${field ?? '(form)'}: ${text} (${id})`)
    return 1
  }
  if (answer.status === 410) {
    console.log(`The flow expired; continue with ${answer.body.use_flow_id}`)
    return 1
  }
  if (answer.status !== 200) throw new Unreachable(`Kratos answered ${answer.status}: ${answer.body.error?.reason ?? answer.body.error?.message}`)

  const { identity, session_token: token } = answer.body
  console.log(`Signed up: identity ${identity.id}`)
  if (!token) {
    console.log('No session token: the hook `session` is missing after this method in kratos.yml.')
    return 0
  }
  // The token is a secret: a native app keeps it in the keychain, and never prints it.
  console.log(`session_token: ${token.slice(0, 7)}… (${token.length} characters)`)
  for (const [name, value] of [['X-Session-Token', token], ['Authorization', `Bearer ${token}`]]) {
    const whoami = await call('GET', `${kratos}/sessions/whoami`, { headers: { [name]: value } })
    console.log(`whoami with ${name}: ${whoami.status} ${whoami.body.identity?.traits.email ?? whoami.body.error?.reason}`)
  }
  const unauthenticated = await call('GET', `${kratos}/sessions/whoami`)
  console.log(`whoami with neither: ${unauthenticated.status} ${unauthenticated.body.error?.status}`)
  return 0
}

/** Sends an API flow as a web page would, and a browser flow without its cookie. */
async function mix({ kratos }) {
  const body = { method: 'password', password: 'not-to-be-used-1', traits: { email: 'nobody@example.org', company: '-', vat_number: '-' } }
  const report = (what, { status, body: answer }) => {
    const reasons = answer.ui ? messages(answer).map(({ text, id }) => `${text} (${id})`) : [answer.error?.id, answer.error?.reason ?? answer.error?.message]
    console.log(`${what}\n  ${status} ${reasons.filter(Boolean).join(': ')}\n`)
  }

  const { body: api } = await call('GET', `${kratos}/self-service/registration/api`)
  report('An API flow, sent with an Origin as a web page does:', await call('POST', api.ui.action, { body, headers: { Origin: 'https://example.org' } }))
  report('An API flow, sent with a cookie:', await call('POST', api.ui.action, { body, headers: { Cookie: 'any=thing' } }))

  const { body: browser } = await call('GET', `${kratos}/self-service/registration/browser`)
  report('A browser flow, fetched without its CSRF cookie:', await call('GET', `${kratos}/self-service/registration/flows?id=${browser.id}`))
  report('A browser flow, sent without its CSRF cookie:', await call('POST', browser.ui.action, { body }))
  return 0
}

try {
  const settings = read(process.argv.slice(2))
  process.exitCode = await (settings.mix ? mix(settings) : signUp(settings))
} catch (error) {
  console.error(`error: ${error.message}`)
  if (error instanceof UsageError) console.error(`\n${usage}`)
  process.exitCode = 2
  if (!(error instanceof UsageError || error instanceof Unreachable)) throw error
}
