// Recorded answers of a real Kratos, without the parts that differ between runs.
import { existsSync, readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { EnvConfig } from './test-env'
import { recordings } from './paths'

// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type Json = any

/** An answer with placeholders for addresses, ids, times and secrets. */
export function normalise(answer: Json, config: Pick<EnvConfig, 'kratos' | 'frontEnd'>): Json {
  const text = JSON.stringify(answer)
    .replaceAll(config.kratos, '<kratos>')
    .replaceAll(config.frontEnd, '<front-end>')
    .replaceAll(encodeURIComponent(config.frontEnd), '<front-end>')
    .replaceAll(/[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}/g, '<id>')
    .replaceAll(/vestibule:[0-9a-f]{48}/g, '<external_id>')
    .replaceAll(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z/g, '<time>')
    .replaceAll(/"since":\d+/g, '"since":1')
    .replaceAll(/expired [\d.]+ minutes ago/g, 'expired 0.00 minutes ago')
    .replaceAll(/ada-[\d-]+@muster\.example/g, '<email>')
    .replaceAll(/[A-Za-z0-9+/]{86}==/g, '<csrf>')
    .replaceAll(/"(expired_at_unix_utc|[a-z_]*unix[a-z_]*)":\d+/g, '"$1":1')
    .replaceAll(/"(ip_address|user_agent|logout_token)":"[^"]*"/g, '"$1":"<$1>"')
    .replaceAll(/token=[A-Za-z0-9_]+/g, 'token=<logout_token>')
  return JSON.parse(text)
}

/** The recorded answer with this name and the addresses of `config`. */
export function recordedAnswer(name: string, config: Pick<EnvConfig, 'kratos' | 'frontEnd'>): Json {
  const text = readFileSync(join(recordings, `${name}.json`), 'utf8')
  return JSON.parse(text.replaceAll('<kratos>', config.kratos).replaceAll('<front-end>', config.frontEnd))
}

/** Returns an answer and its recording. UPDATE=1 writes the recording first. */
export async function withRecording(name: string, actual: Json): Promise<{ actual: Json; recorded: Json }> {
  const file = join(recordings, `${name}.json`)
  if (process.env.UPDATE) await writeFile(file, `${JSON.stringify(actual, null, 2)}\n`)
  return { actual, recorded: existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : undefined }
}
