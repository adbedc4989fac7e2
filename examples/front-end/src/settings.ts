// Reads Kratos's address from config.json when the app starts, so that one build works everywhere.

export interface Settings {
  /** The URL at which browsers reach Kratos, without a slash at the end. Same site as this app, for the cookies. */
  kratos: string
}

export function parseSettings(text: string): Settings {
  const help = 'Put {"kratos": "https://accounts.example.com"} into config.json beside index.html.'
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch {
    throw new Error(`config.json is not JSON. ${help}`)
  }
  const kratos = (parsed as { kratos?: unknown } | null)?.kratos
  if (typeof kratos !== "string" || !URL.canParse(kratos)) {
    throw new Error(`config.json does not say where Kratos is. ${help}`)
  }
  return { kratos: kratos.replace(/\/+$/, "") }
}

export async function readSettings(): Promise<Settings> {
  const answer = await fetch("/config.json", { cache: "no-store" })
  if (!answer.ok) throw new Error(`config.json: status ${answer.status}`)
  return parseSettings(await answer.text())
}
