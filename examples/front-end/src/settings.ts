// Where Kratos is: read from config.json when the app starts, so that one build serves every place.

export interface Settings {
  /** Where browsers reach Kratos, without a slash at the end. Must be the same site as this app, for its cookies. */
  kratos: string
}

export function parseSettings(text: string): Settings {
  const mend = 'Put {"kratos": "https://accounts.example.com"} into config.json beside index.html.'
  let read: unknown
  try {
    read = JSON.parse(text)
  } catch {
    throw new Error(`config.json is not JSON. ${mend}`)
  }
  const kratos = (read as { kratos?: unknown } | null)?.kratos
  if (typeof kratos !== "string" || !URL.canParse(kratos)) {
    throw new Error(`config.json does not say where Kratos is. ${mend}`)
  }
  return { kratos: kratos.replace(/\/+$/, "") }
}

export async function readSettings(): Promise<Settings> {
  const answer = await fetch("/config.json", { cache: "no-store" })
  if (!answer.ok) throw new Error(`config.json: status ${answer.status}`)
  return parseSettings(await answer.text())
}
