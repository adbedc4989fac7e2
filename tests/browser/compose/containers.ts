// The containers of docker-compose.yml: commands for them, and what they publish on 127.0.0.1.
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { eventually } from '../env/eventually'
import * as paths from '../env/paths'

const kratosAdmin = 'http://127.0.0.1:4434'
const mail = 'http://127.0.0.1:8025'
// A Compose command that takes longer fails.
const timeout = 180_000

/** One health check per service, with the addresses of the Compose network. */
const healthChecks = [
  'http://127.0.0.1:4480/health/ready',
  'http://services:9400/health/alive',
  'http://kratos:4433/health/ready',
  'http://front-end:8080/',
  'http://mail:8025/readyz',
]

/** Runs a Compose command and returns its standard output. The command is in COMPOSE, as in `docker-compose`. */
async function compose(...args: string[]): Promise<string> {
  const [program = 'docker', ...first] = (process.env.COMPOSE ?? 'docker compose').split(' ')
  const { stdout } = await promisify(execFile)(program, [...first, ...args], { cwd: paths.repository, timeout })
  return stdout
}

/** Runs the `vestibule` command in the container of Vestibule. */
function vestibule(...args: string[]): Promise<string> {
  return compose('exec', '-T', 'vestibule', 'vestibule', ...args)
}

/** Restarts a service and waits until all services are healthy. */
export async function restart(service: string): Promise<void> {
  await compose('restart', service)
  await vestibule('health', '--wait=2m', ...healthChecks.map((url) => `--url=${url}`))
}

/** The id of the identity with this address. Kratos stored it if the sign-up succeeded. */
export async function identityId(email: string): Promise<string | undefined> {
  const answer = await fetch(`${kratosAdmin}/admin/identities?credentials_identifier=${encodeURIComponent(email)}`)
  return ((await answer.json()) as { id: string }[])[0]?.id
}

/** What `vestibule deliveries list` prints, one line per delivery of this identity. */
export async function deliveriesOf(identity: string): Promise<string[]> {
  const deliveries = JSON.parse(await vestibule('deliveries', 'list', '--json', '--identity', identity)) as { id: string }[]
  const list = (await vestibule('deliveries', 'list')).split('\n')
  return deliveries.map(({ id }) => list.find((line) => line.includes(id)) ?? `not listed: ${id}`)
}

/** Waits for a mail to this address in the mail catcher and returns the code in it. */
export function mailedCode(email: string): Promise<string> {
  return eventually(`the mail catcher has a code for ${email}`, async () => {
    const { messages } = (await (await fetch(`${mail}/api/v1/messages`)).json()) as {
      messages: { ID: string; To: { Address: string }[] }[]
    }
    const message = messages.find(({ To }) => To.some(({ Address }) => Address === email))
    if (!message) return undefined
    const { Text } = (await (await fetch(`${mail}/api/v1/message/${message.ID}`)).json()) as { Text: string }
    return Text.match(/\b\d{6}\b/)?.[0]
  })
}
