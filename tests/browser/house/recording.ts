// What a real Kratos answered, without what differs from one time to the next.
import { existsSync, readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Place } from './house'
import { recorded } from './places'

// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type Json = any

/** An answer as it is kept: addresses, ids, times and secrets by what they are. */
export function plain(answer: Json, place: Pick<Place, 'kratos' | 'frontEnd'>): Json {
  const text = JSON.stringify(answer)
    .replaceAll(place.kratos, '<kratos>')
    .replaceAll(place.frontEnd, '<front-end>')
    .replaceAll(encodeURIComponent(place.frontEnd), '<front-end>')
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

/** The recorded answer of this name, at this place. */
export function answer(name: string, place: Pick<Place, 'kratos' | 'frontEnd'>): Json {
  const text = readFileSync(join(recorded, `${name}.json`), 'utf8')
  return JSON.parse(text.replaceAll('<kratos>', place.kratos).replaceAll('<front-end>', place.frontEnd))
}

/** Whether a recording is as it is kept; with UPDATE=1 it is kept anew. */
export async function isAsKept(name: string, now: Json): Promise<{ now: Json; kept: Json }> {
  const file = join(recorded, `${name}.json`)
  if (process.env.UPDATE) await writeFile(file, `${JSON.stringify(now, null, 2)}\n`)
  return { now, kept: existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : undefined }
}
