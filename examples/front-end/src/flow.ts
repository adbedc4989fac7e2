// Finds the flow that the address bar names, or starts a new one if it has expired.

import { ResponseError } from "@ory/client-fetch"
import { useEffect, useState } from "react"

/** How to get one kind of flow from Kratos. */
export interface Kind<F> {
  get: (id: string) => Promise<F>
  begin: (returnTo: string | undefined) => Promise<F>
}

/** What the page does after an answer of Kratos that is not a form. */
export type Next =
  | { go: string }
  | { begin: true; returnTo?: string }
  | { fail: string }

interface ErrorBody {
  error?: { id?: string; reason?: string; message?: string; details?: { return_to?: string } }
  redirect_browser_to?: string
}

/** Decides by the status and by `error.id`, as Kratos's documentation describes them. */
export function next(status: number, body: ErrorBody, where: { path: string; returnTo?: string }): Next {
  const { error, redirect_browser_to: target } = body
  if (target) return { go: target }
  if (error?.id === "session_already_available") return { go: where.returnTo ?? "/welcome" }
  if (status === 401) return { go: `/login?return_to=${encodeURIComponent(where.path)}` }
  // Expired, replaced, unknown, of another visitor, or without its CSRF cookie: start a new one.
  if ([403, 404, 410].includes(status)) return { begin: true, returnTo: error?.details?.return_to }
  return { fail: error?.reason ?? error?.message ?? `status ${status}` }
}

async function nextOf(failure: unknown, returnTo: string | undefined): Promise<Next> {
  if (!(failure instanceof ResponseError)) return { fail: "" }
  const body = (await failure.response.json().catch(() => ({}))) as ErrorBody
  return next(failure.response.status, body, { path: window.location.href, returnTo })
}

export type Found<F> = { flow: F } | { fail: string } | { loading: true }

export function useFlow<F extends { id: string }>(kind: Kind<F>): Found<F> {
  const [found, setFound] = useState<Found<F>>({ loading: true })
  useEffect(() => {
    let unmounted = false
    async function find() {
      const query = new URLSearchParams(window.location.search)
      const id = query.get("flow")
      let returnTo = query.get("return_to") ?? undefined
      let attempt = id ? () => kind.get(id) : () => kind.begin(returnTo)
      for (let tries = 0; tries < 2; tries++) {
        try {
          const flow = await attempt()
          if (unmounted) return
          window.history.replaceState(null, "", `?flow=${flow.id}`)
          setFound({ flow })
          return
        } catch (failure) {
          const step = await nextOf(failure, returnTo)
          if (unmounted) return
          if ("go" in step) {
            window.location.replace(step.go)
            return
          }
          if ("fail" in step || tries === 1) {
            setFound({ fail: "fail" in step ? step.fail : "" })
            return
          }
          returnTo = step.returnTo ?? returnTo
          attempt = () => kind.begin(returnTo)
        }
      }
    }
    void find()
    return () => {
      unmounted = true
    }
  }, [kind])
  return found
}
