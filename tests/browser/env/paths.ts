// The paths of folders and programs that the tests use.
import { accessSync, constants, existsSync } from 'node:fs'
import { delimiter, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

export const repository = resolve(fileURLToPath(new URL('.', import.meta.url)), '../../..')
export const artefacts = join(repository, 'tests/browser/artefacts')
export const recordings = join(repository, 'tests/browser/recorded')
export const frontEnd = join(repository, 'examples/front-end/dist')
export const nativeClient = join(repository, 'examples/native-client/sign-up.mjs')

/** The program in the environment variable `variable`, else the first of `names` on PATH. */
function program(variable: string, ...names: string[]): string | undefined {
  const configured = process.env[variable]
  if (configured) {
    if (!existsSync(configured)) throw new Error(`${variable} names ${configured}, which does not exist`)
    return resolve(configured)
  }
  const folders = (process.env.PATH ?? '').split(delimiter).filter(Boolean)
  return names.flatMap((name) => folders.map((folder) => join(folder, name))).find(isProgram)
}

function isProgram(file: string): boolean {
  try {
    accessSync(file, constants.X_OK)
    return true
  } catch {
    return false
  }
}

export const kratos = program('KRATOS_BIN', 'kratos')
export const chromium = program('CHROMIUM_BIN', 'chromium', 'chromium-browser', 'google-chrome')
export const vestibule = program('VESTIBULE_BIN') ?? join(repository, 'target/debug/vestibule')
